//! One site for each call path of an image: what makes two paths the same.

use std::collections::HashMap;

use super::snapshot::{NamelessSite, stack_end};
use crate::model::{MemoryKind, StackEnd};
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
