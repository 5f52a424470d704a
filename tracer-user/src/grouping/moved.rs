//! One site for a call path whose code a runtime made anew while it ran.
//!
//! V8 compiles what runs often once more, and moves code when it collects garbage. Where
//! no perf map names such code, its address is all that tells it, and a path becomes another
//! with each compilation. When its new code runs the old does not any more: so of paths that are the
//! same but for such code, one that began when another had ended is that other. Paths that
//! take turns are told apart as before: they may be different functions.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::merge::{NamedFrame, head};
use crate::model::{Frame, Site};

/// What V8's interpreter is in until a function is compiled.
const INTERPRETER: &str = "Builtins_InterpreterEntryTrampoline";

/// Adds up sites that are each other's continuation. They keep the order in which their first
/// ones come.
pub fn one_after_another(sites: Vec<Site>) -> Vec<Site> {
    let state = RandomState::new();
    let mut paths: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, site) in sites.iter().enumerate().filter(|(_, site)| is_made(site)) {
        paths
            .entry(state.hash_one(MadePath(site)))
            .or_default()
            .push(at);
    }
    // Where each went that went into another.
    let mut into: Vec<usize> = (0..sites.len()).collect();
    for candidates in paths.into_values().filter(|paths| paths.len() > 1) {
        for chain in chains(&sites, candidates) {
            let first = chain.iter().copied().min().unwrap_or_default();
            chain.iter().for_each(|at| into[*at] = first);
        }
    }
    add_up(sites, &into)
}

/// Sites of one path, one after another in time; those of hashes that happen to be the same
/// are told apart.
fn chains(sites: &[Site], mut candidates: Vec<usize>) -> Vec<Vec<usize>> {
    candidates.sort_by(|one, other| sites[*one].first_seen.total_cmp(&sites[*other].first_seen));
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for at in candidates {
        let goes_on = |chain: &&mut Vec<usize>| {
            let last = chain.last().map(|last| &sites[*last]);
            last.is_some_and(|last| {
                last.last_seen <= sites[at].first_seen && MadePath(last) == MadePath(&sites[at])
            })
        };
        // What ended last is what went on.
        let ended = |chain: &&mut Vec<usize>| {
            let last = chain.last().map(|last| sites[*last].last_seen);
            last.unwrap_or_default()
        };
        let continued = chains.iter_mut().filter(goes_on);
        match continued.max_by(|one, other| ended(one).total_cmp(&ended(other))) {
            Some(chain) => chain.push(at),
            None => chains.push(vec![at]),
        }
    }
    chains
}

/// Adds each site to the one that it goes into.
fn add_up(sites: Vec<Site>, into: &[usize]) -> Vec<Site> {
    let mut sums: Vec<Option<Site>> = Vec::with_capacity(sites.len());
    for (at, site) in sites.into_iter().enumerate() {
        match sums.get_mut(into[at]) {
            Some(Some(sum)) => {
                sum.add(site);
                sums.push(None);
            }
            _ => sums.push(Some(site)),
        }
    }
    sums.into_iter().flatten().collect()
}

/// Whether a site's path goes through code that was made at run time and has no name.
fn is_made(site: &Site) -> bool {
    site.frames.iter().any(is_unnamed)
}

fn is_unnamed(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or_default();
    frame.function.is_none() && module.starts_with("[anon")
}

/// A call path in which code that a runtime makes and unmakes is one frame, however many
/// there are: what was compiled into its caller has none.
struct MadePath<'a>(&'a Site);

impl<'a> MadePath<'a> {
    fn frames(&self) -> impl Iterator<Item = Option<NamedFrame<'a>>> + use<'a> {
        let mut was_made = false;
        self.0.frames.iter().filter_map(move |frame| {
            let made = is_unnamed(frame) || frame.function.as_deref() == Some(INTERPRETER);
            let repeated = made && was_made;
            was_made = made;
            match (made, repeated) {
                (_, true) => None,
                (true, false) => Some(None),
                (false, false) => Some(Some(NamedFrame::of(frame))),
            }
        })
    }
}

impl PartialEq for MadePath<'_> {
    fn eq(&self, other: &Self) -> bool {
        head(self.0) == head(other.0) && self.frames().eq(other.frames())
    }
}

impl Hash for MadePath<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        head(self.0).hash(state);
        self.frames().for_each(|frame| frame.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn made(address: u64) -> Frame {
        Frame {
            module: Some("[anonymous]".into()),
            address,
            ..Frame::default()
        }
    }

    fn named(function: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            module: Some("/usr/bin/node".into()),
            ..Frame::default()
        }
    }

    /// A site with this way through made code, and one block a second while it is used.
    fn site(id: u64, way: &[u64], (first, last): (f64, f64)) -> Site {
        let way = way.iter().map(|address| made(*address));
        let frames = std::iter::once(named("JSEntry")).chain(way);
        let frames = frames.chain([named("HandleApiCall")]).collect();
        Site {
            first_seen: first,
            last_seen: last,
            ..sample::site(id, (100 + id, 1), (0, 0), frames)
        }
    }

    fn lives(sites: Vec<Site>) -> Vec<u64> {
        let sums = one_after_another(sites);
        sums.iter().map(|site| site.live_bytes).collect()
    }

    #[test]
    fn a_path_goes_on_in_code_that_was_made_anew() {
        let sites = vec![
            site(1, &[10, 20], (0.0, 5.0)),
            site(2, &[10, 80], (5.0, 9.0)),
            // One was compiled into the other.
            site(3, &[90], (9.5, 30.0)),
        ];
        let sums = one_after_another(sites);
        assert_eq!(sums.len(), 1);
        let sum = &sums[0];
        assert_eq!((sum.live_bytes, sum.live_count), (306, 3));
        assert_eq!((sum.first_seen, sum.last_seen), (0.0, 30.0));
        assert_eq!(sum.frames[4].address, 80, "the frames of the largest");
    }

    #[test]
    fn functions_that_take_turns_are_several_paths() {
        let one = site(1, &[10], (0.0, 20.0));
        let other = site(2, &[50], (1.0, 21.0));
        assert_eq!(lives(vec![one.clone(), other.clone()]), [101, 102]);
        // Each goes on by itself: the one that ended last before.
        let later = site(3, &[70], (22.0, 30.0));
        assert_eq!(lives(vec![one, other, later]), [101, 205]);
    }

    #[test]
    fn an_interpreted_function_is_compiled_some_day() {
        let mut interpreted = site(1, &[10], (0.0, 2.0));
        interpreted.frames.insert(3, named(INTERPRETER));
        let compiled = site(2, &[10, 60], (2.0, 9.0));
        assert_eq!(lives(vec![interpreted, compiled]), [203]);
    }

    #[test]
    fn what_has_a_name_or_a_file_is_told_by_it() {
        let mut one = site(1, &[10], (0.0, 5.0));
        let mut other = site(2, &[20], (6.0, 9.0));
        other.frames[4] = named("Ours");
        assert_eq!(lives(vec![one.clone(), other]), [101, 102]);
        // Code of a file without symbols stays where it is.
        let mut moved = site(3, &[20], (6.0, 9.0));
        for site in [&mut one, &mut moved] {
            site.frames[3].module = Some("/lib/stripped.so".into());
        }
        assert_eq!(lives(vec![one, moved]), [101, 103]);
    }
}
