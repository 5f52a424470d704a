//! Stacks that get deeper: a thread that calls ever on without returning, as a recursion without an
//! end or an interpreter that keeps a frame for each of its program's tail calls.

use super::outside::{LITTLE, PART, beyond_allocations, full};
use crate::model::balance::{Balance, PartName};
use crate::model::{Finding, MemoryKind, Report, Verdict};
use crate::report::{names, units};

/// How sure it is: threads of before the run may reach a depth once that they had not been at.
const SURE: f64 = 0.5;

/// A finding for each process that grows by the stacks of threads from before the run.
pub fn findings(report: &Report) -> Vec<Finding> {
    let balances = report.balance.iter();
    balances.filter_map(|it| deeper(report, it)).collect()
}

fn deeper(report: &Report, balance: &Balance) -> Option<Finding> {
    let grown = balance.part(PartName::Stacks);
    let is_small = grown < LITTLE || (grown as f64) < PART * balance.growth as f64;
    if is_small || starts_threads(report, balance.process) {
        return None;
    }
    let mut evidence = vec![format!(
        "its resident set grew by {}, and {} of that is stacks; what of a stack was in memory once stays there until its thread ends",
        units::bytes(u64::try_from(balance.growth).unwrap_or(0)),
        units::bytes(u64::try_from(grown).unwrap_or(0))
    )];
    let most = balance.grown.first();
    let bound = most.and_then(|most| full(report, balance.process, most, grown));
    let is_bounded = bound.is_some();
    evidence.extend(bound);
    let process = names::process_of(report, balance.process);
    let finding = Finding {
        title: format!("{process} grows by its threads' stacks, which get deeper"),
        evidence,
        ..beyond_allocations(balance, grown, SURE, "see what calls so deep")
    };
    Some(finding.growing_up_to(is_bounded, grown as f64, report))
}

/// Whether its threads become more: those have stacks of their own, which are told with who starts
/// them.
fn starts_threads(report: &Report, process: usize) -> bool {
    let is_kind = |kind| matches!(kind, MemoryKind::Thread | MemoryKind::ThreadStack);
    report.sites.iter().any(|site| {
        site.process == process && is_kind(site.kind) && site.verdict.is_some_and(Verdict::grows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FindingKind;
    use crate::model::balance::Part;
    use crate::report::sample;

    const MIB: i64 = 1 << 20;

    fn found(stacks: i64, growth: i64, starts: bool) -> Vec<Finding> {
        let mut report = sample::report();
        let mut balance = Balance {
            growth,
            ..Balance::default()
        };
        balance.explain([Part {
            name: PartName::Stacks,
            bytes: stacks,
        }]);
        report.balance = vec![balance];
        report.sites.truncate(1);
        report.sites[0].kind = MemoryKind::ThreadStack;
        report.sites[0].verdict = Some(match starts {
            true => Verdict::Leak,
            false => Verdict::Plateau,
        });
        findings(&report)
    }

    #[test]
    fn stacks_that_get_deeper_are_no_all_clear() {
        let all = found(29 * MIB, 30 * MIB, false);
        let [finding] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(finding.kind, FindingKind::OutsideAllocations);
        assert!(finding.evidence[0].contains("29.0 MiB of that is stacks"));
        assert!(finding.advice.contains("--growth"), "{finding:?}");
    }

    #[test]
    fn threads_that_stay_are_told_by_who_starts_them() {
        assert_eq!(found(29 * MIB, 30 * MIB, true), []);
        // A little deeper, or beside much else.
        assert_eq!(found(MIB - 1, MIB, false), []);
        assert_eq!(found(29 * MIB, 200 * MIB, false), []);
    }
}
