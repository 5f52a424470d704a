//! How the resident sets grew, and what explains it.

use super::layout::{Layout, PLAIN};
use crate::model::Report;
use crate::model::balance::{Balance, CgroupBalance, GrownMapping, PartName, change};
use crate::model::sampling::rounded;
use crate::report::retention::{self, MUCH};
use crate::report::{kept_by, names, units};

/// Processes that are told one by one, those that changed most; the others in one
/// line.
const MAX_PROCESSES: usize = 3;
/// Explanations of one process that have a line of their own.
const MAX_PARTS: usize = 5;
/// Growth below this is not broken down, bytes: reading a line grows a program.
const NOTHING: u64 = 64 << 10;

/// Adds a few lines for each process; nothing if nothing is known.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    for balance in report.balance.iter().take(MAX_PROCESSES) {
        one(text, report, balance, layout);
    }
    let others = report.balance.get(MAX_PROCESSES..).unwrap_or_default();
    if !others.is_empty() {
        let sum = |of: fn(&Balance) -> u64| others.iter().map(of).fold(0, u64::saturating_add);
        let growth = others.iter().map(|balance| balance.growth);
        let line = format!(
            "Resident set of {}: {} at the start, {} at the end: {}",
            match others.len() {
                1 => "one other process".to_owned(),
                count => format!("{} other processes together", units::grouped(count as u64)),
            },
            units::bytes(sum(|balance| balance.resident_start)),
            units::bytes(sum(|balance| balance.resident_end)),
            signed(growth.fold(0, i64::saturating_add)),
        );
        layout.prose(text, PLAIN, 0, &line);
    }
    for group in &report.cgroups {
        if let Some(line) = cgroup(group) {
            layout.prose(text, layout.warning, 0, &line);
        }
    }
}

fn one(text: &mut String, report: &Report, balance: &Balance, layout: &Layout) {
    let whose = match report.balance.len() {
        1 => String::new(),
        _ => format!(
            " of {}",
            match report.processes.get(balance.process) {
                Some(process) if process.pid != balance.pid =>
                    format!("{} ({})", names::clean(&process.name), balance.pid),
                _ => names::process_of(report, balance.process),
            }
        ),
    };
    let is_little = balance.growth.unsigned_abs() < NOTHING;
    let line = format!(
        "Resident set{whose}: {} at the start, {} at the end: {}{}",
        units::bytes(balance.resident_start),
        units::bytes(balance.resident_end),
        signed(balance.growth),
        if is_little || balance.parts.is_empty() {
            ""
        } else {
            ", namely"
        },
    );
    layout.prose(text, PLAIN, 0, &line);
    if !is_little && !balance.parts.is_empty() {
        for (name, bytes) in rows(balance) {
            layout.line(text, PLAIN, &format!("  {name:<36} {:>10}", signed(bytes)));
        }
    }
    for (style, line) in [
        (PLAIN, older(report, balance)),
        (layout.faint, sampled(report, balance)),
        (layout.strong, retention(report, balance)),
        (layout.warning, grown(report, balance)),
        (layout.faint, problem(balance)),
    ] {
        if let Some(line) = line {
            layout.prose(text, style, 0, &line);
        }
    }
}

/// The largest parts in their order, the sum of the others, and what is unexplained.
fn rows(balance: &Balance) -> Vec<(&'static str, i64)> {
    let mut sizes: Vec<_> = balance
        .parts
        .iter()
        .map(|part| part.bytes.unsigned_abs())
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = match sizes.get(MAX_PARTS) {
        // One line for one part is no gain.
        Some(_) => sizes.get(MAX_PARTS - 1).copied().unwrap_or(0),
        None => 0,
    };
    let large = |bytes: i64| bytes.unsigned_abs() >= least;
    let parts = balance.parts.iter();
    let mut rows: Vec<_> = parts
        .clone()
        .filter(|part| large(part.bytes))
        .map(|part| (part.name.text(), part.bytes))
        .collect();
    let rest = parts.filter(|part| !large(part.bytes));
    let rest = rest.fold(0, |sum: i64, part| sum.saturating_add(part.bytes));
    if rest != 0 {
        rows.push(("other explained", rest));
    }
    rows.push(("unexplained", balance.unexplained));
    rows
}

/// That most of what is in memory is older than the run, and what to do about it.
fn older(report: &Report, balance: &Balance) -> Option<String> {
    let older = retention::is_mostly_older(balance)?;
    Some({
        let growth = match balance.growth {
            growth if growth.unsigned_abs() < NOTHING => " (no growth during it)".to_owned(),
            growth => format!(" ({} during it)", signed(growth)),
        };
        format!(
            "Of {} resident, the blocks of this run explain {}{}; {} is older than the run{growth}: start the program with `unfreed run`, or trace longer, to see who allocates it.",
            units::bytes(balance.resident_end),
            if report.is_sampled() { "about " } else { "" },
            units::bytes(balance.live_resident),
            units::bytes(older),
        )
    })
}

