//! Programs that are traced while they work, and the kernel's account of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::bench::process::{Lines, end};
use crate::shell;

/// How long a program may take to start, to do what it is told, and to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is there and does nothing yet.
pub(super) trait Load {
    /// Its process, or the one that the others come from.
    fn pid(&self) -> String;

    /// How it is traced, besides by its pid.
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Has it do what makes it grow; afterwards it is idle.
    fn work(&mut self) -> Result<()>;

    /// What is to be compared besides, with the tracer's report.
    fn notes(&self, _report: &Value) -> Result<Option<String>> {
        Ok(None)
    }
}

/// A child that ends with this value: a signal for those that serve, the end of their
/// input for others.
pub(super) struct Running {
    child: Child,
    signal: Option<&'static str>,
}

impl Running {
    /// Starts a server, which a signal ends.
    pub(super) fn server(command: &mut Command, signal: &'static str) -> Result<Self> {
        shell::echo(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| shell::cannot_run(command))?;
        Ok(Self {
            child,
            signal: Some(signal),
        })
    }

    pub(super) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Waits until something is so.
    pub(super) fn wait_until(&mut self, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !is_so() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended before {what}: {status}");
            }
            ensure!(begin.elapsed() < PATIENCE, "it takes too long: {what}");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(signal) = self.signal {
            // If it has ended, there is nobody to be sent it.
            let _ = signalled(&self.pid(), signal);
        }
        drop(self.child.stdin.take());
        end(&mut self.child, PATIENCE);
    }
}

/// Sends a signal to a process that we started.
pub(super) fn signalled(pid: &str, signal: &str) -> Result<()> {
    let mut kill = shell::as_root("kill");
    kill.args(["-s", signal, pid]).stderr(Stdio::null());
    let status = kill.status().with_context(|| shell::cannot_run(&kill))?;
    ensure!(status.success(), "process {pid} cannot be sent {signal}");
    Ok(())
}

/// A program that says `PID ready`, and `done …` after each line that it is told.
pub(super) struct Talker {
    running: Running,
    lines: Lines,
    pid: String,
}

impl Talker {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        shell::echo(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(command))?;
        let output = child.stdout.take().context("it has no output")?;
        let mut talker = Self {
            running: Running {
                child,
                signal: None,
            },
            lines: Lines::of(vec![Box::new(output)]),
            pid: String::new(),
        };
        let said = talker.hear(" ready")?;
        let pid = said.split(' ').next().unwrap_or_default();
        pid.clone_into(&mut talker.pid);
        Ok(talker)
    }

    pub(super) fn pid(&self) -> String {
        self.pid.clone()
    }

    /// Has it do something.
    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.running.child.stdin.as_mut();
        writeln!(input.context("it has no input")?, "{line}")?;
        self.hear("done").map(drop)
    }

    fn hear(&self, what: &str) -> Result<String> {
        while let Some(line) = self.lines.next(PATIENCE)? {
            if line.contains(what) {
                return Ok(line);
            }
        }
        bail!("it ended before it said {what:?}")
    }
}

/// What the kernel has in memory of a process and all that come from it, bytes.
pub(super) fn resident(pid: &str) -> Result<u64> {
    let rollups = family(pid)
        .into_iter()
        .filter_map(|pid| read(&format!("/proc/{pid}/smaps_rollup")));
    let sizes = rollups.filter_map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let all: u64 = sizes.sum();
    ensure!(all > 0, "process {pid} is gone");
    Ok(all << 10)
}

/// Waits until nothing comes into memory any more.
pub(super) fn settle(pid: &str) -> Result<u64> {
    let begin = Instant::now();
    let mut last = resident(pid)?;
    loop {
        sleep(Duration::from_millis(500));
        let now = resident(pid)?;
        if now == last || begin.elapsed() > PATIENCE {
            return Ok(now);
        }
        last = now;
    }
}

/// A process and its descendants.
pub(super) fn family(pid: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut next = vec![pid.to_owned()];
    while let Some(pid) = next.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        if all.insert(pid) {
            next.extend(children.split_whitespace().map(str::to_owned));
        }
    }
    all
}

/// Reads what another user's process may hide from us.
fn read(path: &str) -> Option<String> {
    let mut cat = shell::as_root("cat");
    let output = cat.arg(path).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A folder that is made anew.
pub(super) fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
