//! What two looks together say.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::look::{Key, Look};
use super::way::{RawLink, Seen, Way};
use crate::model::{Link, Lost};
use crate::process::code::CodeSpace;

/// What is said of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing led to it, twice.
    Lost,
    /// It was freed meanwhile, only words on stacks led to it, each time others, or the search
    /// was cut off.
    Undecided,
    /// It is held so: root first, each link with how often it follows itself.
    Held(Vec<(RawLink, u64)>),
}

impl Outcome {
    /// The indices of the sites of its links.
    pub fn sites(&self) -> impl Iterator<Item = u32> {
        let links = match self {
            Self::Held(links) => &links[..],
            Self::Lost | Self::Undecided => &[],
        };
        links.iter().filter_map(|(link, _)| match link {
            RawLink::Block(site, _) => Some(*site),
            _ => None,
        })
    }
}

/// What is known of a site's blocks.
#[derive(Debug, Clone, Default)]
pub struct OfSite {
    /// Of those that were looked for.
    pub found: Vec<Found>,
    /// Which of all nothing leads to, if that is known.
    pub lost: Option<Lost>,
}

impl OfSite {
    /// Adds what is known of other blocks.
    pub fn add(&mut self, other: &Self) {
        self.found.extend(other.found.iter().cloned());
        if let Some(lost) = other.lost {
            self.lost.get_or_insert_default().add(lost);
        }
    }
}

/// A block that was looked for, and in which process.
#[derive(Clone)]
pub struct Found {
    /// The code of the process, and its files.
    pub code: Arc<CodeSpace>,
    /// What is said of it.
    pub outcome: Outcome,
    /// The image of that process.
    pub image: u64,
    /// The Java object that holds it, if one does.
    pub by_java: ByJava,
    /// The names of its links in native memory, root first, once somebody has looked for them.
    pub named: Arc<OnceLock<Vec<Link>>>,
}

/// What is known of the Java object that holds a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByJava {
    /// It was not looked for.
    NotSearched,
    /// It was not found.
    NotFound,
    /// The links to it, root first.
    Found(Vec<Link>),
}

impl Found {
    /// What of native memory a Java object holds, if one does.
    pub fn in_java(&self) -> Option<&Range<u64>> {
        match &self.outcome {
            Outcome::Held(links) => match links.first() {
                Some((RawLink::Java(range), _)) => Some(range),
                _ => None,
            },
            Outcome::Lost | Outcome::Undecided => None,
        }
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.outcome.fmt(f)
    }
}

/// What a look says with the one before it, of each block that either was asked for.
pub fn settle(look: &Look) -> HashMap<Key, Outcome> {
    let outcomes = look.before.iter().map(|(key, before)| {
        let now = look.seen.get(key);
        (*key, outcome(before, now, look.kept.contains(key)))
    });
    outcomes.collect()
}

/// What is said of a block that was seen so before, and so now if it is live, and whether it
/// is held as it was before.
fn outcome(before: &Seen, now: Option<&Seen>, is_kept: bool) -> Outcome {
    match (before, now) {
        (Seen::Unreached, Some(Seen::Unreached)) => Outcome::Lost,
        (Seen::Reached(before), Some(Seen::Reached(now))) => match held_by(before, now, is_kept) {
            Some(way) => Outcome::Held(way.links.clone()),
            None => Outcome::Undecided,
        },
        (Seen::Reached(way), Some(_)) if is_kept => Outcome::Held(way.links.clone()),
        _ => Outcome::Undecided,
    }
}

/// By which of two ways a block is held that both looks found held. A word on a stack may be
/// left over from a call that ended long ago: what only such words led to, each time another, is
/// not decided; but where something lasting led to it once, that is its holder.
fn held_by<'a>(before: &'a Way, now: &'a Way, is_kept: bool) -> Option<&'a Way> {
    match (before.is_passing(), now.is_passing()) {
        (true, false) => Some(now),
        _ if is_kept => Some(before),
        // By another pointer of the same root: it was moved, or what is new in a list leads to it.
        _ if is_same(before, now) => {
            let is_shorter = before.links.len() < now.links.len();
            Some(if is_shorter { before } else { now })
        }
        (_, false) => Some(now),
        (false, true) => Some(before),
        (true, true) => None,
    }
}

