//! One site for each call path by its names.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::iter::zip;
use std::sync::Arc;

use crate::model::name::Name;
use crate::model::{AllocationPath, By, Frame, MemoryKind, Origin, Originals, Site, StackEnd};

/// Adds up the sites whose frames have the same names. Java code runs in the
/// interpreter first, is compiled several times, and moves: its addresses are
/// many for one path. Native frames must be at the same place of their files.
pub fn one_for_each_name(sites: Vec<Site>) -> Vec<Site> {
    let groups = same_paths(&sites);
    let originals: Vec<_> = groups
        .iter()
        .map(|group| originals(&sites, group))
        .collect();
    let mut sites: Vec<Option<Site>> = sites.into_iter().map(Some).collect();
    let mut merged = Vec::with_capacity(groups.len());
    for (group, originals) in zip(groups, originals) {
        let mut members = group.into_iter().filter_map(|at| sites[at].take());
        let Some(mut sum) = members.next() else {
            continue;
        };
        for site in members {
            sum.add(site);
        }
        for (frame, originals) in zip(&mut sum.frames, originals) {
            frame.originals = originals;
        }
        merged.push(sum);
    }
    merged
}

/// The sites of each path, by index, in the order in which their first ones come.
fn same_paths(sites: &[Site]) -> Vec<Vec<usize>> {
    let state = RandomState::new();
    let mut groups: Vec<Vec<usize>> = Vec::with_capacity(sites.len());
    let mut known: HashMap<u64, Vec<usize>> = HashMap::with_capacity(sites.len());
    for (at, site) in sites.iter().enumerate() {
        // Paths with one hash are few, and are compared.
        let candidates = known.entry(state.hash_one(NamedPath(site))).or_default();
        let first = |group: &usize| groups[*group].first().map(|first| &sites[*first]);
        let is_same = |group: &&usize| first(group).map(NamedPath) == Some(NamedPath(site));
        match candidates.iter().find(is_same) {
            Some(group) => groups[*group].push(at),
            None => {
                candidates.push(groups.len());
                groups.push(vec![at]);
            }
        }
    }
    groups
}

/// The names that each frame of a path had at its sites; nothing of a single site, which
/// has them already.
fn originals(sites: &[Site], group: &[usize]) -> Vec<Option<Arc<Originals>>> {
    let [first, _, ..] = group else {
        return Vec::new();
    };
    let mut all: Vec<Vec<&Arc<Originals>>> = vec![Vec::new(); sites[*first].frames.len()];
    for site in group {
        for (all, frame) in zip(&mut all, &sites[*site].frames) {
            all.extend(&frame.originals);
        }
    }
    let union = |(at, all): (usize, Vec<&Arc<Originals>>)| {
        if all.is_empty() || all.len() == group.len() {
            return Originals::united(all);
        }
        // Where some have no other name, theirs is one more.
        let frames = group.iter().map(|site| &sites[*site].frames[at]);
        let plain = frames.filter(|frame| frame.originals.is_none());
        let plain = plain.filter_map(|frame| frame.function.clone());
        let plain = plain.map(|name| Arc::new(Originals::one(name, By::Rule)));
        let plain: Vec<_> = plain.take(1).collect();
        Originals::united(all.into_iter().chain(&plain))
    };
    all.into_iter().enumerate().map(union).collect()
}

/// What sites have in common, their frames aside, that are one.
pub(super) type Head = (usize, MemoryKind, StackEnd, Option<u32>);

/// The same of a site.
pub(super) fn head(site: &Site) -> Head {
    let thread = site.thread.as_ref().map(|thread| thread.id);
    (site.process, site.kind, site.stack_end, thread)
}

/// A call path by its names.
struct NamedPath<'a>(&'a Site);

impl<'a> NamedPath<'a> {
    fn head(&self) -> (Head, usize) {
        (head(self.0), self.0.frames.len())
    }

    fn frames(&self) -> impl Iterator<Item = NamedFrame<'a>> + use<'a> {
        let frames = &self.0.frames;
        let touch = match self.0.kind {
            MemoryKind::Page => touch(frames),
            _ => frames.len(),
        };
        let named = move |(at, frame)| match NamedFrame::of(frame) {
            named if at < touch || named.function.is_none() => named,
            named => named.anywhere(),
        };
        frames.iter().enumerate().map(named)
    }
}

impl PartialEq for NamedPath<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.head() == other.head() && self.frames().eq(other.frames())
    }
}

