//! Growth of which no call path was seen: of children, of memory that no allocation
//! explains, and of files in memory that no process has any more.

use super::{forecast, per_second};
use crate::model::balance::GrownMapping;
use crate::model::balance::{Balance, CgroupBalance, PartName, change};
use crate::model::sampling::rounded;
use crate::model::{Finding, FindingKind, MemoryKind, Process, Report, UnseenFunction};
use crate::report::{names, units};

/// Growth below this is not told, bytes: reading a line grows a program.
pub const LITTLE: i64 = 1 << 20;
/// ... nor less than this of files in memory that no process has: their control group's other
/// processes write some, too.
const MANY_FILES: u64 = 4 << 20;
/// ... nor what is less than this part of a process's growth.
pub const PART: f64 = 0.3;
/// How sure it is that what no part explains came from outside of what was followed: the
/// kernel's accounts are exact, but what is in memory of a block is not known to the page.
const SURE: f64 = 0.8;
/// Growth of heaps below this may be that a huge page came whole, bytes.
const HUGE: i64 = 4 << 20;
/// What an allocator may add to each block, bytes, and to what was asked for, as a part of it.
const OVERHEAD: (u64, f64) = (64, 0.25);
/// A mapping has most of a growth from this part of it on.
const MOST: f64 = 0.9;
/// With less room than this part of it a mapping is full.
const FULL: f64 = 0.01;
/// How sure it is of copies: they come to an end when all is copied.
const COPIES: f64 = 0.7;
/// How sure it is of pages of files: to read a file grows a process until it is read.
const FILES: f64 = 0.6;
/// How sure it is that files in memory are a traced process's if no process has them, at most: others
/// of its control group may have written them, each as likely.
const THEIRS: f64 = 0.5;
/// How sure it is that children grow: those are the accounts of the kernel.
const CERTAIN: f64 = 0.95;

/// A finding for each process that grows by what was not seen, or whose children grow.
pub fn findings(report: &Report) -> Vec<Finding> {
    let outside = report.balance.iter().filter_map(|it| outside(report, it));
    let processes = report.processes.iter().enumerate();
    let children = processes.filter_map(|(index, process)| children(report, index, process));
    let copies = report.balance.iter().filter_map(|it| copies(report, it));
    let unasked = report.balance.iter().filter_map(|it| unasked(report, it));
    let files = report.balance.iter();
    let files = files.filter_map(|it| files_of(report, it));
    let groups = report.cgroups.iter();
    let groups = groups.filter_map(|it| files_of_group(report, it));
    let of_processes = outside.chain(unasked).chain(copies).chain(children);
    of_processes.chain(files).chain(groups).collect()
}

impl Finding {
    /// The same with a rate, and with what that will come to unless something else ends it.
    pub(super) fn growing_up_to(self, is_bounded: bool, bytes: f64, report: &Report) -> Self {
        let growing = self.growing(bytes, report);
        Self {
            forecast: growing.forecast.filter(|_| !is_bounded),
            ..growing
        }
    }

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
        let owner = owner.map(|owner| format!(": memory of {owner}"));
        let name = Some(&grown.name).filter(|name| !name.is_empty());
        let name = name.map(|name| format!(": {}", names::clean(name)));
        evidence.push(format!(
            "most of it, {}, is at {:#x}{}",
            units::bytes(grown.growth),
            grown.start,
            owner.or(name).unwrap_or_default()
        ));
    }
    let most = balance.grown.first();
    let bound = most.and_then(|grown| full(report, balance.process, grown, unseen));
    let is_bounded = bound.is_some();
    if let (Some(bound), Some(last)) = (bound, evidence.last_mut()) {
        last.push_str("; ");
        last.push_str(&bound);
    }
    let finding = Finding {
        title: format!("{process} grows by memory whose allocation was not seen"),
        evidence,
        ..beyond_allocations(balance, unseen, SURE, "see where it is touched")
    };
    Some(finding.growing_up_to(is_bounded, unseen as f64, report))
}

