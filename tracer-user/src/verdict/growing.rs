//! What grows, by call path.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::change;
use super::curve::Curve;
use super::engine::{self, Heap};
use super::forecast;
use super::path;
use super::step::{self, Step};
use super::tree::{Branch, Node, nodes};
use super::uncollected;
use crate::model::life_table::{FAR, LifeTable, MOST};
use crate::model::{Finding, FindingKind, Frame, MemoryKind, Report, Site, Verdict};
use crate::report::brief::brief;
use crate::report::own::{down_to_caller, down_to_own, is_basic, warms_up};
use crate::report::{names, pool, units};

/// Sites that a finding lists at most.
pub const MAX_SITES: usize = 100;

/// What paths have in common of which nothing but the end is the same.
const UNKNOWN_CALLERS: &str = "code whose callers are not known";

/// A finding for each node of the call tree that grows, those that grow most first.
pub fn findings(report: &Report) -> Vec<Finding> {
    let mut trees: BTreeMap<(Verdict, usize, MemoryKind), Vec<usize>> = BTreeMap::new();
    let mut steps = Vec::new();
    let heaps = engine::heaps(report);
    for heap in &heaps {
        let first = &report.sites[heap.sites[0]];
        if let Some(verdict) = first.verdict.filter(|verdict| verdict.grows()) {
            steps.push(of_heap(report, verdict, heap));
        }
    }
    let of_heaps: HashSet<usize> = heaps.iter().flat_map(|it| &it.sites).copied().collect();
    for (index, site) in report.sites.iter().enumerate() {
        if let Some(verdict) = site.verdict.filter(|verdict| verdict.grows())
            && !of_heaps.contains(&index)
        {
            let tree = trees.entry((verdict, site.process, site.kind));
            tree.or_default().push(index);
        }
    }
    for ((verdict, ..), sites) in trees {
        let of_site = |at: &usize| {
            let frames = names::drawn_frames(&report.sites[*at]);
            (path::own(&frames), down_to_caller(&frames))
        };
        let labels: Vec<(Vec<String>, usize)> = sites.iter().map(of_site).collect();
        let branches = sites.iter().zip(&labels).map(|(site, (path, own))| Branch {
            path: path.iter().map(String::as_str).collect(),
            own: *own,
            cut: usize::from(report.sites[*site].stack_end.meaning().is_some()),
            weight: Growth::of(Cow::Borrowed(&report.sites[*site])).rate(report.duration),
            site: *site,
        });
        for node in nodes(branches.collect()) {
            steps.push(finding(report, verdict, &node));
        }
    }
    step::mark(steps)
}

/// What is live of a site, or of several together, over time: bytes, or blocks of what has
/// none.
struct Growth<'a> {
    sum: Cow<'a, Site>,
    curve: Curve,
    /// When it began, seconds from the run's start.
    since: f64,
}

impl<'a> Growth<'a> {
    fn of(sum: Cow<'a, Site>) -> Self {
        let curve = Curve::of(&sum.curve, sum.kind.is_memory());
        let began = change::began(&curve, sum.first_seen);
        Self {
            since: began.unwrap_or(sum.first_seen),
            curve,
            sum,
        }
    }

    /// By how much it grows, a second: the median slope of the last half, or of the time
    /// since it began, or the mean where it grows by jumps.
    fn rate(&self, duration: f64) -> f64 {
        let site = &self.sum;
        let span = (duration - self.since).max(f64::MIN_POSITIVE);
        let live = match site.kind.is_memory() {
            true => site.live_bytes as f64,
            false => site.live_count as f64,
        };
        let grows = match self.curve.slope(duration - span / 2.0) {
            slope if slope > 0.0 => slope,
            _ => live / span,
        };
        // Of what is mapped the part that is in memory.
        match site.resident_bytes {
            Some(resident) if live > 0.0 => grows * resident as f64 / live,
            _ => grows,
        }
    }
}

/// What a language's heap has taken, of all the paths that made it grow.
fn of_heap(report: &Report, verdict: Verdict, heap: &Heap) -> Step {
    let sites = heap.sites(report);
    let sites: Vec<&Site> = sites.iter().map(Cow::as_ref).collect();
    let mut step = of_sites(report, verdict, &sites, heap.name.to_owned());
    let finding = &mut step.finding;
    let rate = units::bytes_per_second(finding.bytes_per_second);
    finding.title = format!("memory for {} grows: {rate}/s", heap.name);
    finding.evidence.insert(
        0,
        match heap.about.collected {
            true => "what of it is garbage is not known from outside".to_owned(),
            false => "who makes it grow need not be who keeps its objects".to_owned(),
        },
    );
    finding.advice = heap.about.advice.to_owned();
    step
}