impl Hash for NamedPath<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.head().hash(state);
        self.frames().for_each(|frame| frame.hash(state));
    }
}

/// From which frame on a path is in the function that touches memory: whichever of its
/// instructions does, it is one. One that copies has many.
fn touch(frames: &[Frame]) -> usize {
    let inlined = frames.iter().rev().take_while(|frame| frame.inlined);
    frames.len().saturating_sub(1 + inlined.count())
}

/// A frame by its name; one without a name, or of a file, by its place.
#[derive(PartialEq, Eq)]
pub(super) struct NamedFrame<'a> {
    function: Option<&'a Name>,
    file: Option<&'a Name>,
    line: Option<u32>,
    address: u64,
}

impl Hash for NamedFrame<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let hash = |name: Option<&Name>| name.map_or(0, Name::text_hash);
        // Those of texts have a random seed, so that nobody can choose them.
        state.write_u64(hash(self.function) ^ hash(self.file).rotate_left(21));
        state.write_u128((u128::from(self.address) << 64) | u128::from(self.line.unwrap_or(0)));
    }
}

impl<'a> NamedFrame<'a> {
    pub(super) fn of(frame: &'a Frame) -> Self {
        // A JVM's method without a line is one too. A function of a script may be loaded anew.
        let is_java = frame.origin.is_java() || frame.origin.is_script() || frame.reason.is_some();
        let by = frame.originals.as_ref().map(|originals| originals.by);
        // What was generated is elsewhere each time.
        let is_made = by.is_some() && frame.origin == Origin::Jit;
        let is_asked = by == Some(By::Asked);
        let by_name = (is_java || is_made || is_asked) && frame.function.is_some();
        Self {
            function: frame.function.as_ref(),
            file: frame.file.as_ref().filter(|_| !is_asked),
            line: frame.line,
            address: if by_name { 0 } else { frame.address },
        }
    }

    fn anywhere(self) -> Self {
        Self {
            file: None,
            line: None,
            address: 0,
            ..self
        }
    }
}

/// Adds a path on which objects were allocated to others of its class, or to the one of the same names.
pub fn add_path(paths: &mut Vec<AllocationPath>, path: AllocationPath) {
    let same = |other: &&mut AllocationPath| {
        other.stack_end == path.stack_end && same_names(&other.frames, &path.frames)
    };
    match paths.iter_mut().find(same) {
        Some(known) => {
            known.samples += path.samples;
            known.bytes += path.bytes;
        }
        None => paths.push(path),
    }
}