/// A finding of so many bytes of a process's growth that are in no allocation, and what `--growth`
/// would tell of them.
pub fn beyond_allocations(balance: &Balance, bytes: i64, sure: f64, told: &str) -> Finding {
    Finding {
        live_bytes: u64::try_from(bytes).unwrap_or(0),
        advice: format!("{told}: sudo unfreed record -p {} --growth", balance.pid),
        ..Finding::new(FindingKind::OutsideAllocations, balance.process, sure)
    }
}

/// That a mapping from before the run has most of a growth, and less room than any limit leaves: it
/// ends where the mapping does.
pub fn full(report: &Report, process: usize, most: &GrownMapping, growth: i64) -> Option<String> {
    let left = report.limits.iter().map(|limit| limit.left).min()?;
    let room = (most.end - most.start).checked_sub(most.resident)?;
    let is_most = most.growth as f64 >= MOST * growth as f64;
    let rate = per_second(report, process, most.growth as f64);
    if !most.is_older || most.resident == 0 || room >= left || !is_most || rate <= 0.0 {
        return None;
    }
    let size = units::bytes(most.end - most.start);
    if (room as f64) < FULL * (most.end - most.start) as f64 {
        return Some(format!(
            "that mapping is from before the run, and all of its {size} are in memory now: it grows no more unless the program makes it larger or maps another"
        ));
    }
    Some(format!(
        "that mapping is from before the run, and of its {size} there are {} in memory: at this rate it is full in {}, and grows no more unless the program makes it larger or maps another",
        units::bytes(most.resident),
        units::seconds(room as f64 / rate)
    ))
}

/// Pages of its allocators that no call of this run can have asked for: another process that shares
/// its memory calls them, or blocks from before the run are touched.
fn unasked(report: &Report, balance: &Balance) -> Option<Finding> {
    let process = report.processes.get(balance.process)?;
    let settings = &report.settings;
    let is_partial = report.is_sampled() || settings.is_by_caller() || settings.min_size > 0;
    if process.processes > 1 || is_partial || report.lost_events() > 0 || report.growth.is_some() {
        return None;
    }
    const PARTS: [PartName; 3] = [
        PartName::KeptByAllocators,
        PartName::LiveBlocks,
        PartName::Reused,
    ];
    let grown = PARTS.iter().map(|name| balance.part(*name)).sum::<i64>();
    let own = report.sites.iter();
    let own = own.filter(|it| it.process == balance.process && it.kind == MemoryKind::Heap);
    let (bytes, count) = own.fold((0_u64, 0_u64), |(bytes, count), site| {
        (
            bytes.saturating_add(site.allocated_bytes),
            count.saturating_add(site.allocated_count),
        )
    });
    let asked = bytes as f64 * (1.0 + OVERHEAD.1) + (count.saturating_mul(OVERHEAD.0)) as f64;
    let unasked = grown as f64 - asked;
    if unasked < HUGE as f64 || unasked < PART * balance.growth as f64 {
        return None;
    }
    let name = names::process_of(report, balance.process);
    let advice = match &process.children {
        Some(children) if children.count > 0 => format!(
            "trace its children too, of which one may share its memory: sudo unfreed record -p {} --follow",
            balance.pid
        ),
        _ => format!(
            "see where it is touched: sudo unfreed record -p {} --growth",
            balance.pid
        ),
    };
    let finding = Finding {
        title: format!("{name} grows by memory of its allocators that no call seen asked for"),
        live_bytes: rounded(unasked),
        evidence: vec![format!(
            "its allocators have {} more in memory, and the calls that were seen asked for {} in all; a process that shares its memory may call them, blocks from before the run may be touched, or huge pages come whole",
            units::bytes(u64::try_from(grown).unwrap_or(0)),
            units::bytes(bytes)
        )],
        advice,
        ..Finding::new(FindingKind::OutsideAllocations, balance.process, SURE)
    };
    Some(finding.growing(unasked, report))
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
    let most = balance
        .grown
        .iter()
        .find(|it| it.name.starts_with('/') || is_without_file(&it.name))?;
    let is_most = change(0, most.growth) >= grown / 2;
    if grown < LITTLE || (grown as f64) < PART * balance.growth as f64 || !is_most {
        return None;
    }
    let process = names::process_of(report, balance.process);
    let (title, what, most_of_it) = match is_without_file(&most.name) {
        true => (
            format!("{process} grows by memory that it shares with other processes"),
            "shared memory",
            "memory of no file, shared since a fork; what another process has touched of it is no new memory of the machine".to_owned(),
        ),
        false => (
            format!("{process} grows by pages of files that it has mapped"),
            "files",
            format!(
                "{}; of a file on disk the kernel can take pages back, of one in memory (tmpfs, memfd) it cannot",
                names::clean(&most.name)
            ),
        ),
    };
    let mut evidence = vec![
        format!(
            "its resident set grew by {}, and {} of that is {what}",
            units::bytes(u64::try_from(balance.growth).unwrap_or(0)),
            units::bytes(u64::try_from(grown).unwrap_or(0))
        ),
        format!("most of it, {}, is {most_of_it}", units::bytes(most.growth)),
    ];
    let bound = full(report, balance.process, most, grown);
    // What the kernel can take back uses up nothing.
    let (start, end) = (&balance.kinds_start, &balance.kinds_end);
    let on_disk = change(start.file, end.file) > change(start.shared, end.shared);
    let is_bounded = bound.is_some() || on_disk;
    if let (Some(bound), Some(last)) = (bound, evidence.last_mut()) {
        last.push_str("; ");
        last.push_str(&bound);
    }
    let finding = Finding {
        title,
        live_bytes: u64::try_from(grown).unwrap_or(0),
        evidence,
        advice: format!(
            "see where it is touched: sudo unfreed record -p {} --growth",
            balance.pid
        ),
        ..Finding::new(FindingKind::OutsideAllocations, balance.process, FILES)
    };
    Some(finding.growing_up_to(is_bounded, grown as f64, report))
}

