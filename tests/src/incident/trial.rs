//! One incident, or its twin, on one runtime, under the tracer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::judge::{Finding, Verdict, describe, is_near, judge, sites_of};
use super::{Incident, classes};
use crate::jdk::Jdk;
use crate::model::{GrowthVerdict, Report};
use crate::report::View;
use crate::target::Target;
use crate::{Finished, Tracer, deadline, targets};

/// Histograms after collections that a trial waits for: one more than the
/// tracer needs to tell whether a class grows.
const FLOORS: usize = 8;
/// How often the tracer writes a report, in which they are counted.
const INTERVAL: &str = "2s";
/// Into how many parts the rounds of an incident are divided. As many are done
/// as it takes.
const PARTS: u32 = 60;
/// How many of them are done without the tracer, before and after.
const UNTRACED: u32 = 5;
/// How long the program rests after a part. The fewer objects it makes, the
/// sooner they are counted, and the sooner the tracer counts again.
const PAUSE: Duration = Duration::from_millis(250);

/// With the bug or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The incident.
    Leaking,
    /// Its twin.
    Healthy,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Leaking, Self::Healthy];
}

/// What a trial found.
#[derive(Debug)]
pub struct Trial {
    /// Each expectation, and whether it holds.
    pub findings: Vec<Finding>,
    /// What they say together.
    pub verdict: Verdict,
    /// What the report names: the class, or the innermost functions. Nothing if
    /// it is quiet.
    pub named: String,
    /// From the tracer's start to its report, the rounds in between, seconds.
    pub seconds: f64,
    /// How long a round took without the tracer, seconds.
    pub round: f64,
    /// How long the rounds took under the tracer, by how long without it. Of a
    /// program that does little besides allocating, it says little of others.
    pub overhead: f64,
}

/// What is held that should not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Leaked {
    /// Objects or blocks.
    pub(super) instances: u64,
    /// Bytes of each, if the program knows.
    pub(super) size: Option<u64>,
}

impl Trial {
    /// Runs one: rounds without the tracer, rounds with it, and again without.
    ///
    /// # Errors
    /// The program or the tracer failed.
    pub fn run(jdk: &Jdk, incident: &Incident, variant: Variant) -> Result<Self> {
        let incident = &match jdk.is_stripped() {
            true => incident.stripped(),
            false => *incident,
        };
        let mut program = Program::start(jdk, incident, variant)?;
        // Loads and compiles what there is to be compiled.
        program.rounds(incident.rounds)?;
        let before = program.untraced(incident)?;
        program.collect()?;
        let known = program.truth()?;

        let start = Instant::now();
        let (traced, finished) = match incident.class.is_some() {
            true => program.traced_over_time(incident)?,
            false => program.traced(incident)?,
        };
        let view = finished.report()?;
        let seconds = start.elapsed().as_secs_f64();

        let truth = program.truth()?;
        let leaked = truth.since(known);
        ensure!(
            (leaked.instances > 0) == (variant == Variant::Leaking),
            "the program itself tells of {leaked:?}"
        );
        let after = program.untraced(incident)?;
        let findings = judge(incident, variant, &view, leaked);
        let verdict = Verdict::of(variant, &findings);
        let untraced = before.min(after);
        Ok(Self {
            named: match verdict {
                Verdict::Quiet => String::new(),
                _ => named(incident, &view, leaked),
            },
            verdict,
            findings,
            seconds,
            round: untraced,
            overhead: traced / untraced,
        })
    }
}

/// The running program.
pub(super) struct Program {
    pub(super) target: Target,
}

impl Program {
    pub(super) fn start(jdk: &Jdk, incident: &Incident, variant: Variant) -> Result<Self> {
        let (agent, arguments): (_, &[&str]) = match variant {
            Variant::Leaking => ("boot-agent.jar", &[]),
            Variant::Healthy => ("boot-agent-healthy.jar", &["healthy"]),
        };
        let agent = format!("-javaagent:{}", jdk.class_path()?.join(agent).display());
        let libraries = format!("-Djava.library.path={}", targets().display());
        let mut options = vec![libraries.as_str()];
        if incident.name == "BootLoaderAgent" {
            options.push(&agent);
        }
        if jdk.major >= 24 {
            // Not to be warned of what is meant.
            options.push("--enable-native-access=ALL-UNNAMED");
            options.push("--sun-misc-unsafe-memory-access=allow");
        }
        let class = format!("incidents.{}", incident.name);
        Ok(Self {
            target: jdk.start(&options, &class, arguments)?,
        })
    }

