//! Growth of which no call path was seen: of children, of memory that no allocation
//! explains, and of files in memory that no process has any more.

use super::{forecast, per_second};
use crate::model::balance::{Balance, CgroupBalance, PartName, change};
use crate::model::{Finding, FindingKind, Process, Report, UnseenFunction};
use crate::report::{names, units};

/// Growth below this is not told, bytes: reading a line grows a program.
const LITTLE: i64 = 1 << 20;
/// ... nor less than this of files in memory that no process has: their control group's other
/// processes write some, too.
const MANY_FILES: u64 = 4 << 20;
/// ... nor what is less than this part of a process's growth.
const PART: f64 = 0.3;
/// How sure it is that what no part explains came from outside of what was followed: the
/// kernel's accounts are exact, but what is in memory of a block is not known to the page.
const SURE: f64 = 0.8;
/// How sure it is of copies: they come to an end when all is copied.
const COPIES: f64 = 0.7;
/// How sure it is of pages of files: to read a file grows a process until it is read.
const FILES: f64 = 0.6;
/// How sure it is that files in memory are a traced process's if no process has them: others of
/// its control group may have written them.
const THEIRS: f64 = 0.5;
/// How sure it is that children grow: those are the accounts of the kernel.
const CERTAIN: f64 = 0.95;

/// A finding for each process that grows by what was not seen, or whose children grow.
pub fn findings(report: &Report) -> Vec<Finding> {
    let outside = report.balance.iter().filter_map(|it| outside(report, it));
    let processes = report.processes.iter().enumerate();
    let children = processes.filter_map(|(index, process)| children(report, index, process));
    let copies = report.balance.iter().filter_map(|it| copies(report, it));
    let files = report.balance.iter();
    let files = files.filter_map(|it| files_of(report, it));
    let groups = report.cgroups.iter();
    let groups = groups.filter_map(|it| files_of_group(report, it));
    let of_processes = outside.chain(copies).chain(children);
    of_processes.chain(files).chain(groups).collect()
}

impl Finding {
    /// The same with a rate, and what that will come to.
    fn growing(self, bytes: f64, report: &Report) -> Self {
        let bytes_per_second = per_second(report, self.process, bytes);
        Self {
            bytes_per_second,
            forecast: forecast::of(report, bytes_per_second),
            ..self
        }
    }
}

/// What no call path of this run explains.
fn outside(report: &Report, balance: &Balance) -> Option<Finding> {
    const PARTS: [PartName; 2] = [PartName::OlderMappings, PartName::UnseenMappings];
    let mut parts = PARTS.iter().map(|name| balance.part(*name)).sum::<i64>();
    let hidden = hidden(report, balance);
    if hidden.is_some() {
        // Who has it map memory is not who asks for it.
        parts = parts.saturating_add(balance.part(PartName::Mappings));
    }
    let unseen = balance.unexplained.saturating_add(parts);
    if unseen < LITTLE || (unseen as f64) < PART * balance.growth as f64 {
        return None;
    }
    let process = names::process_of(report, balance.process);
    let mut evidence = vec![format!(
        "its resident set grew by {}, and {} of that is in no call path",
        units::bytes(u64::try_from(balance.growth).unwrap_or(0)),
        units::bytes(u64::try_from(unseen).unwrap_or(0))
    )];
    evidence.extend(hidden.map(|function| {
        format!(
            "{} of {} is not probed: {}",
            names::clean(&function.function),
            names::clean(names::base(&function.module)),
            names::clean(&function.reason)
        )
    }));
    if let Some(grown) = balance.grown.first() {
        let owner = grown.owner.as_deref().map(names::clean);
        evidence.push(format!(
            "most of it, {}, is at {:#x}{}",
            units::bytes(grown.growth),
            grown.start,
            owner.map_or_else(String::new, |owner| format!(": memory of {owner}"))
        ));
    }
    let finding = Finding {
        title: format!("{process} grows by memory whose allocation was not seen"),
        live_bytes: u64::try_from(unseen).unwrap_or(0),
        evidence,
        advice: format!(
            "see where it is touched: sudo unfreed record -p {} --growth",
            balance.pid
        ),
        ..Finding::new(FindingKind::OutsideAllocations, balance.process, SURE)
    };
    Some(finding.growing(unseen as f64, report))
}

