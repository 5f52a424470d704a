//! The `serve` that watches.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Course;
use super::ask::ask;
use crate::bench::process::Lines;
use crate::bench::service::Started;
use crate::shell;

/// It begins to trace within this time, and forgets who has ended.
const PATIENCE: Duration = Duration::from_secs(150);

/// A `serve` at work, with its state in a folder of its own.
pub(super) struct Watcher {
    started: Started,
    address: String,
    token: String,
    folder: PathBuf,
    lines: Lines,
}

impl Watcher {
    /// Starts it, and waits until it traces. Its windows are pushed to this address by OTLP.
    ///
    /// # Errors
    /// Fails if it does not.
    pub(super) fn start(unfreed: &Path, course: Course, sink: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("unfreed-soak-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("serve.toml");
        fs::write(&config, configuration(course, sink))?;
        let mut command = shell::as_root(unfreed);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--state"])
            .arg(&folder)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let errors = child.stderr.take().context("serve has no standard error")?;
        let lines = Lines::of(vec![Box::new(errors)]);
        let started = Started::find(child, "unfreed", "TERM")?;
        let address = lines.after("unfreed: listening at http://", PATIENCE)?;
        lines.after("tracing ", PATIENCE)?;
        let token = shell::capture(shell::as_root("cat").arg(folder.join("token")))?;
        Ok(Self {
            started,
            address,
            token: token.trim().to_owned(),
            folder,
            lines,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> &str {
        self.started.pid()
    }

    /// What it tells of all services.
    ///
    /// # Errors
    /// Fails if it does not answer.
    pub(super) fn services(&self) -> Result<Value> {
        ask(&self.address, &self.token, "/api/services")
    }

    /// How many processes it watches once all have ended, after some windows at most.
    ///
    /// # Errors
    /// Fails if it does not answer, or if one has not ended.
    pub(super) fn watched_after_all_have_ended(&self, pids: &[String]) -> Result<u64> {
        for pid in pids {
            ensure!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "process {pid} has not ended"
            );
        }
        let begin = Instant::now();
        loop {
            let watched = number(&self.services()?["tracer"], "watched");
            if watched == 0 || begin.elapsed() > PATIENCE {
                return Ok(watched);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What it has said of its own state: warnings, and when a run began anew.
    pub(super) fn remarks(&self) -> Vec<String> {
        let remarks = ["warning:", "a new run begins"];
        let is_remark = |line: &String| remarks.iter().any(|it| line.contains(it));
        self.lines.so_far().filter(is_remark).collect()
    }

    /// Ends it; how many of its programs any process has afterwards.
    ///
    /// # Errors
    /// Fails if they cannot be counted.
    pub(super) fn end(self) -> Result<usize> {
        let own = programs(self.pid())?;
        ensure!(!own.is_empty(), "it has no programs in the kernel");
        let folder = self.folder.clone();
        drop(self.started);
        // What is left of it is in the folder of temporary files.
        let _ = shell::run(shell::as_root("rm").arg("-r").arg(folder));
        let all = programs("[0-9]*")?;
        Ok(own.intersection(&all).count())
    }
}

/// A number of an answer; 0 if it has none.
pub(super) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

/// The ids of the programs of processes with such an id, by their descriptors.
fn programs(pid: &str) -> Result<BTreeSet<String>> {
    let read = "2>/dev/null | sed -n 's/^prog_id:[[:space:]]*//p'";
    let script = format!("cat /proc/{pid}/fdinfo/* {read}");
    let said = shell::capture(shell::as_root("sh").args(["-c", &script]))?;
    Ok(said.lines().map(str::to_owned).collect())
}

fn configuration(course: Course, sink: &str) -> String {
    let (window, look) = (course.window.as_secs(), course.look.as_secs());
    format!(
        "window = \"{window}s\"\nlook = \"{look}s\"
[[service]]\nname = \"visitors\"\ncommand = \"*/visitor\"\nmode = \"growth\"
[[service]]\nname = \"redis\"\ncommand = \"*redis-server*\"
[[service]]\nname = \"postgres\"\ncommand = \"*postgres*\"
[[service]]\nname = \"nginx\"\ncommand = \"*nginx*\"
[[service]]\nname = \"java\"\njvm = true
[[push]]\nto = \"otlp-http\"\nurl = \"{sink}\"\n"
    )
}
