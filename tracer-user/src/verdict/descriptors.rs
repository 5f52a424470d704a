//! What a process holds by its descriptors, and is in no resident set: descriptors that are
//! not closed, and files in memory that grow.

use super::{forecast, per_second};
use crate::model::balance::{Balance, PartName, change};
use crate::model::descriptors::{DescriptorBalance, GrownFile};
use crate::model::{Finding, FindingKind, Report};
use crate::report::{names, units};

/// Fewer descriptors more than at the start are not told.
const FEW: u64 = 16;
/// There were more than ever before at so many looks, at least.
const RISES: u64 = 8;
/// ... which are at least one look in so many.
const ONE_IN: u64 = 4;
/// ... the last of them in this last part of the run.
const LATELY: f64 = 0.25;
/// Growth of files below this is not told, bytes.
const LITTLE: i64 = 1 << 20;
/// How sure it is that files in memory go on growing: their sizes are known at two moments.
const TWO_MOMENTS: f64 = 0.7;
/// How sure it is of descriptors that rise at all looks; a pool that fills does so, too.
const RISING: f64 = 0.8;

/// The findings of all processes.
pub fn findings(report: &Report) -> Vec<Finding> {
    let each = |balance: &Balance| {
        let held = balance.descriptors.as_ref();
        let open = held.and_then(|held| open(report, balance, held));
        let files = held.and_then(|held| files(report, balance, held));
        [open, files]
    };
    let findings = report.balance.iter().flat_map(each);
    findings.flatten().collect()
}

/// Descriptors that are opened and not closed.
fn open(report: &Report, balance: &Balance, held: &DescriptorBalance) -> Option<Finding> {
    let growth = held.open_end.saturating_sub(held.open_start);
    let is_late = held.last_risen as f64 >= (1.0 - LATELY) * held.looks as f64;
    if growth < FEW || held.risen < RISES || held.risen * ONE_IN < held.looks || !is_late {
        return None;
    }
    let rate = per_second(report, balance.process, growth as f64);
    let process = names::process_of(report, balance.process);
    let kinds = held.kinds.iter().map(|it| {
        let kind = names::clean(&it.kind);
        format!("{} of kind {kind}", units::grouped(it.growth))
    });
    let kinds: Vec<_> = kinds.collect();
    let mut evidence = vec![format!(
        "{} are open, {} more than at the start{}",
        units::grouped(held.open_end),
        units::grouped(growth),
        match kinds.is_empty() {
            true => String::new(),
            false => format!(": {}", kinds.join(", ")),
        }
    )];
    let left = |limit: u64| limit.saturating_sub(held.open_end) as f64;
    let limit = held.limit.map(|limit| {
        format!(
            "at this rate the {} that it may have open are reached in {}; what the kernel keeps for each is in no resident set",
            units::grouped(limit),
            units::seconds(left(limit) / rate)
        )
    });
    evidence.extend(limit);
    evidence.push(format!(
        "more were open than ever before at {} of {} looks",
        units::grouped(held.risen),
        units::grouped(held.looks)
    ));
    let steady = (held.risen as f64 / held.looks as f64).min(1.0);
    Some(Finding {
        title: format!(
            "{process} opens {} descriptors/s that it does not close",
            units::per_second(rate)
        ),
        evidence,
        advice: format!("ls -l /proc/{}/fd shows what they are", balance.pid),
        ..Finding::new(
            FindingKind::Descriptors,
            balance.process,
            RISING * (0.75 + 0.25 * steady),
        )
    })
}

/// Files in memory that grow.
fn files(report: &Report, balance: &Balance, held: &DescriptorBalance) -> Option<Finding> {
    let growth = change(held.file_bytes_start, held.file_bytes_end);
    let is_heap = |file: &&GrownFile| is_java_heap(balance, file);
    let heap: u64 = held.files.iter().filter(is_heap).map(|it| it.growth).sum();
    let growth = growth.saturating_sub(change(0, heap));
    if growth < LITTLE {
        return None;
    }
    let bytes_per_second = per_second(report, balance.process, growth as f64);
    let process = names::process_of(report, balance.process);
    let most = held.files.iter().find(|file| !is_heap(file)).map(|file| {
        format!(
            "most of it, {}, is {}",
            units::bytes(file.growth),
            named(file)
        )
    });
    let mut evidence = vec![format!(
        "those that it has open have {}, {} more than at the start{}, which is in its resident set only where it is mapped",
        units::bytes(held.file_bytes_end),
        units::bytes(u64::try_from(growth).unwrap_or(0)),
        match heap {
            0 => "",
            _ => " without its Java heap",
        }
    )];
    evidence.extend(most);
    Some(Finding {
        title: format!(
            "files of {process} that lie in memory grow: {}/s",
            units::bytes_per_second(bytes_per_second)
        ),
        live_bytes: held.file_bytes_end,
        bytes_per_second,
        forecast: forecast::of(report, bytes_per_second),
        evidence,
        advice: format!("ls -l /proc/{}/fd shows them", balance.pid),
        ..Finding::new(FindingKind::FilesInMemory, balance.process, TWO_MOMENTS)
    })
}

