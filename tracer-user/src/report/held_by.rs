//! Who holds blocks, or the objects of a Java class, in words.

use std::collections::BTreeMap;

use crate::model::{Chain, Holders, Link, LinkKind, Site};
use crate::report::own::own_part;
use crate::report::{names, units};

/// In the place of a root that nobody knows.
const UNKNOWN: &str = "what nobody knows";
/// Links that are told of a chain, of its ends.
const MAX_LINKS: usize = 8;

/// `held by thread "pool-1-thread-3" -> Entry.value -> Scope.next (a chain of 9,214): 63 of 64
/// sampled; lost: no pointer leads to 1 of 64 sampled`; or why it is not known.
pub fn sentence(holders: &Holders) -> String {
    let mut said = Vec::new();
    if let Some(first) = holders.chains.first() {
        let of = of_all(first.blocks, holders);
        said.push(format!("held by {}: {of}", chain(first)));
        said.extend(others(holders));
    }
    said.extend(lost(holders));
    match said.is_empty() {
        true => return unknown(holders),
        false if holders.undecided > 0 => said.push(format!(
            "{} whose holder was not found",
            units::grouped(holders.undecided)
        )),
        false => {}
    }
    said.join("; ")
}

fn of_all(part: u64, holders: &Holders) -> String {
    format!(
        "{} of {} sampled{}",
        units::grouped(part),
        units::grouped(holders.sampled),
        match holders.recorded {
            true => " by JFR",
            false => "",
        }
    )
}

/// How many nothing leads to: of all, if that is known.
fn lost(holders: &Holders) -> Option<String> {
    let which = match holders.all_lost {
        Some(lost) if lost.blocks == 0 => return None,
        Some(lost) => format!(
            "{} ({})",
            units::counted(lost.blocks, "block"),
            units::bytes(lost.bytes)
        ),
        None if holders.lost == 0 => return None,
        None => of_all(holders.lost, holders),
    };
    Some(format!("lost: no pointer leads to {which}"))
}

/// How many are held in other ways than the first.
fn others(holders: &Holders) -> Option<String> {
    let others = holders.chains.get(1..).filter(|it| !it.is_empty())?;
    let blocks: u64 = others.iter().map(|chain| chain.blocks).sum();
    let ways = units::counted(others.len() as u64, "other way");
    Some(format!("{} in {ways}", units::grouped(blocks)))
}

/// Where nothing is known.
fn unknown(holders: &Holders) -> String {
    let said = holders.unsearched.iter();
    let why: Vec<_> = said.map(|it| names::clean(it)).collect();
    match why.is_empty() {
        true => "who holds it was not found".to_owned(),
        false => format!("who holds it was not found: {}", why.join("; ")),
    }
}

/// A chain's names, root first.
pub fn chain(chain: &Chain) -> String {
    // Arrays between two fields of Java's tell nothing.
    let is_told = |it: &&Link| it.kind != LinkKind::JavaObject || !it.name.ends_with("[]");
    let mut links: Vec<String> = chain.links.iter().filter(is_told).map(link).collect();
    if chain.links.first().is_some_and(|it| !it.kind.is_root()) {
        links.insert(0, UNKNOWN.to_owned());
    }
    if links.len() > MAX_LINKS {
        let left_out = links.len() - MAX_LINKS + 1;
        let from = MAX_LINKS / 2;
        links.splice(from..from + left_out, [format!("{left_out} more")]);
    }
    links.join(" -> ")
}

/// One holder, with how often it follows itself.
fn link(link: &Link) -> String {
    let mut text = holder(link);
    if link.repeated > 1 {
        text.push_str(&format!(" (a chain of {})", units::grouped(link.repeated)));
    }
    text
}

/// One holder.
pub fn holder(link: &Link) -> String {
    let name = names::clean(&link.name);
    let short = short(&name);
    match link.kind {
        LinkKind::JavaThread => format!("thread \"{name}\""),
        LinkKind::Stack => format!("the stack of thread \"{name}\""),
        LinkKind::ClassLoader => format!("class loader {short}"),
        LinkKind::JavaStatic | LinkKind::JavaObject => short.to_owned(),
        LinkKind::Block if link.name.starts_with(ALLOCATED) => format!("a block {name}"),
        _ => name.into_owned(),
    }
}