/// That the part of the live blocks, and so the rest of the allocators' memory, is an
/// estimate.
fn sampled(report: &Report, balance: &Balance) -> Option<String> {
    let is_told = balance.growth.unsigned_abs() >= NOTHING && !balance.parts.is_empty();
    let sampling = report.sampling.filter(|_| is_told)?;
    Some(format!(
        "Live blocks are estimated {} (± {}), and so is what allocators keep beside them.",
        sampling.how(),
        units::bytes(rounded(sampling.errors.live_bytes))
    ))
}

/// That an allocator keeps what was freed, if that is certain: all blocks were seen,
/// and as much was freed during the run.
fn retention(report: &Report, balance: &Balance) -> Option<String> {
    let kept = retention::kept(report, balance)?;
    Some(format!(
        "This is retention, not a leak: {} that was freed is kept by {}",
        units::bytes(kept),
        kept_by::sentences(report, balance)
    ))
}

/// Where it grew, if that is no allocator's memory that is known.
fn grown(report: &Report, balance: &Balance) -> Option<String> {
    let growth = u64::try_from(balance.growth)
        .ok()
        .filter(|it| *it >= NOTHING)?;
    // Of what was seen to be mapped there are rows with call paths.
    let much = |mapping: &&GrownMapping| !mapping.is_traced && mapping.growth >= growth / 4;
    let mappings: Vec<_> = (balance.grown.iter().filter(much))
        .map(|grown| mapping(report, balance, grown))
        .collect();
    (!mappings.is_empty())
        .then(|| format!("Grown outside of known heaps: {}.", mappings.join("; ")))
}

fn mapping(report: &Report, balance: &Balance, mapping: &GrownMapping) -> String {
    let mut what = vec![units::bytes(mapping.end - mapping.start)];
    if !mapping.name.is_empty() {
        what.push(names::clean(&mapping.name).into_owned());
    }
    if mapping.is_older {
        what.push("mapped before the run".to_owned());
    }
    if let Some(owner) = &mapping.owner {
        let process = report.processes.get(balance.process);
        let mut probes = process.into_iter().flat_map(|process| &process.probes);
        let is_probed = probes.any(|probe| probe.module == *owner);
        what.push(format!(
            "most pointers to it are in the data of {}{}",
            names::clean(owner),
            if is_probed {
                ""
            } else {
                ", which has no probed allocator"
            }
        ));
    }
    format!(
        "+{} in {:#x}-{:#x} ({})",
        units::bytes(mapping.growth),
        mapping.start,
        mapping.end,
        what.join(", ")
    )
}

fn problem(balance: &Balance) -> Option<String> {
    let problem = balance.problem.as_ref()?;
    Some(format!("Not all is explained: {}.", names::clean(problem)))
}

/// That a control group grew by what is in none of its processes.
fn cgroup(group: &CgroupBalance) -> Option<String> {
    let outside = u64::try_from(group.outside()).ok()?;
    let growth = u64::try_from(group.growth).ok()?;
    (outside >= MUCH && outside >= growth / 4).then(|| {
        format!(
            "Its control group {}{} grew by {}, of which {} is in no process's own memory: shared memory and tmpfs {}, page cache {}, the kernel's {}.",
            names::clean(&group.path),
            others(group),
            units::bytes(growth),
            units::bytes(outside),
            signed(group.shared),
            signed(group.page_cache),
            signed(group.kernel),
        )
    })
}

/// That others are in a control group, who may have made it grow.
fn others(group: &CgroupBalance) -> String {
    match group.untraced {
        0 => String::new(),
        1 => " (with 1 process that is not traced)".to_owned(),
        count => {
            let count = units::grouped(count);
            format!(" (with {count} processes that are not traced)")
        }
    }
}

/// What to add where it is said that no leak was seen: that the processes' control group keeps
/// more that no process has, and that the kernel cannot take back for others.
pub fn group_note(group: &CgroupBalance) -> Option<String> {
    let kinds = [
        (group.shared, "files in memory and shared memory"),
        (group.kernel, "memory of the kernel's"),
    ];
    let grown = kinds.into_iter().filter_map(|(growth, what)| {
        let growth = u64::try_from(growth).ok()?;
        (growth >= MUCH).then(|| format!("{} of {what}", units::bytes(growth)))
    });
    let grown: Vec<_> = grown.collect();
    (!grown.is_empty()).then(|| {
        format!(
            "their control group {}{} got {} more, which may be theirs and is in no process",
            names::clean(&group.path),
            others(group),
            grown.join(" and ")
        )
    })
}

