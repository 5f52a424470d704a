//! What each way to trace leaves of a service: the same load without a tracer and with one,
//! in turns, and what the tracer itself takes meanwhile.

mod beside;
mod table;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(super) use self::beside::{Beside, Watch};
use super::choice::Choice;
use super::service::{Kind, Launch, Load, Service};
use super::tracer::Tracer;
use super::{rounds, seen};
use crate::shell;

/// Rounds, each without a tracer and with one of each kind.
const ROUNDS: usize = 5;

/// How long a load is: of a service, and of a loop.
const TIME: Duration = Duration::from_secs(3);
const LOOP_TIME: Duration = Duration::from_secs(1);

/// The same with a budget, which is kept over a while: it begins with a load that rises
/// from nothing.
const BUDGET_TIME: Duration = Duration::from_secs(10);
const BUDGET_LOOP_TIME: Duration = Duration::from_secs(5);

/// How long a tracer is there, seconds: longer than the load.
const TRACED: u32 = 120;

/// A way to trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Exact,
    /// Exact, by an earlier `unfreed`.
    Earlier,
    Sample,
    Overhead,
    Growth,
    Sampler,
    Heaptrack,
}

impl Round {
    /// What a mode is compared with.
    fn without(&self, mode: Mode) -> Load {
        match mode.options() {
            Some(_) => self.plain,
            None => self.fresh.unwrap_or(self.plain),
        }
    }
}

impl Mode {
    /// All that one version has.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [
            Self::Exact,
            Self::Sample,
            Self::Overhead,
            Self::Growth,
            Self::Sampler,
            Self::Heaptrack,
        ]
        .into_iter()
    }

    /// Its name on the command line.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Earlier => "earlier",
            Self::Sample => "sample",
            Self::Overhead => "overhead",
            Self::Growth => "growth",
            Self::Sampler => "sampler",
            Self::Heaptrack => "heaptrack",
        }
    }

    /// Its name in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Earlier => "exact, earlier version",
            Self::Sample => "`--sample 512k`",
            Self::Overhead => "`--overhead 1%`",
            Self::Growth => "`--growth`",
            Self::Sampler => "`run --sampler`",
            Self::Heaptrack => "heaptrack",
        }
    }

    /// How `unfreed record` is told; `None` if the service is started under it.
    pub(super) const fn options(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Exact | Self::Earlier => Some(&[]),
            Self::Sample => Some(&["--sample", "512k"]),
            Self::Overhead => Some(&["--overhead", "1%"]),
            Self::Growth => Some(&["--growth"]),
            Self::Sampler | Self::Heaptrack => None,
        }
    }

    const fn time(self, kind: Kind) -> Duration {
        match (self, kind.is_loop()) {
            (Self::Overhead, false) => BUDGET_TIME,
            (Self::Overhead, true) => BUDGET_LOOP_TIME,
            _ => time(kind),
        }
    }
}

/// What a service did with a tracer, and what the tracer took.
#[derive(Debug, Clone, Copy)]
struct Traced {
    load: Load,
    beside: Beside,
}

/// A service without a tracer, and with one of each kind, or why that failed.
struct Round {
    plain: Load,
    /// The same of one that was started anew, as it is for some modes: what a virtual
    /// machine has compiled until then is not what a long run leaves.
    fresh: Option<Load>,
    traced: Vec<(Mode, Result<Traced, String>)>,
}

/// Measures all, and makes the tables. What fails has the reason in its place.
pub(super) fn measure(unfreed: &Path, against: Option<&Path>, choice: &Choice) -> String {
    let earlier = against.map(|_| Mode::Earlier);
    let modes: Vec<_> = Mode::all()
        .filter(|mode| choice.has_mode(mode.key()))
        .chain(earlier)
        .collect();
    // It is measured by `overhead`; here it would take long and tell little.
    let kinds = Kind::all().filter(|kind| *kind != Kind::Returns);
    let measured = rounds::of_services("modes", kinds, choice, ROUNDS, |kind, service| {
        round((unfreed, against), kind, service, &modes)
    });
    table::all(choice.rounds(ROUNDS), &modes, &measured)
}

