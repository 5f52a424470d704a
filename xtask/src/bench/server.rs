//! What tracing costs a Java web server: how many requests it answers, with
//! and without `unfreed record` on it, in turns.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::figures::{median, median_of};
use super::process::{Lines, end};
use super::seen;
use super::tracer::Tracer;
use crate::{java, shell};

/// Rounds, each without and with a tracer.
const ROUNDS: usize = 5;

/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(4);

/// How long the server runs before the first one, to be compiled.
const WARM_UP: Duration = Duration::from_secs(8);

/// Clients, each with a connection that stays.
const CLIENTS: usize = 2;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures, and makes the table.
///
/// # Errors
/// Fails if the JVM or a tracer does.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    java::build()?;
    let server = Server::start()?;
    load(server.port, WARM_UP)?;
    let (mut without, mut with, mut allocations) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        shell::say(format!("java: server, round {round} of {ROUNDS}"));
        without.push(load(server.port, TIME)?);
        let (rate, each) = traced(unfreed, &server)?;
        with.push(rate);
        allocations.push(each);
    }
    Ok(table(&without, &with, allocations))
}

/// Requests a second with a tracer, and the allocations of a request.
fn traced(unfreed: &Path, server: &Server) -> Result<(f64, f64)> {
    let file = seen::new_file("server.json")?;
    let output = [Path::new("-o"), file.as_path()];
    let seconds = u32::try_from(TIME.as_secs())? + 1;
    let tracer = Tracer::unfreed(unfreed, &server.pid, seconds, output)?;
    let rate = load(server.port, TIME)?;
    let report = seen::report(tracer, &file)?;
    let allocated = report["totals"]["allocated_count"].as_f64();
    let allocated = allocated.context("the report has no totals")?;
    Ok((rate, allocated / (rate * TIME.as_secs_f64())))
}

fn table(without: &[f64], with: &[f64], allocations: Vec<f64>) -> String {
    format!(
        "A web server (`com.sun.net.httpserver`, default flags) that compresses each answer, \
         {CLIENTS} clients on the same machine; {ROUNDS} interleaved rounds of {} s, medians; \
         {:.1} allocations a request:\n\n\
         | | requests a second | times without |\n|---|---|---|\n\
         | no tracer | {:.0} | 1.00 |\n\
         | `unfreed record` | {:.0} | {:.2} |\n",
        TIME.as_secs(),
        median(allocations),
        median(without.to_vec()),
        median(with.to_vec()),
        median_of(with, without, |with, without| with / without)
    )
}

/// A running server.
pub(super) struct Server {
    child: Child,
    pid: String,
    port: u16,
}

impl Server {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Fails if the JVM does.
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new("java");
        command.arg("-cp").arg(java::folder()).arg("Server");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("the server has no output")?;
        let lines = Lines::of(vec![Box::new(output)]);
        let said = |key: &str| {
            let line = lines.next(PATIENCE)?.context("the server ended")?;
            let value = line.strip_prefix(key).map(str::to_owned);
            value.with_context(|| format!("the server said {line:?}"))
        };
        Ok(Self {
            pid: said("pid ")?,
            port: said("port ")?.parse()?,
            child,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> &str {
        &self.pid
    }

    /// Asks so many requests, or a few more, and counts the answers.
    ///
    /// # Errors
    /// Fails if it does not answer.
    pub(super) fn answer(&self, requests: u64) -> Result<u64> {
        let each = requests.div_ceil(CLIENTS as u64);
        clients(self.port, |answered, _| answered < each)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        end(&mut self.child, PATIENCE);
    }
}

/// Requests a second that the server answers.
fn load(port: u16, time: Duration) -> Result<f64> {
    let begin = Instant::now();
    let answered = clients(port, |_, since| since < time)?;
    Ok(answered as f64 / begin.elapsed().as_secs_f64())
}

/// Has all clients ask, each as long as `goes_on` says so of how many answers it has and
/// how long it has asked. Counts the answers.
fn clients(port: u16, goes_on: impl Fn(u64, Duration) -> bool + Sync) -> Result<u64> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| ask(port, &goes_on)))
            .collect();
        let mut answered = 0;
        for client in clients {
            match client.join() {
                Ok(count) => answered += count?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(answered)
    })
}

/// Asks one request after the other, and counts the answers.
fn ask(port: u16, goes_on: impl Fn(u64, Duration) -> bool) -> Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("cannot reach the server")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let begin = Instant::now();
    let mut count = 0;
    while goes_on(count, begin.elapsed()) {
        stream.write_all(b"GET /some/page HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        read_answer(&mut answers)?;
        count += 1;
    }
    Ok(count)
}

/// Reads one answer to its end.
fn read_answer(answers: &mut impl BufRead) -> Result<()> {
    let mut length = None;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(line.contains(" 200 "), "the server answered {line:?}");
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        if key.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse::<u64>()?);
        }
    }
    let Some(length) = length else {
        bail!("the server did not say how long its answer is");
    };
    let read = std::io::copy(&mut answers.take(length), &mut std::io::sink())?;
    ensure!(read == length, "the server stopped in the middle");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_after_the_other() {
        let text = b"HTTP/1.1 200 OK\r\nContent-length: 3\r\n\r\nabcHTTP/1.1 404 No\r\n\r\n";
        let mut answers = &text[..];
        read_answer(&mut answers).unwrap();
        assert!(answers.starts_with(b"HTTP/1.1 404"));
        assert!(read_answer(&mut answers).is_err());
    }

    #[test]
    fn the_ratio_is_that_of_the_rounds() {
        let table = table(&[100.0, 200.0, 300.0], &[90.0, 190.0, 240.0], vec![7.0]);
        assert!(table.contains("| no tracer | 200 | 1.00 |"), "{table}");
        assert!(
            table.contains("| `unfreed record` | 190 | 0.90 |"),
            "{table}"
        );
    }
}