/// What to add where it is said that nothing is live: that memory grew all the same.
pub fn growth_note(report: &Report) -> Option<String> {
    let growth = u64::try_from(report.resident_growth()).ok()?;
    (growth > 0).then(|| {
        let mut note = format!("the resident set grew by {}", units::bytes(growth));
        let all = report.balance.iter();
        let grown = all.flat_map(|balance| balance.grown.iter().map(move |it| (balance, it)));
        if growth >= NOTHING
            && let Some((balance, most)) = grown.max_by_key(|(_, grown)| grown.growth)
            && most.growth >= growth / 2
        {
            note.push_str(", most of it: ");
            note.push_str(&mapping(report, balance, most));
        }
        let all = report.balance.iter();
        let java: i64 = all.map(|balance| balance.part(PartName::JavaHeap)).sum();
        if growth >= NOTHING && java >= change(0, growth) / 2 && report.java_heap.is_empty() {
            note.push_str(
                ", most of it the Java heap: with --java-heap it is told which classes grow",
            );
        }
        note
    })
}

/// A size with its sign.
pub fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "+" };
    format!("{sign}{}", units::bytes(bytes.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probe;
    use crate::model::balance::{AllocatorBooks, Part, PartName, change};
    use crate::report::sample;

    const MIB: u64 = 1 << 20;

    fn text(report: &Report) -> String {
        let mut text = String::new();
        render(&mut text, report, &Layout::new(10, Some(400), false));
        text
    }

    /// The sample, with a process that grew from one size to another.
    fn report(from: u64, to: u64, parts: &[(PartName, i64)]) -> Report {
        let mut report = sample::report();
        let mut balance = Balance {
            pid: report.processes[0].pid,
            resident_start: from,
            resident_end: to,
            growth: change(from, to),
            ..Balance::default()
        };
        let part = |(name, bytes): &(PartName, i64)| Part {
            name: *name,
            bytes: *bytes,
        };
        balance.explain(parts.iter().map(part));
        report.balance = vec![balance];
        report
    }

    #[test]
    fn growth_and_what_explains_it_is_a_small_table() {
        let mib = MIB as i64;
        let parts = [
            (PartName::LiveBlocks, mib / 2),
            (PartName::Mappings, 10 * mib),
        ];
        assert_eq!(
            text(&report(300 * MIB, 311 * MIB, &parts)),
            "\
Resident set: 300 MiB at the start, 311 MiB at the end: +11.0 MiB, namely
  live blocks of this run                +512 KiB
  mappings of this run                  +10.0 MiB
  unexplained                            +512 KiB
"
        );
    }

    #[test]
    fn small_parts_share_a_line() {
        let parts: Vec<_> = (1..)
            .zip(PartName::ALL)
            .map(|(size, name)| (name, size * MIB as i64))
            .take(8)
            .collect();
        let found = text(&report(MIB, 37 * MIB, &parts));
        assert_eq!(found.lines().count(), 8, "{found}");
        assert!(
            found.contains("other explained                       +6.00 MiB"),
            "{found}"
        );
    }

    #[test]
    fn retention_is_said_only_if_it_is_certain() {
        let parts = [(PartName::KeptByAllocators, 20 * MIB as i64)];
        let mut report = report(30 * MIB, 50 * MIB, &parts);
        report.balance[0].arenas = Some(16);
        report.processes[0].probes = vec![Probe {
            function: "malloc".into(),
            module: "/usr/lib/x86_64-linux-gnu/libc.so.6".into(),
            file_offset: 0,
            displacement: 0,
            placement: String::new(),
            result: String::new(),
        }];
        let said = "This is retention, not a leak: 20.0 MiB that was freed is kept by glibc in 16 arenas. MALLOC_ARENA_MAX=2";
        assert!(text(&report).contains(said), "{}", text(&report));
        let mut known = report.clone();
        known.balance[0].trimmable = Some(15 * MIB);
        let said = "malloc_trim(0) gives back what is free (about 15.0 MiB now).";
        assert!(text(&known).contains(said), "{}", text(&known));
        let mut lossy = report.clone();
        lossy.losses[0].count = 1;
        assert!(!text(&lossy).contains("retention"));
        let mut filtered = report.clone();
        filtered.settings.min_size = 100;
        assert!(!text(&filtered).contains("retention"));
        let mut filtered = report.clone();
        filtered.settings.only = vec!["main".into()];
        assert!(!text(&filtered).contains("retention"));
        // What was freed is less than what is kept, but not less than what is free by the
        // allocator's books.
        let mut booked = report.clone();
        for site in &mut booked.sites {
            (site.freed_bytes, site.freed_count) = (0, 0);
        }
        booked.sites[0].freed_bytes = 12 * MIB;
        let without = text(&booked);
        booked.balance[0].books = vec![AllocatorBooks {
            allocator: "jemalloc".into(),
            arenas: Some(9),
            free: 11 * MIB,
        }];
        assert!(!without.contains("retention"), "{without}");
        let said = "This is retention, not a leak: 11.0 MiB that was freed is kept by jemalloc in 9 arenas. By its own books 11.0 MiB";
        assert!(text(&booked).contains(said), "{}", text(&booked));
        booked.balance[0].books[0].free = 13 * MIB;
        assert!(!text(&booked).contains("retention"));
        // So much was never freed.
        for site in &mut report.sites {
            site.freed_bytes = 0;
        }
        assert!(!text(&report).contains("retention"));
    }

    #[test]
    fn memory_from_before_the_run_is_told_with_advice() {
        let mut report = report(300 * MIB, 300 * MIB, &[]);
        report.balance[0].older = 299 * MIB;
        report.balance[0].live_resident = 700 << 10;
        let found = text(&report);
        let expected = "Of 300 MiB resident, the blocks of this run explain 700 KiB; 299 MiB is older than the run (no growth during it)";
        assert!(
            found.contains(expected) && found.contains("`unfreed run`"),
            "{found}"
        );
        report.balance[0].live_resident = 100 * MIB;
        assert!(!text(&report).contains("older"));
    }

    #[test]
    fn what_grew_outside_of_heaps_is_named() {
        let parts = [(PartName::OlderMappings, 9 * MIB as i64)];
        let mut report = report(30 * MIB, 40 * MIB, &parts);
        report.balance[0].grown = vec![GrownMapping {
            start: 0x7000_0000,
            end: 0xb000_0000,
            resident: 9 << 20,
            growth: 9 * MIB,
            name: String::new(),
            is_older: true,
            is_traced: false,
            owner: Some("/x/libarrow\x1b.so".into()),
        }];
        let found = text(&report);
        let expected = "Grown outside of known heaps: +9.00 MiB in 0x70000000-0xb0000000 (1.00 GiB, mapped before the run, most pointers to it are in the data of /x/libarrow";
        assert!(found.contains(expected), "{found}");
        assert!(!found.contains('\x1b'), "{found:?}");
        let note = growth_note(&report).unwrap();
        assert!(
            note.starts_with("the resident set grew by 10.0 MiB, most of it: +9.00 MiB in"),
            "{note}"
        );
        report.balance[0].grown[0].is_traced = true;
        let found = text(&report);
        assert!(!found.contains("Grown outside"), "{found}");
    }

    #[test]
    fn a_control_group_that_grew_beside_its_processes_is_told() {
        let mut report = sample::report();
        let group = CgroupBalance {
            path: "/a".into(),
            start: 0,
            end: 60 * MIB,
            growth: 60 * MIB as i64,
            processes: 8 * MIB as i64,
            shared: 50 * MIB as i64,
            page_cache: 0,
            kernel: 2 * MIB as i64,
            untraced: 0,
        };
        report.cgroups = vec![group];
        let found = text(&report);
        let expected = "/a grew by 60.0 MiB, of which 52.0 MiB is in no process's own memory: shared memory and tmpfs +50.0 MiB";
        assert!(found.contains(expected), "{found}");
        let note = group_note(&report.cgroups[0]).unwrap();
        let parts =
            "50.0 MiB of files in memory and shared memory and 2.00 MiB of memory of the kernel's";
        assert!(note.contains(parts), "{note}");
        // Others may be to blame for it.
        report.cgroups[0].untraced = 3;
        let note = group_note(&report.cgroups[0]).unwrap();
        assert!(
            note.contains("/a (with 3 processes that are not traced) got"),
            "{note}"
        );
        report.cgroups[0].processes = 60 * MIB as i64;
        assert_eq!(text(&report), "");
        // Page cache goes when somebody needs the memory.
        let cache = CgroupBalance {
            shared: 0,
            page_cache: 50 * MIB as i64,
            kernel: MIB as i64 - 1,
            ..report.cgroups[0].clone()
        };
        assert_eq!(group_note(&cache), None);
    }

    #[test]
    fn each_of_several_processes_is_named() {
        let mut report = report(MIB, 3 * MIB, &[]);
        for pid in 10..15 {
            report.balance.push(Balance {
                pid,
                ..report.balance[0].clone()
            });
        }
        let found = text(&report);
        assert!(
            found.contains("Resident set of leaky (1234): 1.00 MiB"),
            "{found}"
        );
        assert!(
            found.contains("Resident set of leaky (11): 1.00 MiB"),
            "{found}"
        );
        assert!(
            found.contains("3 other processes together: 3.00 MiB"),
            "{found}"
        );
    }
}
