//! One incident, or its twin, on one runtime, under the tracer.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::judge::{Evidence, Finding, Outcome, Verdict, describe, judge, sites_of};
use super::{Incident, heap};
use crate::jdk::{Jdk, class_path};
use crate::target::Target;
use crate::{Tracer, targets, unfreed};

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
        let mut program = Program::start(jdk, incident, variant)?;
        // Loads and compiles what there is to be compiled.
        program.rounds(incident.rounds)?;
        program.collect()?;
        let before = program.rounds(incident.rounds)?;
        let known = program.truth()?;

        let start = Instant::now();
        let options: &[&str] = match incident.class.is_some() && knows_java_heap()? {
            true => &["--java-heap"],
            false => &[],
        };
        let tracer = Tracer::record(program.target.pid, options)?;
        let traced = program.rounds(incident.rounds)?;
        program.collect()?;
        let finished = tracer.stop()?;
        let view = finished.report()?;
        let seconds = start.elapsed().as_secs_f64();

        let truth = program.truth()?;
        let leaked = truth.since(known);
        ensure!(
            (leaked.instances > 0) == (variant == Variant::Leaking),
            "the program itself tells of {leaked:?}"
        );
        let after = program.rounds(incident.rounds)?;
        let report = fs::read_to_string(finished.json()).context("the report")?;
        let evidence = Evidence {
            view,
            java_heap: heap::read(&report)?,
        };
        let findings = judge(incident, variant, &evidence, leaked);
        let verdict = Verdict::of(variant, &findings);
        let untraced = before.min(after);
        Ok(Self {
            named: match verdict {
                Verdict::Quiet => String::new(),
                _ => named(incident, &evidence, leaked),
            },
            verdict,
            findings,
            seconds,
            round: untraced / f64::from(incident.rounds),
            overhead: traced / untraced,
        })
    }
}

impl Trial {
    /// Whether every expectation could be judged.
    pub fn is_whole(&self) -> bool {
        let is_open = |finding: &Finding| matches!(finding.outcome, Outcome::NotJudged(_));
        !self.findings.iter().any(is_open)
    }
}

/// The running program.
struct Program {
    target: Target,
}

impl Program {
    fn start(jdk: &Jdk, incident: &Incident, variant: Variant) -> Result<Self> {
        let (agent, arguments): (_, &[&str]) = match variant {
            Variant::Leaking => ("boot-agent.jar", &[]),
            Variant::Healthy => ("boot-agent-healthy.jar", &["healthy"]),
        };
        let agent = format!("-javaagent:{}", class_path()?.join(agent).display());
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

    /// Lets it work, and returns how long it took, seconds.
    fn rounds(&mut self, count: u32) -> Result<f64> {
        let start = Instant::now();
        self.target.ask(&format!("round {count}"), "done ")?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Lets it collect garbage, so that what is live is what is held.
    fn collect(&mut self) -> Result<()> {
        self.target.ask("gc", "done ").map(drop)
    }

    fn truth(&mut self) -> Result<Leaked> {
        Leaked::parse(&self.target.ask("truth", "truth ")?)
    }
}

impl Leaked {
    /// What has been added to what was known.
    fn since(self, known: Self) -> Self {
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

/// What the report names: the leak's most bytes, and the class if it grows.
fn named(incident: &Incident, evidence: &Evidence, leaked: Leaked) -> String {
    let native = incident.native.as_ref().and_then(|native| {
        let sites = sites_of(native, &evidence.view, leaked);
        let most = sites.into_iter().max_by_key(|site| site.live_bytes)?;
        (most.live_bytes > 0).then(|| describe(most))
    });
    let class = incident.class.filter(|name| {
        let classes = evidence.java_heap.iter().flat_map(|heap| &heap.classes);
        classes
            .into_iter()
            .any(|class| class.is(name) && class.grows)
    });
    let named: Vec<String> = class.map(str::to_owned).into_iter().chain(native).collect();
    named.join("; ")
}

/// Whether this tracer looks into the Java heap.
fn knows_java_heap() -> Result<bool> {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    if let Some(knows) = KNOWS.get() {
        return Ok(*knows);
    }
    let help = unfreed(&["record", "--help"])?.stdout;
    Ok(*KNOWS.get_or_init(|| help.contains("--java-heap")))
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
