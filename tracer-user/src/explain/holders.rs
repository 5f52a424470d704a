//! Who holds the live blocks.

use super::{INDENT, section};
use crate::model::{Holders, Report};
use crate::report::text::{Layout, PLAIN};
use crate::report::{held_by, names, units};

/// Chains that are told.
const MAX_CHAINS: usize = 10;

/// Adds by what chains the sampled blocks are held, how many are lost, and what is not known.
pub fn render(text: &mut String, report: &Report, holders: &Holders, layout: &Layout) {
    section(text, "Who holds its blocks", layout);
    layout.prose(text, PLAIN, INDENT, &searched(report, holders));
    let part = |blocks: u64| {
        format!(
            "{} of {}",
            units::grouped(blocks),
            units::grouped(holders.sampled)
        )
    };
    let chains = holders.chains.iter().take(MAX_CHAINS);
    let mut lines: Vec<String> = chains
        .map(|chain| format!("{}: {}", part(chain.blocks), held_by::chain(chain)))
        .collect();
    let others = holders.chains.get(MAX_CHAINS..).unwrap_or_default();
    if !others.is_empty() {
        let blocks = others.iter().map(|chain| chain.blocks).sum();
        let ways = units::counted(others.len() as u64, "other way");
        lines.push(format!("{}: in {ways}", part(blocks)));
    }
    if holders.lost > 0 {
        lines.push(format!(
            "{}: lost, no pointer leads to them",
            part(holders.lost)
        ));
    }
    if holders.undecided > 0 {
        lines.push(format!("{}: not found out", part(holders.undecided)));
    }
    let unsearched = holders.unsearched.iter();
    lines.extend(unsearched.map(|it| format!("not searched: {}", names::clean(it))));
    for line in lines {
        layout.prose(text, PLAIN, INDENT, &format!("- {line}."));
    }
}

/// What was looked for, and when.
fn searched(report: &Report, holders: &Holders) -> String {
    let blocks = units::counted(holders.sampled, "block");
    match report.searched.and_then(|it| it.at) {
        Some(at) => format!(
            "The oldest {blocks} were looked for {} after the run's start",
            units::seconds(at)
        ),
        None => format!("The oldest {blocks} were looked for at the end of the run"),
    }
}
