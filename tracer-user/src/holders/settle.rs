//! What two looks together say.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::look::{Key, Look};
use super::way::{RawLink, Seen};
use crate::model::{Link, Lost};
use crate::process::code::CodeSpace;

/// What is said of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing led to it, twice.
    Lost,
    /// It was freed meanwhile, its holder changed, or the search was cut off.
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
        (Seen::Reached(way), Some(_)) if is_kept => Outcome::Held(way.links.clone()),
        // By another pointer of the same kind: it was moved.
        (Seen::Reached(before), Some(Seen::Reached(now))) if before.links == now.links => {
            Outcome::Held(now.links.clone())
        }
        _ => Outcome::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::super::way::Way;
    use super::*;

    #[test]
    fn what_two_looks_agree_on_is_said() {
        let reached =
            |name: &str| Seen::Reached(Way::of(vec![(RawLink::Mapping(name.to_owned()), 1)]));
        let (one, other) = (reached("one"), reached("other"));
        let held = Outcome::Held(vec![(RawLink::Mapping("one".to_owned()), 1)]);
        let undecided = Outcome::Undecided;
        let lost = Seen::Unreached;
        for (before, now, is_kept, expected) in [
            (&lost, Some(&lost), false, &Outcome::Lost),
            (&lost, None, false, &undecided),
            (&lost, Some(&one), false, &undecided),
            (&lost, Some(&Seen::Unknown), false, &undecided),
            (&one, Some(&lost), false, &undecided),
            (&one, Some(&one), false, &held),
            (&one, Some(&other), false, &undecided),
            (&one, Some(&other), true, &held),
            (&one, None, true, &undecided),
            (&Seen::Unknown, Some(&lost), false, &undecided),
        ] {
            assert_eq!(
                &outcome(before, now, is_kept),
                expected,
                "{before:?} {now:?}"
            );
        }
    }
}
