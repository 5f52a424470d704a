//! What a difference says: what is new, what got faster, and what stopped.

use serde::Serialize;

use super::Diff;
use crate::model::Verdict;
use crate::report::text::{Layout, PLAIN, deepest};
use crate::report::{names, units};

/// Findings that are told one by one.
const MAX_FINDINGS: usize = 6;

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiffKind {
    /// It grows in the later run, and did not in the earlier one.
    New,
    /// It grows faster than it did.
    Faster,
    /// It grows slower than it did.
    Slower,
    /// It grew in the earlier run, and does not in the later one.
    Stopped,
    /// It grows as it did, and another holds it (`--holders`).
    Held,
}

impl DiffKind {
    /// Its name in capitals, for people.
    const fn text(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Faster => "FASTER",
            Self::Slower => "SLOWER",
            Self::Stopped => "STOPPED",
            Self::Held => "HELD OTHERWISE",
        }
    }

    /// Whether it is a reason to worry.
    pub const fn is_worse(self) -> bool {
        matches!(self, Self::New | Self::Faster)
    }
}

/// One answer of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffFinding {
    /// What has changed.
    pub kind: DiffKind,
    /// One sentence.
    pub title: String,
    /// The process's name, where processes of several names were traced.
    pub process: Option<String>,
    /// Names of the call path, root first: what all its paths have in common.
    pub path: Vec<String>,
    /// How many call paths it is about.
    pub path_count: u64,
    /// By how much they grew in each run while they did, bytes a second in the mean since
    /// they first allocated.
    pub before_bytes_per_second: f64,
    /// See `before_bytes_per_second`.
    pub after_bytes_per_second: f64,
    /// What is live at the end of each run, bytes.
    pub before_live_bytes: u64,
    /// See `before_live_bytes`.
    pub after_live_bytes: u64,
    /// What each run's report says of the largest of them; `null` if it has none, or was
    /// not judged.
    pub before_verdict: Option<Verdict>,
    /// See `before_verdict`.
    pub after_verdict: Option<Verdict>,
    /// The probability that it is so, by those of both verdicts.
    pub confidence: f64,
    /// What speaks for it, and what against, a sentence each.
    pub evidence: Vec<String>,
}

/// Adds the findings, or that there are none, and an empty line.
pub fn render(text: &mut String, diff: &Diff, layout: &Layout) {
    for (number, finding) in (1..).zip(&diff.findings).take(MAX_FINDINGS) {
        let style = match finding.kind {
            DiffKind::New | DiffKind::Faster => layout.warning,
            DiffKind::Slower | DiffKind::Stopped | DiffKind::Held => layout.strong,
        };
        let head = format!(
            "{number}. {} ({:.0} % sure) {}",
            finding.kind.text(),
            100.0 * finding.confidence,
            names::clean(&finding.title)
        );
        layout.prose(text, style, 0, &head);
        for line in details(finding) {
            layout.prose(text, PLAIN, 3, &line);
        }
    }
    let rest = diff.findings.len().saturating_sub(MAX_FINDINGS);
    if rest > 0 {
        let rest = units::counted(rest as u64, "lesser finding");
        layout.prose(
            text,
            PLAIN,
            0,
            &format!("And {rest} (`findings` in the JSON)."),
        );
    }
    if diff.findings.is_empty() {
        layout.prose(text, layout.strong, 0, nothing(diff));
    }
    text.push('\n');
}

/// Why there are no findings.
fn nothing(diff: &Diff) -> &'static str {
    match diff.before.is_judged() && diff.after.is_judged() {
        true => "Nothing new grows, and what grew goes on as it did.",
        false => {
            "What grows is not known of both: a run of less than 2 s, and a profile of another tool, have no verdicts."
        }
    }
}

fn details(finding: &DiffFinding) -> Vec<String> {
    let mut lines = Vec::new();
    if !finding.path.is_empty() {
        lines.push(deepest(&finding.path));
    }
    let mut said = vec![format!(
        "{} live before, {} after",
        units::bytes(finding.before_live_bytes),
        units::bytes(finding.after_live_bytes)
    )];
    if let Some(process) = &finding.process {
        said.push(format!("in {}", names::clean(process)));
    }
    said.extend(
        finding
            .evidence
            .iter()
            .map(|it| names::clean(it).into_owned()),
    );
    lines.push(format!("{}.", said.join("; ")));
    lines
}
