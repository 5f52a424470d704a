//! redis under load: what the search takes, and what redis loses meanwhile.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::model::Report;
use crate::bench::process::end;
use crate::bench::tracer::Tracer;
use crate::shell;

const WORDS: &str = "redis under Debian's jemalloc with 1,000,000 random keys of 2,000,000, while `redis-benchmark -t \
                     set` has one client for each of 50 connections; the server, the benchmark and the search share \
                     the machine's cores. Its rate is that of the tracing before, and of the search.";
/// How often it is searched.
const RUNS: usize = 3;
/// How long is traced before, seconds.
const TRACED: u32 = 5;
/// How long a server may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what it has done.
const GAP: Duration = Duration::from_millis(20);

/// A server and, later, its load.
struct Server {
    server: Child,
    load: Option<Child>,
    socket: std::path::PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Result<Self> {
        let socket = folder.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(folder);
        shell::echo(&command);
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let server = Self {
            server,
            load: None,
            socket,
        };
        let begin = Instant::now();
        while UnixStream::connect(&server.socket).is_err() {
            ensure!(begin.elapsed() < PATIENCE, "redis does not listen");
            sleep(GAP);
        }
        Ok(server)
    }

    fn benchmark(&self, count: &str) -> Command {
        let mut command = Command::new("redis-benchmark");
        command.arg("-s").arg(&self.socket);
        command.args(["-q", "-t", "set", "-r", "2000000", "-n", count]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Fills it, and goes on.
    fn load(&mut self) -> Result<()> {
        shell::run(self.benchmark("1400000").args(["-P", "16"]))?;
        let mut command = self.benchmark("1000000000");
        let child = command.spawn();
        self.load = Some(child.with_context(|| shell::cannot_run(&command))?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.load.iter_mut().chain([&mut self.server]) {
            // It may have ended at this moment.
            let _ = child.kill();
            end(child, PATIENCE);
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
        ensure!(connection.read_line(&mut line)? > 0, "redis has ended");
        let text = line.trim();
        if let Some(number) = text.strip_prefix("total_commands_processed:") {
            found = Some(number.parse()?);
        }
        // An empty line ends the text, but for the one behind its heading's.
        if text.is_empty() {
            return found.context("redis does not tell");
        }
    }
}

/// What a search was like.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    resident: f64,
    seconds: f64,
    per_gib: f64,
    before: f64,
    meanwhile: f64,
}

fn run(unfreed: &Path, server: &Server, folder: &Path) -> Result<Run> {
    let path = folder.join("report.json");
    let options = [OsStr::new("--holders"), OsStr::new("-o"), path.as_os_str()];
    let pid = server.server.id().to_string();
    let tracer = Tracer::unfreed(unfreed, &pid, TRACED, options)?;
    let begin = Instant::now();
    let mut connection = BufReader::new(UnixStream::connect(&server.socket)?);
    let waiting = thread::spawn(|| tracer.rest());
    let mut counts: Vec<(f64, u64)> = Vec::new();
    while !waiting.is_finished() {
        counts.push((begin.elapsed().as_secs_f64(), done(&mut connection)?));
        sleep(GAP);
    }
    let ended = waiting.join();
    ended.map_err(|_| anyhow::anyhow!("the tracer was not waited for"))??;
    let text = std::fs::read(&path).context("there is no report")?;
    let report: Report = serde_json::from_slice(&text)?;
    let searched = report.searched.context("it was not searched")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident
        .and_then(|it| it.trim().split(' ').next())
        .context("no VmRSS")?;
    let traced = f64::from(TRACED);
    let gib = searched.bytes as f64 / f64::from(1 << 30);
    Ok(Run {
        resident: resident.parse::<f64>()? / 1024.0,
        seconds: searched.seconds,
        per_gib: searched.processor_seconds / gib,
        before: rate(&counts, (1.0, traced - 0.2)).context("no counts")?,
        meanwhile: rate(&counts, (traced + 0.1, traced + searched.seconds - 0.1))
            .context("no counts")?,
    })
}

/// Commands a second between two moments.
fn rate(counts: &[(f64, u64)], (from, to): (f64, f64)) -> Option<f64> {
    let within = |(at, _): &&(f64, u64)| (from..=to).contains(at);
    let (first, last) = (counts.iter().find(within)?, counts.iter().rfind(within)?);
    (last.0 > first.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0))
}

/// Measures, and makes the table.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(folder.path())?;
    server.load()?;
    let mut table = format!(
        "{WORDS}\n\n| resident | search | processor time for a GiB that is read | commands a second before | \
         meanwhile | lost |\n|---|---|---|---|---|---|\n"
    );
    for number in 1..=RUNS {
        shell::say(format_args!("holders: redis, search {number} of {RUNS}"));
        table.push_str(&row(run(unfreed, &server, folder.path())?));
    }
    Ok(table)
}

fn row(run: Run) -> String {
    format!(
        "| {:.0} MiB | {:.2} s | {:.2} s | {:.0} | {:.0} | {:.0} % |\n",
        run.resident,
        run.seconds,
        run.per_gib,
        run.before,
        run.meanwhile,
        100.0 * (1.0 - run.meanwhile / run.before)
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
            seconds: 1.234,
            per_gib: 0.876,
            before: 20_000.0,
            meanwhile: 15_000.0,
        };
        let expected = "| 250 MiB | 1.23 s | 0.88 s | 20000 | 15000 | 25 % |\n";
        assert_eq!(row(run), expected);
    }
}
