//! The difference between two reports or profiles.
//!
//! Call paths match by the names of functions and files, not by addresses,
//! which differ from run to run, nor by versions of libraries. Paths of several processes match by the
//! processes' names; threads are not told apart, since their ids differ from
//! run to run.

mod export;
mod findings;
mod matching;
mod snapshot;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};

pub use export::{check_format, write};
pub use findings::{DiffFinding, DiffKind};
pub use snapshot::{Judged, Snapshot};
pub use table::render;

use super::flamegraph::Amount;
use crate::grouping::{Groups, Rules};
use crate::model::Frame;
use crate::model::name::Names;
use matching::Matching;
use snapshot::Path;

/// Two snapshots, compared.
#[derive(Debug)]
pub struct Diff {
    /// The earlier.
    pub before: Snapshot,
    /// The later.
    pub after: Snapshot,
    /// Every call path of either that holds something in one of them, most
    /// grown first.
    pub changes: Vec<Change>,
    /// What that says, most important first: see `verdict::compared`.
    pub findings: Vec<DiffFinding>,
}

/// One call path in both snapshots.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The process's name where that tells paths apart.
    pub process: Option<String>,
    /// Root first, as in the later snapshot that has the path.
    pub frames: Arc<[Frame]>,
    /// Live memory in the earlier snapshot.
    pub before: Amount,
    /// Live memory in the later snapshot.
    pub after: Amount,
    /// What the earlier and the later run say of it.
    pub judged: [Judged; 2],
}

impl Diff {
    /// Whether both sides count blocks.
    pub fn counted(&self) -> bool {
        self.before.counted && self.after.counted
    }
}

impl Change {
    /// How much it grew; negative when it shrank.
    pub fn growth(&self) -> i128 {
        i128::from(self.after.bytes) - i128::from(self.before.bytes)
    }

    /// The standard error of the growth in bytes; 0 if it is exact.
    pub fn error(&self) -> f64 {
        (self.before.variance + self.after.variance).sqrt()
    }

    /// Whether two samples of the same memory differ by as much in more than 5 of 100
    /// cases.
    pub fn is_chance(&self) -> bool {
        let growth = self.growth().unsigned_abs() as f64;
        growth > 0.0 && growth < 1.96 * self.error()
    }
}

/// A path by its process and by its frames: the label and the file of each.
type Key = (Option<String>, Box<[(usize, usize)]>);

/// Compares two snapshots, by names of which those that `rules` mean are one.
///
/// # Errors
/// Fails when the snapshots measure different things.
pub fn compare(mut before: Snapshot, mut after: Snapshot, rules: &Rules) -> Result<Diff> {
    ensure!(
        before.unit == after.unit,
        "{} measures {} in {} and {} measures {} in {}; compare the like",
        before.name,
        before.kind,
        before.unit,
        after.name,
        after.kind,
        after.unit
    );
    let mut groups = Groups::new(rules);
    groups.learn(before.frames().chain(after.frames()));
    before.group(&mut groups);
    after.group(&mut groups);
    let matching = Matching::of(&before.builds, &after.builds);
    let named = before.has_several_names() || after.has_several_names();
    let mut texts = Names::default();
    let mut index: HashMap<Key, usize> = HashMap::new();
    let mut changes: Vec<Change> = Vec::new();
    let sides = after
        .paths
        .iter()
        .map(|path| (path, true))
        .chain(before.paths.iter().map(|path| (path, false)));
    for (path, later) in sides {
        let process = path.process.clone().filter(|_| named);
        let next = changes.len();
        let mut id = |text: &str| texts.keep(text).id();
        let keys = path.frames.iter().map(|frame| matching.key(frame));
        let keys = keys.map(|(label, module)| (id(&label), id(module)));
        let key = (process.clone(), keys.collect());
        let at = *index.entry(key).or_insert(next);
        if at == next {
            changes.push(new_change(process, path));
        }
        let change = &mut changes[at];
        let side = if later {
            &mut change.after
        } else {
            &mut change.before
        };
        *side = side.plus(path.live);
        let judged = &mut change.judged[usize::from(later)];
        *judged = std::mem::take(judged).plus(&path.judged);
    }
    changes
        .retain(|change| change.before != Amount::default() || change.after != Amount::default());
    changes.sort_by_key(|change| std::cmp::Reverse(change.growth()));
    Ok(Diff {
        before,
        after,
        changes,
        findings: Vec::new(),
    })
}

