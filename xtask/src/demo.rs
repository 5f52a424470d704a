//! The demo: a C++ program that leaks, traced by pid.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracer_ebpf_build::workspace;

use crate::build::{Profile, unfreed};
use crate::setup::{Group, ensure};
use crate::shell::{as_root, cannot_run, echo, is_root, say};
use crate::targets;

/// How long a person may take to type the password that sudo asks for.
const TRACER_STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Requests that the target serves, at its 400 a second: it is done before
/// the trace is, so that its own counts and the table agree to the byte.
const REQUESTS: &str = "2400";
const DURATION: &str = "8s";

const OUTPUTS: [&str; 3] = ["leak.svg", "leak.pb.gz", "target/demo/leak.json"];

/// Sets up, builds, and traces a leaking program by pid.
///
/// # Errors
/// Fails when any of the steps does.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    ensure(&[Group::Demo])?;
    let binary = unfreed(Profile::Dev)?;
    let program = targets::build_one("cpp/demo.cpp")?;
    fs::create_dir_all(workspace().join("target/demo")).context("cannot make target/demo")?;

    let mut target = Target::start(Command::new(program).arg(REQUESTS))?;
    let mut record = as_root(&binary);
    record.args([
        "record",
        "-p",
        &target.pid.to_string(),
        "--duration",
        DURATION,
    ]);
    for output in OUTPUTS {
        record.args(["-o", output]);
    }
    let tracer = Tracer::start(&mut record)?;
    target.begin()?;
    tracer.finish()?;
    let counts = target.stop()?;

    say("");
    say("The program's own count of what it did:");
    say(counts.trim_end());
    epilogue(&binary.display().to_string());
    say(format_args!(
        "\nAll in {:.0} s.",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn epilogue(binary: &str) {
    let root = workspace().display();
    let sudo = if is_root() { "" } else { "sudo " };
    say(format_args!(
        "
The flamegraph:     {root}/leak.svg     (open it in a browser)
The pprof profile:  {root}/leak.pb.gz   (go tool pprof -http : leak.pb.gz)

What to run next:
  {sudo}{binary} record -p PID --duration 60s       what does a process of yours leak?
  {sudo}{binary} record -p PID -o leak.svg          the same as a flamegraph, until Ctrl-C
  {sudo}{binary} run -- PROGRAM ARGS                from a program's first allocation
  {binary} report target/demo/leak.json    this report again, without tracing
  {sudo}{binary} doctor                             what this machine allows"
    ));
}

/// The program that is traced. Dropping it closes its standard input, which
/// ends it.
struct Target {
    child: Child,
    pid: u32,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Target {
    /// Starts the program and waits until it is ready, and waits for us.
    fn start(command: &mut Command) -> Result<Self> {
        echo(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| cannot_run(command))?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("the target has no output")?);
        let mut pid = None;
        let mut line = String::new();
        loop {
            line.clear();
            if stdout
                .read_line(&mut line)
                .context("cannot read from the target")?
                == 0
            {
                bail!("the target ended before it was ready: {}", child.wait()?);
            }
            if let Some(number) = line.strip_prefix("pid ") {
                pid = number.trim_end().parse().ok();
            }
            if line.trim_end() == "ready" {
                let pid = pid.context("the target did not print its pid")?;
                return Ok(Self {
                    child,
                    pid,
                    stdin,
                    stdout,
                });
            }
        }
    }

    /// Lets the program begin its work.
    fn begin(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the target has no input")?;
        stdin
            .write_all(b"go\n")
            .context("the target does not listen; has it ended?")
    }

    /// Ends the program and returns what it printed last.
    fn stop(mut self) -> Result<String> {
        drop(self.stdin.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.stdout, &mut rest)
            .context("cannot read from the target")?;
        let status = self.child.wait().context("cannot wait for the target")?;
        if !status.success() {
            bail!("the target failed: {status}");
        }
        Ok(rest)
    }
}

/// `unfreed record`, its messages handed on to ours.
struct Tracer {
    child: Child,
    messages: thread::JoinHandle<()>,
}

impl Tracer {
    /// Starts it and waits until it says that every probe is attached.
    fn start(command: &mut Command) -> Result<Self> {
        echo(command);
        let mut child = command
            .current_dir(workspace())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| cannot_run(command))?;
        let stderr = BufReader::new(child.stderr.take().context("the tracer has no messages")?);
        let (tracing, is_tracing) = mpsc::channel();
        let messages = thread::spawn(move || {
            for line in stderr.lines().map_while(std::io::Result::ok) {
                if line.starts_with("tracing ") {
                    // Nobody listens any more once the first is heard.
                    let _ = tracing.send(());
                }
                say(line);
            }
        });
        match is_tracing.recv_timeout(TRACER_STARTS_WITHIN) {
            Ok(()) => Ok(Self { child, messages }),
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().context("cannot wait for the tracer")?;
                bail!("the tracer ended before it traced: {status}");
            }
            Err(RecvTimeoutError::Timeout) => {
                // The target is dropped and ends, and so does its tracer.
                let seconds = TRACER_STARTS_WITHIN.as_secs();
                bail!("the tracer did not say within {seconds} s that it is tracing");
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        let status = self.child.wait().context("cannot wait for the tracer")?;
        let _ = self.messages.join();
        if !status.success() {
            bail!("the tracer failed: {status}");
        }
        Ok(())
    }
}