fn finding(report: &Report, verdict: Verdict, node: &Node) -> Step {
    let sites: Vec<&Site> = node.sites.iter().map(|at| &report.sites[*at]).collect();
    let function = culprit(sites[0], node.depth);
    let mut step = of_sites(report, verdict, &sites, function);
    if uncollected::may_be_garbage(sites[0]) {
        step.finding
            .evidence
            .insert(0, uncollected::NOTE.to_owned());
        let process = report.processes.get(step.finding.process);
        step.finding.advice = uncollected::advice(process.map_or(0, |it| it.pid));
    }
    if let Some(note) = pool::note(report, sites[0]) {
        step.finding.evidence.insert(0, note.text);
        if note.can_be_looked_into {
            "count the pool's objects: trace again with --pools"
                .clone_into(&mut step.finding.advice);
        }
    }
    step
}

/// A finding about sites, most of which is of the first.
fn of_sites(report: &Report, verdict: Verdict, sites: &[&Site], function: String) -> Step {
    let first = sites[0];
    let paths = sites.iter();
    let paths = paths.map(|site| path::labels(&names::drawn_frames(site)));
    let growth = Growth::of(Site::sum(sites));
    let rate = growth.rate(report.duration);
    let bytes_per_second = if first.kind.is_memory() { rate } else { 0.0 };
    let finding = Finding {
        kind: match verdict {
            Verdict::Leak => FindingKind::Leak,
            _ => FindingKind::Growing,
        },
        title: title(&brief(&function), first.kind, verdict, rate),
        function,
        process: first.process,
        path: path::common(paths),
        sites: sites.iter().map(|site| site.id).take(MAX_SITES).collect(),
        site_count: sites.len() as u64,
        in_step_with: None,
        bytes_per_second,
        live_bytes: growth.sum.held_bytes(),
        live_count: growth.sum.live_count,
        confidence: confidence(sites),
        since: growth.since,
        forecast: forecast::of(report, bytes_per_second),
        evidence: evidence(report, sites.len(), &growth),
        holders: None,
        advice: advice(report, verdict),
    };
    Step {
        finding,
        kind: first.kind,
        curve: growth.sum.curve.clone(),
    }
}

/// The mean of its sites' confidences, each by its part of what is live; of mappings of
/// which nothing is in memory, by their sizes.
fn confidence(sites: &[&Site]) -> f64 {
    let by_weight = |weight: fn(&Site) -> u64| {
        let each = sites
            .iter()
            .map(|site| (weight(site) as f64, site.confidence));
        let (all, sum) = each.fold((0.0, 0.0), |(all, sum), (weight, confidence)| {
            (all + weight, sum + weight * confidence.unwrap_or(0.0))
        });
        (all > 0.0).then(|| sum / all)
    };
    let held = by_weight(Site::held_bytes).or_else(|| by_weight(|site| site.live_bytes));
    held.or_else(|| by_weight(|site| site.live_count))
        .unwrap_or(0.0)
}

/// The deepest of the program's own functions that all sites have in common; any, if it
/// has none.
pub fn culprit(site: &Site, depth: usize) -> String {
    let frames = names::drawn_frames(site);
    if depth <= 1 && site.stack_end.meaning().is_some() {
        return UNKNOWN_CALLERS.to_owned();
    }
    let common = &frames[..depth.min(frames.len())];
    match down_to_own(common) {
        Some(length) => names::label(&common[length - 1]).into_owned(),
        None => runtimes(common),
    }
}

/// The deepest function that asks for memory for itself, of a path that is a runtime's own,
/// and its file.
fn runtimes(frames: &[Frame]) -> String {
    let asks = frames.iter().rev().find(|frame| !is_basic(frame));
    let Some(frame) = asks.or(frames.last()) else {
        return names::UNKNOWN.to_owned();
    };
    match &frame.module {
        // Code that is in no file has its place for a name.
        Some(module) if !module.starts_with('[') => format!(
            "{} ({})",
            names::label(frame),
            names::clean(names::base(module))
        ),
        _ => names::label(frame).into_owned(),
    }
}

