//! What tracing costs, measured and written into BENCHMARKS.md: a pair of
//! malloc and free beside others' tracers, taking a stack beside the kernel's
//! own, Java frames, a Java server, unwind tables, and the time until tracing
//! begins; and how exact what it says is. Every wait has an end, and every tracer ends by itself.

mod accuracy;
mod allocators;
mod document;
mod figures;
mod java;
mod kernel;
mod modes;
mod modules;
mod overhead;
mod pairs;
mod process;
mod sampler;
mod seen;
mod server;
mod services;
mod stacks;
mod start;
mod target;
mod tracer;

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::shell;

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
        }
    }

    /// Measures, and puts the figures into Markdown.
    fn measure(self, unfreed: &Path, against: Option<&Path>) -> Result<String> {
        match self {
            Self::Pairs => pairs::measure(unfreed, against),
            Self::Allocators => allocators::measure(unfreed, against),
            Self::Stacks => stacks::measure(unfreed),
            Self::Tables => modules::measure(unfreed),
            Self::Start => start::measure(unfreed),
            Self::Java => Ok(format!(
                "{}\n{}",
                java::measure(unfreed)?,
                server::measure(unfreed)?
            )),
            Self::Accuracy => accuracy::measure(unfreed),
            Self::Overhead => overhead::measure(unfreed),
            Self::Modes => modes::measure(unfreed),
            Self::Sampler => sampler::measure(unfreed),
        }
    }
}

/// Measures these parts, or all if none is named, beside an earlier `unfreed` if
/// there is one; prints the figures and,
/// when all are there, writes them into BENCHMARKS.md.
///
/// # Errors
/// Fails if something cannot be built, started, measured or written.
pub(crate) fn run(parts: &[Part], against: Option<&Path>) -> Result<()> {
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
    let mut measured = Vec::new();
    for part in parts {
        let machine = document::machine();
        let figures = part
            .measure(&unfreed, against)
            .with_context(|| format!("cannot measure {}", part.name()))?;
        println!("{figures}");
        measured.push((part.name(), format!("{machine}\n\n{figures}")));
    }
    document::update(&measured)?;
    shell::say("BENCHMARKS.md is up to date");
    Ok(())
}
