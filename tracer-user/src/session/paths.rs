//! One site for each call path: what makes two paths the same.

use std::collections::HashMap;

use super::snapshot::{NamelessSite, stack_end};
use crate::model::name::Name;
use crate::model::{CurvePoint, Frame, LifetimeBucket, MappedFile, MemoryKind, Site, StackEnd};
use crate::process::address::FrameAddress;
use crate::process::code::CodeMapping;
use crate::process::maps::MappingName;

/// Says of stacks that end at an address without a known mapping what it is:
/// code that is newer than what the kernel side had been told of, or none at
/// all, which is no frame then. Adds up sites whose paths are the same.
pub fn one_for_each_path(sites: Vec<NamelessSite>) -> Vec<(NamelessSite, StackEnd)> {
    let mut merged: Vec<(NamelessSite, StackEnd)> = Vec::new();
    let mut known: HashMap<Path, usize> = HashMap::new();
    for mut nameless in sites {
        let (end, path) = settle(&mut nameless);
        match known.get(&path) {
            Some(at) => merged[*at].0.site.add(&nameless.site),
            None => {
                known.insert(path, merged.len());
                merged.push((nameless, end));
            }
        }
    }
    merged
}

/// Why a site's stack ends, and its path.
fn settle(nameless: &mut NamelessSite) -> (StackEnd, Path) {
    let NamelessSite { site, code, .. } = nameless;
    let mut end = match site.is_rest {
        true => StackEnd::NotKept,
        false => stack_end(site.end),
    };
    let mapping = |frame: FrameAddress| code.find(frame.lookup()?, site.seen.0);
    let last = FrameAddress::of_stack(&site.frames).next_back();
    let mut is_frame = true;
    if end == StackEnd::NoMapping
        && let Some(last) = last
    {
        match mapping(last) {
            Some(mapping) => end = end_in(mapping),
            // The allocator and its caller are certain.
            None if site.frames.len() > 2 => {
                is_frame = false;
                end = StackEnd::BadReturn;
            }
            None => {}
        }
    }
    let since = |frame| mapping(frame).map(|mapping| mapping.since_ns);
    let mut mapped: Vec<_> = FrameAddress::of_stack(&site.frames).map(since).collect();
    if !is_frame {
        site.frames.pop();
        mapped.pop();
    }
    let path = Path {
        mapped,
        frames: site.frames.clone(),
        end,
        kind: site.kind,
        thread: site.thread.as_ref().map(|thread| thread.id),
    };
    (end, path)
}

/// What makes two sites of an image the same.
#[derive(PartialEq, Eq, Hash)]
struct Path {
    frames: Vec<u64>,
    /// Since when the code of each frame is mapped: what is unmapped leaves
    /// its addresses to others.
    mapped: Vec<Option<u64>>,
    end: StackEnd,
    kind: MemoryKind,
    thread: Option<u32>,
}

/// Why a stack ended in a mapping that the kernel side did not know.
fn end_in(mapping: &CodeMapping) -> StackEnd {
    match &mapping.range.name {
        MappingName::Special(name) if name == "[uprobes]" => StackEnd::Hijacked,
        _ => StackEnd::NoRowYet,
    }
}

/// Adds up the sites whose frames have the same names. Java code runs in the
/// interpreter first, is compiled several times, and moves: its addresses are
/// many for one path. Native frames must be at the same place of their files.
pub fn one_for_each_name(sites: Vec<Site>) -> Vec<Site> {
    let mut merged: Vec<Site> = Vec::with_capacity(sites.len());
    let mut known: HashMap<NamedPath, usize> = HashMap::new();
    for site in sites {
        let path = NamedPath::of(&site);
        match known.get(&path) {
            Some(at) => merge(&mut merged[*at], site),
            None => {
                known.insert(path, merged.len());
                merged.push(site);
            }
        }
    }
    merged
}

/// A call path by its names.
#[derive(PartialEq, Eq, Hash)]
struct NamedPath {
    process: usize,
    kind: MemoryKind,
    end: StackEnd,
    thread: Option<u32>,
    frames: Vec<NamedFrame>,
}

/// A frame by its name; one without a name, or of a file, by its place.
#[derive(PartialEq, Eq, Hash)]
struct NamedFrame {
    function: Option<Name>,
    file: Option<Name>,
    line: Option<u32>,
    address: u64,
}

