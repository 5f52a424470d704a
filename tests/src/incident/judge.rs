//! Compares a report with what is true of an incident.

use std::fmt;

use super::trial::{Leaked, Variant};
use super::{Blocks, Incident, Native, classes};
use crate::model::{Frame, MemoryKind, Site};
use crate::report::View;

/// How much numbers may differ, and how much of a twin's may remain.
const TOLERANCE: f64 = 0.01;

/// How much of what leaks must have the whole Java path.
const WITH_PATH: f64 = 0.95;

/// A method that all incidents' stacks have, if stacks have Java methods.
const DRIVER: &str = "Rounds.asTold";

/// Whether one expectation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Holds,
    /// It does not, and how.
    Fails(String),
    /// The report cannot say yet, and why.
    NotJudged(String),
}

/// One expectation and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was expected.
    pub what: &'static str,
    /// Whether it holds.
    pub outcome: Outcome,
}

/// What all findings say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A leak that the report shows as it is.
    Diagnosed,
    /// A twin that the report shows nothing of.
    Quiet,
    /// A leak that the report does not show, or shows as something else.
    Missed,
    /// A twin of which the report says that it leaks.
    FalseAlarm,
    /// What can be judged is right, but not all can be.
    NotJudged,
}

impl Verdict {
    /// Of all findings about one trial.
    pub fn of(variant: Variant, findings: &[Finding]) -> Self {
        let any = |wanted: fn(&Outcome) -> bool| findings.iter().any(|one| wanted(&one.outcome));
        let fails = any(|outcome| matches!(outcome, Outcome::Fails(_)));
        let open = any(|outcome| matches!(outcome, Outcome::NotJudged(_)));
        match (variant, fails, open || findings.is_empty()) {
            (Variant::Leaking, true, _) => Self::Missed,
            (Variant::Healthy, true, _) => Self::FalseAlarm,
            (_, false, true) => Self::NotJudged,
            (Variant::Leaking, false, false) => Self::Diagnosed,
            (Variant::Healthy, false, false) => Self::Quiet,
        }
    }

    /// Whether the tracer was right in everything.
    pub fn is_right(self) -> bool {
        matches!(self, Self::Diagnosed | Self::Quiet)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Diagnosed => "diagnosed",
            Self::Quiet => "quiet",
            Self::Missed => "missed",
            Self::FalseAlarm => "false alarm",
            Self::NotJudged => "not judged",
        })
    }
}

/// Judges everything that is expected of an incident.
pub(super) fn judge(
    incident: &Incident,
    variant: Variant,
    view: &View,
    leaked: Leaked,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(native) = &incident.native {
        let sites = sites_of(native, view, leaked);
        match variant {
            Variant::Leaking => {
                findings.extend(leaking_native(native, view, &sites, leaked));
                findings.push(java_path(incident.path, view, &sites));
            }
            Variant::Healthy => findings.push(healthy_native(&sites)),
        }
    }
    if let Some(class) = incident.class {
        findings.extend(judge_class(class, incident, variant, view, leaked));
    }
    findings
}

fn judge_class(
    class: &str,
    incident: &Incident,
    variant: Variant,
    view: &View,
    leaked: Leaked,
) -> Vec<Finding> {
    const WHAT: &str = "class histograms";
    let Some(heap) = view.java_heap.first() else {
        return vec![finding(WHAT, Outcome::NotJudged("there are none".into()))];
    };
    if let Some(problem) = &heap.problem {
        return vec![finding(WHAT, Outcome::NotJudged(problem.clone()))];
    }
    match variant {
        Variant::Leaking => classes::leaking(class, incident, heap, leaked),
        Variant::Healthy => vec![classes::healthy(class, heap)],
    }
}

/// The heap sites of the leak, or of what would be one.
pub(super) fn sites_of<'a>(native: &Native, view: &'a View, leaked: Leaked) -> Vec<&'a Site> {
    let is_of_size = |site: &Site| match leaked.size {
        Some(size) if native.blocks == Blocks::OfKnownSize => {
            is_near(site.allocated_bytes, site.allocated_count * size)
        }
        _ => true,
    };
    heap(view)
        .filter(|site| has_path(site, native.frames) && is_of_size(site))
        .collect()
}

fn leaking_native(native: &Native, view: &View, sites: &[&Site], leaked: Leaked) -> Vec<Finding> {
    let count: u64 = sites.iter().map(|site| site.live_count).sum();
    let bytes: u64 = sites.iter().map(|site| site.live_bytes).sum();
    let is_right = match (native.blocks, leaked.size) {
        (Blocks::OfKnownSize, Some(size)) => {
            is_near(count, leaked.instances) && is_near(bytes, leaked.instances * size)
        }
        (Blocks::OfKnownSize, None) => false,
        (Blocks::SomeForEach, _) => {
            let each = (count + leaked.instances / 2) / leaked.instances.max(1);
            each > 0 && is_near(count, leaked.instances * each)
        }
    };
    let first = heap(view).max_by_key(|site| site.live_bytes);
    let is_first = first.is_some_and(|first| sites.iter().any(|site| site.id == first.id));
    let mut findings = vec![
        check("live blocks", is_right, || {
            format!("{count} of {bytes} bytes, really {leaked:?}")
        }),
        check("first in the table", is_first, || {
            first.map_or_else(|| "the table is empty".to_owned(), describe)
        }),
    ];
    if let Some(path) = native.freed {
        findings.push(freed_neighbour(path, view));
    }
    findings
}

