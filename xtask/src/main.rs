//! The one door: everything that is done in this workspace is a verb here.
//! CI runs the same verbs.

mod apt;
mod bench;
mod build;
mod compiler;
mod cpu;
mod demo;
mod deny;
mod dist;
mod fuzz;
mod incidents;
mod installed;
mod java;
mod jdks;
mod libtest;
mod lint;
mod npm;
mod package;
mod packages;
mod page;
mod pool;
mod programs;
mod python;
mod setup;
mod shell;
mod tally;
mod targets;
mod test;
mod timeline;
mod vm;
mod wheel;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use build::Profile;
use setup::Group;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what is missing: the BPF compiler, bpf-linker, packages, the page of serve
    Setup {
        /// What for
        #[arg(value_enum, default_value = "build")]
        groups: Vec<Group>,
    },
    /// Build the binary
    Build {
        /// With optimizations
        #[arg(long)]
        release: bool,
    },
    /// Build the programs that tests trace, into target/targets
    Targets,
    /// Set up, build, and trace a leaking program by pid
    Demo,
    /// Check formatting, lints on both sides of the kernel boundary, dependencies
    Lint,
    /// Set up, lint, build, and run every test, some of them on other kernels too
    Test {
        /// Run only tests whose name contains this, and no lints
        name: Option<String>,
    },
    /// Run the incidents and their healthy twins on every JDK, and judge the reports
    Incidents {
        /// Only on this version of Java
        #[arg(long, value_name = "MAJOR")]
        jdk: Option<u32>,
        /// Only this incident, such as ScopeChain
        name: Option<String>,
    },
    /// Fuzz what reads files and records that others made
    Fuzz {
        /// Only these; all if none is named
        #[arg(value_enum)]
        targets: Vec<fuzz::Target>,
        /// How long each
        #[arg(long, default_value_t = 300)]
        seconds: u32,
    },
    /// Run the end-to-end tests on other kernels, in small VMs
    Vm {
        /// Series such as 5.10, or 7 for the newest 7.x [default: 5.10 6.1 6.12 6.18 7]
        #[arg(value_name = "KERNEL")]
        kernels: Vec<String>,
        /// All tests instead of a choice of them
        #[arg(long)]
        full: bool,
        /// Run a shell command there instead, and print its output
        #[arg(
            long,
            value_name = "COMMAND",
            conflicts_with = "full",
            requires = "kernels"
        )]
        run: Option<String>,
    },
    /// Measure what tracing costs and write it into BENCHMARKS.md
    Bench {
        /// Only these; all if none is named
        #[arg(value_enum)]
        parts: Vec<bench::Part>,
        /// An earlier `unfreed`, as a contestant in the same rounds
        #[arg(long, value_name = "BINARY")]
        against: Option<PathBuf>,
        /// A part of it.
        #[command(flatten)]
        choice: bench::Choice,
    },
    /// Run `unfreed serve` beside services at work, and judge whether it keeps what it promises
    Soak {
        /// How long
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Make the release tarball and the Debian package, in target/dist
    Dist,
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup { groups } => drop(setup::ensure(&groups)?),
        Verb::Build { release } => {
            setup::ensure(&[Group::Build])?;
            build::unfreed(if release {
                Profile::Release
            } else {
                Profile::Dev
            })?;
        }
        Verb::Targets => {
            setup::ensure(&[Group::Test])?;
            targets::build_all()?;
        }
        Verb::Demo => demo::run()?,
        Verb::Lint => lint::all(&setup::ensure(&[Group::Lint])?)?,
        Verb::Test { name } => return test::all(name.as_deref()),
        Verb::Incidents { jdk, name } => return incidents::run(jdk, name.as_deref()),
        Verb::Fuzz { targets, seconds } => {
            setup::ensure(&[Group::Test])?;
            fuzz::run_for(&targets, seconds)?;
        }
        Verb::Vm {
            kernels,
            full,
            run: None,
        } => return vm::tests(&kernels, full),
        Verb::Vm {
            kernels,
            run: Some(command),
            ..
        } => return vm::command(&kernels, &command),
        Verb::Bench {
            parts,
            against,
            choice,
        } => bench::run(&parts, against.as_deref(), &choice)?,
        Verb::Soak { minutes } => bench::soak::run(minutes)?,
        Verb::Dist => dist::all()?,
    }
    Ok(ExitCode::SUCCESS)
}