impl NamedPath {
    fn of(site: &Site) -> Self {
        Self {
            process: site.process,
            kind: site.kind,
            end: site.stack_end,
            thread: site.thread.as_ref().map(|thread| thread.id),
            frames: match site.kind {
                MemoryKind::Page => of_touch(&site.frames),
                _ => site.frames.iter().map(NamedFrame::of).collect(),
            },
        }
    }
}

/// The path to a function that touches memory, whichever of its instructions does: one
/// that copies has many.
fn of_touch(frames: &[Frame]) -> Vec<NamedFrame> {
    let inlined = frames.iter().rev().take_while(|frame| frame.inlined);
    let callers = frames.len().saturating_sub(1 + inlined.count());
    let named = frames.iter().enumerate().map(|(at, frame)| {
        let named = NamedFrame::of(frame);
        if at < callers || named.function.is_none() {
            return named;
        }
        NamedFrame {
            file: None,
            line: None,
            address: 0,
            ..named
        }
    });
    named.collect()
}

impl NamedFrame {
    fn of(frame: &Frame) -> Self {
        // A JVM's method without a line is one too.
        let is_java = frame.origin.is_java() || frame.reason.is_some();
        let by_name = is_java && frame.function.is_some();
        Self {
            function: frame.function.clone(),
            file: frame.file.clone(),
            line: frame.line,
            address: if by_name { 0 } else { frame.address },
        }
    }
}

/// Whether two stacks are one call path by their names.
pub fn same_names(one: &[Frame], other: &[Frame]) -> bool {
    one.len() == other.len()
        && std::iter::zip(one, other)
            .all(|(one, other)| NamedFrame::of(one) == NamedFrame::of(other))
}

/// Adds a site to another of the same path. Frames stay as those were that
/// have more live bytes.
fn merge(sum: &mut Site, site: Site) {
    sum.merge_shares(&site);
    if let (Some(sum), Some(window)) = (&mut sum.window, &site.window) {
        sum.add(window);
    }
    if site.live_bytes > sum.live_bytes {
        sum.frames = site.frames;
    }
    if let Some(errors) = site.errors {
        sum.errors.get_or_insert_default().add(&errors);
    }
    if let Some(survival) = &site.survival {
        sum.survival.get_or_insert_default().add(survival);
    }
    sum.live_bytes += site.live_bytes;
    sum.live_count += site.live_count;
    sum.allocated_bytes += site.allocated_bytes;
    sum.allocated_count += site.allocated_count;
    sum.freed_bytes += site.freed_bytes;
    sum.freed_count += site.freed_count;
    sum.oldest_age = sum
        .oldest_age
        .into_iter()
        .chain(site.oldest_age)
        .reduce(f64::max);
    sum.oldest_survived = sum.oldest_survived.max(site.oldest_survived);
    sum.first_seen = sum.first_seen.min(site.first_seen);
    sum.last_seen = sum.last_seen.max(site.last_seen);
    sum.lower_bound |= site.lower_bound;
    let bytes = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    };
    sum.resident_bytes = bytes(sum.resident_bytes, site.resident_bytes);
    sum.resident_peak = bytes(sum.resident_peak, site.resident_peak);
    MappedFile::merge(&mut sum.files, &site.files);
    sum.stacks.add(site.stacks);
    if let Some(pages) = &site.pages {
        sum.pages.get_or_insert_default().add(pages);
    }
    for bucket in site.lifetimes {
        add_bucket(&mut sum.lifetimes, bucket);
    }
    for bucket in site.ages {
        add_bucket(&mut sum.ages, bucket);
    }
    sum.curve = CurvePoint::sum(&sum.curve, &site.curve);
}

/// Buckets are in the order of their bounds; the last one has none.
fn add_bucket(buckets: &mut Vec<LifetimeBucket>, added: LifetimeBucket) {
    let bound = |bucket: &LifetimeBucket| bucket.below.unwrap_or(f64::INFINITY);
    let at = buckets.partition_point(|bucket| bound(bucket) < bound(&added));
    match buckets.get_mut(at) {
        Some(same) if same.below == added.below => same.count += added.count,
        _ => buckets.insert(at, added),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

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
}
