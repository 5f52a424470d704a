//! What is said where only those allocations were traced that some code asked for.

use crate::model::{Report, Settings};
use crate::report::{names, units};

/// Names that are told before the rest is only counted.
const NAMED: usize = 4;

/// Who asked for all that was traced; none if nobody was chosen.
pub fn askers(settings: &Settings) -> Option<String> {
    let all = settings.modules.iter().chain(&settings.only);
    let all: Vec<_> = all.map(|name| names::clean(name)).collect();
    let (named, rest) = all.split_at(all.len().min(NAMED));
    let rest = match rest.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    (!named.is_empty()).then(|| format!("{}{rest}", named.join(", ")))
}

/// How many calls were not followed, and which names meant nothing.
pub fn lines(report: &Report) -> Vec<String> {
    let settings = &report.settings;
    if !settings.is_by_caller() {
        return Vec::new();
    }
    let chosen = if report.is_sampled() { "chosen " } else { "" };
    let calls = report.totals.calls_from_elsewhere;
    let mut lines = vec![format!(
        "Not followed, since other code made them: {} of allocators' functions",
        units::counted(calls, &format!("{chosen}call"))
    )];
    if !settings.unmet.is_empty() {
        let unmet: Vec<_> = settings.unmet.iter().map(|it| names::clean(it)).collect();
        lines.push(format!(
            "No process had any code for {}: nothing was traced of that",
            unmet.join(", ")
        ));
    }
    lines
}

/// What to add where it is said that nothing is live.
pub fn nothing_live(report: &Report) -> Option<String> {
    let askers = askers(&report.settings)?;
    Some(format!(
        "That is said of what {askers} asked for: nothing else was traced."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::report::text::nothing_live as said;

    #[test]
    fn it_is_said_whose_allocations_these_are() {
        let mut report = sample::report();
        assert_eq!(askers(&report.settings), None);
        assert!(lines(&report).is_empty());
        report.settings.modules = vec!["libfoo.so.1".into()];
        report.settings.only = ["a", "b", "c", "d"].map(String::from).to_vec();
        report.settings.unmet = vec!["--only d".into()];
        report.totals.calls_from_elsewhere = 1234;
        assert_eq!(
            askers(&report.settings).as_deref(),
            Some("libfoo.so.1, a, b, c and 1 more")
        );
        assert_eq!(
            lines(&report),
            [
                "Not followed, since other code made them: 1,234 calls of allocators' functions",
                "No process had any code for --only d: nothing was traced of that",
            ]
        );
        let text = said(&report);
        assert!(text.contains("nothing else was traced"), "{text}");
    }
}
