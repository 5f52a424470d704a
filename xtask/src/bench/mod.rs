//! What tracing costs, measured and written into BENCHMARKS.md: a pair of
//! malloc and free beside others' tracers, taking a stack beside the kernel's
//! own, Java frames, a Java server, unwind tables, and the time until tracing
//! begins; and how exact what it says is. Every wait has an end, and every tracer ends by itself.

mod accuracy;
mod allocators;
mod answers;
mod choice;
mod document;
mod figures;
/// What tests know of the programs with labels.
#[path = "../../../tests/src/held_labels.rs"]
mod held_labels;
mod holders;
mod java;
mod kernel;
mod looks;
/// The report's schema, from the tracer itself: there is one definition.
#[path = "../../../tracer-user/src/model/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "of the tracer's own, some is used here"
)]
mod model;
mod modes;
mod modules;
mod overhead;
mod pairs;
mod process;
mod rounds;
mod sampler;
mod seen;
mod server;
mod service;
pub(crate) mod soak;
mod stacks;
mod start;
mod target;
mod tracer;
mod verdicts;

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::shell;
pub(crate) use choice::Choice;

/// Debian's: another that comes first by `PATH` may be a script.
const PYTHON: &str = "/usr/bin/python3";

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A pair of malloc and free
    Pairs,
    /// The same under other allocators
    Allocators,
    /// Taking a stack
    Stacks,
    /// Unwind tables
    Tables,
    /// From start to tracing on a JVM
    Start,
    /// Java frames, and a Java server
    Java,
    /// How exact and how whole the numbers are
    Accuracy,
    /// What tracing costs services, and what the report says of it
    Overhead,
    /// What each way to trace leaves of services' throughput
    Modes,
    /// A pair of malloc and free in a program with a sampler preloaded
    Sampler,
    /// How good the answers are after 10 s, 1 and 5 minutes
    Answers,
    /// How right verdicts are, on a suite of labelled programs
    Verdicts,
    /// How right `--holders` is, and what its search costs
    Holders,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Allocators => "allocators",
            Self::Stacks => "stacks",
            Self::Tables => "tables",
            Self::Start => "start",
            Self::Java => "java",
            Self::Accuracy => "accuracy",
            Self::Overhead => "overhead",
            Self::Modes => "modes",
            Self::Sampler => "sampler",
            Self::Answers => "answers",
            Self::Verdicts => "verdicts",
            Self::Holders => "holders",
        }
    }

    /// Measures, and puts the figures into Markdown.
    fn measure(self, unfreed: &Path, against: Option<&Path>, choice: &Choice) -> Result<String> {
        match self {
            Self::Pairs => pairs::measure(unfreed, against, choice),
            Self::Allocators => allocators::measure(unfreed, against, choice),
            Self::Stacks => stacks::measure(unfreed),
            Self::Tables => modules::measure(unfreed),
            Self::Start => start::measure(unfreed),
            Self::Java => Ok(format!(
                "{}\n{}",
                java::measure(unfreed)?,
                server::measure(unfreed)?
            )),
            Self::Accuracy => accuracy::measure(unfreed),
            Self::Overhead => Ok(overhead::measure(unfreed, choice)),
            Self::Modes => Ok(modes::measure(unfreed, against, choice)),
            Self::Sampler => sampler::measure(unfreed, choice),
            Self::Answers => Ok(answers::measure(unfreed, choice)),
            Self::Verdicts => verdicts::measure(unfreed, choice),
            Self::Holders => holders::measure(unfreed, choice),
        }
    }
}

/// Measures these parts, or all if none is named, beside an earlier `unfreed` if
/// there is one; prints the figures, and writes those of each part into BENCHMARKS.md as
/// soon as they are there, unless only some of them were chosen.
///
/// # Errors
/// Fails if something cannot be built, started, measured or written.
pub(crate) fn run(parts: &[Part], against: Option<&Path>, choice: &Choice) -> Result<()> {
    choice.check()?;
    setup::ensure(&[Group::Test, Group::Bench])?;
    let parts = match parts {
        [] => Part::value_variants(),
        _ => parts,
    };
    // What takes no time need not be quick.
    let profile = match parts {
        [Part::Accuracy] => Profile::Dev,
        _ => Profile::Release,
    };
    let unfreed = build::unfreed(profile)?;
    for part in parts {
        let machine = document::machine();
        let figures = part
            .measure(&unfreed, against, choice)
            .with_context(|| format!("cannot measure {}", part.name()))?;
        println!("{figures}");
        if choice.is_whole() {
            document::update(part.name(), &format!("{machine}\n\n{figures}"))?;
            shell::say(format!("BENCHMARKS.md: {} is up to date", part.name()));
        }
    }
    Ok(())
}