/// Memory that it shares with relatives since a fork, and copies by writing to it.
fn copies(report: &Report, balance: &Balance) -> Option<Finding> {
    if change(0, balance.copied) < LITTLE {
        return None;
    }
    let process = names::process_of(report, balance.process);
    let finding = Finding {
        title: format!("{process} copies memory that it shares since a fork, by writing to it"),
        live_bytes: balance.copied,
        evidence: vec![format!(
            "{} of what it has are copies of its own now, and were its relatives' too when the run began: that is in no call path, and its resident set is not larger by it",
            units::bytes(balance.copied)
        )],
        advice: format!(
            "see who writes: perf record -e minor-faults -g -p {}; how much is shared yet: Shared_Dirty in /proc/{}/smaps_rollup",
            balance.pid, balance.pid
        ),
        ..Finding::new(FindingKind::OutsideAllocations, balance.process, COPIES)
    };
    Some(finding.growing(balance.copied as f64, report))
}

/// A function of an allocator of the process that is not probed, and whose blocks are so in no call
/// path.
fn hidden<'a>(report: &'a Report, balance: &Balance) -> Option<&'a UnseenFunction> {
    let process = report.processes.get(balance.process)?;
    process.unseen.iter().find(|it| !it.seen_elsewhere)
}

/// Pages of files that it has mapped and that no call path explains: mapped before the run, or
/// by a mapping that was made larger.
fn files_of(report: &Report, balance: &Balance) -> Option<Finding> {
    const PARTS: [PartName; 2] = [PartName::Files, PartName::SharedMemory];
    let grown = PARTS.iter().map(|name| balance.part(*name)).sum::<i64>();
    let most = balance.grown.iter().find(|it| it.name.starts_with('/'))?;
    let is_most = change(0, most.growth) >= grown / 2;
    if grown < LITTLE || (grown as f64) < PART * balance.growth as f64 || !is_most {
        return None;
    }
    let process = names::process_of(report, balance.process);
    let finding = Finding {
        title: format!("{process} grows by pages of files that it has mapped"),
        live_bytes: u64::try_from(grown).unwrap_or(0),
        evidence: vec![
            format!(
                "its resident set grew by {}, and {} of that is files",
                units::bytes(u64::try_from(balance.growth).unwrap_or(0)),
                units::bytes(u64::try_from(grown).unwrap_or(0))
            ),
            format!(
                "most of it, {}, is {}; of a file on disk the kernel can take pages back, of one in memory (tmpfs, memfd) it cannot",
                units::bytes(most.growth),
                names::clean(&most.name)
            ),
        ],
        advice: format!(
            "see where it is touched: sudo unfreed record -p {} --growth",
            balance.pid
        ),
        ..Finding::new(FindingKind::OutsideAllocations, balance.process, FILES)
    };
    Some(finding.growing(grown as f64, report))
}

/// Files in memory (tmpfs, shared memory) that a control group is charged with and no traced process
/// has mapped or open: such as were written and closed, or never unlinked.
fn files_of_group(report: &Report, group: &CgroupBalance) -> Option<Finding> {
    let mut left = group.shared;
    for balance in &report.balance {
        let mapped = change(balance.kinds_start.shared, balance.kinds_end.shared);
        let held = balance.descriptors.as_ref();
        let open = held.map_or(0, |it| change(it.file_bytes_start, it.file_bytes_end));
        // What is mapped may be open, too.
        left = left.saturating_sub(mapped.max(open).max(0));
    }
    let left = u64::try_from(left)
        .ok()
        .filter(|left| *left >= MANY_FILES)?;
    let finding = Finding {
        title: "files in memory grow that no traced process has mapped or open".to_owned(),
        live_bytes: left,
        evidence: vec![format!(
            "their control group {} was charged with {} of tmpfs and shared memory more; others in it may have written that",
            names::clean(&group.path),
            units::bytes(left)
        )],
        advice: "df -t tmpfs shows which file systems grow; ls -la /dev/shm, ipcs -m".to_owned(),
        ..Finding::new(FindingKind::FilesInMemory, 0, THEIRS)
    };
    Some(finding.growing(left as f64, report))
}

