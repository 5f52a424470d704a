//! What a row of mappings or of threads' stacks says besides.

use crate::model::{MappedFile, MemoryKind, Report, Site, StackOwners};
use crate::report::{names, units};

/// Adds what there is to say of mappings; nothing of blocks.
pub fn notes(notes: &mut Vec<String>, report: &Report, site: &Site) {
    let peak = site.resident_peak.unwrap_or(0);
    if peak > site.resident_bytes.unwrap_or(0) {
        notes.push(format!(
            "at most {} in memory at any look",
            units::bytes(peak)
        ));
    }
    if site.kind == MemoryKind::FileMapping {
        notes.push("mapped files".into());
        notes.extend(files(site));
    }
    if site.kind == MemoryKind::ThreadStack {
        notes.push(stacks(site.stacks));
    }
    let process = report.processes.get(site.process);
    let mappings = process.and_then(|process| process.mappings);
    let is_memory = matches!(
        site.kind,
        MemoryKind::Mapping | MemoryKind::FileMapping | MemoryKind::ThreadStack
    );
    if let Some(mappings) = mappings.filter(|it| is_memory && it.are_many()) {
        notes.push(format!(
            "the process has {} mappings of at most {} (vm.max_map_count)",
            units::grouped(mappings.count),
            units::grouped(mappings.limit)
        ));
    }
}

/// The files, those with most bytes first.
fn files(site: &Site) -> Option<String> {
    let file = |file: &MappedFile| {
        format!(
            "{} ({}, {})",
            names::clean(&file.name),
            units::counted(file.mappings, "mapping"),
            units::bytes(file.bytes)
        )
    };
    let files: Vec<_> = site.files.iter().map(file).collect();
    let known: u64 = site.files.iter().map(|file| file.mappings).sum();
    let others = match site.live_count.saturating_sub(known) {
        0 => String::new(),
        others => format!(", and {} of others", units::grouped(others)),
    };
    (!files.is_empty()).then(|| format!("of {}{others}", files.join(", ")))
}

fn stacks(owners: StackOwners) -> String {
    let part =
        |count: u64, what: &str| (count > 0).then(|| format!("{} {what}", units::grouped(count)));
    let parts = [
        part(owners.running, "run"),
        part(owners.ended, "ended and were never joined"),
        part(
            owners.joined,
            "were joined, and the C library keeps the stack for the next",
        ),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "stacks of threads".into(),
        false => format!("stacks of threads: {}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mappings;
    use crate::report::sample;

    fn said(report: &Report) -> String {
        let mut said = Vec::new();
        notes(&mut said, report, &report.sites[0]);
        said.join("|")
    }

    #[test]
    fn files_and_the_limit_of_mappings_are_said() {
        let mut report = sample::report();
        assert_eq!(said(&report), "", "nothing of blocks");
        let site = &mut report.sites[0];
        site.kind = MemoryKind::FileMapping;
        site.live_count = 500;
        site.files = vec![MappedFile {
            name: "/data/\x1b[2Jsegment".into(),
            mappings: 480,
            bytes: 480 << 18,
        }];
        let text = said(&report);
        assert!(
            text.contains("segment (480 mappings, 120 MiB), and 20 of others"),
            "{text}"
        );
        assert!(!text.contains('\x1b'), "{text:?}");
        let mut many = |count| {
            report.processes[0].mappings = Some(Mappings {
                count,
                limit: 65_530,
            });
            said(&report)
        };
        assert!(!many(32_765).contains("max_map_count"));
        assert!(many(32_766).contains("has 32,766 mappings of at most 65,530 (vm.max_map_count)"));
    }

    #[test]
    fn whose_stacks_they_are_is_said() {
        let mut report = sample::report();
        let site = &mut report.sites[0];
        site.kind = MemoryKind::ThreadStack;
        site.resident_bytes = Some(8192);
        site.resident_peak = Some(1 << 20);
        site.stacks = StackOwners {
            running: 0,
            ended: 1_013,
            joined: 1,
        };
        let text = said(&report);
        for part in [
            "at most 1.00 MiB in memory at any look",
            "1,013 ended and were never joined, 1 were joined",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
