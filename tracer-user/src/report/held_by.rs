//! Who holds blocks, in words.

use crate::model::{Chain, Holders, Link, LinkKind};
use crate::report::{names, units};

/// In the place of a root that nobody knows.
const UNKNOWN: &str = "what nobody knows";
/// Links of a chain that are told.
const MAX_LINKS: usize = 5;

/// The first chain, and how many blocks are lost; `None` if nobody knows anything.
pub fn line(holders: &Holders) -> Option<String> {
    let all = holders.sampled;
    let mut said = Vec::new();
    if let Some(first) = holders.chains.first() {
        let others = match holders.chains.len() as u64 - 1 {
            0 => String::new(),
            more => format!(", and by {}", units::counted(more, "other")),
        };
        let of = of_all(first.blocks, all);
        said.push(format!("held by {} ({of}{others})", chain(first)));
    }
    if holders.lost > 0 {
        let of = of_all(holders.lost, all);
        said.push(format!("lost: no pointer from outside leads to {of}"));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

fn of_all(part: u64, all: u64) -> String {
    format!("{part} of {} looked for", units::counted(all, "block"))
}

/// A chain's names, root first.
pub fn chain(chain: &Chain) -> String {
    let links = chain.links.iter();
    let mut told: Vec<String> = links.map(link).collect();
    if chain.links.first().is_some_and(|it| !it.kind.is_root()) {
        told.insert(0, UNKNOWN.to_owned());
    }
    if told.len() > MAX_LINKS {
        told.splice(2..told.len() + 3 - MAX_LINKS, ["…".to_owned()]);
    }
    told.join(" > ")
}

fn link(link: &Link) -> String {
    let name = names::clean(&link.name);
    let what = match link.kind {
        LinkKind::Block if link.name.starts_with("allocated at ") => format!("a block {name}"),
        _ => name.into_owned(),
    };
    match link.repeated {
        0 | 1 => what,
        times => format!("{what} (a chain of {})", units::grouped(times)),
    }
}

/// Whether a holder is a cache by its name.
pub fn is_cache(holders: &Holders) -> bool {
    let first = holders.chains.first().and_then(|chain| chain.links.first());
    first.is_some_and(|root| root.name.to_lowercase().contains("cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: LinkKind, name: &str, repeated: u64) -> Link {
        Link {
            kind,
            name: name.to_owned(),
            repeated,
            site: None,
        }
    }

    #[test]
    fn the_first_chain_and_what_is_lost_are_told() {
        let links = vec![
            named(LinkKind::Global, "g_cache (prog)", 1),
            named(LinkKind::Block, "allocated at insert", 9214),
        ];
        let mut holders = Holders {
            sampled: 64,
            lost: 1,
            chains: vec![Chain { links, blocks: 63 }],
            ..Holders::default()
        };
        let expected = "held by g_cache (prog) > a block allocated at insert (a chain of 9,214) \
                        (63 of 64 blocks looked for); lost: no pointer from outside leads to 1 of \
                        64 blocks looked for";
        assert_eq!(line(&holders).unwrap(), expected);
        assert!(is_cache(&holders));
        holders.chains.clear();
        holders.lost = 0;
        assert_eq!(line(&holders), None);
    }

    #[test]
    fn the_middle_of_a_long_chain_is_left_out() {
        let links = (0..8).map(|at| named(LinkKind::UntracedBlock, &at.to_string(), 1));
        let all = Chain {
            links: links.collect(),
            blocks: 1,
        };
        assert_eq!(chain(&all), "what nobody knows > 0 > … > 6 > 7");
    }
}
