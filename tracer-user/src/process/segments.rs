//! What was mapped where and when, within bounds: how often a process maps
//! code, and where, is its own choice.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::CodeAddress;
use super::code::CodeMapping;
use super::maps::FileId;
use super::room::{Room, Taken};

/// How many successive mappings are remembered for one address.
pub(super) const MAX_LAYERS: usize = 64;

/// How many ranges are remembered for one process image: the kernel's default
/// limit of mappings.
pub(super) const MAX_SEGMENTS: usize = 65_536;

/// A mapping over more ranges than this takes their place: it would have to be
/// entered in each.
const MAX_COVERED: usize = 1024;

/// What a range takes, and a mapping that is entered in it, bytes.
const SEGMENT: u64 = 160;
const LAYER: u64 = 16;

/// What a mapping takes besides its name, bytes.
const MAPPING: u64 = 256;

/// A range of addresses and what was mapped there, oldest first.
#[derive(Debug, Clone)]
struct Segment {
    end: u64,
    layers: Vec<Arc<Known>>,
    /// Older layers were dropped.
    forgot: bool,
}

/// A mapping, and the room that it takes.
#[derive(Debug)]
struct Known {
    mapping: CodeMapping,
    _room: Taken,
}

/// Ranges by their first address.
#[derive(Debug)]
pub(super) struct Segments {
    map: BTreeMap<u64, Segment>,
    /// The room that the ranges and what is entered in them take.
    taken: Taken,
}

impl Segments {
    /// None yet, and room for what comes. `None` if there is no room at all.
    pub(super) fn new(room: &Room) -> Option<Self> {
        Some(Segments {
            map: BTreeMap::new(),
            taken: room.take(0)?,
        })
    }

    /// A copy that takes its own room, if there is any.
    pub(super) fn copy(&self, room: &Room) -> Option<Self> {
        Some(Segments {
            map: self.map.clone(),
            taken: room.take(self.taken.bytes())?,
        })
    }

    /// How many ranges there are.
    #[cfg(test)]
    pub(super) fn ranges(&self) -> usize {
        self.map.len()
    }

