//! Who has the handles by which native code holds Java objects.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::thread::sleep;

use super::Session;
use super::holders::BETWEEN;
use crate::holders::{Job, Look, Namer, Outcome, RawLink, Traced, settle};
use crate::jvm::Jvm;
use crate::jvm::holders::{GLOBAL, Handle, search_natives};
use crate::model::{Link, LinkKind};
use crate::process::code::CodeSpace;

/// What a handle is called that two whole looks found no pointer to.
const LOST: &str = "JNI global handle that no pointer leads to";
/// Bits that a handle has beside the address of its word, since JDK 20: 2 says that it is global.
const TAG: u64 = 2;
/// In the place of a site: handles are none.
const NO_SITE: u32 = u32::MAX;

impl Session {
    /// Who has handles of a JVM, root first, with the handle at last; in the process's own memory,
    /// and in that of its Java heap. Those of which nothing is known are missing.
    pub(super) fn whose_handles(
        &self,
        (image, jvm): (u64, &Jvm),
        handles: &[Handle],
    ) -> HashMap<Handle, Vec<Link>> {
        let Some((code, outcomes)) = self.looks_for_handles(image, handles) else {
            return HashMap::new();
        };
        let of = |handle: &Handle| Some((*handle, outcomes.get(&word(*handle).start)?.clone()));
        let outcomes: Vec<_> = handles.iter().filter_map(of).collect();
        let by_java = by_java(jvm, &outcomes);
        let mut namer = Namer::default();
        let named = outcomes.into_iter().map(|(handle, outcome)| {
            let mut links = Vec::new();
            let mut name = GLOBAL;
            match outcome {
                Outcome::Held(raw) => {
                    let java = in_java(&raw).and_then(|range| by_java.get(range));
                    links.extend(java.into_iter().flatten().cloned());
                    let rest = raw.get(usize::from(java.is_some())..).unwrap_or_default();
                    links.extend(namer.links(&code, rest));
                }
                // The VM's own pointers lead to the first word of a block.
                Outcome::Lost if !handle.is_first => name = LOST,
                Outcome::Lost | Outcome::Undecided => {}
            }
            links.push(Link {
                kind: LinkKind::JniHandle,
                name: name.to_owned(),
                repeated: 1,
                site: None,
            });
            (handle, links)
        });
        named.collect()
    }

    /// Looks twice at who has handles; what was found by the address of what was looked for.
    fn looks_for_handles(
        &self,
        image: u64,
        handles: &[Handle],
    ) -> Option<(Arc<CodeSpace>, HashMap<u64, Outcome>)> {
        let image = self.running_images().find(|it| it.id == image)?;
        let code = Arc::new(self.images.code(image)?.view());
        let look = |before: Option<Look>| {
            let mut blocks = self
                .live_blocks()
                .ok()?
                .remove(&image.id)
                .unwrap_or_default();
            // The VM's blocks of handles are none that has them.
            blocks.retain(|block| !handles.iter().any(|it| is_in(block, *it)));
            blocks.extend(handles.iter().map(|it| traced(*it)));
            let job = Job {
                process: self.process_of(image)?,
                code: Arc::clone(&code),
                java_heap: image.java_heap.clone(),
                searches_java: true,
                blocks,
                wanted: handles
                    .iter()
                    .map(|it| (word(*it).start, 0))
                    .collect::<HashSet<_>>(),
                allowed: self.options.holders?,
                before,
                is_off: Arc::default(),
            };
            job.run().ok()
        };
        let first = look(None)?;
        sleep(BETWEEN);
        let second = look(Some(first))?;
        let outcomes = settle(&second).into_iter();
        let outcomes = outcomes.map(|((at, _), outcome)| (at, outcome)).collect();
        Some((code, outcomes))
    }
}

/// The words that are a handle: addresses in this range. To the first word of a block the VM has
/// pointers, which are no handles: there only one with a tag is known as such.
fn word(handle: Handle) -> Range<u64> {
    let start = handle.slot + if handle.is_first { TAG } else { 0 };
    start..handle.slot + TAG + 1
}

fn traced(handle: Handle) -> Traced {
    let word = word(handle);
    Traced {
        start: word.start,
        size: word.end - word.start,
        site: NO_SITE,
        time: 0,
    }
}

fn is_in(block: &Traced, handle: Handle) -> bool {
    handle.slot >= block.start && handle.slot - block.start < block.size
}

/// What of native memory a Java object holds that has a handle.
fn in_java(links: &[(RawLink, u64)]) -> Option<&Range<u64>> {
    match links.first() {
        Some((RawLink::Java(range), _)) => Some(range),
        _ => None,
    }
}

/// The links from a root to the Java objects that hold pieces of native memory.
fn by_java(jvm: &Jvm, outcomes: &[(Handle, Outcome)]) -> HashMap<Range<u64>, Vec<Link>> {
    let held = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Held(links) => in_java(links).cloned(),
        Outcome::Lost | Outcome::Undecided => None,
    });
    let mut pieces: Vec<_> = held.collect();
    pieces.sort_unstable_by_key(|piece| (piece.start, piece.end));
    pieces.dedup();
    if pieces.is_empty() {
        return HashMap::new();
    }
    // Where it cannot be told the Java heap holds it.
    let found = search_natives(jvm, &pieces).unwrap_or_default();
    let known = pieces.into_iter().zip(found);
    known
        .filter_map(|(piece, links)| Some((piece, links?)))
        .collect()
}
