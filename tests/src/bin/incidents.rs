//! `incidents [--jdk MAJOR] [NAME]`: runs the incidents and their twins under
//! the tracer and prints a table, for `cargo xtask incidents`. Needs root.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use unfreed_tests::Jdk;
use unfreed_tests::incident::{INCIDENTS, Incident, Table, Variant};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it should be.
fn run() -> Result<bool> {
    let (jdks, incidents) = chosen(std::env::args().skip(1))?;
    let mut table = Table::default();
    println!("{}", Table::head());
    for incident in incidents {
        for jdk in &jdks {
            for variant in Variant::ALL {
                table.run(jdk, incident, variant);
                println!("{}", table.last());
            }
        }
    }
    println!("{table}");
    Ok(table.is_good())
}

fn chosen(
    mut arguments: impl Iterator<Item = String>,
) -> Result<(Vec<Jdk>, Vec<&'static Incident>)> {
    let mut jdks = Jdk::all()?;
    let mut incidents: Vec<&Incident> = INCIDENTS.iter().collect();
    while let Some(argument) = arguments.next() {
        if argument == "--jdk" {
            let major = arguments.next().context("--jdk without a version")?;
            let major: u32 = major
                .parse()
                .with_context(|| format!("{major:?} is no version"))?;
            jdks.retain(|jdk| jdk.major == major);
            ensure!(!jdks.is_empty(), "no JDK {major} at hand");
        } else {
            incidents.retain(|incident| incident.name.eq_ignore_ascii_case(&argument));
            ensure!(!incidents.is_empty(), "no incident is called {argument}");
        }
    }
    Ok((jdks, incidents))
}
