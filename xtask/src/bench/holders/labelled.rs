//! Programs that hold their blocks in known ways, and drop some.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::held_labels::{C, CPP, Label, RUST, Tally};
use crate::bench::model::Report;
use crate::bench::process::{Lines, end};
use crate::bench::tracer::Tracer;
use crate::{shell, targets};

/// How long a program may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Debian's.
const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// A program, what it is told, and under which allocator it runs.
struct Program {
    name: &'static str,
    labels: &'static [Label],
    command: &'static str,
    jemalloc: bool,
}

const PROGRAMS: [Program; 5] = [
    Program::new("holders_c", C, "work", false),
    Program::new("holders_c", C, "work", true),
    Program::new("holders_cpp", CPP, "work", false),
    Program::new("holders_cpp", CPP, "work", true),
    Program::new("holders_rust", RUST, "leak_vectors", false),
];

impl Program {
    const fn new(
        name: &'static str,
        labels: &'static [Label],
        command: &'static str,
        jemalloc: bool,
    ) -> Self {
        Self {
            name,
            labels,
            command,
            jemalloc,
        }
    }

    /// Has it work, traced, and judges what the report says.
    fn measure(&self, unfreed: &Path) -> Result<Tally> {
        let folder = tempfile::tempdir()?;
        let report = folder.path().join("report.json");
        let mut command = Command::new(targets::folder().join(self.name));
        if self.jemalloc {
            command.env("LD_PRELOAD", JEMALLOC);
        }
        let mut running = Running::start(&mut command)?;
        let options = [
            OsStr::new("--holders"),
            OsStr::new("-o"),
            report.as_os_str(),
        ];
        let tracer = Tracer::unfreed(unfreed, &running.pid(), 600, options)?;
        running.tell(self.command)?;
        tracer.stop()?;
        tracer.rest()?;
        let text = std::fs::read(&report).context("there is no report")?;
        let report: Report = serde_json::from_slice(&text)?;
        Tally::of(&report.sites, self.labels).with_context(|| self.name.to_owned())
    }
}

/// A target of the tests.
struct Running {
    child: Child,
    lines: Lines,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| shell::cannot_run(command))?;
        let output = child.stdout.take().context("it has no output")?;
        let lines = Lines::of(vec![Box::new(output)]);
        let running = Self { child, lines };
        // That it is ready.
        running.lines.next(PATIENCE)?.context("it ended at once")?;
        Ok(running)
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Has it do something, and waits until that is done.
    fn tell(&mut self, word: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("it has no input")?;
        writeln!(input, "{word}").and_then(|()| input.flush())?;
        self.lines.after("done ", PATIENCE).map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        end(&mut self.child, PATIENCE);
    }
}

/// Measures all of them.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    let mut table = String::from(
        "| program | allocator | blocks | lost: found of all | rightly of what was said | first \
         root right |\n|---|---|---|---|---|---|\n",
    );
    for program in &PROGRAMS {
        shell::say(format_args!("holders: {}", program.name));
        let tally = program.measure(unfreed)?;
        table.push_str(&row(program, &tally));
    }
    Ok(table)
}

fn row(program: &Program, tally: &Tally) -> String {
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let allocator = if program.jemalloc {
        "jemalloc"
    } else {
        "glibc"
    };
    format!(
        "| `{}` | {allocator} | {} | {} | {} | {} |\n",
        program.name,
        tally.held + tally.lost,
        percent(tally.recall()),
        percent(tally.precision()),
        percent(tally.roots()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_parts() {
        let tally = Tally {
            lost: 128,
            lost_found: 127,
            lost_wrongly: 1,
            held: 320,
            held_rightly: 304,
        };
        let row = row(&PROGRAMS[1], &tally);
        let expected = "| `holders_c` | jemalloc | 448 | 99.2 % | 99.2 % | 95.0 % |\n";
        assert_eq!(row, expected);
    }
}
