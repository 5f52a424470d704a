//! What tracing costs a Java web server: how many requests it answers, with
//! and without `unfreed record` on it, in turns.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::figures::{median, median_of};
use super::process::Lines;
use super::seen;
use super::service::{Launch, Started};
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
    let tracer = Tracer::unfreed(unfreed, server.pid(), seconds, output)?;
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
    started: Started,
    port: u16,
}

impl Server {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Fails if the JVM does.
    fn start() -> Result<Self> {
        Self::start_by(&Launch::Plain)
    }

    /// The same, started by something else than us.
    ///
    /// # Errors
    /// Fails if the JVM does.
    pub(super) fn start_by(launch: &Launch<'_>) -> Result<Self> {
        let classes = java::folder();
        let program = [
            "java".as_ref(),
            "-cp".as_ref(),
            classes.as_os_str(),
            "Server".as_ref(),
        ];
        let mut command = launch.command(&program, &[], None);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("the server has no output")?;
        let lines = Lines::of(vec![Box::new(output)]);
        let started = Started::find(child, "java", "TERM")?;
        Ok(Self {
            port: lines.after("port ", PATIENCE)?.parse()?,
            started,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> &str {
        self.started.pid()
    }

    /// The process that was started.
    pub(super) fn root(&self) -> String {
        self.started.root()
    }

    /// Where it listens.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }
}

/// Requests a second that the server answers.
fn load(port: u16, time: Duration) -> Result<f64> {
    let begin = Instant::now();
    let answered = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| ask(port, time)))
            .collect();
        let mut answered = 0;
        for client in clients {
            match client.join() {
                Ok(count) => answered += count?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<u64, anyhow::Error>(answered)
    })?;
    Ok(answered as f64 / begin.elapsed().as_secs_f64())
}

/// Asks one request after the other, and counts the answers.
fn ask(port: u16, time: Duration) -> Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("cannot reach the server")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < time {
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
