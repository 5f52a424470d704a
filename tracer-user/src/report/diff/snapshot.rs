//! One side of a comparison.

use std::path;
use std::sync::Arc;

use anyhow::Result;

use super::matching::{Builds, builds};
use crate::grouping::Groups;
use crate::model::sampling::rounded;
use crate::model::{Frame, Judgement, Loss, Report, Sampling, Site, Verdict};
use crate::report::flamegraph::Amount;
use crate::report::input::{self, Input};
use crate::report::{held_by, names, pprof, units};

/// What was live at the end of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The file.
    pub name: String,
    /// What is measured, `inuse_space` for memory.
    pub kind: String,
    /// Its unit, `bytes` for memory.
    pub unit: String,
    /// Whether blocks were counted; without, all counts are 0.
    pub counted: bool,
    /// How long was traced, seconds, if known.
    pub duration: Option<f64>,
    /// What a reader must know to trust the numbers: losses.
    pub notes: Vec<String>,
    /// The call paths.
    pub paths: Vec<Path>,
    /// The builds of its files, as far as they are known.
    pub builds: Builds,
}

/// What a run says of a call path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    /// Whether the run has the path, with something live or not.
    pub is_there: bool,
    /// What was said of it; of several sites the worst.
    pub judgement: Option<Judgement>,
    /// By how much it grew in the mean since it first allocated, bytes a second.
    pub rate: f64,
    /// The variance of that, if it is estimated.
    pub variance: f64,
    /// Blocks allocated; 0 if that is not known.
    pub allocated: u64,
    /// Who holds most of its blocks, if that was looked for and found.
    pub held: Option<String>,
}

impl Judged {
    /// Of a path that has something live for so long, seconds.
    fn new(judgement: Option<Judgement>, live: Amount, time: f64, allocated: u64) -> Self {
        let time = time.max(f64::MIN_POSITIVE);
        Self {
            is_there: true,
            judgement,
            rate: live.bytes as f64 / time,
            variance: live.variance / (time * time),
            allocated,
            held: None,
        }
    }

    /// Whether it grows.
    pub fn grows(&self) -> bool {
        self.judgement.is_some_and(|it| it.verdict.grows())
    }

    /// Whether it is known not to grow.
    pub fn is_calm(&self) -> bool {
        self.judgement.is_some_and(|it| !it.verdict.grows())
    }

    /// That of two sites of one path.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        if !self.is_there {
            return other.clone();
        }
        // What leaks is worse than what grows, and what is unknown than what does not.
        let badness = |it: &Self| match it.judgement {
            Some(it) if it.verdict == Verdict::Leak => (3, it.confidence),
            Some(it) if it.verdict == Verdict::Growing => (2, it.confidence),
            None => (1, 0.0),
            Some(it) => (0, -it.confidence),
        };
        let worse = match badness(&self) >= badness(other) {
            true => self.judgement,
            false => other.judgement,
        };
        Self {
            is_there: true,
            judgement: worse,
            rate: self.rate + other.rate,
            variance: self.variance + other.variance,
            allocated: self.allocated.saturating_add(other.allocated),
            held: self.held.filter(|held| other.held.as_ref() == Some(held)),
        }
    }
}

/// One call path of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Name of the process, if known.
    pub process: Option<String>,
    /// Root first.
    pub frames: Arc<[Frame]>,
    /// What it holds.
    pub live: Amount,
    /// What is said of it.
    pub judged: Judged,
}

impl Snapshot {
    /// Reads a JSON report or a pprof profile; `-` is standard input.
    ///
    /// # Errors
    /// See [`input::read`].
    pub fn read(path: &path::Path) -> Result<Self> {
        let name = input::name(path);
        Ok(match input::read(path)? {
            Input::Report(report) => Self::of_report(&name, *report),
            Input::Profile(profile) => Self::of_profile(&name, profile),
        })
    }

