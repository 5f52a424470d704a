//! What tracing costs a pair of malloc and free, all in one run: without a
//! tracer, with empty probes at the same places, with `unfreed`, and with a
//! bpftrace one-liner that does what memleak does. Rounds are interleaved, so
//! that a noisy machine disturbs all alike; the ratios are what counts.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::{shell, targets};

/// Rounds, each with every contestant.
const ROUNDS: usize = 7;

/// Pairs in one measurement: some 0.3 s with a tracer.
const PAIRS: u64 = 100_000;

/// Measurements of one contestant in a round, of which the least counts.
const REPEATS: usize = 3;

/// No pair with probes is faster than this, and none without is as slow; ns.
const LEAST_TRACED: f64 = 300.0;

/// How long a tracer may take to fire after it said that it would, or to end after its target.
const PATIENCE: Duration = Duration::from_secs(5);

/// Marks the part of BENCHMARKS.md that this writes.
const BEGIN: &str = "<!-- pairs: begin, written by `cargo xtask bench` -->";
const END: &str = "<!-- pairs: end -->";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contestant {
    Nobody,
    Floor,
    Unfreed,
    Bpftrace,
}

const CONTESTANTS: [Contestant; 4] = [
    Contestant::Nobody,
    Contestant::Floor,
    Contestant::Unfreed,
    Contestant::Bpftrace,
];

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "no tracer",
            Self::Floor => "empty probes at the same places (the floor)",
            Self::Unfreed => "`unfreed record`",
            Self::Bpftrace => "bpftrace one-liner (memleak's job)",
        }
    }

    /// The tracer's command for a process, and the beginning of the line by
    /// which it says that its probes are in place.
    fn command(self, unfreed: &Path, pid: &str) -> Option<(Command, &'static str)> {
        match self {
            Self::Nobody => None,
            Self::Floor | Self::Unfreed => {
                let mut command = shell::as_root(unfreed);
                command.args(["record", "-p", pid]);
                if self == Self::Floor {
                    command.args(["--programs", "empty"]);
                }
                Some((command, "tracing "))
            }
            Self::Bpftrace => {
                let mut command = shell::as_root("bpftrace");
                command.args(["-p", pid, "-e", &one_liner(pid)]);
                Some((command, "Attaching"))
            }
        }
    }
}

/// Measures, prints the table and writes it into BENCHMARKS.md.
///
/// # Errors
/// Fails if something cannot be built, started or written.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&[Group::Test, Group::Bench])?;
    let unfreed = build::unfreed(Profile::Release)?;
    let program = targets::build_one("c/pairs.c")?;
    let mut figures = vec![Vec::new(); CONTESTANTS.len()];
    for round in 1..=ROUNDS {
        shell::say(format!("round {round} of {ROUNDS}"));
        for (index, contestant) in CONTESTANTS.into_iter().enumerate() {
            figures[index].push(measure(contestant, &unfreed, &program)?);
        }
    }
    let table = table(&figures);
    println!("{table}");
    write_into(
        &tracer_ebpf_build::workspace().join("BENCHMARKS.md"),
        &table,
    )
}

/// The least time of a pair, nanoseconds.
fn measure(contestant: Contestant, unfreed: &Path, program: &Path) -> Result<f64> {
    let mut target = Target::start(program)?;
    let mut tracer = match contestant.command(unfreed, &target.pid) {
        Some((command, ready)) => Some(Tracer::start(command, ready)?),
        None => None,
    };
    if tracer.is_some() {
        target.wait_for_probes()?;
    }
    target.time(PAIRS / 10)?;
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        least = least.min(target.time(PAIRS)?);
    }
    drop(target);
    if let Some(tracer) = &mut tracer {
        tracer.wait()?;
    }
    Ok(least)
}

/// The traced loop.
struct Target {
    child: Child,
    output: BufReader<ChildStdout>,
    pid: String,
}