/// Whether two stacks are one call path by their names.
fn same_names(one: &[Frame], other: &[Frame]) -> bool {
    one.len() == other.len()
        && zip(one, other).all(|(one, other)| NamedFrame::of(one) == NamedFrame::of(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LifetimeBucket, Origin};

    fn site(bytes: u64, frames: Vec<Frame>, lifetimes: &[(f64, u64)]) -> Site {
        let bucket = |(below, count): &(f64, u64)| LifetimeBucket {
            below: below.is_finite().then_some(*below),
            count: *count,
        };
        Site {
            id: 0,
            process: 0,
            kind: MemoryKind::Heap,
            live_bytes: bytes,
            live_count: 1,
            allocated_bytes: bytes,
            allocated_count: 1,
            freed_bytes: 0,
            freed_count: 0,
            oldest_age: Some(bytes as f64),
            oldest_survived: None,
            first_seen: bytes as f64,
            last_seen: bytes as f64,
            resident_bytes: None,
            resident_peak: None,
            resident_looks: 0,
            resident_rises: 0,
            pages: None,
            files: Vec::new(),
            stacks: Default::default(),
            lifetimes: lifetimes.iter().map(bucket).collect(),
            ages: Vec::new(),
            curve: Vec::new(),
            verdict: None,
            confidence: None,
            errors: None,
            survival: None,
            indices: Vec::new(),
            holders: None,
            lower_bound: false,
            stack_end: StackEnd::Start,
            processes: 1,
            left_bytes: 0,
            window: None,
            shares: Vec::new(),
            thread: None,
            frames,
        }
    }

    fn frame(function: Option<&str>, origin: Origin, address: u64) -> Frame {
        Frame {
            function: function.map(Into::into),
            origin,
            address,
            ..Frame::default()
        }
    }

    #[test]
    fn a_function_that_touches_memory_is_one_by_whichever_instruction() {
        let copy = |address| frame(Some("memcpy"), Origin::Library, address);
        let caller = |address| frame(Some("main"), Origin::Program, address);
        let pages = |live, frames| Site {
            kind: MemoryKind::Page,
            ..site(live, frames, &[])
        };
        let inlined = |address| Frame {
            inlined: true,
            ..frame(Some("fill"), Origin::Program, address)
        };
        let unknown = |address| frame(None, Origin::Library, address);
        let sites = vec![
            pages(10, vec![caller(1), copy(5)]),
            pages(20, vec![caller(1), copy(6)]),
            pages(30, vec![caller(2), copy(6)]),
            pages(40, vec![caller(1), caller(7), inlined(7)]),
            pages(50, vec![caller(1), caller(8), inlined(8)]),
            pages(60, vec![caller(1), unknown(9)]),
            pages(70, vec![caller(1), unknown(10)]),
        ];
        let merged = one_for_each_name(sites);
        let bytes: Vec<_> = merged.iter().map(|site| site.live_bytes).collect();
        assert_eq!(bytes, [30, 30, 90, 60, 70]);
    }

    #[test]
    fn java_frames_are_known_by_name_and_native_ones_by_place() {
        let java = |address| frame(Some("Foo.bar"), Origin::C2, address);
        let native = |address| frame(Some("malloc"), Origin::Library, address);
        let infinite = f64::INFINITY;
        let sites = vec![
            site(10, vec![java(1), native(5)], &[(1.0, 2), (infinite, 1)]),
            site(
                30,
                vec![java(2), native(5)],
                &[(0.5, 7), (1.0, 1), (infinite, 1)],
            ),
            site(40, vec![java(1), native(6)], &[]),
            site(50, vec![frame(None, Origin::C2, 1), native(5)], &[]),
            site(60, vec![frame(None, Origin::C2, 2), native(5)], &[]),
        ];
        let merged = one_for_each_name(sites);
        let bytes: Vec<_> = merged.iter().map(|site| site.live_bytes).collect();
        assert_eq!(bytes, [40, 40, 50, 60]);
        let both = &merged[0];
        assert_eq!(both.frames[0].address, 2, "the larger one's");
        assert_eq!((both.live_count, both.oldest_age), (2, Some(30.0)));
        assert_eq!((both.first_seen, both.last_seen), (10.0, 30.0));
        let lifetimes: Vec<_> = both.lifetimes.iter().map(|b| (b.below, b.count)).collect();
        assert_eq!(lifetimes, [(Some(0.5), 7), (Some(1.0), 3), (None, 2)]);
    }

    #[test]
    fn sites_of_one_path_have_the_names_of_all() {
        let originals = |name: &str| Some(Arc::new(Originals::one(name.into(), By::Numbers)));
        let made = |original: &str, address| Frame {
            originals: originals(original),
            ..frame(Some("Script*.run"), Origin::C1, address)
        };
        let malloc = || frame(Some("malloc"), Origin::Library, 5);
        let merged = one_for_each_name(vec![
            site(10, vec![made("Script1.run", 1), malloc()], &[]),
            site(30, vec![made("Script2.run", 2), malloc()], &[]),
            site(20, vec![made("Script1.run", 3), malloc()], &[]),
        ]);
        let [site] = &merged[..] else {
            panic!("{merged:?}");
        };
        assert_eq!((site.live_bytes, site.frames[0].address), (60, 2));
        let originals = site.frames[0].originals.as_ref().unwrap();
        assert_eq!(originals.names, ["Script1.run", "Script2.run"]);
        assert_eq!((originals.count, &site.frames[1].originals), (2, &None));
    }

    #[test]
    fn generated_native_code_is_one_function_only_if_that_was_asked_for() {
        let of = |by, origin, address| {
            let made = Frame {
                originals: Some(Arc::new(Originals::one("handler_7".into(), by))),
                line: Some(7),
                ..frame(Some("handler_*"), origin, address)
            };
            site(10, vec![made], &[])
        };
        let rows = |by, origin| {
            let sites = vec![of(by, origin, 1), of(by, origin, 2)];
            one_for_each_name(sites).len()
        };
        assert_eq!(rows(By::Rule, Origin::Program), 2);
        assert_eq!(rows(By::Asked, Origin::Program), 1);
        assert_eq!(
            rows(By::Numbers, Origin::Jit),
            1,
            "it is elsewhere each time"
        );
    }
}