fn title(who: &str, kind: MemoryKind, verdict: Verdict, rate: f64) -> String {
    let how = match (kind, verdict) {
        (MemoryKind::Thread, _) => {
            return format!(
                "{who} starts {} threads/s that do not end",
                units::per_second(rate)
            );
        }
        (MemoryKind::JniHandle, _) => {
            return format!(
                "{who} makes {} global handles/s that are not deleted",
                units::per_second(rate)
            );
        }
        (MemoryKind::Page, _) => "touches memory that stays",
        (MemoryKind::ThreadStack, _) => "starts threads whose stacks stay",
        (MemoryKind::Mapping | MemoryKind::FileMapping, _) => "maps memory that is not unmapped",
        (_, Verdict::Leak) => "allocates memory that is never freed",
        _ => "allocates more than is freed",
    };
    format!("{who} {how}: {}/s", units::bytes_per_second(rate))
}

/// What speaks for it, of so many call paths.
fn evidence(report: &Report, paths: usize, growth: &Growth<'_>) -> Vec<String> {
    let (site, curve) = (&growth.sum, &growth.curve);
    let mut said = Vec::new();
    if paths > 1 {
        said.push(format!(
            "{} have this in common",
            units::counted(paths as u64, "call path")
        ));
    }
    if growth.since > site.first_seen {
        said.push(format!(
            "it began to grow after {}: until then the same path did not",
            units::seconds(growth.since)
        ));
    }
    let fills = curve.rises() < 2 && site.resident_rises > 1;
    if fills {
        said.push(format!(
            "{} of it are in memory, and more at {} of {} looks",
            units::bytes(site.resident_bytes.unwrap_or(0)),
            site.resident_rises,
            site.resident_looks
        ));
    } else if curve.tells() {
        let looks = site.curve.len() - 1;
        said.push(format!(
            "more was live at {} of {} looks",
            curve.rises(),
            units::grouped(looks as u64)
        ));
    }
    let table = LifeTable::of(&site.lifetimes, &site.ages);
    match table.freed_by(MOST) {
        None if site.freed_count == 0 => said.push("nothing of it was freed".to_owned()),
        Some(usual) if usual.is_finite() => said.push(format!(
            "95 % of what was freed lived for less than {}, and {:.2} % of all blocks outlive that by far; the oldest is {} old",
            units::seconds(usual),
            100.0 * table.survival(FAR * usual),
            units::seconds(site.oldest_age.unwrap_or(0.0))
        )),
        _ => {}
    }
    if let Some(why) = warms_up(&site.frames) {
        said.push(why.to_owned());
    }
    let rest = report.duration - curve.rose_at();
    if curve.tells() && !fills && rest > 0.15 * report.duration {
        said.push(format!("it has not grown for {}", units::seconds(rest)));
    }
    said
}

fn advice(report: &Report, verdict: Verdict) -> String {
    match verdict {
        Verdict::Leak => String::new(),
        _ => trace_longer(report),
    }
}

/// What to do where time will tell.
pub fn trace_longer(report: &Report) -> String {
    let longer = (report.duration * 10.0).clamp(60.0, 600.0).round();
    format!("trace longer, with the same options and --duration {longer}s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Who happens to make a pool grow is blamed with that said beside it.
    #[test]
    fn a_pool_that_grows_says_so_and_how_to_see_more() {
        let mut report = sample::report();
        report.sites.truncate(1);
        let site = &mut report.sites[0];
        site.verdict = Some(Verdict::Leak);
        let below = site.frames.len() - 2;
        let found = |function: &str, report: &mut Report| {
            report.sites[0].frames[below].function = Some(function.into());
            let finding = findings(report).remove(0);
            (finding.evidence.join("; "), finding.advice)
        };
        let (said, advice) = found("apr_pool_create_ex", &mut report);
        assert!(said.starts_with("more memory for an APR pool"), "{said}");
        assert!(advice.contains("--pools"), "{advice}");
        let (said, advice) = found("MemoryContextAlloc", &mut report);
        assert!(
            said.starts_with("more memory for a memory context"),
            "{said}"
        );
        assert_eq!(advice, "");
        let (said, _) = found("keep", &mut report);
        assert!(!said.contains("more memory for"), "{said}");
    }
}
