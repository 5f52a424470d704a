//! Losses, how whole the stacks are, and what tracing cost.

use super::layout::Layout;
use crate::model::{HitCost, Report, Shortened, Stacks};
use crate::report::{names, units};

/// Adds an empty line, the losses that occurred, the stacks and the cost.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    text.push('\n');
    if report.lost_events() > 0 {
        let heading = "Events were lost: ≥ marks a lower bound, ~ an estimate.";
        layout.prose(text, layout.warning, 0, heading);
    }
    for loss in report.occurred_losses() {
        let line = format!(
            "{} × {}: {}",
            units::grouped(loss.count),
            names::clean(&loss.cause),
            names::clean(&loss.meaning)
        );
        layout.prose(text, layout.warning, 2, &line);
    }
    unseen(text, report, layout);
    if let Some(line) = shortened(&report.shortened) {
        layout.prose(text, layout.warning, 0, &line);
    }
    if report.stacks.allocations > 0 {
        layout.prose(text, layout.faint, 0, &stacks(&report.stacks));
    }
    if !report.settings.return_instructions.is_empty() {
        let why = names::clean(&report.settings.return_instructions);
        let line = format!("Results were taken at return instructions: {why}.");
        layout.prose(text, layout.faint, 0, &line);
    }
    layout.prose(text, layout.faint, 0, &cost(report));
}

/// The functions that are not probed.
fn unseen(text: &mut String, report: &Report, layout: &Layout) {
    for process in &report.processes {
        for unseen in &process.unseen {
            let line = format!(
                "{} of {} in {} is not probed ({}){}.",
                names::clean(&unseen.function),
                names::clean(&unseen.module),
                names::process(process),
                names::clean(&unseen.reason),
                if unseen.seen_elsewhere {
                    "; it hands its calls on to libc's, which is"
                } else {
                    ""
                }
            );
            layout.prose(text, layout.warning, 0, &line);
        }
    }
}

/// What is missing of names; no number is touched by that.
fn shortened(shortened: &Shortened) -> Option<String> {
    let mut parts = Vec::new();
    if shortened.names > 0 {
        let length = match shortened.length {
            0 => String::new(),
            length => format!(" at {}", units::bytes(length)),
        };
        parts.push(format!(
            "{} cut{length}, since all together would take too much room",
            units::counted(shortened.names, "name")
        ));
    }
    if shortened.inlined > 0 {
        parts.push(format!(
            "inlined functions left out at {}, since there are so many frames",
            units::counted(shortened.inlined, "place")
        ));
    }
    (!parts.is_empty()).then(|| format!("Names: {}.", parts.join("; ")))
}

fn stacks(stacks: &Stacks) -> String {
    let mut line = format!(
        "Stacks: {} of the allocations have whole ones",
        units::percent(stacks.whole, stacks.allocations)
    );
    let mut separator = "; the others do not: ";
    for cut in &stacks.cut {
        let meaning = cut.end.meaning().unwrap_or_default();
        line.push_str(&format!(
            "{separator}{} × {meaning}",
            units::grouped(cut.allocations)
        ));
        separator = ", ";
    }
    line.push('.');
    line
}

fn cost(report: &Report) -> String {
    let cost = &report.overhead;
    let mut line = format!(
        "Cost: {} of about {:.0} ns",
        units::counted(
            cost.probe_hits.saturating_sub(cost.return_hits),
            "probe hit"
        ),
        cost.nanoseconds_per_hit,
    );
    if cost.return_hits > 0 {
        line.push_str(&format!(
            " and {} of about {:.0} ns at return instructions",
            units::grouped(cost.return_hits),
            cost.nanoseconds_per_return
        ));
    }
    let stepped = cost.hits.iter().filter(|hits| is_stepped(hits));
    let (stepped, nanoseconds) = stepped.fold((0, 0.0), |(count, sum), hits| {
        let each = hits.trap_nanoseconds + hits.program_nanoseconds;
        (count + hits.count, sum + hits.count as f64 * each)
    });
    if stepped > 0 {
        line.push_str(&format!(
            " ({} of them single-stepped, of about {:.0} ns)",
            units::grouped(stepped),
            nanoseconds / stepped as f64
        ));
    }
    line.push_str(&format!(
        ", together about {} of the target's time",
        units::seconds(cost.target_seconds)
    ));
    if cost.target_seconds_high > 0.0 {
        line.push_str(&format!(
            ", at least {} and at most {}",
            units::seconds(cost.target_seconds_low),
            units::seconds(cost.target_seconds_high)
        ));
    }
    if report.duration > 0.0 {
        let share = 100.0 * cost.target_seconds / report.duration;
        line.push_str(&format!(" ({share:.1}% of one core during the run)"));
    }
    line.push_str(&format!(
        "; {} of kernel memory; {} of the tracer's own CPU time.",
        units::bytes(cost.kernel_bytes),
        units::seconds(cost.tracer_seconds)
    ));
    if cost.all_system_calls {
        line.push_str(ALL_SYSTEM_CALLS);
    }
    if cost.system_call_events {
        line.push_str(SYSTEM_CALL_EVENTS);
    }
    line
}

/// Whether the kernel single-stepped these, beside return instructions, which it always
/// does.
fn is_stepped(hits: &HitCost) -> bool {
    hits.kind.starts_with("stepped_")
}

/// What it costs others that programs cannot be at the kernel's own functions; see
/// `BENCHMARKS.md`.
const ALL_SYSTEM_CALLS: &str = " This kernel takes no programs at its own functions, so mappings \
    were seen at tracepoints: every system call of every process took some 0.3 µs more.";

/// The same where only calls that change mappings run a program.
const SYSTEM_CALL_EVENTS: &str = " This kernel takes no programs at its own functions, so \
    mappings were seen at trace events: every system call of every process took some 0.1 µs more.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnseenFunction;
    use crate::report::sample;

    fn text(report: &Report) -> String {
        let mut text = String::new();
        render(&mut text, report, &Layout::new(10, Some(200), false));
        text
    }

    #[test]
    fn how_results_were_taken_is_said_with_what_it_costs() {
        let mut report = sample::report();
        let found = text(&report);
        assert!(
            found.contains("608,985 probe hits of about 610 ns, together"),
            "{found}"
        );
        assert!(!found.contains("return instructions"), "{found}");
        report.settings.return_instructions = "process 7 walks\x1b[2J".into();
        report.overhead.return_hits = 8_985;
        report.overhead.nanoseconds_per_return = 1_234.0;
        let found = text(&report);
        for part in [
            "Results were taken at return instructions: process 7 walks",
            "600,000 probe hits of about 610 ns and 8,985 of about 1234 ns at return instructions",
        ] {
            assert!(found.contains(part), "no {part:?} in {found}");
        }
        assert!(!found.contains('\x1b'), "{found:?}");
    }

    #[test]
    fn functions_that_are_not_probed_are_named() {
        let mut report = sample::report();
        let unseen = |function: &str, seen_elsewhere| UnseenFunction {
            function: function.into(),
            module: "/lib/\x1b[1mx.so".into(),
            reason: "it jumps".into(),
            seen_elsewhere,
            was_told: false,
        };
        report.processes[0].unseen = vec![unseen("calloc", false), unseen("mmap", true)];
        let found = text(&report);
        assert!(found.contains("calloc of /lib/"), "{found}");
        assert!(found.contains("is not probed (it jumps)."), "{found}");
        assert!(
            found.contains("it hands its calls on to libc's, which is."),
            "{found}"
        );
        assert!(!found.contains('\x1b'), "{found:?}");
    }
}