/// Children that are not traced, and grow more than what is.
fn children(report: &Report, index: usize, process: &Process) -> Option<Finding> {
    let children = process.children.as_ref()?;
    let growth = change(children.bytes_at_start, children.bytes);
    let own = change(children.own_bytes_at_start, children.own_bytes);
    if growth < LITTLE || growth <= own {
        return None;
    }
    let finding = Finding {
        title: format!(
            "the children of {} grow, and are not traced",
            names::process(process)
        ),
        live_bytes: children.bytes,
        evidence: vec![format!(
            "{} grew by {} together, their parent by {}",
            match children.count {
                1 => "one child".to_owned(),
                count => format!("{} children", units::grouped(count)),
            },
            units::bytes(u64::try_from(growth).unwrap_or(0)),
            units::bytes(u64::try_from(own).unwrap_or(0))
        )],
        advice: format!(
            "trace them too: sudo unfreed record -p {} --follow",
            process.pid
        ),
        ..Finding::new(FindingKind::Children, index, CERTAIN)
    };
    Some(finding.growing(growth as f64, report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::balance::{GrownMapping, Part};
    use crate::model::descriptors::DescriptorBalance;
    use crate::report::sample;

    const MIB: i64 = 1 << 20;

    fn found(part: PartName, name: &str, bytes: i64) -> Vec<Finding> {
        let mut report = sample::report();
        let mut balance = Balance {
            growth: bytes,
            grown: vec![GrownMapping {
                growth: u64::try_from(bytes).unwrap(),
                name: name.into(),
                ..GrownMapping::default()
            }],
            ..Balance::default()
        };
        balance.explain([Part { name: part, bytes }]);
        report.balance = vec![balance];
        findings(&report)
    }

    #[test]
    fn a_mapped_file_that_grows_is_told_by_its_name() {
        for part in [PartName::Files, PartName::SharedMemory] {
            let found = found(part, "/srv/journal", 18 * MIB);
            let [finding] = &found[..] else {
                panic!("{found:?}");
            };
            assert_eq!(finding.kind, FindingKind::OutsideAllocations);
            assert!(finding.bytes_per_second > 0.0);
            let said = finding.evidence.join("; ");
            assert!(said.contains("18.0 MiB, is /srv/journal"), "{said}");
        }
    }

    #[test]
    fn what_an_allocator_maps_that_is_not_probed_is_outside() {
        let found = |seen_elsewhere: bool| {
            let mut report = sample::report();
            report.processes[0].unseen = vec![UnseenFunction {
                function: "every function of its jemalloc".into(),
                module: "/srv/shop".into(),
                reason: "the file has no symbol table".into(),
                seen_elsewhere,
                was_told: false,
            }];
            let mut balance = Balance {
                growth: 9 * MIB,
                ..Balance::default()
            };
            balance.explain([Part {
                name: PartName::Mappings,
                bytes: 9 * MIB,
            }]);
            report.balance = vec![balance];
            findings(&report)
        };
        let hidden = found(false);
        let [finding] = &hidden[..] else {
            panic!("{hidden:?}");
        };
        assert_eq!(finding.kind, FindingKind::OutsideAllocations);
        assert!(finding.advice.contains("--growth"), "{finding:?}");
        let said = finding.evidence.join("; ");
        assert!(
            said.contains("its jemalloc of shop is not probed"),
            "{said}"
        );
        // What it only hands on to another is seen there.
        assert_eq!(found(true), []);
    }

    #[test]
    fn files_that_were_written_and_closed_are_the_groups() {
        let found = |shared: i64, open: u64| {
            let mut report = sample::report();
            report.balance = vec![Balance {
                descriptors: Some(DescriptorBalance {
                    file_bytes_end: open,
                    ..DescriptorBalance::default()
                }),
                ..Balance::default()
            }];
            report.cgroups = vec![CgroupBalance {
                path: "/shop".into(),
                shared,
                ..CgroupBalance::default()
            }];
            findings(&report)
        };
        let closed = found(90 * MIB, 20 << 20);
        let [finding] = &closed[..] else {
            panic!("{closed:?}");
        };
        assert_eq!(finding.kind, FindingKind::FilesInMemory);
        assert_eq!(finding.live_bytes, 70 << 20);
        assert!(finding.evidence[0].contains("/shop was charged with 70.0 MiB"));
        // Those that are open are another finding.
        assert_eq!(found(90 * MIB, 90 << 20), []);
        assert_eq!(found(-90 * MIB, 0), []);
    }

    #[test]
    fn copies_since_a_fork_are_told() {
        let found = |copied: u64| {
            let mut report = sample::report();
            report.balance = vec![Balance {
                copied,
                ..Balance::default()
            }];
            findings(&report)
        };
        let copied = found(90 << 20);
        let [finding] = &copied[..] else {
            panic!("{copied:?}");
        };
        assert_eq!(finding.kind, FindingKind::OutsideAllocations);
        assert!(finding.bytes_per_second > 0.0 && finding.title.contains("since a fork"));
        assert!(finding.evidence[0].contains("90.0 MiB of what it has are copies"));
        assert_eq!(found((1 << 20) - 1), []);
    }

    #[test]
    fn few_pages_of_files_and_no_files_are_not_told() {
        assert_eq!(found(PartName::Files, "/srv/journal", MIB - 1), []);
        assert_eq!(found(PartName::LiveBlocks, "", 18 * MIB), []);
        // Of libraries that come into memory page by page none is most of it.
        assert_eq!(found(PartName::Files, "", 18 * MIB), []);
    }
}