impl Target {
    fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut output = BufReader::new(child.stdout.take().context("the target has no output")?);
        let first = read_line(&mut output)?;
        let pid = first
            .trim()
            .strip_prefix("pid ")
            .context("the target did not say its pid")?;
        let pid = pid.to_owned();
        read_line(&mut output)?;
        Ok(Self { child, output, pid })
    }

    fn time(&mut self, pairs: u64) -> Result<f64> {
        let input = self
            .child
            .stdin
            .as_mut()
            .context("the target has no input")?;
        writeln!(input, "{pairs}").and_then(|()| input.flush())?;
        Ok(read_line(&mut self.output)?.trim().parse()?)
    }
}

impl Target {
    /// Waits until pairs are as slow as probes make them: bpftrace says that
    /// it attaches, but not when it has.
    fn wait_for_probes(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.time(100)? < LEAST_TRACED {
            if begin.elapsed() > PATIENCE {
                bail!("the tracer's probes do not fire");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Entry, return and free are placed one by one.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A tracer in the background.
struct Tracer {
    child: Child,
}

impl Tracer {
    fn start(mut command: Command, ready: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("the tracer has no output")?;
        let errors = child.stderr.take().context("the tracer has no output")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        for stream in [
            Box::new(output) as Box<dyn std::io::Read + Send>,
            Box::new(errors),
        ] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // Not all that tracers print is text.
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    // Nobody listens once the tracer is ready.
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        drop(sender);
        let mut said = String::new();
        for line in receiver {
            if line.starts_with(ready) {
                return Ok(Self { child });
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!(
            "{:?} ended before it was ready:\n{said}",
            command.get_program()
        );
    }

    /// Waits for it to end because its target did, as both do.
    fn wait(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > PATIENCE {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// What memleak does, as one line of bpftrace: sizes by thread, blocks and
/// their stacks by address.
fn one_liner(pid: &str) -> String {
    let libc = libc_of(pid).unwrap_or_else(|| "libc".into());
    let libc = libc.display();
    format!(
        "uprobe:{libc}:malloc {{ @size[tid] = arg0 }} \
         uretprobe:{libc}:malloc /@size[tid]/ {{ @bytes[retval] = @size[tid]; @stack[retval] = ustack; delete(@size[tid]) }} \
         uprobe:{libc}:free {{ delete(@bytes[arg0]); delete(@stack[arg0]) }}"
    )
}

fn libc_of(pid: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let path = maps.lines().find_map(|line| {
        line.split_whitespace()
            .nth(5)
            .filter(|p| p.contains("/libc.so"))
    })?;
    Some(PathBuf::from(path))
}

fn read_line(output: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if output.read_line(&mut line)? == 0 {
        bail!("the target ended");
    }
    Ok(line)
}

/// Medians, and the medians of each round's ratio to the floor.
fn table(figures: &[Vec<f64>]) -> String {
    let mut table = String::from("| | ns a pair | times the floor |\n|---|---|---|\n");
    for (index, contestant) in CONTESTANTS.into_iter().enumerate() {
        let ratios = figures[index]
            .iter()
            .zip(&figures[1])
            .map(|(own, floor)| own / floor)
            .collect();
        let _ = writeln!(
            table,
            "| {} | {:.0} | {:.2} |",
            contestant.name(),
            median(figures[index].clone()),
            median(ratios)
        );
    }
    table
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Replaces what stands between the marks.
fn write_into(file: &Path, table: &str) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("{} has no mark {BEGIN}", file.display()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{} has no mark {END}", file.display()))?;
    let text = format!("{before}{BEGIN}\n\n{}\n\n{table}\n{END}{after}", machine());
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// What was measured on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "`cargo xtask bench`: {ROUNDS} interleaved rounds, medians; Linux {}, {cores} cores of {}.",
        kernel.trim(),
        model.trim_start_matches(['\t', ':', ' '])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let figures = vec![
            vec![1.0, 2.0, 3.0],
            vec![10.0, 20.0, 30.0],
            vec![15.0, 30.0, 45.0],
            vec![100.0, 200.0, 300.0],
        ];
        let table = table(&figures);
        assert!(
            table.contains("| `unfreed record` | 30 | 1.50 |"),
            "{table}"
        );
    }
}
