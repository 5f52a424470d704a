//! What findings came, went or changed since the report before, of a run that goes on.

use crate::model::{Finding, FindingKind, Report};
use crate::report::numbers::told;
use crate::report::units;

/// Changes that are told, at most.
const MAX_CHANGES: usize = 6;

/// The findings of the report before.
#[derive(Debug, Default)]
pub struct Since {
    before: Option<Vec<Finding>>,
}

impl Since {
    /// Enters into a judged report what has changed since the last one that was entered.
    pub fn enter(&mut self, report: &mut Report) {
        let now: Vec<Finding> = told(report).cloned().collect();
        if let Some(before) = &self.before {
            report.changes = changes(before, &now);
        }
        self.before = Some(now);
    }
}

/// A sentence for each change, most important first; one that there is none.
fn changes(before: &[Finding], now: &[Finding]) -> Vec<String> {
    let (mut came, mut turned, mut grew, mut went) = (vec![], vec![], vec![], vec![]);
    for finding in now {
        match before.iter().find(|it| is_same(it, finding)) {
            None => came.push(format!("new: {}", said(finding))),
            Some(it) if it.kind != finding.kind => {
                turned.push(format!("{}, and was {}", said(finding), it.kind.text()));
            }
            Some(it) if it.live_bytes != finding.live_bytes => grew.push(format!(
                "{}: {} live ({})",
                who(finding),
                units::bytes(finding.live_bytes),
                units::bytes_change(it.live_bytes, finding.live_bytes)
            )),
            Some(_) => {}
        }
    }
    for finding in before {
        if !now.iter().any(|it| is_same(it, finding)) {
            went.push(format!("no more: {}", said(finding)));
        }
    }
    let mut all = came;
    all.extend(turned.into_iter().chain(grew).chain(went));
    let more = all.len().saturating_sub(MAX_CHANGES);
    all.truncate(MAX_CHANGES);
    if more > 0 {
        all.push(format!(
            "and {}",
            units::counted(more as u64, "more change")
        ));
    }
    if all.is_empty() {
        all.push("no finding came, went or changed".to_owned());
    }
    all
}

/// Whether two findings are about the same: of one process, and one's call path goes on
/// where the other's ends; without paths, of one kind.
fn is_same(one: &Finding, other: &Finding) -> bool {
    let memory = |kind: FindingKind| matches!(kind, FindingKind::Leak | FindingKind::Growing);
    let alike = one.kind == other.kind || (memory(one.kind) && memory(other.kind));
    let (short, long) = match one.path.len() <= other.path.len() {
        true => (&one.path, &other.path),
        false => (&other.path, &one.path),
    };
    let on_path = long.starts_with(short) && short.is_empty() == long.is_empty();
    one.process == other.process && alike && on_path
}

fn said(finding: &Finding) -> String {
    format!("{} {}", finding.kind.text(), finding.title)
}

/// What it is about: its title without what grows.
fn who(finding: &Finding) -> &str {
    let title = finding.title.as_str();
    title.rsplit_once(": ").map_or(title, |(who, _)| who)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_came_turned_grew_and_went_is_told() {
        let mut since = Since::default();
        let mut first = sample::report();
        first.findings[0].kind = FindingKind::Growing;
        since.enter(&mut first);
        assert_eq!(first.changes, Vec::<String>::new(), "nothing was before");
        let mut second = sample::report();
        since.enter(&mut second);
        assert_eq!(second.changes.len(), 1);
        assert!(
            second.changes[0].starts_with("LEAK open_session(int)"),
            "{:?}",
            second.changes
        );
        assert!(
            second.changes[0].ends_with(", and was GROWING"),
            "{:?}",
            second.changes
        );
        let mut third = sample::report();
        third.findings[0].live_bytes += 1 << 20;
        let mut other = third.findings[0].clone();
        other.path = vec!["main".into(), "poll".into()];
        other.title = "poll leaks: 1 KiB/s".into();
        third.findings.push(other);
        since.enter(&mut third);
        let expected = [
            "new: LEAK poll leaks: 1 KiB/s",
            "open_session(int) allocates memory that is never freed: 10.6 MiB live (+1.00 MiB)",
        ];
        assert_eq!(third.changes, expected);
        let mut same = third.clone();
        since.enter(&mut same);
        assert_eq!(same.changes, ["no finding came, went or changed"]);
        let mut last = sample::report();
        last.findings.clear();
        since.enter(&mut last);
        assert_eq!(last.changes.len(), 2);
        assert!(last.changes[1].starts_with("no more: LEAK poll"));
    }
}
