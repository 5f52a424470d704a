//! Whether the stacks of Java threads are whole and named, and where
//! `targets/java/stacks/Mix.java` is seen to allocate.

use anyhow::{Result, ensure};

use crate::java_stack::{ends_in, has_frame, is_java};
use crate::model::{Site, StackEnd};
use crate::{Jdk, View};

/// The only caller of `calloc` in a deflater's beginning.
const DEFLATER: [&str; 2] = ["Java_java_util_zip_Deflater_init", "calloc"];

/// What stacks of Java threads have to be.
struct Wholeness {
    allocations: u64,
    whole: u64,
}

impl Wholeness {
    /// Counts allocations with a Java frame, and all whose stacks end early:
    /// nobody knows what was on those.
    fn of(report: &View) -> Self {
        let counted = |site: &&Site| is_java(site) || site.stack_end != StackEnd::Start;
        let sites: Vec<&Site> = report.sites.iter().filter(counted).collect();
        let sum = |wanted: &dyn Fn(&Site) -> bool| {
            let wanted = sites.iter().filter(|site| wanted(site));
            wanted.map(|site| site.allocated_count).sum()
        };
        Wholeness {
            allocations: sum(&|_| true),
            whole: sum(&|site| site.stack_end == StackEnd::Start),
        }
    }

    fn is_enough(&self) -> bool {
        self.allocations > 0 && self.whole * 100 >= self.allocations * 99
    }
}

/// At least 99 % whole and named, nothing lost.
///
/// # Errors
/// It is not so.
pub fn check(report: &View, jdk: &Jdk) -> Result<()> {
    let found = Wholeness::of(report);
    println!(
        "{}: {} of {} stacks whole, cut {:?}",
        jdk.name, found.whole, found.allocations, report.stacks.cut
    );
    for path in report.cut_paths() {
        println!("{path}");
    }
    ensure!(found.is_enough(), "{:?}", report.stacks);
    let nameless = report.nameless_java();
    println!("{}: without names {nameless:?}", jdk.name);
    let few = nameless.values().sum::<u64>() * 100 <= found.allocations;
    ensure!(few, "without names: {nameless:?}");
    // Libraries that are opened meanwhile may have been looked at late.
    let lost = report.occurred();
    let other = lost.iter().find(|loss| loss.cause != "late_allocator");
    ensure!(other.is_none(), "{lost:?}");
    Ok(())
}

/// Whether nearly all of so many calls were seen, and none that was not made:
/// a stack that ends early has not the methods that it began with.
pub fn nearly_all(seen: u64, calls: u64) -> bool {
    seen <= calls && seen * 100 >= calls * 99
}

/// How many deflaters were begun, below `method`.
pub fn deflaters(report: &View, method: &str) -> u64 {
    let begun = |site: &&Site| ends_in(site, &DEFLATER) && has_frame(site, method);
    let begun = report.sites.iter().filter(begun);
    begun.map(|site| site.allocated_count).sum()
}

/// Nearly all deflaters of so many calls in `stacks.Mix` are seen, below the methods
/// that they were made in.
///
/// # Errors
/// Too few are, or more than were made.
pub fn mix_is_seen(report: &View, calls: u64) -> Result<()> {
    let seen = [
        "stacks.Mix.allocate",
        "stacks.Mix.round",
        "stacks.Mix.rounds",
    ]
    .map(|method| deflaters(report, method));
    let all = seen.iter().all(|seen| nearly_all(*seen, calls));
    ensure!(all, "{seen:?} of {calls} calls");
    // Each begins where its thread does.
    let begun = deflaters(report, "java.lang.Thread.run");
    ensure!(
        nearly_all(begun, calls),
        "{begun} of {calls} from the thread's start"
    );
    Ok(())
}
