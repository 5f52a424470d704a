//! What reports say of holders, so that runs can be compared.

use std::path::Path;

use anyhow::{Context, Result};

use crate::bench::model::{Holders, Report, Searched};

/// A report, and what its search took.
///
/// # Errors
/// Fails if there is none, or nothing was searched.
pub(super) fn read(path: &Path) -> Result<(Report, Searched)> {
    let text = std::fs::read(path).context("there is no report")?;
    let report: Report = serde_json::from_slice(&text)?;
    let searched = report.searched.context("it was not searched")?;
    Ok((report, searched))
}

/// Processor time for each GiB that was read, seconds.
pub(super) fn per_gib(searched: &Searched) -> f64 {
    searched.processor_seconds * f64::from(1 << 30) / searched.bytes as f64
}

/// The roots that are named, how many blocks each holds, and how many nobody holds or knows of: the
/// same whatever the ids of threads are.
pub(super) fn answer(holders: &Holders) -> String {
    let mut roots: Vec<(String, u64)> = Vec::new();
    for chain in &holders.chains {
        let root = chain.links.first().map(|link| without_id(&link.name));
        let root = root.unwrap_or_default();
        match roots.iter_mut().find(|(name, _)| name == root) {
            Some((_, blocks)) => *blocks += chain.blocks,
            None => roots.push((root.to_owned(), chain.blocks)),
        }
    }
    roots.sort();
    let held = roots
        .into_iter()
        .map(|(root, blocks)| format!("{root}: {blocks}"));
    let others = [("lost", holders.lost), ("undecided", holders.undecided)];
    let others = others.into_iter().filter(|(_, blocks)| *blocks > 0);
    let others = others.map(|(what, blocks)| format!("{what}: {blocks}"));
    held.chain(others).collect::<Vec<_>>().join(", ")
}

/// `name (4711)`: the name.
fn without_id(name: &str) -> &str {
    let parts = name
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" ("));
    match parts {
        Some((rest, id)) if id.bytes().all(|it| it.is_ascii_digit()) => rest,
        _ => name,
    }
}

/// Of how many runs the answer is the one that most have.
pub(super) fn agreeing(answers: &[String]) -> usize {
    let same = |answer: &String| answers.iter().filter(|it| *it == answer).count();
    answers.iter().map(same).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::model::{Chain, Link, LinkKind};

    fn chain(kind: LinkKind, name: &str, blocks: u64) -> Chain {
        let link = Link {
            kind,
            name: name.to_owned(),
            repeated: 1,
            site: None,
        };
        Chain {
            links: vec![link],
            blocks,
        }
    }

    #[test]
    fn answers_differ_by_roots_and_not_by_ids() {
        let of = |id: &str, lost| Holders {
            sampled: 64,
            lost,
            chains: vec![
                chain(LinkKind::Stack, &format!("worker ({id})"), 3),
                chain(LinkKind::Global, "g_all (program)", 50),
                chain(LinkKind::Stack, &format!("worker ({id})"), 4),
            ],
            ..Holders::default()
        };
        let one = answer(&of("17", 7));
        assert_eq!(one, "g_all (program): 50, worker: 7, lost: 7");
        let others = [one.clone(), answer(&of("18", 7)), answer(&of("17", 8))];
        assert_eq!(agreeing(&others), 2);
        assert_eq!(agreeing(&[]), 0);
    }
}