    /// Lets it work, and returns how long a round took, seconds.
    pub(super) fn rounds(&mut self, count: u32) -> Result<f64> {
        let start = Instant::now();
        self.target.ask(&format!("round {count}"), "done ")?;
        Ok(start.elapsed().as_secs_f64() / f64::from(count))
    }

    /// All rounds at once under the tracer, and how long one took.
    fn traced(&mut self, incident: &Incident) -> Result<(f64, Finished)> {
        let tracer = Tracer::record(self.target.pid, &[])?;
        let round = self.rounds(incident.rounds)?;
        self.collect()?;
        Ok((round, tracer.stop()?))
    }

    /// Parts of the rounds, each with a collection after it, until the tracer
    /// has seen enough or the time for that is over.
    fn traced_over_time(&mut self, incident: &Incident) -> Result<(f64, Finished)> {
        let options = ["--java-heap", "--holders", "--interval", INTERVAL];
        let tracer = Tracer::record(self.target.pid, &options)?;
        let written = tracer.folder().join("report.json");
        let end = Instant::now() + deadline();
        let (mut parts, mut rounds) = (0, 0.0);
        while !has_seen_enough(&written, incident) && Instant::now() < end {
            rounds += self.part(incident)?;
            parts += 1;
        }
        Ok((rounds / f64::from(parts), tracer.stop()?))
    }

    /// How long a round takes without the tracer, done as with it.
    fn untraced(&mut self, incident: &Incident) -> Result<f64> {
        if incident.class.is_none() {
            return self.rounds(incident.rounds);
        }
        let mut rounds = 0.0;
        for _ in 0..UNTRACED {
            rounds += self.part(incident)?;
        }
        Ok(rounds / f64::from(UNTRACED))
    }

    /// A part of the rounds and a collection, and how long a round took.
    fn part(&mut self, incident: &Incident) -> Result<f64> {
        let round = self.rounds(incident.rounds / PARTS)?;
        self.collect()?;
        sleep(PAUSE);
        Ok(round)
    }

    /// Lets it collect garbage, so that what is live is what is held.
    pub(super) fn collect(&mut self) -> Result<()> {
        self.target.ask("gc", "done ").map(drop)
    }

    pub(super) fn truth(&mut self) -> Result<Leaked> {
        Leaked::parse(&self.target.ask("truth", "truth ")?)
    }
}

impl Leaked {
    /// Whether that many objects are about those that are held.
    pub(super) fn is_near(self, instances: u64) -> bool {
        is_near(instances, self.instances)
    }

    /// What has been added to what was known.
    pub(super) fn since(self, known: Self) -> Self {
        Self {
            instances: self.instances.saturating_sub(known.instances),
            ..self
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let values: BTreeMap<&str, u64> = text
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| Ok((key, value.parse()?)))
            .collect::<Result<_>>()
            .with_context(|| format!("the truth {text:?}"))?;
        Ok(Self {
            instances: *values
                .get("instances")
                .with_context(|| format!("no instances in {text:?}"))?,
            size: values.get("size").copied(),
        })
    }
}

/// Whether the report that was written last has enough to be judged.
fn has_seen_enough(written: &Path, incident: &Incident) -> bool {
    let text = fs::read(written).unwrap_or_default();
    let report: Option<Report> = serde_json::from_slice(&text).ok();
    let heap = report.and_then(|report| report.java_heap.into_iter().next());
    heap.is_some_and(|heap| {
        classes::floors(&heap) >= FLOORS && !classes::lacks_samples(&heap, incident)
    })
}

/// What the report names: the class if it grows, and the leak's most bytes.
fn named(incident: &Incident, view: &View, leaked: Leaked) -> String {
    let native = incident.native.as_ref().and_then(|native| {
        let sites = sites_of(native, view, leaked);
        let most = sites.into_iter().max_by_key(|site| site.live_bytes)?;
        (most.live_bytes > 0).then(|| describe(most))
    });
    let class = incident.class.filter(|name| {
        let mut classes = view.java_heap.iter().flat_map(|heap| &heap.classes);
        classes.any(|class| class.class == *name && class.verdict == GrowthVerdict::Grows)
    });
    let named: Vec<String> = class.map(str::to_owned).into_iter().chain(native).collect();
    named.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truth_has_instances_and_perhaps_a_size() {
        let leaked = Leaked::parse("instances=7 size=11 bytes=77").unwrap();
        assert_eq!((leaked.instances, leaked.size), (7, Some(11)));
        assert_eq!(Leaked::parse("instances=7").unwrap().size, None);
        assert!(Leaked::parse("size=7").is_err());
        assert!(Leaked::parse("instances=x").is_err());
    }
}
