//! What the difference of two runs says: what is new, what got faster or slower, and what
//! stopped. By call path, as far down as functions are the program's own, so that a change
//! that is spread over many leaves is one.

use std::collections::BTreeMap;

use super::path;
use super::tree::{Branch, Node, nodes};
use crate::model::Verdict;
use crate::report::brief::brief;
use crate::report::diff::{Change, Diff, DiffFinding, DiffKind, Judged, Snapshot};
use crate::report::own::own_part;
use crate::report::text::SHORTEST;
use crate::report::{names, units};

/// So many times as fast is a change; less may be another load.
const FASTER: f64 = 1.5;
/// A difference of so many standard errors is no chance.
const NO_CHANCE: f64 = 1.96;
/// How sure it is that what is not there any more stopped: its path may not have been taken.
const NOT_THERE: f64 = 0.5;

/// The findings of a difference: what got worse first, then most bytes a second first.
pub fn compared(diff: &Diff) -> Vec<DiffFinding> {
    let mut trees: BTreeMap<(DiffKind, Option<&str>), Vec<&Change>> = BTreeMap::new();
    for change in &diff.changes {
        if let Some(kind) = kind(diff, change) {
            let tree = trees.entry((kind, change.process.as_deref()));
            tree.or_default().push(change);
        }
    }
    let mut findings = Vec::new();
    for ((kind, _), changes) in trees {
        let paths: Vec<Vec<String>> = changes.iter().map(|it| path::own(&it.frames)).collect();
        let branches = changes.iter().zip(&paths).enumerate();
        let branches = branches.map(|(site, (change, path))| Branch {
            own: 0,
            cut: 0,
            path: path.iter().map(String::as_str).collect(),
            weight: by_how_much(change),
            site,
        });
        for node in nodes(branches.collect()) {
            findings.push(finding(diff, kind, &node, &changes));
        }
    }
    let weight = |it: &DiffFinding| {
        let change = (it.after_bytes_per_second - it.before_bytes_per_second).abs();
        (it.kind.is_worse(), it.confidence * change)
    };
    findings.sort_by(|a, b| {
        let (a, b) = (weight(a), weight(b));
        b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    findings
}

/// What has changed on a path, as far as both runs can tell.
fn kind(diff: &Diff, change: &Change) -> Option<DiffKind> {
    let [before, after] = &change.judged;
    match (before.grows(), after.grows()) {
        (true, true) => pace(before, after).or_else(|| {
            let has_changed = holders(before, after).is_some();
            has_changed.then_some(DiffKind::Held)
        }),
        (false, true) => (before.is_calm() || !before.is_there).then_some(DiffKind::New),
        (true, false) => {
            let is_over = !after.is_there && is_long(&diff.after);
            (after.is_calm() || is_over).then_some(DiffKind::Stopped)
        }
        (false, false) => None,
    }
}

/// Whether a run was long enough to miss something in it.
fn is_long(run: &Snapshot) -> bool {
    run.duration.is_some_and(|duration| duration >= SHORTEST)
}

/// Who held what a path has, and who does now, if both are known and differ.
fn holders<'a>(before: &'a Judged, after: &'a Judged) -> Option<(&'a str, &'a str)> {
    let held = before.held.as_deref().zip(after.held.as_deref());
    held.filter(|(was, is)| was != is)
}

fn pace(before: &Judged, after: &Judged) -> Option<DiffKind> {
    let error = (before.variance + after.variance).sqrt();
    if (after.rate - before.rate).abs() < NO_CHANCE * error {
        return None;
    }
    match () {
        () if after.rate >= FASTER * before.rate => Some(DiffKind::Faster),
        () if before.rate >= FASTER * after.rate => Some(DiffKind::Slower),
        () => None,
    }
}

/// By how many bytes a second it grows in a run; what does not grow does by none.
fn rate(judged: &Judged) -> f64 {
    if judged.grows() { judged.rate } else { 0.0 }
}

fn by_how_much(change: &Change) -> f64 {
    let [before, after] = &change.judged;
    (rate(after) - rate(before)).abs()
}

fn finding(diff: &Diff, kind: DiffKind, node: &Node, all: &[&Change]) -> DiffFinding {
    let changes: Vec<&Change> = node.sites.iter().map(|at| all[*at]).collect();
    let first = changes[0];
    let [before, after] = &first.judged;
    let rates = |side: usize| changes.iter().map(|it| rate(&it.judged[side])).sum::<f64>();
    let live = |of: fn(&Change) -> u64| {
        let values = changes.iter().map(|change| of(change));
        values.fold(0_u64, u64::saturating_add)
    };
    let (was, is) = (rates(0), rates(1));
    let verdict = |judged: &Judged| judged.judgement.map(|it| it.verdict);
    DiffFinding {
        kind,
        title: title(kind, first, node.depth, (was, is)),
        process: first.process.clone(),
        path: path::common(changes.iter().map(|it| path::labels(&it.frames))),
        path_count: changes.len() as u64,
        before_bytes_per_second: was,
        after_bytes_per_second: is,
        before_live_bytes: live(|change| change.before.bytes),
        after_live_bytes: live(|change| change.after.bytes),
        before_verdict: verdict(before),
        after_verdict: verdict(after),
        confidence: confidence(kind, before, after),
        evidence: evidence(diff, kind, &changes),
    }
}

fn title(kind: DiffKind, change: &Change, depth: usize, (was, is): (f64, f64)) -> String {
    let common = &change.frames[..depth.min(change.frames.len())];
    let who = own_part(common)
        .last()
        .map_or(names::UNKNOWN.into(), names::label);
    let who = brief(&who);
    let (was, is) = (units::bytes_per_second(was), units::bytes_per_second(is));
    let leaks = change.judged[1].judgement.map(|it| it.verdict) == Some(Verdict::Leak);
    match kind {
        DiffKind::New if leaks => format!("{who} allocates memory that is never freed: {is}/s"),
        DiffKind::New => format!("{who} allocates more than is freed: {is}/s"),
        DiffKind::Faster | DiffKind::Slower => format!("{who} grows by {is}/s, and did by {was}/s"),
        DiffKind::Stopped => format!("{who} grows no more, and did by {was}/s"),
        DiffKind::Held => {
            let [before, after] = &change.judged;
            let (was, is) = holders(before, after).unwrap_or_default();
            let (was, is) = (names::clean(was), names::clean(is));
            format!("{who} grows as it did, and is held by {is}, no longer by {was}")
        }
    }
}

/// Of both verdicts, as if they were wrong independently of one another.
fn confidence(kind: DiffKind, before: &Judged, after: &Judged) -> f64 {
    let sure = |judged: &Judged| judged.judgement.map_or(1.0, |it| it.confidence);
    match kind {
        DiffKind::Stopped if !after.is_there => NOT_THERE * sure(before),
        _ => sure(before) * sure(after),
    }
}

/// What there is in both runs, and what makes it less certain.
fn evidence(diff: &Diff, kind: DiffKind, changes: &[&Change]) -> Vec<String> {
    let [before, after] = &changes[0].judged;
    let mut said = Vec::new();
    if changes.len() > 1 {
        let paths = units::counted(changes.len() as u64, "call path");
        said.push(format!(
            "{paths} have this in common (what follows is of the largest)"
        ));
    }
    match kind {
        DiffKind::New if before.is_there => {
            said.push(format!("the earlier run has it, {}", state(before)));
        }
        DiffKind::New => {
            said.push("the earlier run does not have it".to_owned());
            if !is_long(&diff.before) {
                said.push("that run was short, or its length is not known".to_owned());
            }
        }
        DiffKind::Stopped if after.is_there => {
            said.push(format!("the later run has it, {}", state(after)));
        }
        DiffKind::Stopped => {
            said.push(
                "the later run does not have it: what it does may not have been done".to_owned(),
            );
        }
        DiffKind::Faster | DiffKind::Slower => {
            said.push("both in the mean since it first allocated".to_owned());
        }
        DiffKind::Held => {}
    }
    if let Some((was, is)) = holders(before, after) {
        said.push(format!(
            "most of what was looked for is held by {} in the later run, and by {} in the earlier one",
            names::clean(is),
            names::clean(was)
        ));
    }
    let side = match kind {
        DiffKind::Stopped => &diff.after,
        _ => &diff.before,
    };
    said.extend(
        side.notes
            .first()
            .map(|note| format!("{}: {note}", side.name)),
    );
    said
}

/// What is said of a path in a run, in a few words.
fn state(judged: &Judged) -> String {
    let allocated = match judged.allocated {
        0 => String::new(),
        count => format!(" ({} allocated)", units::counted(count, "block")),
    };
    let what = match judged.judgement.map(|it| it.verdict) {
        Some(Verdict::Leak | Verdict::Growing) => "and it grows",
        Some(Verdict::Plateau) => "and it grows no more",
        Some(Verdict::Startup) => "of start-up",
        Some(Verdict::Batch) => "freed at once from time to time",
        Some(Verdict::Churn) => "freed and replaced",
        None => "not judged",
    };
    format!("{what}{allocated}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::Rules;
    use crate::model::{Frame, Loss, Report};
    use crate::report::diff::compare;
    use crate::report::sample;

    fn findings(before: Report, after: Report) -> Vec<DiffFinding> {
        let before = Snapshot::of_report("monday", before);
        let after = Snapshot::of_report("friday", after);
        compared(&compare(before, after, &Rules::new(&[]).unwrap()).unwrap())
    }

    fn without_leak() -> Report {
        let mut report = sample::report();
        report.sites.remove(0);
        report
    }

    #[test]
    fn what_is_new_and_what_stopped() {
        let new = findings(without_leak(), sample::report());
        assert_eq!(new.len(), 1, "{new:?}");
        assert_eq!(new[0].kind, DiffKind::New);
        assert!(
            new[0]
                .title
                .starts_with("Session::Session() allocates memory that is never"),
            "{new:?}"
        );
        assert!((new[0].confidence - 0.9).abs() < 1e-9);
        let rate = 10_097_063.0 / 59.5;
        assert!((new[0].after_bytes_per_second - rate).abs() < 1.0);
        assert_eq!(new[0].evidence, ["the earlier run does not have it"]);

        let gone = findings(sample::report(), without_leak());
        assert_eq!((gone[0].kind, gone.len()), (DiffKind::Stopped, 1));
        assert!(
            (gone[0].confidence - 0.45).abs() < 1e-9,
            "it may not have been done"
        );
        let mut calm = sample::report();
        calm.sites[0].verdict = Some(Verdict::Churn);
        let stopped = findings(sample::report(), calm.clone());
        assert!((stopped[0].confidence - 0.81).abs() < 1e-9);
        assert!(stopped[0].evidence[0].contains("freed and replaced (10,007 blocks allocated)"));
        let begun = findings(calm, sample::report());
        assert_eq!(begun[0].kind, DiffKind::New);
    }

    /// Whoever holds what grows is told if it is another one, whether its pace has changed or not.
    #[test]
    fn holders_that_changed_are_told() {
        let with = |lost: u64, rate: u64| {
            let mut report = sample::report();
            let site = &mut report.sites[0];
            site.live_bytes *= rate;
            let mut holders = sample::holders();
            holders.lost = lost;
            holders.chains.truncate(1);
            holders.chains[0].blocks = 63 - lost;
            site.holders = Some(holders);
            report
        };
        assert_eq!(
            findings(with(2, 1), with(20, 1)),
            [],
            "most are held as before"
        );
        let changed = findings(with(2, 1), with(60, 1));
        assert_eq!((changed[0].kind, changed.len()), (DiffKind::Held, 1));
        let title = "Session::Session() grows as it did, and is held by nobody, no longer by g_cache (service)";
        assert_eq!(changed[0].title, title);
        let faster = findings(with(60, 1), with(2, 3));
        assert_eq!(faster[0].kind, DiffKind::Faster);
        let said = "held by g_cache (service) in the later run, and by nobody in the earlier one";
        assert!(
            faster[0].evidence.iter().any(|it| it.ends_with(said)),
            "{faster:?}"
        );
        assert_eq!(
            findings(sample::report(), with(2, 1)),
            [],
            "it was not looked for"
        );
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let mut unknown = sample::report();
        unknown.sites[0].verdict = None;
        assert_eq!(findings(sample::report(), unknown.clone()), []);
        assert_eq!(findings(unknown, sample::report()), []);
        // A short run misses much.
        let mut short = without_leak();
        short.duration = 1.0;
        assert_eq!(findings(sample::report(), short.clone()), []);
        let new = findings(short, sample::report());
        assert!(new[0].evidence[1].contains("short"), "{new:?}");
        let mut lossy = without_leak();
        lossy.losses = vec![Loss {
            cause: "live_map_full".into(),
            count: 7,
            meaning: String::new(),
        }];
        let gone = findings(sample::report(), lossy);
        assert!(
            gone[0].evidence[1].contains("friday: lost events: 7"),
            "{gone:?}"
        );
    }

    #[test]
    fn rates_are_compared_and_not_sums() {
        let mut longer = sample::report();
        longer.duration = 600.0;
        longer.sites[0].live_bytes *= 10;
        assert_eq!(
            findings(sample::report(), longer.clone()),
            [],
            "as fast as before"
        );
        longer.sites[0].live_bytes *= 2;
        let faster = findings(sample::report(), longer.clone());
        assert_eq!(faster[0].kind, DiffKind::Faster);
        let slower = findings(longer, sample::report());
        assert_eq!(slower[0].kind, DiffKind::Slower);
        assert!(
            slower[0]
                .title
                .contains("grows by 166 KiB/s, and did by 329 KiB/s"),
            "{slower:?}"
        );
    }

    #[test]
    fn a_change_of_many_leaves_is_one_and_offsets_do_not_matter() {
        let mut after = sample::report();
        let leak = after.sites.remove(0);
        for leaf in 0..50_u64 {
            let mut site = leak.clone();
            site.id = 100 + leaf;
            site.frames.insert(
                4,
                Frame {
                    function: Some(
                        format!(
                            "pack_{}",
                            char::from(b'a' + u8::try_from(leaf % 26).unwrap())
                                .to_string()
                                .repeat(1 + usize::try_from(leaf / 26).unwrap())
                        )
                        .into(),
                    ),
                    ..site.frames[3].clone()
                },
            );
            after.sites.push(site);
        }
        let new = findings(without_leak(), after);
        assert_eq!((new.len(), new[0].path_count), (1, 50));
        assert_eq!(
            new[0].path.last().map(String::as_str),
            Some("Session::Session()")
        );
        let mut moved = sample::report();
        for frame in moved.sites.iter_mut().flat_map(|site| &mut site.frames) {
            frame.address += 0x1000;
            frame.module_offset = frame.module_offset.map(|offset| offset + 0x1000);
        }
        assert_eq!(findings(sample::report(), moved), []);
    }
}