    /// The live memory of a report.
    pub fn of_report(name: &str, report: Report) -> Self {
        let sampled = report.sampling.as_ref().map(sampled);
        let notes = sampled
            .into_iter()
            .chain(report.occurred_losses().map(note))
            .collect();
        let processes = report.processes;
        let builds = builds(&report.modules);
        let end = report.duration;
        let path = |site: Site| Path {
            process: processes
                .get(site.process)
                .map(|process| process.name.clone()),
            live: Amount::live(&site),
            judged: judged(&site, end),
            frames: site.frames.into(),
        };
        let sites = report.sites.into_iter();
        let memory = sites.filter(|site| site.kind.is_memory());
        Self {
            name: name.into(),
            kind: pprof::INUSE_SPACE.into(),
            unit: "bytes".into(),
            counted: true,
            duration: Some(report.duration),
            notes,
            paths: memory.map(path).collect(),
            builds,
        }
    }

    /// The values of a profile.
    pub fn of_profile(name: &str, profile: pprof::Profile) -> Self {
        let time = profile.duration.unwrap_or(0.0);
        let path = |sample: pprof::Sample| {
            let live = Amount {
                variance: (sample.error as f64).powi(2),
                ..Amount::exact(sample.value, sample.count.unwrap_or(0))
            };
            // Without a duration there is no rate.
            let judgement = sample.judgement.filter(|_| time > 0.0);
            Path {
                process: sample.process,
                frames: sample.frames.into(),
                live,
                judged: Judged::new(judgement, live, time, 0),
            }
        };
        let lost = profile
            .comments
            .iter()
            .filter(|comment| NOTES.iter().any(|note| comment.starts_with(note)));
        Self {
            name: name.into(),
            notes: lost
                .map(|comment| names::clean(comment).into_owned())
                .collect(),
            kind: names::clean(&profile.kind).into_owned(),
            unit: names::clean(&profile.unit).into_owned(),
            counted: profile.samples.iter().all(|sample| sample.count.is_some()),
            duration: profile.duration,
            paths: profile.samples.into_iter().map(path).collect(),
            builds: Builds::new(),
        }
    }

    /// The frames of all call paths.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.paths.iter().flat_map(|path| &*path.frames)
    }

    /// Gives generated functions the names that they have in common.
    pub fn group(&mut self, groups: &mut Groups<'_>) {
        for path in &mut self.paths {
            let frames = Arc::make_mut(&mut path.frames);
            frames.iter_mut().for_each(|frame| groups.apply(frame));
        }
    }

    /// Whether anything was said of its call paths: not of a run of less than two seconds,
    /// nor of another tool's profile.
    pub fn is_judged(&self) -> bool {
        self.paths
            .iter()
            .any(|path| path.judged.judgement.is_some())
    }

    /// Everything that is live.
    pub fn total(&self) -> Amount {
        self.paths
            .iter()
            .fold(Amount::default(), |sum, path| sum.plus(path.live))
    }

    /// Whether processes of different names were traced.
    pub fn has_several_names(&self) -> bool {
        let mut names = self.paths.iter().map(|path| &path.process);
        let first = names.next();
        names.any(|name| Some(name) != first)
    }
}

/// Comments of profiles that a reader must know.
const NOTES: [&str; 2] = ["lost events", pprof::SAMPLED];

fn judged(site: &Site, end: f64) -> Judged {
    let confidence = site.confidence.unwrap_or(0.0);
    let judgement = site.verdict.map(|verdict| Judgement {
        verdict,
        confidence,
    });
    let live = Amount::live(site);
    let time = end - site.first_seen;
    Judged {
        held: site.holders.as_ref().and_then(held_by::mostly),
        ..Judged::new(judgement, live, time, site.allocated_count)
    }
}

fn sampled(sampling: &Sampling) -> String {
    format!(
        "estimates {}, of {}: ± {} in all, a standard error",
        sampling.how(),
        units::counted(sampling.errors.samples, "sampled block"),
        units::bytes(rounded(sampling.errors.live_bytes))
    )
}

fn note(loss: &Loss) -> String {
    format!(
        "lost events: {} × {}",
        units::grouped(loss.count),
        names::clean(&loss.cause)
    )
}
