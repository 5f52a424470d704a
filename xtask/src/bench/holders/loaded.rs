//! redis under load: what the search takes, and what redis loses meanwhile.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::reported::{agreeing, answer, per_gib, read};
use crate::bench::choice::Choice;
use crate::bench::model::Report;
use crate::bench::process::end;
use crate::bench::seen::new_file;
use crate::bench::service::{Folder, Launch, Started};
use crate::bench::tracer::Tracer;
use crate::shell;

const WORDS: &str = "redis under Debian's jemalloc, with about 630,000 values of 300 bytes, while \
                     `redis-benchmark -t set` overwrites them and adds more from 50 connections. The server, the \
                     load and the search share the cores. \"Before\" is the tracing, \"meanwhile\" the search, \
                     which ends with the report.";
/// How often it is searched.
const ROUNDS: usize = 5;
/// How long is traced before, seconds.
const TRACED: u32 = 6;
/// How long a server may take to start, and a load to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what it has done.
const GAP: Duration = Duration::from_millis(20);
/// Keys, requests that fill it, and bytes of a value.
const LOAD: [&str; 6] = ["-t", "set", "-r", "1000000", "-d", "300"];
const FILL: &str = "1000000";
/// More requests than there is time for.
const ENDLESS: &str = "1000000000";

/// A server with its load.
struct Loaded {
    server: Started,
    load: Option<Child>,
    folder: Folder,
}

impl Loaded {
    /// Starts it and fills it.
    fn start() -> Result<Self> {
        let folder = Folder::new("holders")?;
        let program = ["redis-server", "--port", "0", "--unixsocket", "socket"];
        let options = ["--save", "", "--appendonly", "no"];
        let mut command = Launch::Plain.command(&[&program[..], &options].concat(), &[], None);
        command.current_dir(folder.path());
        let server = Started::server(&mut command, "redis-server", "TERM")?;
        let mut loaded = Self {
            server,
            load: None,
            folder,
        };
        loaded.connect()?;
        shell::run(loaded.benchmark(FILL).args(["-P", "16"]))?;
        let mut command = loaded.benchmark(ENDLESS);
        let child = command.spawn();
        loaded.load = Some(child.with_context(|| shell::cannot_run(&command))?);
        Ok(loaded)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Connects, as soon as it listens.
    fn connect(&self) -> Result<BufReader<UnixStream>> {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return Ok(BufReader::new(stream)),
                Err(_) if begin.elapsed() < PATIENCE => sleep(GAP),
                Err(problem) => return Err(problem).context("redis does not listen"),
            }
        }
    }

    fn benchmark(&self, requests: &str) -> Command {
        let mut command = Command::new("redis-benchmark");
        command.arg("-s").arg(self.socket()).args(LOAD);
        command.args(["-q", "-n", requests]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(load) = &mut self.load {
            // It may have ended at this moment.
            let _ = load.kill();
            end(load, PATIENCE);
        }
    }
}

/// Commands that a server has done.
fn done(connection: &mut BufReader<UnixStream>) -> Result<u64> {
    connection.get_mut().write_all(b"INFO stats\r\n")?;
    let mut found = None;
    let mut line = String::new();
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(anyhow!("redis has ended"));
        }
        let text = line.trim();
        if let Some(number) = text.strip_prefix("total_commands_processed:") {
            found = Some(number.parse()?);
        }
        // An empty line ends the text.
        if text.is_empty() {
            return found.context("redis does not tell");
        }
    }
}

/// What a search was like.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    /// MiB.
    resident: f64,
    read: f64,
    seconds: f64,
    per_gib: f64,
    /// Commands a second.
    before: f64,
    meanwhile: f64,
    /// Of the path that holds most.
    answer: String,
}