/// How the name of a traced block without a class begins.
pub const ALLOCATED: &str = "allocated at ";

/// A Java class, or a field with its class, without packages: those begin in lower case.
fn short(name: &str) -> &str {
    let is_class = |part: &&str| !part.starts_with(|letter: char| letter.is_lowercase());
    let mut from = 0;
    for part in name.split('.') {
        if is_class(&part) {
            return &name[from..];
        }
        from += part.len() + 1;
    }
    name
}

/// Where blocks are allocated: the deepest of the program's own functions.
pub fn allocated_at(site: &Site) -> String {
    let frames = names::drawn_frames(site);
    let deepest = own_part(&frames).last();
    deepest
        .map_or(names::UNKNOWN.into(), names::label)
        .into_owned()
}

/// In the place of a holder of what is lost.
const NOBODY: &str = "nobody";

/// By whom more than half of the blocks of which that is known are held, or that nobody holds them: as
/// it is called in other runs too, without the ids of threads. `None` if there is no such holder.
pub fn mostly(holders: &Holders) -> Option<String> {
    let decided = holders.sampled.saturating_sub(holders.undecided);
    let mut roots: BTreeMap<String, u64> = BTreeMap::new();
    for chain in &holders.chains {
        let root = chain.links.first().filter(|it| it.kind.is_root());
        let name = root.map_or_else(|| UNKNOWN.to_owned(), of_any_run);
        *roots.entry(name).or_default() += chain.blocks;
    }
    roots.insert(NOBODY.to_owned(), holders.lost);
    let is_most = |blocks: u64| blocks > decided / 2;
    roots
        .into_iter()
        .find_map(|(name, blocks)| is_most(blocks).then_some(name))
}

fn of_any_run(link: &Link) -> String {
    let mut link = link.clone();
    if matches!(link.kind, LinkKind::Stack | LinkKind::ThreadLocal)
        && let Some((name, id)) = link.name.rsplit_once(" (")
        && id
            .trim_end_matches(')')
            .bytes()
            .all(|it| it.is_ascii_digit())
    {
        link.name = name.to_owned();
    }
    holder(&link)
}