/// Whether it is the file in memory that a JVM has its Java heap in, as ZGC does: how that grows is told
/// with the heap.
fn is_java_heap(balance: &Balance, file: &GrownFile) -> bool {
    file.name.starts_with("/memfd:java_heap") && balance.part(PartName::JavaHeap) != 0
}

fn named(file: &GrownFile) -> String {
    let name = names::clean(&file.name);
    match file.count {
        0 | 1 => format!("{name}"),
        count => format!("{} called {name}", units::counted(count, "file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::balance::Part;
    use crate::model::descriptors::GrownDescriptors;
    use crate::report::sample;

    fn found(held: DescriptorBalance) -> Vec<Finding> {
        let mut report = sample::report();
        report.duration = 20.0;
        report.balance = vec![Balance {
            pid: 71,
            descriptors: Some(held),
            ..Balance::default()
        }];
        findings(&report)
    }

    fn leaking() -> DescriptorBalance {
        DescriptorBalance {
            open_start: 10,
            open_end: 410,
            limit: Some(1010),
            looks: 40,
            risen: 38,
            last_risen: 40,
            kinds: vec![GrownDescriptors {
                kind: "socket".into(),
                growth: 400,
            }],
            ..DescriptorBalance::default()
        }
    }

    #[test]
    fn descriptors_that_are_not_closed_are_told_with_their_limit() {
        let found = found(leaking());
        let [finding] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(finding.kind, FindingKind::Descriptors);
        assert!(
            finding.title.contains("opens 20.0 descriptors/s"),
            "{finding:?}"
        );
        let said = finding.evidence.join("; ");
        for part in [
            "410 are open",
            "400 of kind socket",
            "reached in 30.0 s",
            "38 of 40 looks",
        ] {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
    }

    #[test]
    fn a_pool_that_is_full_and_a_few_are_no_leak() {
        let full = DescriptorBalance {
            last_risen: 25,
            ..leaking()
        };
        let burst = DescriptorBalance {
            risen: 3,
            ..leaking()
        };
        let few = DescriptorBalance {
            open_end: 25,
            ..leaking()
        };
        let seldom = DescriptorBalance {
            looks: 400,
            last_risen: 399,
            ..leaking()
        };
        for held in [full, burst, few, seldom] {
            assert_eq!(found(held.clone()), [], "{held:?}");
        }
    }

    #[test]
    fn a_java_heap_in_a_file_in_memory_is_the_heap() {
        let file = |name: &str, growth: u64| GrownFile {
            name: name.into(),
            count: 1,
            growth,
        };
        let found = |files: Vec<GrownFile>, heap: i64| {
            let all: u64 = files.iter().map(|it| it.growth).sum();
            let mut balance = Balance {
                growth: heap,
                descriptors: Some(DescriptorBalance {
                    file_bytes_end: all,
                    files,
                    ..DescriptorBalance::default()
                }),
                ..Balance::default()
            };
            balance.explain([Part {
                name: PartName::JavaHeap,
                bytes: heap,
            }]);
            let mut report = sample::report();
            report.balance = vec![balance];
            findings(&report)
        };
        let heap = || file("/memfd:java_heap (deleted)", 94 << 20);
        assert_eq!(found(vec![heap()], 98 << 20), []);
        // It is no JVM's.
        assert_eq!(found(vec![heap()], 0).len(), 1);
        let both = found(
            vec![heap(), file("/memfd:frame (deleted)", 9 << 20)],
            98 << 20,
        );
        let said = both[0].evidence.join("; ");
        assert!(
            said.contains("9.00 MiB more than at the start without its Java heap"),
            "{said}"
        );
        assert!(
            said.contains("most of it, 9.00 MiB, is /memfd:frame"),
            "{said}"
        );
    }

    #[test]
    fn files_in_memory_that_grow_are_told_by_name() {
        let held = DescriptorBalance {
            file_bytes_start: 1 << 20,
            file_bytes_end: 21 << 20,
            files: vec![GrownFile {
                name: "/memfd:frame-* (deleted)".into(),
                count: 11,
                growth: 19 << 20,
            }],
            ..DescriptorBalance::default()
        };
        let found_ones = found(held.clone());
        let [finding] = &found_ones[..] else {
            panic!("{found_ones:?}");
        };
        assert_eq!(finding.kind, FindingKind::FilesInMemory);
        assert!((finding.bytes_per_second - f64::from(1 << 20)).abs() < 1.0);
        let said = finding.evidence.join("; ");
        assert!(
            said.contains("19.0 MiB, is 11 files called /memfd:frame-*"),
            "{said}"
        );
        let little = DescriptorBalance {
            file_bytes_end: (2 << 20) - 1,
            ..held
        };
        assert_eq!(found(little), []);
    }
}