impl Run {
    fn measure(unfreed: &Path, loaded: &Loaded) -> Result<Self> {
        let path = new_file("holders.json")?;
        let options = [OsStr::new("--holders"), OsStr::new("-o"), path.as_os_str()];
        let pid = loaded.server.pid();
        let mut connection = loaded.connect()?;
        let tracer = Tracer::unfreed(unfreed, pid, TRACED, options)?;
        let begin = Instant::now();
        let waiting = thread::spawn(|| tracer.rest());
        let mut counts: Vec<(f64, u64)> = Vec::new();
        while !waiting.is_finished() {
            counts.push((begin.elapsed().as_secs_f64(), done(&mut connection)?));
            sleep(GAP);
        }
        let ended = waiting.join();
        ended.map_err(|_| anyhow!("the tracer was not waited for"))??;
        let (report, searched) = read(&path)?;
        let traced = report.duration;
        let search = (traced + 0.1, traced + searched.seconds - 0.1);
        Ok(Self {
            resident: resident(pid)? / 1024.0,
            read: searched.bytes as f64 / f64::from(1 << 20),
            seconds: searched.seconds,
            per_gib: per_gib(&searched),
            before: rate(&counts, (1.0, traced - 0.2)).context("no counts before")?,
            meanwhile: rate(&counts, search).context("no counts of the search")?,
            answer: of_largest(&report)?,
        })
    }
}

/// A process's resident set, KiB.
fn resident(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|it| it.trim().split(' ').next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// Who holds the blocks of the path that holds most.
fn of_largest(report: &Report) -> Result<String> {
    let sites = report.sites.iter();
    let searched = sites.filter_map(|site| Some((site.live_bytes, site.holders.as_ref()?)));
    let largest = searched.max_by_key(|(bytes, _)| *bytes);
    let (_, holders) = largest.context("no path was searched for holders")?;
    Ok(answer(holders))
}

/// Commands a second between two moments.
fn rate(counts: &[(f64, u64)], (from, to): (f64, f64)) -> Option<f64> {
    let within = |(at, _): &&(f64, u64)| (from..=to).contains(at);
    let (first, last) = (counts.iter().find(within)?, counts.iter().rfind(within)?);
    (last.0 > first.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0))
}

/// Measures, and makes the table.
///
/// # Errors
/// Fails if redis or the tracer does not start, or a report cannot be read.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> Result<String> {
    let loaded = Loaded::start()?;
    let rounds = choice.rounds(ROUNDS);
    let mut table = format!(
        "{WORDS}\n\n| resident | read in two looks | search | processor time for a GiB that is read | commands \
         a second before | meanwhile | lost |\n|---|---|---|---|---|---|---|\n"
    );
    let mut answers = Vec::new();
    for number in 1..=rounds {
        shell::say(format_args!("holders: redis, search {number} of {rounds}"));
        let run = Run::measure(unfreed, &loaded)?;
        table.push_str(&row(&run));
        answers.push(run.answer);
    }
    table.push_str(&told(&mut answers));
    Ok(table)
}

fn row(run: &Run) -> String {
    format!(
        "| {:.0} MiB | {:.0} MiB | {:.2} s | {:.2} s | {:.0} | {:.0} | {:.0} % |\n",
        run.resident,
        run.read,
        run.seconds,
        run.per_gib,
        run.before,
        run.meanwhile,
        100.0 * (1.0 - run.meanwhile / run.before)
    )
}

/// What was said of the sampled blocks of the path that holds most.
fn told(answers: &mut Vec<String>) -> String {
    let (same, of) = (agreeing(answers), answers.len());
    answers.sort();
    answers.dedup();
    format!(
        "\nWho holds the sampled blocks of the path that holds most, the same in {same} of {of} searches: {}.\n",
        answers.join("; or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_lies_within() {
        let counts = [(0.5, 10), (1.0, 100), (1.5, 300), (2.0, 500), (2.5, 501)];
        assert_eq!(rate(&counts, (0.9, 2.1)), Some(400.0));
        assert_eq!(rate(&counts, (0.9, 1.1)), None);
        assert_eq!(rate(&counts, (7.0, 9.0)), None);
    }

    #[test]
    fn a_row_says_what_was_lost() {
        let run = Run {
            resident: 250.4,
            read: 490.0,
            seconds: 1.234,
            per_gib: 0.876,
            before: 20_000.0,
            meanwhile: 15_000.0,
            answer: String::new(),
        };
        let expected = "| 250 MiB | 490 MiB | 1.23 s | 0.88 s | 20000 | 15000 | 25 % |\n";
        assert_eq!(row(&run), expected);
    }

    #[test]
    fn answers_that_differ_are_all_told() {
        let mut answers = ["a: 64", "a: 63, lost: 1", "a: 64"]
            .map(str::to_owned)
            .to_vec();
        let text = told(&mut answers);
        assert!(
            text.ends_with("2 of 3 searches: a: 63, lost: 1; or a: 64.\n"),
            "{text}"
        );
    }
}