fn new_change(process: Option<String>, path: &Path) -> Change {
    Change {
        process,
        frames: Arc::clone(&path.frames),
        before: Amount::default(),
        after: Amount::default(),
        judged: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::report::text::Layout;

    #[test]
    fn paths_match_by_name_wherever_they_are_loaded() {
        let before = sample::report();
        let mut after = sample::report();
        for frame in after.sites.iter_mut().flat_map(|site| &mut site.frames) {
            frame.address += 0x1000_0000;
            frame.line = frame.line.map(|line| line + 1);
        }
        after.sites[0].live_bytes += 1_009;
        after.sites[0].live_count += 1;
        after.sites[1].live_bytes = 0;
        after.sites[1].live_count = 0;
        let diff = compare(
            Snapshot::of_report("a", before.clone()),
            Snapshot::of_report("b", after.clone()),
            &Rules::new(&[]).unwrap(),
        )
        .unwrap();
        let growth: Vec<_> = diff.changes.iter().map(Change::growth).collect();
        assert_eq!(growth, [1_009, 0, -1_045_504]);
        assert_eq!(
            diff.changes[0].after.count - diff.changes[0].before.count,
            1
        );
    }

    #[test]
    fn what_may_be_chance_is_said() {
        let before = sample::sampled_report();
        let mut after = sample::sampled_report();
        after.sites[0].live_bytes += 8 << 20;
        after.sites[1].live_bytes += 1 << 20;
        let diff = compare(
            Snapshot::of_report("a", before),
            Snapshot::of_report("b", after),
            &Rules::new(&[]).unwrap(),
        )
        .unwrap();
        let chance: Vec<_> = diff.changes.iter().map(Change::is_chance).collect();
        assert_eq!(chance, [false, true, false]);
        let text = render(&diff, &Layout::new(10, Some(200), false));
        assert!(
            text.contains("± 1.00 MiB (standard error) · may be chance"),
            "{text}"
        );
        assert!(text.contains("of 606 sampled blocks: ±"), "{text}");
    }

    #[test]
    fn sites_of_one_path_are_one_change() {
        let before = sample::report();
        let mut after = sample::report();
        let mut again = after.sites[0].clone();
        again.frames[2].address += 5;
        after.sites.push(again);
        let diff = compare(
            Snapshot::of_report("a", before.clone()),
            Snapshot::of_report("b", after.clone()),
            &Rules::new(&[]).unwrap(),
        )
        .unwrap();
        assert_eq!(diff.changes.len(), 3);
        assert_eq!(diff.changes[0].growth(), 10_007 * 1_009);
    }

    #[test]
    fn processes_match_by_name_not_by_pid() {
        let mut before = sample::report();
        let child = |pid| crate::model::Process {
            pid,
            name: "child".into(),
            ..sample::report().processes[0].clone()
        };
        before.processes.push(child(7));
        before.sites[1].process = 1;
        let mut after = before.clone();
        after.processes[0].pid = 99;
        after.processes[1].pid = 98;
        let diff = compare(
            Snapshot::of_report("a", before.clone()),
            Snapshot::of_report("b", after.clone()),
            &Rules::new(&[]).unwrap(),
        )
        .unwrap();
        assert!(
            diff.changes.iter().all(|change| change.growth() == 0),
            "{:?}",
            diff.changes
        );
        assert!(
            diff.changes
                .iter()
                .any(|change| change.process.as_deref() == Some("child"))
        );
    }

    #[test]
    fn blocks_that_nobody_counted_are_not_told() {
        let before = Snapshot::of_report("a", sample::report());
        let after = Snapshot {
            counted: false,
            ..before.clone()
        };
        let text = render(
            &compare(before, after, &Rules::new(&[]).unwrap()).unwrap(),
            &Layout::new(1, None, false),
        );
        assert!(text.contains("After: a: 10.7 MiB, after"), "{text}");
        assert!(text.contains("Growth: 0 B (0 bytes)\n"), "{text}");
    }

    #[test]
    fn different_units_are_not_compared() {
        let before = Snapshot::of_report("a", sample::report());
        let after = Snapshot {
            unit: "nanoseconds".into(),
            kind: "cpu".into(),
            ..before.clone()
        };
        assert!(
            compare(before, after, &Rules::new(&[]).unwrap())
                .unwrap_err()
                .to_string()
                .contains("compare the like")
        );
    }
}
