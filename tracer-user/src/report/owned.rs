//! Mappings that are a probed allocator's: one that maps a gigabyte when it is loaded, long before
//! the run, hands out parts of it ever after.
//!
//! Whose a mapping is, the pointers into it tell (`process::owner`), which is a guess. It is believed if
//! all of that file's allocators are probed, and what the run freed by them is as much as the mapping
//! grew by: then the mapping is where those blocks were.

use crate::model::balance::{Balance, GrownMapping, PartName};
use crate::model::{MemoryKind, Process, Report, Site};
use crate::report::retention::{freed_at_most, is_of_libc};

/// Takes such mappings for memory that allocators keep, in the balance of each process whose call
/// paths are its own.
pub fn tell_apart(report: &mut Report) {
    for at in 0..report.balance.len() {
        let balance = &report.balance[at];
        let process = report.processes.get(balance.process);
        let Some(process) = process.filter(|it| it.processes == 1) else {
            continue;
        };
        let is_its = |grown: &GrownMapping| is_allocators(report, process, balance.process, grown);
        let owned: Vec<GrownMapping> = balance
            .grown
            .iter()
            .filter(|it| is_its(it))
            .cloned()
            .collect();
        let balance = &mut report.balance[at];
        for grown in owned {
            take(balance, &grown);
        }
    }
}

fn take(balance: &mut Balance, grown: &GrownMapping) {
    let from = match grown.is_older {
        true => PartName::OlderMappings,
        false => PartName::UnseenMappings,
    };
    balance.hand_over(from, PartName::KeptByAllocators, grown.growth);
    balance.grown.retain(|it| it != grown);
}

fn is_allocators(report: &Report, process: &Process, index: usize, grown: &GrownMapping) -> bool {
    let Some(owner) = grown.owner.as_deref().filter(|it| !is_of_libc(it)) else {
        return false;
    };
    let is_probed = process.probes.iter().any(|probe| probe.module == owner);
    let mut unseen = process.unseen.iter().filter(|it| !it.seen_elsewhere);
    if !is_probed || unseen.any(|it| it.module == owner) {
        return false;
    }
    let own = report.sites.iter().filter(|site| site.process == index);
    let freed = own.filter(|site| is_by(site, owner)).map(freed_at_most);
    freed.fold(0, u64::saturating_add) >= grown.growth
}

/// Whether the allocator that a site's blocks are of is in a file.
fn is_by(site: &Site, file: &str) -> bool {
    let module = site.frames.last().and_then(|frame| frame.module.as_deref());
    site.kind == MemoryKind::Heap && module == Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::balance::Part;
    use crate::model::{Probe, UnseenFunction};
    use crate::report::retention::kept;
    use crate::report::sample;

    const MIB: u64 = 1 << 20;
    const FILE: &str = "/opt/libarrow.so";

    /// A process that grew by 100 MiB in a mapping from before the run, and freed so many blocks of a
    /// mebibyte by an allocator in this file.
    fn grown(file: &str, freed: u64) -> Report {
        let mut report = sample::report();
        let frames = vec![sample::program("render", "a.c", 5, 1)];
        let mut site = sample::site(1, (0, 0), (freed * MIB, freed), frames);
        if let Some(allocator) = site.frames.last_mut() {
            allocator.function = Some("mi_malloc".into());
            allocator.module = Some(file.into());
        }
        report.sites = vec![site];
        report.losses = vec![];
        report.processes[0].probes = vec![Probe {
            function: "mi_malloc".into(),
            module: file.into(),
            file_offset: 0,
            displacement: 0,
            placement: String::new(),
            result: String::new(),
        }];
        let mut balance = Balance {
            resident_end: 200 * MIB,
            resident_start: 100 * MIB,
            growth: 100 << 20,
            grown: vec![GrownMapping {
                growth: 100 * MIB,
                is_older: true,
                owner: Some(file.to_owned()),
                ..GrownMapping::default()
            }],
            ..Balance::default()
        };
        balance.explain([Part {
            name: PartName::OlderMappings,
            bytes: 100 << 20,
        }]);
        report.balance = vec![balance];
        report
    }

    fn told(mut report: Report) -> (i64, Option<u64>) {
        tell_apart(&mut report);
        let balance = &report.balance[0];
        assert!(balance.adds_up());
        let bytes = balance.part(PartName::KeptByAllocators);
        assert_eq!(bytes == 0, !balance.grown.is_empty());
        (bytes, kept(&report, balance))
    }

    #[test]
    fn an_arena_of_an_allocator_that_is_probed_is_what_it_keeps() {
        let all = (100 << 20, Some(100 * MIB));
        assert_eq!(told(grown(FILE, 100)), all);
        // Each block was rounded up.
        assert_eq!(told(grown(FILE, 90)), all);
    }

    #[test]
    fn what_was_not_freed_is_not_kept() {
        assert_eq!(told(grown(FILE, 70)), (0, None));
        // glibc's heaps have marks of their own.
        assert_eq!(told(grown("/lib/libc.so.6", 100)), (0, None));
        let mut others = grown(FILE, 100);
        others.balance[0].grown[0].owner = Some("/opt/other.so".to_owned());
        assert_eq!(told(others), (0, None));
    }

    #[test]
    fn another_allocator_of_the_file_may_have_it() {
        let mut report = grown(FILE, 100);
        report.processes[0].unseen = vec![UnseenFunction {
            function: "every function of its jemalloc".to_owned(),
            module: FILE.to_owned(),
            reason: "it has no name".to_owned(),
            seen_elsewhere: false,
            was_told: false,
        }];
        assert_eq!(told(report), (0, None));
    }
}