    /// Bytes that ranges take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.taken.bytes()
    }

    /// What was mapped at an address at a time; see
    /// [`CodeSpace::find`](super::code::CodeSpace::find).
    pub(super) fn find(&self, address: CodeAddress, at_ns: u64) -> Option<&CodeMapping> {
        let (_, segment) = self.map.range(..=address.0).next_back()?;
        if address.0 >= segment.end {
            return None;
        }
        let younger = segment.younger(at_ns);
        let known = match younger.checked_sub(1) {
            Some(latest) => segment.layers.get(latest),
            None if segment.forgot => None,
            None => segment.layers.first(),
        }?;
        // Where there was no room for a border, a range has more than that.
        let range = &known.mapping.range;
        (range.start..range.end)
            .contains(&address)
            .then_some(&known.mapping)
    }

    /// The latest mapping of each range, by address.
    pub(super) fn current(&self) -> impl Iterator<Item = &CodeMapping> {
        let last = self
            .map
            .values()
            .filter_map(|segment| segment.layers.last());
        last.map(|known| &known.mapping)
    }

    /// See [`CodeSpace::of_file`](super::code::CodeSpace::of_file).
    pub(super) fn of_file(&self, file: FileId) -> Option<&CodeMapping> {
        let is_it = |mapping: &&CodeMapping| mapping.range.file.is_version_of(&file);
        let earlier = || {
            let layers = self.map.values().flat_map(|segment| &segment.layers);
            layers.map(|known| &known.mapping).find(is_it)
        };
        self.current().find(is_it).or_else(earlier)
    }

    /// Whether a mapping says nothing new.
    pub(super) fn has(&self, mapping: &CodeMapping) -> bool {
        let (start, end) = (mapping.range.start.0, mapping.range.end.0);
        let first = self.map.range(..=start).next_back();
        let inside = start
            .checked_add(1)
            .map(|after| self.map.range(after..end.max(after)));
        let mut cursor = start;
        for (from, segment) in first.into_iter().chain(inside.into_iter().flatten()) {
            if segment.end <= start {
                continue;
            }
            if *from > cursor || !segment.has(mapping) {
                return false;
            }
            cursor = segment.end;
        }
        cursor >= end
    }

    /// Enters a mapping. Returns how much was not kept of it, or of what was
    /// there before: 0, unless a bound was reached.
    pub(super) fn overlay(&mut self, mapping: CodeMapping, room: &Room) -> u64 {
        let (start, end) = (mapping.range.start.0, mapping.range.end.0);
        // Why a file could not be opened has its name in it, too.
        let name = 2 * mapping.range.name.length() as u64;
        let mut lost = 0;
        let Some(taken) = room.take(MAPPING + name) else {
            // What was there is not there any more.
            return 1 + self.forget(start, end);
        };
        let known = Arc::new(Known {
            mapping,
            _room: taken,
        });
        lost += u64::from(!self.split_at(start));
        lost += u64::from(!self.split_at(end));
        if self.map.range(start..end).nth(MAX_COVERED).is_some() {
            lost += self.forget(start, end);
        }
        // Where it could not be split, the range begins before it.
        let from = self.map.range(..=start).next_back();
        let from = from.filter(|(_, segment)| segment.end > start);
        let from = from.map_or(start, |(from, _)| *from);
        let mut gaps = Vec::new();
        let mut cursor = start;
        for (&from, segment) in self.map.range_mut(from..end) {
            if cursor < from {
                gaps.push((cursor, from));
            }
            cursor = segment.end;
            lost += segment.push(&known, &mut self.taken);
        }
        if cursor < end {
            gaps.push((cursor, end));
        }
        for (from, to) in gaps {
            if self.map.len() >= MAX_SEGMENTS || !self.taken.grow(SEGMENT) {
                lost += 1;
                continue;
            }
            let segment = Segment {
                end: to,
                layers: vec![Arc::clone(&known)],
                forgot: false,
            };
            self.map.insert(from, segment);
        }
        lost
    }

    /// Makes `address` a border between ranges. Returns whether there is one.
    fn split_at(&mut self, address: u64) -> bool {
        let is_full = self.map.len() >= MAX_SEGMENTS;
        if let Some((&from, segment)) = self.map.range_mut(..address).next_back()
            && from < address
            && address < segment.end
        {
            let layers = segment.layers.len().saturating_sub(1) as u64;
            if is_full || !self.taken.grow(SEGMENT + layers * LAYER) {
                return false;
            }
            let upper = segment.clone();
            segment.end = address;
            self.map.insert(address, upper);
        }
        true
    }

    /// Drops all ranges that overlap; returns how many.
    fn forget(&mut self, start: u64, end: u64) -> u64 {
        let overlapping = self.map.range(..end).rev();
        let overlapping = overlapping.take_while(|(_, segment)| segment.end > start);
        let keys: Vec<u64> = overlapping.map(|(from, _)| *from).collect();
        for key in &keys {
            if let Some(segment) = self.map.remove(key) {
                let layers = segment.layers.len().saturating_sub(1) as u64;
                self.taken.shrink(SEGMENT + layers * LAYER);
            }
        }
        keys.len() as u64
    }
}

impl Segment {
    /// The first layer that is younger than a moment.
    fn younger(&self, at_ns: u64) -> usize {
        self.layers
            .partition_point(|layer| layer.mapping.since_ns <= at_ns)
    }

    /// Whether this code was there when the mapping was made.
    fn has(&self, mapping: &CodeMapping) -> bool {
        let before = self.younger(mapping.since_ns).checked_sub(1);
        let before = before.and_then(|index| self.layers.get(index));
        before.is_some_and(|layer| layer.mapping.same_code(mapping))
    }

    /// Enters a mapping; returns how many had to go for it.
    fn push(&mut self, known: &Arc<Known>, room: &mut Taken) -> u64 {
        if self.has(&known.mapping) {
            return 0;
        }
        let full = self.layers.len() >= MAX_LAYERS || !room.grow(LAYER);
        let place = self.younger(known.mapping.since_ns);
        self.layers.insert(place, Arc::clone(known));
        if !full {
            return 0;
        }
        let oldest = self.layers.remove(0);
        self.forgot = true;
        // Stacks name places in files that can be read by the file.
        u64::from(oldest.mapping.file.is_err())
    }
}
