//! What a report says of the budget (`--overhead`).

use crate::model::{BudgetReport, RegimeTime, Report};
use crate::report::units;

/// What was allowed and spent, and how the run went.
pub fn line(report: &Report) -> Option<String> {
    let budget = report.budget.as_ref()?;
    let parts = [Some(spent(budget)), regimes(budget), faults(budget)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Some(parts.join(" "))
}

fn spent(budget: &BudgetReport) -> String {
    let of = if budget.asked.ends_with('%') {
        " of the targets' processor time"
    } else {
        ""
    };
    let all = budget.target_seconds + budget.tracer_seconds;
    let verdict = match all <= budget.allowed_seconds {
        true => "kept",
        false => "exceeded",
    };
    format!(
        "Budget {}{of} (and 5 ms/s at least), {verdict}: {} were allowed; tracing took {} of the targets' time ({:.2}% of it), and the tracer {} beside it.",
        budget.asked,
        units::seconds(budget.allowed_seconds),
        units::seconds(budget.target_seconds),
        100.0 * budget.target_seconds / budget.used_seconds.max(1e-9),
        units::seconds(budget.tracer_seconds),
    )
}

/// What became of page faults.
fn faults(budget: &BudgetReport) -> Option<String> {
    let faults = budget.faults.as_ref()?;
    let not_followed = faults.passed_over_seconds + faults.detached_seconds;
    if faults.pauses == 0 {
        return Some("Page faults: all were followed.".to_owned());
    }
    Some(format!(
        "Page faults: {} followed within {}; {} not followed within {} ({} without any program at them), of which it is not known by which path they came.",
        units::grouped(faults.followed),
        units::seconds(faults.followed_seconds),
        units::grouped(faults.not_followed),
        units::seconds(not_followed),
        units::seconds(faults.detached_seconds),
    ))
}

fn regimes(budget: &BudgetReport) -> Option<String> {
    if budget.regimes.is_empty() {
        return None;
    }
    let of = |name: &str| {
        let own = budget.regimes.iter().filter(|it| it.regime == name);
        own.map(|it| it.seconds).sum::<f64>()
    };
    let words = [
        ("exact", "all allocations"),
        ("sampled", "a sample of them"),
        ("bursts", "bursts"),
        (
            "off",
            "nothing, since not even bursts were within the budget",
        ),
    ];
    let followed: Vec<String> = words
        .into_iter()
        .filter(|(name, _)| of(name) > 0.0)
        .map(|(name, what)| format!("{what} for {}", units::seconds(of(name))))
        .collect();
    let mut line = format!("Followed: {}", followed.join(", "));
    if budget.bursts > 0 {
        line.push_str(&format!(
            "; {}, the dearest took {}",
            units::counted(budget.bursts, "burst"),
            units::seconds(budget.dearest_burst)
        ));
    }
    if let Some(time) = budget.followed_for {
        line.push_str(&format!(
            "; blocks that lived for {} were not followed any longer for want of room (--max-live), and count as live",
            units::seconds(time)
        ));
    }
    match changes(&budget.regimes) {
        0 | 1 => {}
        changes => line.push_str(&format!("; changed {} times", units::grouped(changes))),
    }
    let base = budget.attention.iter().filter(|it| it.regime == "base");
    let base: f64 = base.map(|it| it.seconds).sum();
    if base > 0.0 {
        line.push_str(&format!(
            "; for {} nothing grew, and bursts had a quarter of the budget",
            units::seconds(base)
        ));
    }
    line.push('.');
    Some(line)
}

fn changes(regimes: &[RegimeTime]) -> u64 {
    regimes.len().saturating_sub(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FaultsReport;
    use crate::report::sample;
    use crate::report::text::chance;

    #[test]
    fn the_budget_is_said_with_what_was_spent() {
        let mut report = sample::report();
        assert_eq!(line(&report), None);
        let regime = |regime: &str, since, seconds| RegimeTime {
            regime: regime.to_owned(),
            since,
            seconds,
        };
        report.budget = Some(BudgetReport {
            asked: "1%".into(),
            allowed_seconds: 0.6,
            target_seconds: 0.5,
            tracer_seconds: 0.08,
            used_seconds: 60.0,
            regimes: vec![
                regime("exact", 0.0, 0.02),
                regime("bursts", 0.02, 50.0),
                regime("exact", 50.02, 9.98),
            ],
            bursts: 21,
            duty: 0.01,
            followed_for: None,
            scale_error: 0.1,
            dearest_burst: 0.03,
            attention: Vec::new(),
            faults: None,
        });
        assert_eq!(
            line(&report).unwrap(),
            "Budget 1% of the targets' processor time (and 5 ms/s at least), kept: 600 ms were allowed; tracing took 500 ms of the targets' time (0.83% of it), and the tracer 80.0 ms beside it. Followed: all allocations for 10.0 s, bursts for 50.0 s; 21 bursts, the dearest took 30.0 ms; changed 2 times."
        );
        let budget = report.budget.as_mut().unwrap();
        budget.attention = vec![regime("full", 0.0, 20.0), regime("base", 20.0, 30.0)];
        budget.faults = Some(FaultsReport {
            followed: 12_000,
            not_followed: 3_000_000,
            pauses: 9,
            followed_seconds: 2.0,
            passed_over_seconds: 8.0,
            detached_seconds: 50.0,
        });
        let said = line(&report).unwrap();
        for words in [
            "changed 2 times; for 30.0 s nothing grew, and bursts had a quarter of the budget.",
            "Page faults: 12,000 followed within 2.0 s; 3,000,000 not followed within 58.0 s (50.0 s without any program at them)",
        ] {
            assert!(said.contains(words), "{said}");
        }
        let budget = report.budget.as_mut().unwrap();
        budget.asked = "5ms/s".into();
        budget.target_seconds = 0.7;
        assert!(
            line(&report)
                .unwrap()
                .starts_with("Budget 5ms/s (and 5 ms/s at least), exceeded")
        );
    }

    #[test]
    fn before_the_first_burst_it_is_said_that_only_the_beginning_was_seen() {
        let mut report = sample::sampled_report();
        let regime = |regime: &str, seconds| RegimeTime {
            regime: regime.to_owned(),
            since: 0.0,
            seconds,
        };
        report.sampling.as_mut().unwrap().interval = 0;
        report.budget = Some(BudgetReport {
            asked: "1%".into(),
            regimes: vec![regime("exact", 0.02), regime("bursts", 1.98)],
            duty: 0.01,
            ..BudgetReport::default()
        });
        let lines = chance::lines(&report).join("\n");
        assert!(
            lines.starts_with(
                "Followed for 1.00% of the time, at the beginning: there was no burst since."
            ),
            "{lines}"
        );
        report.budget.as_mut().unwrap().bursts = 1;
        report.sampling.as_mut().unwrap().bursts = 1;
        let lines = chance::lines(&report).join("\n");
        assert!(lines.contains("in 1 burst"), "{lines}");
    }
}
