//! Programs that hold their blocks in known ways, and drop some.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::reported::{agreeing, answer, read};
use crate::bench::allocators::JEMALLOC;
use crate::bench::choice::Choice;
use crate::bench::figures::median;
use crate::bench::held_labels::{C, CPP, Label, RUST, Tally, holders_of};
use crate::bench::process::{Lines, end};
use crate::bench::seen::new_file;
use crate::bench::tracer::{LIFETIME, Tracer};
use crate::{shell, targets};

/// How often each is searched.
const ROUNDS: usize = 5;
/// How long a program may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program, what it is told, and whether it runs under jemalloc.
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

/// What one search of a program said.
struct Run {
    tally: Tally,
    answer: String,
    seconds: f64,
    processor_seconds: f64,
    bytes: u64,
}

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
    fn measure(&self, unfreed: &Path) -> Result<Run> {
        let file = new_file("holders.json")?;
        let mut command = Command::new(targets::folder().join(self.name));
        if self.jemalloc {
            command.env("LD_PRELOAD", JEMALLOC);
        }
        let mut running = Running::start(&mut command)?;
        let options = [OsStr::new("--holders"), OsStr::new("-o"), file.as_os_str()];
        let tracer = Tracer::unfreed(unfreed, &running.pid(), LIFETIME, options)?;
        running.tell(self.command)?;
        tracer.stop()?;
        tracer.rest()?;
        let (report, searched) = read(&file)?;
        let labels = self.labels.iter();
        let answers = labels.map(|(function, _)| {
            let holders = holders_of(&report.sites, function)?;
            Ok(format!("{function}: {}", answer(&holders)))
        });
        Ok(Run {
            tally: Tally::of(&report.sites, self.labels)?,
            answer: answers.collect::<Result<Vec<_>>>()?.join("\n"),
            seconds: searched.seconds,
            processor_seconds: searched.processor_seconds,
            bytes: searched.bytes,
        })
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
        let ready = format!("{} ready", running.pid());
        running.lines.after(&ready, PATIENCE)?;
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
///
/// # Errors
/// Fails if a program or a tracer does not start, or a report cannot be read.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> Result<String> {
    let rounds = choice.rounds(ROUNDS);
    let mut table = format!(
        "{rounds} runs of each; of what is right the worst run counts, of times the median.\n\n\
         | program | allocator | blocks | lost: found of all | rightly of what was said | first root \
         right | same answer | search | processor time | read |\n\
         |---|---|---|---|---|---|---|---|---|---|\n"
    );
    for program in &PROGRAMS {
        shell::say(format_args!("holders: {}", program.name));
        let runs = (0..rounds).map(|_| {
            let run = program.measure(unfreed);
            run.with_context(|| program.name.to_owned())
        });
        table.push_str(&row(program, &runs.collect::<Result<Vec<_>>>()?));
    }
    Ok(table)
}

fn row(program: &Program, runs: &[Run]) -> String {
    let worst = |part: fn(&Tally) -> f64| {
        let parts = runs.iter().map(|run| part(&run.tally));
        format!("{:.1} %", 100.0 * parts.fold(1.0, f64::min))
    };
    let of_all = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let blocks = runs.first().map(|run| run.tally.held + run.tally.lost);
    let answers: Vec<String> = runs.iter().map(|run| run.answer.clone()).collect();
    format!(
        "| `{}` | {} | {} | {} | {} | {} | {} of {} | {:.2} s | {:.2} s | {:.1} MiB |\n",
        program.name,
        if program.jemalloc {
            "jemalloc"
        } else {
            "glibc"
        },
        blocks.unwrap_or_default(),
        worst(Tally::recall),
        worst(Tally::precision),
        worst(Tally::roots),
        agreeing(&answers),
        runs.len(),
        of_all(|run| run.seconds),
        of_all(|run| run.processor_seconds),
        of_all(|run| run.bytes as f64 / f64::from(1 << 20)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_worst_run_and_the_time_of_most() {
        let run = |held_rightly, answer: &str, seconds| Run {
            tally: Tally {
                lost: 128,
                lost_found: 127,
                lost_wrongly: 1,
                held: 320,
                held_rightly,
            },
            answer: answer.to_owned(),
            seconds,
            processor_seconds: seconds / 2.0,
            bytes: 3 << 20,
        };
        let runs = [run(320, "a", 0.4), run(304, "b", 0.3), run(320, "a", 9.0)];
        let expected = "| `holders_c` | jemalloc | 448 | 99.2 % | 99.2 % | 95.0 % | 2 of 3 | 0.40 s \
                        | 0.20 s | 3.0 MiB |\n";
        assert_eq!(row(&PROGRAMS[1], &runs), expected);
    }
}
