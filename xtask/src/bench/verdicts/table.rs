//! The tables of verdicts.

use std::fmt::Write as _;

use super::label::Half;
use super::run::Found;
use super::score::{OfClass, OfRange, Outcome, RANGES};
use crate::bench::figures::median;
use crate::bench::model::Verdict;
use crate::bench::modes::Mode;

const CLASSES: [Verdict; 6] = [
    Verdict::Leak,
    Verdict::Growing,
    Verdict::Plateau,
    Verdict::Startup,
    Verdict::Churn,
    Verdict::Batch,
];

/// The tables of one way to trace.
pub(super) fn all(mode: Mode, seconds: &[u64], found: &Found, failed: &[String]) -> String {
    let mut text = format!("### {}\n", mode.name());
    for half in [Half::Design, Half::Measure] {
        let own = found.outcomes.iter().filter(|it| it.half == half);
        let own: Vec<&Outcome> = own.collect();
        if !own.is_empty() {
            text += &of_half(half, seconds, &own);
        }
    }
    let others: Vec<&str> = found.others.iter().map(String::as_str).collect();
    text += &list("Leaks said of paths that are not judged", &others);
    let failed: Vec<&str> = failed.iter().map(String::as_str).collect();
    text += &list("Runs that failed", &failed);
    text
}

fn of_half(half: Half, seconds: &[u64], outcomes: &[&Outcome]) -> String {
    let mut text = String::new();
    for at in seconds {
        let then: Vec<&Outcome> = outcomes.iter().filter(|it| it.at == *at).copied().collect();
        let _ = write!(
            text,
            "\nThe {} half after {at} s, {} judged:\n\n{}\n{}",
            half.name(),
            then.len(),
            classes(&then),
            names(&then)
        );
        text += &rates(&then);
    }
    let _ = write!(
        text,
        "\nConfidence in the {} half, all times together:\n\n{}",
        half.name(),
        calibration(outcomes)
    );
    text
}

fn classes(outcomes: &[&Outcome]) -> String {
    let mut table = "| class | are | found | recall | said | right | precision |\n\
                     |---|---|---|---|---|---|---|\n"
        .to_owned();
    for class in CLASSES {
        let of = OfClass::count(outcomes, class);
        if of.are + of.said > 0 {
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {} | {} | {} |",
                name(class),
                of.are,
                of.found,
                part(of.found, of.are),
                of.said,
                of.right,
                part(of.right, of.said)
            );
        }
    }
    table
}

fn calibration(outcomes: &[&Outcome]) -> String {
    let mut table =
        "| said with | verdicts | right | leaks alone | right |\n|---|---|---|---|---|\n"
            .to_owned();
    for (low, high) in RANGES {
        let all = OfRange::count(outcomes, (low, high), None);
        let leaks = OfRange::count(outcomes, (low, high), Some(Verdict::Leak));
        let cells = |range: OfRange| match range.said {
            0 => "0 | ".to_owned(),
            said => format!(
                "{said} (mean {:.2}) | {} ({})",
                range.mean,
                range.right,
                part(range.right, said)
            ),
        };
        let _ = writeln!(
            table,
            "| {low:.2} to {:.2} | {} | {} |",
            high.min(1.0),
            cells(all),
            cells(leaks)
        );
    }
    table
}

/// What was said of it, for people.
fn said(outcome: &Outcome) -> String {
    match outcome.said {
        Some(said) => format!("{} {:.2}", name(said.verdict), said.confidence),
        None => "nothing".to_owned(),
    }
}

/// Whether an outcome is of some kind.
type Is = fn(&Outcome) -> bool;

fn names(outcomes: &[&Outcome]) -> String {
    let named = |which: Is| {
        let chosen = outcomes.iter().filter(|it| which(it));
        let lines: Vec<String> = chosen
            .map(|it| format!("{} ({}): {}", it.name, it.kind, said(it)))
            .collect();
        lines
    };
    let lists: [(&str, Is); 3] = [
        ("False leaks", Outcome::is_false_leak),
        ("Leaks that were missed", Outcome::is_missed_leak),
        ("Other verdicts that are not right", |it| {
            !it.is_found() && !it.is_false_leak() && !it.is_missed_leak()
        }),
    ];
    let mut text = String::new();
    for (title, which) in lists {
        let lines = named(which);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        text += &list(title, &lines);
    }
    text
}

/// How near the rates of leaks are that were found.
fn rates(outcomes: &[&Outcome]) -> String {
    let leaks = outcomes
        .iter()
        .filter(|it| it.is(Verdict::Leak) && it.is_found());
    let ratios = leaks.filter_map(|it| Some(it.said?.rate? / it.rate));
    let ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
    if ratios.is_empty() {
        return String::new();
    }
    let near = ratios
        .iter()
        .filter(|ratio| (0.8..1.25).contains(*ratio))
        .count();
    format!(
        "\nThe stated rate of leaks that were found is {:.2} of the true one in the median, and \
         within a quarter of it for {near} of {}.\n",
        median(ratios.clone()),
        ratios.len()
    )
}

fn list(title: &str, lines: &[&str]) -> String {
    match lines {
        [] => format!("\n{title}: none.\n"),
        _ => format!("\n{title}:\n\n- {}\n", lines.join("\n- ")),
    }
}

fn part(of: usize, all: usize) -> String {
    match all {
        0 => String::new(),
        _ => format!("{:.0} %", 100.0 * of as f64 / all as f64),
    }
}

const fn name(class: Verdict) -> &'static str {
    match class {
        Verdict::Leak => "leak",
        Verdict::Growing => "growing",
        Verdict::Plateau => "plateau",
        Verdict::Startup => "start-up",
        Verdict::Batch => "batch",
        Verdict::Churn => "churn",
    }
}

#[cfg(test)]
mod tests {
    use super::super::score::tests::outcome;
    use super::*;

    #[test]
    fn what_is_false_is_named() {
        let outcomes = vec![
            outcome(&[Verdict::Leak], Some((Verdict::Leak, 0.9))),
            outcome(&[Verdict::Leak], None),
            outcome(&[Verdict::Plateau], Some((Verdict::Leak, 0.6))),
            outcome(&[Verdict::Plateau], Some((Verdict::Churn, 0.8))),
        ];
        let found = Found {
            outcomes,
            ..Found::default()
        };
        let text = all(Mode::Exact, &[120], &found, &["c:two: it ended".into()]);
        for part in [
            "The design half after 120 s, 4 judged:",
            "| leak | 2 | 1 | 50 % | 2 | 1 | 50 % |",
            "| 0.85 to 0.95 | 1 (mean 0.90) | 1 (100 %) | 1 (mean 0.90) | 1 (100 %) |",
            "False leaks:\n\n- c:one (cache): leak 0.60\n",
            "Leaks that were missed:\n\n- c:one (cache): nothing\n",
            "Other verdicts that are not right:\n\n- c:one (cache): churn 0.80\n",
            "is 2.00 of the true one in the median, and within a quarter of it for 0 of 1.",
            "Runs that failed:\n\n- c:two: it ended\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("measure"), "{text}");
    }
}
