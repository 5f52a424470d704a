//! One program of the suite in a mode, traced by itself.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::label::Label;
use super::live::Live;
use super::program::{Behaviour, Program};
use super::said::{Said, other_leaks};
use super::score::Outcome;
use crate::bench::looks;
use crate::bench::model::Report;
use crate::bench::modes::Mode;
use crate::bench::tracer::Tracer;
use crate::build::target_dir;
use crate::shell;

/// A program in a mode, and all that is judged in it.
pub(super) struct Run<'a> {
    pub(super) labels: Vec<&'a Label>,
    pub(super) program: &'a Program,
    pub(super) mode: Mode,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) outcomes: Vec<Outcome>,
    /// Labels that the program's own account contradicts, and why.
    pub(super) wrong_labels: Vec<String>,
    /// Leaks that were said of paths that are not judged, at the last look.
    pub(super) others: Vec<String>,
}

impl Run<'_> {
    pub(super) fn name(&self) -> String {
        self.labels
            .first()
            .map_or_else(String::new, |label| label.run())
    }

    /// Where its reports and its own account are kept.
    fn folder(&self) -> PathBuf {
        let name = self.name().replace(':', "-");
        let folder = format!("{name}-{}", self.mode.key());
        target_dir().join("bench/verdicts").join(folder)
    }

    /// Runs it. Only one is started at a time: that takes a processor.
    ///
    /// # Errors
    /// Fails if it or its tracer does.
    pub(super) fn measure(
        &self,
        unfreed: &Path,
        seconds: &[u64],
        starting: &Mutex<()>,
    ) -> Result<Found> {
        let folder = self.folder();
        // What an earlier run left.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (mut behaviour, tracer) = {
            let _alone = starting.lock().unwrap_or_else(PoisonError::into_inner);
            self.start(unfreed, seconds, &folder)?
        };
        behaviour.begin()?;
        let last = seconds.last().copied().context("no time to look at it")?;
        looks::each(&report_file(&folder), last, |file| keep(file, seconds))?;
        tracer.stop()?;
        tracer.rest()?;
        let lines = behaviour.end()?.join("\n");
        fs::write(folder.join("lines"), lines).context("cannot keep what it said")?;
        self.read(seconds)
    }

    fn start(&self, unfreed: &Path, seconds: &[u64], folder: &Path) -> Result<(Behaviour, Tracer)> {
        let label = self.labels.first().context("nothing is judged")?;
        let behaviour = Behaviour::start(self.program, &label.mode)?;
        let interval = format!("{}s", looks::interval(seconds));
        let file = report_file(folder);
        let mut arguments = vec![OsStr::new("--interval"), OsStr::new(&interval)];
        arguments.extend(self.mode.options().into_iter().flatten().map(OsStr::new));
        if label.is_class() {
            arguments.push(OsStr::new("--java-heap"));
        }
        arguments.extend([OsStr::new("-o"), file.as_os_str()]);
        let last = seconds.last().copied().unwrap_or(0);
        let lifetime = u32::try_from(last + looks::LATE)?;
        let tracer = Tracer::unfreed(unfreed, behaviour.pid(), lifetime, arguments)?;
        Ok((behaviour, tracer))
    }

    /// Has the reports judged once more, and reads them.
    ///
    /// # Errors
    /// Fails if there are none.
    pub(super) fn again(&self, unfreed: &Path, seconds: &[u64]) -> Result<Found> {
        for at in seconds {
            let file = look_file(&self.folder(), *at);
            judge_again(unfreed, &file).with_context(|| format!("of {}", self.name()))?;
        }
        self.read(seconds)
    }

    /// Compares what was said at each look with what was true.
    fn read(&self, seconds: &[u64]) -> Result<Found> {
        let folder = self.folder();
        let lines = fs::read_to_string(folder.join("lines")).context("there is no run")?;
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let mut found = Found::default();
        for at in seconds {
            let report = looks::read(&look_file(&folder, *at))?;
            for label in &self.labels {
                let live = Live::of(&lines, &label.judged);
                let outcome = outcome(&report, label, &live, *at)?;
                let began = looks::began(&report)?;
                let class = label.right(*at).first().copied().context("no class")?;
                let checked = live.check(class, label.bytes_per_second, began, report.duration);
                if let Err(error) = checked {
                    let name = label.name();
                    found
                        .wrong_labels
                        .push(format!("{name} after {at} s: {error:#}"));
                }
                found.outcomes.push(outcome);
            }
            found.others = other_leaks(&report, &self.labels);
        }
        Ok(found)
    }
}

fn outcome(report: &Report, label: &Label, live: &Live, at: u64) -> Result<Outcome> {
    Ok(Outcome {
        name: label.name(),
        kind: label.kind.clone(),
        half: label.half,
        at,
        right: label.right(at).to_vec(),
        said: Said::of(report, label),
        rate: live.rate(looks::began(report)?, report.duration),
    })
}

fn report_file(folder: &Path) -> PathBuf {
    folder.join("report.json")
}

fn look_file(folder: &Path, at: u64) -> PathBuf {
    folder.join(format!("{at}.json"))
}

/// Keeps a report if it is of a look's time.
fn keep(file: &Path, seconds: &[u64]) -> Result<(f64, ())> {
    let duration = looks::read(file)?.duration;
    if let Some(at) = seconds.iter().find(|at| looks::is_near(duration, **at)) {
        let folder = file.parent().context("it is in no folder")?;
        fs::copy(file, look_file(folder, *at)).context("cannot keep a report")?;
    }
    Ok((duration, ()))
}

/// Has a report judged anew, in its place.
fn judge_again(unfreed: &Path, file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).context("there is no report")?;
    let mut report: Value = serde_json::from_str(&text).context("the report is no JSON")?;
    if let Some(fields) = report.as_object_mut() {
        fields.remove("findings");
    }
    let bare = file.with_extension("bare.json");
    fs::write(&bare, report.to_string()).context("cannot write it")?;
    let mut command = Command::new(unfreed);
    command.arg("report").arg(&bare).arg("-o").arg(file);
    let status = command.stdout(Stdio::null()).status();
    let status = status.with_context(|| shell::cannot_run(&command))?;
    ensure!(status.success(), "unfreed report: {status}");
    fs::remove_file(&bare).context("cannot remove what was read")
}