fn freed_neighbour(path: &[&str], view: &View) -> Finding {
    let sites: Vec<&Site> = heap(view).filter(|site| has_path(site, path)).collect();
    let allocated: u64 = sites.iter().map(|site| site.allocated_count).sum();
    check(
        "a neighbour is freed",
        allocated > 0 && remains_little(&sites),
        || format!("{allocated} allocated, live in {} sites", sites.len()),
    )
}

fn healthy_native(sites: &[&Site]) -> Finding {
    check("no live blocks", remains_little(sites), || {
        let live: u64 = sites.iter().map(|site| site.live_count).sum();
        format!("{live} blocks are live")
    })
}

/// Whether nearly all of what leaked has the Java methods on its path.
fn java_path(path: &[&str], view: &View, sites: &[&Site]) -> Finding {
    const WHAT: &str = "Java path";
    let has_methods = view.sites.iter().any(|site| has_path(site, &[DRIVER]));
    if !has_methods {
        return finding(WHAT, Outcome::NotJudged("no Java frames in stacks".into()));
    }
    let live = |sites: &mut dyn Iterator<Item = &&Site>| -> u64 {
        sites.map(|site| site.live_bytes).sum()
    };
    let all = live(&mut sites.iter());
    let with_path = live(&mut sites.iter().filter(|site| has_path(site, path)));
    check(
        WHAT,
        as_float(with_path) >= WITH_PATH * as_float(all),
        || {
            let other = sites.iter().find(|site| !has_path(site, path));
            let other = other.map_or_else(String::new, |site| describe(site));
            format!("{with_path} of {all} bytes have it; not {other}")
        },
    )
}

fn heap(view: &View) -> impl Iterator<Item = &Site> {
    view.sites
        .iter()
        .filter(|site| site.kind == MemoryKind::Heap)
}

/// Whether the frames of a site have those of a path, in that order.
fn has_path(site: &Site, path: &[&str]) -> bool {
    passes(&site.frames, path)
}

pub(super) fn passes(frames: &[Frame], path: &[&str]) -> bool {
    let mut frames = frames.iter();
    path.iter()
        .all(|wanted| frames.any(|frame| is_called(frame, wanted)))
}

/// Whether a frame's name without parameters ends with all parts of `wanted`:
/// `incidents.ScopeChain$Record.value(int)` is called `Record.value`.
fn is_called(frame: &Frame, wanted: &str) -> bool {
    let Some(name) = frame.function.as_deref() else {
        return false;
    };
    let name = name.split('(').next().unwrap_or(name);
    let parts = |name: &'_ str| -> Vec<String> {
        name.split([':', '.', '/', '$'])
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    parts(name).ends_with(&parts(wanted))
}

/// A site's innermost function that is no allocator's, and the innermost method
/// of the program.
pub(super) fn describe(site: &Site) -> String {
    let names: Vec<&str> = site
        .frames
        .iter()
        .rev()
        .filter_map(|frame| {
            let name = frame.function.as_deref()?;
            Some(name.split('(').next().unwrap_or(name))
        })
        .filter(|name| !name.ends_with("alloc"))
        .collect();
    let own = names.iter().find(|name| name.starts_with("incidents."));
    match (names.first(), own) {
        (Some(first), Some(own)) if first != own => format!("{first} < .. < {own}"),
        (Some(first), _) => (*first).to_owned(),
        (None, _) => "no names".to_owned(),
    }
}

fn remains_little(sites: &[&Site]) -> bool {
    let live: u64 = sites.iter().map(|site| site.live_count).sum();
    let allocated: u64 = sites.iter().map(|site| site.allocated_count).sum();
    as_float(live) <= TOLERANCE * as_float(allocated)
}

pub(super) fn is_near(found: u64, really: u64) -> bool {
    as_float(found.abs_diff(really)) <= TOLERANCE * as_float(really)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_float(number: u64) -> f64 {
    number as f64
}

pub(super) fn check(what: &'static str, holds: bool, how: impl FnOnce() -> String) -> Finding {
    let outcome = match holds {
        true => Outcome::Holds,
        false => Outcome::Fails(how()),
    };
    finding(what, outcome)
}

pub(super) fn finding(what: &'static str, outcome: Outcome) -> Finding {
    Finding { what, outcome }
}

#[cfg(test)]
mod tests;