fn round(
    (unfreed, against): (&Path, Option<&Path>),
    kind: Kind,
    service: &mut dyn Service,
    modes: &[Mode],
) -> Result<Round> {
    let plain = service.load(time(kind))?;
    let starts = modes.iter().any(|mode| mode.options().is_none());
    let fresh = match starts {
        true => Some(load_started(kind, time(kind), &Launch::Plain)?.load),
        false => None,
    };
    let mut traced = Vec::new();
    for mode in modes {
        let unfreed = match mode {
            Mode::Earlier => against.unwrap_or(unfreed),
            _ => unfreed,
        };
        let one = match mode.options() {
            Some(options) => attached(unfreed, service, options, mode.time(kind)),
            None => started(unfreed, kind, *mode),
        };
        if let Err(error) = &one {
            shell::say(format!("modes: {}, {}: {error:#}", kind.name(), mode.key()));
        }
        traced.push((*mode, one.map_err(|error| format!("{error:#}"))));
    }
    Ok(Round {
        plain,
        fresh,
        traced,
    })
}

/// How long a load is.
const fn time(kind: Kind) -> Duration {
    match kind.is_loop() {
        true => LOOP_TIME,
        false => TIME,
    }
}

/// With `unfreed record`, which is there before the load.
fn attached(
    unfreed: &Path,
    service: &mut dyn Service,
    options: &[&str],
    time: Duration,
) -> Result<Traced> {
    let file = seen::new_file("modes.json")?;
    let output = [OsStr::new("-o"), file.as_os_str()];
    let arguments = service.options().iter().chain(options).map(OsStr::new);
    let pid = service.pid();
    let tracer = Tracer::unfreed(unfreed, &pid, TRACED, arguments.chain(output))?;
    let watch = Watch::begin(&tracer.pid(), None);
    let load = service.load(time)?;
    let beside = watch.end()?;
    tracer.stop()?;
    let report = seen::report(tracer, &file)?;
    Ok(Traced {
        load,
        beside: beside.with_kernel(&report),
    })
}

/// Started with a sampler in it, or under heaptrack.
fn started(unfreed: &Path, kind: Kind, mode: Mode) -> Result<Traced> {
    let file = seen::new_file("modes.json")?;
    let data = std::env::temp_dir().join(format!("unfreed-bench-heaptrack-{}", std::process::id()));
    let options = [OsStr::new("-o"), file.as_os_str()];
    let launch = match mode {
        Mode::Heaptrack => Launch::Heaptrack { data: &data },
        _ => Launch::Sampler {
            unfreed,
            options: &options,
        },
    };
    let measured = load_started(kind, mode.time(kind), &launch);
    if mode == Mode::Heaptrack {
        // It adds what it packs with.
        for end in ["zst", "gz"] {
            let _ = std::fs::remove_file(data.with_extension(end));
        }
        return measured;
    }
    let measured = measured?;
    let report = seen::read(&file)?;
    ensure!(
        is_sampled(&report),
        "the process told of no samples: it has no sampler"
    );
    Ok(Traced {
        beside: measured.beside.with_kernel(&report),
        ..measured
    })
}

fn load_started(kind: Kind, time: Duration, launch: &Launch<'_>) -> Result<Traced> {
    let mut service = kind.start(launch).context("it does not start")?;
    service.load(service.warm_up())?;
    let watch = Watch::begin(&service.root(), Some(service.pid()));
    let load = service.load(time)?;
    let beside = watch.end()?;
    Ok(Traced { load, beside })
}

/// Whether samples came from a process.
fn is_sampled(report: &Value) -> bool {
    let processes = report["processes"].as_array().into_iter().flatten();
    let mut samples = processes.filter_map(|process| process["sampler"]["samples"].as_u64());
    samples.any(|samples| samples > 0)
}