/// Whether the kernel's name of a mapping is that of shared memory without a file: what is mapped
/// shared and anonymous it calls `/dev/zero`.
fn is_without_file(name: &str) -> bool {
    name.starts_with("/dev/zero") || name.starts_with("[anon_shmem:")
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
    let sure = THEIRS.min(1.0 / (1.0 + group.untraced as f64));
    let finding = Finding {
        title: "files in memory grow that no traced process has mapped or open".to_owned(),
        live_bytes: left,
        evidence: vec![format!(
            "their control group {} was charged with {} of tmpfs and shared memory more; others in it{} may have written that",
            names::clean(&group.path),
            units::bytes(left),
            match group.untraced {
                0 => String::new(),
                1 => " (one process that is not traced)".to_owned(),
                count => format!(" ({} processes that are not traced)", units::grouped(count)),
            }
        )],
        advice: "df -t tmpfs shows which file systems grow; ls -la /dev/shm, ipcs -m".to_owned(),
        ..Finding::new(FindingKind::FilesInMemory, 0, sure)
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
        let found = |shared: i64, open: u64, untraced: u64| {
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
                untraced,
                ..CgroupBalance::default()
            }];
            findings(&report)
        };
        let closed = found(90 * MIB, 20 << 20, 0);
        let [finding] = &closed[..] else {
            panic!("{closed:?}");
        };
        assert_eq!(finding.kind, FindingKind::FilesInMemory);
        assert_eq!(finding.live_bytes, 70 << 20);
        assert!(finding.evidence[0].contains("/shop was charged with 70.0 MiB"));
        assert!((finding.confidence - 0.5).abs() < 1e-9);
        assert!((found(90 * MIB, 20 << 20, 19)[0].confidence - 0.05).abs() < 1e-9);
        // Those that are open are another finding.
        assert_eq!(found(90 * MIB, 90 << 20, 0), []);
        assert_eq!(found(-90 * MIB, 0, 0), []);
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
    fn a_mapping_that_is_from_before_the_run_bounds_what_comes() {
        let found = |name: &str, part: PartName, size: u64, disk: u64| {
            let mut report = sample::report();
            let mut balance = Balance {
                growth: 18 * MIB,
                grown: vec![GrownMapping {
                    end: size,
                    growth: 18 << 20,
                    resident: 20 << 20,
                    is_older: true,
                    name: name.into(),
                    ..GrownMapping::default()
                }],
                ..Balance::default()
            };
            balance.kinds_end.file = disk;
            balance.explain([Part {
                name: part,
                bytes: 18 * MIB,
            }]);
            report.balance = vec![balance];
            report.limits = vec![crate::model::MemoryLimit {
                name: "machine".into(),
                bytes: 1 << 30,
                left: 100 << 20,
            }];
            let mut found = findings(&report);
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        let shared = "/dev/zero (deleted)";
        for (name, part) in [
            (shared, PartName::SharedMemory),
            ("", PartName::OlderMappings),
        ] {
            // 10 MiB are left of it, and more of the machine.
            let finding = found(name, part, 30 << 20, 0);
            assert_eq!(finding.forecast, None);
            let said = finding.evidence.join("; ");
            assert!(
                said.contains("of its 30.0 MiB there are 20.0 MiB"),
                "{said}"
            );
            // It is full.
            let finding = found(name, part, 20 << 20, 0);
            assert_eq!(finding.forecast, None);
            let said = finding.evidence.join("; ");
            assert!(said.contains("all of its 20.0 MiB are in memory"), "{said}");
            // The machine's memory ends before the mapping does.
            let finding = found(name, part, 1 << 30, 0);
            assert!(finding.forecast.is_some() && !finding.evidence.join("; ").contains("full in"));
        }
        let finding = found(shared, PartName::SharedMemory, 30 << 20, 0);
        assert!(
            finding
                .title
                .ends_with("memory that it shares with other processes")
        );
        assert!(!finding.evidence.join("; ").contains("/dev/zero"));
        // What can be taken back uses up nothing.
        let finding = found("/srv/data.mdb", PartName::Files, 1 << 30, 18 << 20);
        assert_eq!(finding.forecast, None);
    }

    #[test]
    fn what_no_call_asked_for_is_told() {
        let found = |kept: i64, asked: u64, change_it: &dyn Fn(&mut Report)| {
            let mut report = sample::report();
            report.losses.clear();
            report.sites.truncate(1);
            report.sites[0].allocated_bytes = asked;
            let mut balance = Balance {
                growth: kept,
                ..Balance::default()
            };
            balance.explain([Part {
                name: PartName::KeptByAllocators,
                bytes: kept,
            }]);
            report.balance = vec![balance];
            change_it(&mut report);
            findings(&report)
        };
        let as_it_is = |_: &mut Report| ();
        let told = found(9 * MIB, 1 << 20, &as_it_is);
        let [finding] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(finding.kind, FindingKind::OutsideAllocations);
        assert!(finding.evidence[0].contains("asked for 1.00 MiB in all"));
        assert!(finding.advice.contains("--growth"), "{finding:?}");
        // It may be what calls have freed.
        assert_eq!(found(9 * MIB, 8 << 20, &as_it_is), []);
        assert_eq!(found(3 * MIB, 0, &as_it_is), []);
        // Others were called, and not seen.
        let small = |report: &mut Report| report.settings.min_size = 64;
        assert_eq!(found(9 * MIB, 1 << 20, &small), []);
    }

    #[test]
    fn few_pages_of_files_and_no_files_are_not_told() {
        assert_eq!(found(PartName::Files, "/srv/journal", MIB - 1), []);
        assert_eq!(found(PartName::LiveBlocks, "", 18 * MIB), []);
        // Of libraries that come into memory page by page none is most of it.
        assert_eq!(found(PartName::Files, "", 18 * MIB), []);
    }
}
