//! Who holds memory, in a line.

use crate::model::{Chain, Holders, Link, LinkKind};
use crate::report::{names, units};

/// Links that are shown of a chain, of its ends.
const MAX_LINKS: usize = 8;

/// `held by Thread "pool-1-thread-3" -> Entry.value -> Scope.next (a chain of 9,214): 64 of 64
/// sampled`; or why it is not known.
pub fn sentence(holders: &Holders) -> String {
    let Some(first) = holders.chains.first() else {
        return unknown(holders);
    };
    let mut line = format!(
        "held by {}: {} of {} sampled",
        chain(first),
        units::grouped(first.blocks),
        units::grouped(holders.sampled)
    );
    let others = holders.chains.iter().skip(1);
    let (count, blocks) = others.fold((0, 0), |(count, blocks), chain| {
        (count + 1, blocks + chain.blocks)
    });
    if count > 0 {
        line.push_str(&format!(
            "; {} in {}",
            units::grouped(blocks),
            units::counted(count, "other way")
        ));
    }
    for (number, what) in [
        (holders.lost, "that nobody points to"),
        (holders.undecided, "whose holder was not found"),
    ] {
        if number > 0 {
            line.push_str(&format!("; {} {what}", units::grouped(number)));
        }
    }
    line
}

/// Where no chain is known.
fn unknown(holders: &Holders) -> String {
    if holders.sampled > 0 && holders.lost == holders.sampled {
        let lost = units::grouped(holders.lost);
        return format!("held by nobody: {lost} of {lost} sampled");
    }
    let why: Vec<_> = holders
        .unsearched
        .iter()
        .map(|it| names::clean(it))
        .collect();
    match why.is_empty() {
        true => "who holds it was not found".to_owned(),
        false => format!("who holds it was not found: {}", why.join("; ")),
    }
}

/// Root first. Arrays between two fields tell nothing.
fn chain(chain: &Chain) -> String {
    let is_told = |link: &&Link| link.kind.is_root() || !link.name.ends_with("[]");
    let mut links: Vec<_> = chain.links.iter().filter(is_told).map(link).collect();
    if links.len() > MAX_LINKS {
        let left_out = links.len() - MAX_LINKS + 1;
        let from = MAX_LINKS / 2;
        links.splice(from..from + left_out, [format!("{left_out} more")]);
    }
    links.join(" -> ")
}

fn link(link: &Link) -> String {
    let name = names::clean(&link.name);
    let short = short(&name);
    let mut text = match link.kind {
        LinkKind::JavaThread => format!("thread \"{name}\""),
        LinkKind::Stack => format!("a variable on the stack of \"{name}\""),
        LinkKind::ClassLoader => format!("class loader {short}"),
        LinkKind::JavaStatic | LinkKind::JavaObject => short.to_owned(),
        _ => name.into_owned(),
    };
    if link.repeated > 1 {
        text.push_str(&format!(" (a chain of {})", units::grouped(link.repeated)));
    }
    text
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: LinkKind, name: &str, repeated: u64) -> Link {
        Link {
            kind,
            name: name.into(),
            repeated,
            site: None,
        }
    }

    fn holders(chains: Vec<Chain>) -> Holders {
        Holders {
            sampled: 64,
            undecided: 1,
            chains,
            ..Holders::default()
        }
    }

    #[test]
    fn a_chain_is_a_line() {
        let links = vec![
            link(LinkKind::JavaThread, "pool-1-thread-3", 1),
            link(
                LinkKind::JavaObject,
                "java.lang.ThreadLocal$ThreadLocalMap.table",
                1,
            ),
            link(
                LinkKind::JavaObject,
                "java.lang.ThreadLocal$ThreadLocalMap$Entry[]",
                1,
            ),
            link(LinkKind::JavaObject, "io.trace.Scope.toRestore", 9214),
        ];
        let other = vec![link(LinkKind::JavaStatic, "shop.Cart.all", 1)];
        let found = holders(vec![
            Chain { links, blocks: 60 },
            Chain {
                links: other,
                blocks: 3,
            },
        ]);
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
        none.lost = 64;
        assert_eq!(sentence(&none), "held by nobody: 64 of 64 sampled");
        let links = vec![link(LinkKind::JavaStatic, "a\u{1b}.B.c", 1)];
        let text = sentence(&holders(vec![Chain { links, blocks: 1 }]));
        assert!(!text.contains('\u{1b}'), "{text:?}");
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
