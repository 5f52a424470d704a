//! What a C library allocates with a thread's stack.
//!
//! glibc's `pthread_create` allocates a table of thread-local storage with each new stack, and
//! keeps it with the stack: when the thread has been joined both wait for the next thread,
//! whoever starts it. So such a block that stays says nothing of the path that allocated it;
//! the stacks, which are charged to who started the thread that runs in them, do.

use std::collections::HashMap;

use crate::model::{Finding, MemoryKind, Report, Site, Verdict};
use crate::report::own::goes_with_a_stack;
use crate::report::units;

/// Judges no path that allocates what goes with a stack, if stacks are seen themselves.
pub fn take_back(report: &mut Report) {
    let is_it =
        |site: &Site| site.verdict.is_some_and(Verdict::grows) && goes_with_a_stack(report, site);
    let sites = report.sites.iter().map(is_it).collect::<Vec<_>>();
    for (site, _) in report
        .sites
        .iter_mut()
        .zip(sites)
        .filter(|(_, is_it)| *is_it)
    {
        site.verdict = None;
        site.confidence = None;
    }
}

/// Says in findings of stacks what else stays with them.
pub fn enter(report: &Report, findings: &mut [Finding]) {
    let mut parts: HashMap<usize, u64> = HashMap::new();
    let live = report.sites.iter().filter(|site| site.live_count > 0);
    for site in live.filter(|site| goes_with_a_stack(report, site)) {
        let bytes = parts.entry(site.process).or_default();
        *bytes = bytes.saturating_add(site.held_bytes());
    }
    let stacks = report.sites.iter();
    let stacks = stacks.filter(|site| site.kind == MemoryKind::ThreadStack);
    let stacks: Vec<u64> = stacks.map(|site| site.id).collect();
    for finding in findings.iter_mut().filter(|it| it.kind.is_growth()) {
        let is_of_stacks = finding.sites.iter().any(|id| stacks.contains(id));
        if let Some(bytes) = parts.get(&finding.process).filter(|_| is_of_stacks) {
            finding.evidence.push(format!(
                "{} that the C library allocated with the process's stacks stays with them",
                units::bytes(*bytes)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FindingKind;
    use crate::report::sample;

    fn sites() -> Vec<Site> {
        let starter = |name| sample::program(name, "ring.c", 7, 0x40_2000);
        let with = sample::library("_dl_allocate_tls", 0x7f00_0000_8000);
        let mut stack = sample::site(1, (900_000, 90), (0, 0), vec![starter("ring_once")]);
        stack.kind = MemoryKind::ThreadStack;
        let table = sample::site(
            2,
            (24_480, 90),
            (0, 0),
            vec![starter("ring_and_join"), with],
        );
        let other = sample::site(3, (90_000, 90), (0, 0), vec![starter("remember")]);
        let mut sites = vec![stack, table, other];
        for site in &mut sites {
            (site.verdict, site.confidence) = (Some(Verdict::Leak), Some(0.9));
        }
        sites
    }

    #[test]
    fn who_allocates_what_goes_with_a_stack_leaks_nothing() {
        let mut report = sample::report();
        report.sites = sites();
        take_back(&mut report);
        let verdicts: Vec<_> = report.sites.iter().map(|site| site.verdict).collect();
        assert_eq!(verdicts, [Some(Verdict::Leak), None, Some(Verdict::Leak)]);
        let mut findings = [1, 3].map(|id| Finding {
            sites: vec![id],
            ..Finding::new(FindingKind::Leak, 0, 0.9)
        });
        enter(&report, &mut findings);
        assert_eq!(
            findings[0].evidence,
            ["23.9 KiB that the C library allocated with the process's stacks stays with them"]
        );
        assert!(findings[1].evidence.is_empty());
    }

    #[test]
    fn where_no_stacks_are_seen_it_is_judged_as_all_else() {
        let mut report = sample::report();
        report.sites = sites().split_off(1);
        take_back(&mut report);
        assert!(report.sites.iter().all(|site| site.verdict.is_some()));
    }
}