/// Whether the same root holds, by traced blocks of the same sites. A list of these may be longer
/// now, and what was put before it since the look began is not traced yet; or it was put there while
/// a budget left out some, which are between traced ones then.
fn is_same(before: &Way, now: &Way) -> bool {
    fn traced(way: &Way) -> Vec<&RawLink> {
        let links = way.links.iter().map(|(link, _)| link);
        let mut traced: Vec<_> = links
            .filter(|link| matches!(link, RawLink::Block(..)))
            .collect();
        traced.dedup();
        traced
    }
    let root = |way: &Way| way.links.first().map(|(link, _)| link.clone());
    root(before) == root(now) && traced(before) == traced(now)
}

#[cfg(test)]
mod tests {
    use super::super::threads::InThread;
    use super::*;

    /// As of a list whose new elements come first.
    #[test]
    fn a_list_that_grows_meanwhile_holds_what_it_held() {
        let root = |name: &str| (RawLink::Mapping(name.to_owned()), 1);
        let traced = |length: u64| (RawLink::Block(7, None), length);
        let reached = |links: &[_]| Seen::Reached(Way::of(links.to_vec()));
        let before = reached(&[root("list"), traced(3)]);
        let new = (RawLink::Chunk(32, None), 2);
        for (links, length) in [
            (vec![root("list"), traced(5)], 5),
            (vec![root("list"), new.clone(), traced(5)], 3),
            (vec![root("list"), traced(1), new.clone(), traced(4)], 3),
        ] {
            let said = outcome(&before, Some(&reached(&links)), false);
            let list = vec![root("list"), traced(length)];
            assert_eq!(said, Outcome::Held(list), "{links:?}");
        }
    }

    #[test]
    fn what_two_looks_agree_on_is_said() {
        let reached = |root: &RawLink| Seen::Reached(Way::of(vec![(root.clone(), 1)]));
        let mapping = |name: &str| RawLink::Mapping(name.to_owned());
        let stack = |id| RawLink::Thread {
            id,
            name: String::new(),
            place: InThread::Stack,
        };
        let names = [
            mapping("one"),
            mapping("other"),
            stack(1),
            stack(2),
            RawLink::Heap,
        ];
        let [one, other, stack, other_stack, heap] = names.each_ref().map(reached);
        let held = |at: usize| Outcome::Held(vec![(names[at].clone(), 1)]);
        let undecided = Outcome::Undecided;
        let lost = Seen::Unreached;
        for (before, now, is_kept, expected) in [
            (&lost, Some(&lost), false, Outcome::Lost),
            (&lost, None, false, undecided.clone()),
            (&lost, Some(&one), false, undecided.clone()),
            (&lost, Some(&Seen::Unknown), false, undecided.clone()),
            (&one, Some(&lost), false, undecided.clone()),
            (&one, Some(&one), false, held(0)),
            (&one, Some(&other), false, held(1)),
            (&one, Some(&other), true, held(0)),
            (&one, Some(&stack), false, held(0)),
            (&stack, Some(&one), false, held(0)),
            (&stack, Some(&one), true, held(0)),
            (&stack, Some(&stack), false, held(2)),
            (&stack, Some(&other_stack), false, undecided.clone()),
            (&stack, Some(&other_stack), true, held(2)),
            (&heap, Some(&stack), false, undecided.clone()),
            (&heap, Some(&one), false, held(0)),
            (&one, None, true, undecided.clone()),
            (&Seen::Unknown, Some(&lost), false, undecided.clone()),
        ] {
            let said = outcome(before, now, is_kept);
            assert_eq!(said, expected, "{before:?} {now:?}");
        }
    }
}
