//! Losses, and what tracing cost.

use super::layout::Layout;
use crate::report::model::Report;
use crate::report::{names, units};

/// Adds an empty line, the losses that occurred and the cost.
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
    layout.prose(text, layout.faint, 0, &cost(report));
}

fn cost(report: &Report) -> String {
    let cost = &report.overhead;
    let mut line = format!(
        "Cost: at least {} of about {:.0} ns, together about {} of the target's time",
        units::counted(cost.probe_hits, "probe hit"),
        cost.nanoseconds_per_hit,
        units::seconds(cost.target_seconds),
    );
    if report.duration > 0.0 {
        let share = 100.0 * cost.target_seconds / report.duration;
        line.push_str(&format!(" ({share:.1}% of one core during the run)"));
    }
    line.push_str(&format!(
        "; {} of kernel memory; {} of the tracer's own CPU time.",
        units::bytes(cost.kernel_bytes),
        units::seconds(cost.tracer_seconds)
    ));
    line
}