/// Whether a holder is a cache by its name.
pub fn is_cache(holders: &Holders) -> bool {
    let first = holders.chains.first().and_then(|chain| chain.links.first());
    first.is_some_and(|root| root.name.to_lowercase().contains("cache"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lost;

    fn named(kind: LinkKind, name: &str, repeated: u64) -> Link {
        Link {
            kind,
            name: name.to_owned(),
            repeated,
            site: None,
        }
    }

    fn holders(chains: Vec<Chain>) -> Holders {
        Holders {
            sampled: 64,
            chains,
            ..Holders::default()
        }
    }

    #[test]
    fn the_first_chain_and_what_is_lost_are_told() {
        let links = vec![
            named(LinkKind::Global, "g_cache (prog)", 1),
            named(LinkKind::Block, "allocated at insert", 9214),
        ];
        let mut holders = holders(vec![Chain { links, blocks: 63 }]);
        holders.lost = 1;
        let expected = "held by g_cache (prog) -> a block allocated at insert (a chain of 9,214): \
                        63 of 64 sampled; lost: no pointer leads to 1 of 64 sampled";
        assert_eq!(sentence(&holders), expected);
        holders.all_lost = Some(Lost {
            blocks: 3,
            bytes: 4096,
        });
        let text = sentence(&holders);
        assert!(
            text.ends_with("; lost: no pointer leads to 3 blocks (4.00 KiB)"),
            "{text}"
        );
        assert!(is_cache(&holders));
    }

    #[test]
    fn java_s_holders_are_told_without_packages_and_arrays() {
        let links = vec![
            named(LinkKind::JavaThread, "pool-1-thread-3", 1),
            named(
                LinkKind::JavaObject,
                "java.lang.ThreadLocal$ThreadLocalMap.table",
                1,
            ),
            named(
                LinkKind::JavaObject,
                "java.lang.ThreadLocal$ThreadLocalMap$Entry[]",
                1,
            ),
            named(LinkKind::JavaObject, "io.trace.Scope.toRestore", 9214),
        ];
        let other = vec![named(LinkKind::JavaStatic, "shop.Cart.all", 1)];
        let mut found = holders(vec![
            Chain { links, blocks: 60 },
            Chain {
                links: other,
                blocks: 3,
            },
        ]);
        found.undecided = 1;
        assert_eq!(
            sentence(&found),
            "held by thread \"pool-1-thread-3\" -> ThreadLocal$ThreadLocalMap.table -> \
             Scope.toRestore (a chain of 9,214): 60 of 64 sampled; 3 in 1 other way; \
             1 whose holder was not found"
        );
    }

    #[test]
    fn what_is_not_known_says_why_and_names_cannot_steer_the_terminal() {
        let mut none = holders(vec![]);
        none.unsearched = vec!["it collected \u{1b}[31m".to_owned()];
        let text = sentence(&none);
        assert!(text.starts_with("who holds it was not found: it collected"));
        assert!(!text.contains('\u{1b}'), "{text:?}");
        none.lost = 60;
        none.undecided = 4;
        assert_eq!(
            sentence(&none),
            "lost: no pointer leads to 60 of 64 sampled; 4 whose holder was not found"
        );
        let links = vec![named(LinkKind::JavaStatic, "a\u{1b}.B.c", 1)];
        let text = sentence(&holders(vec![Chain { links, blocks: 1 }]));
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn what_a_flight_recording_told_says_so() {
        let mut found = holders(vec![Chain {
            links: vec![named(LinkKind::JavaStatic, "shop.Cart.all", 1)],
            blocks: 9,
        }]);
        (found.sampled, found.recorded) = (10, true);
        found.undecided = 1;
        let expected = "held by Cart.all: 9 of 10 sampled by JFR; 1 whose holder was not found";
        assert_eq!(sentence(&found), expected);
    }

    #[test]
    fn who_holds_most_is_called_the_same_in_each_run() {
        let chain = |kind, name: &str, blocks| Chain {
            links: vec![named(kind, name, 1)],
            blocks,
        };
        let (stack, global) = (LinkKind::Stack, LinkKind::Global);
        let mut found = holders(vec![
            chain(stack, "worker (4711)", 40),
            chain(global, "g (a)", 20),
        ]);
        assert_eq!(
            mostly(&found).as_deref(),
            Some("the stack of thread \"worker\"")
        );
        found.chains[0] = chain(global, "g (4711)", 40);
        assert_eq!(mostly(&found).as_deref(), Some("g (4711)"), "no thread");
        // Several ways from one root are one holder; half is not most.
        found.chains = vec![chain(global, "g (a)", 16), chain(global, "g (a)", 16)];
        assert_eq!(mostly(&found), None);
        found.undecided = 2;
        assert_eq!(mostly(&found).as_deref(), Some("g (a)"));
        found.lost = 33;
        found.chains.clear();
        assert_eq!(mostly(&found).as_deref(), Some("nobody"));
        assert_eq!(mostly(&Holders::default()), None);
    }

    #[test]
    fn the_middle_of_a_long_chain_is_left_out() {
        let links = (0..8).map(|at| named(LinkKind::UntracedBlock, &at.to_string(), 1));
        let all = Chain {
            links: links.collect(),
            blocks: 1,
        };
        assert_eq!(
            chain(&all),
            "what nobody knows -> 0 -> 1 -> 2 -> 2 more -> 5 -> 6 -> 7"
        );
    }

    #[test]
    fn packages_are_left_out() {
        for (name, expected) in [
            ("a.b.C.d", "C.d"),
            ("C.d", "C.d"),
            ("a.b.c", "a.b.c"),
            ("java.lang.Object[]", "Object[]"),
        ] {
            assert_eq!(short(name), expected);
        }
    }
}
