//! The parts of a Java heap that have objects, one after the other, by the tables that the
//! VM exports.

use anyhow::{Context, Result, bail};

use crate::jvm::fields::{Fields, Name, UnknownLayout};
use crate::jvm::flags;
use crate::jvm::memory::TargetMemory;
use crate::jvm::pool::aligned;

/// More regions are not believed: G1 makes 2,048 by choice, and 1 MiB is the smallest.
const MAX_REGIONS: u64 = 1 << 20;
/// No space is larger, bytes.
const MAX_SPACE: u64 = 1 << 44;

/// The tags of G1's regions, by the names that their type has had.
const REGION_TYPES: [&str; 2] = ["HeapRegionType", "G1HeapRegionType"];

/// Addresses with objects from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The first object.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    /// Whether its objects have survived no collection yet.
    pub is_eden: bool,
}

/// The spaces in use, by address.
///
/// # Errors
/// Fails if the collector is none whose heap can be walked, or does not tell.
pub fn read(fields: Fields<'_>, memory: &dyn TargetMemory) -> Result<Vec<Space>> {
    let wanted = ["UseSerialGC", "UseParallelGC", "UseG1GC"];
    let vm = Vm { fields, memory };
    let mut spaces = match flags::are_on(fields, memory, wanted)? {
        [true, _, _] => vm.serial()?,
        [_, true, _] => vm.parallel()?,
        [_, _, true] => vm.g1()?,
        _ => bail!("its collector is none of serial, parallel and G1"),
    };
    spaces.retain(|space| space.start < space.end);
    spaces.sort_by_key(|space| space.start);
    let believed = |space: &Space| {
        let length = space.end - space.start;
        space.start.is_multiple_of(8) && space.end.is_multiple_of(8) && length < MAX_SPACE
    };
    if !spaces.iter().all(believed) || spaces.windows(2).any(|two| two[0].end > two[1].start) {
        bail!("the spaces of its heap are not believed");
    }
    Ok(spaces)
}

struct Vm<'a> {
    fields: Fields<'a>,
    memory: &'a dyn TargetMemory,
}

impl Vm<'_> {
    /// The pointer in a field of an object.
    fn pointer(&self, object: u64, names: &[Name]) -> Result<u64> {
        let offset = self.fields.offset(names)?;
        let value = self.memory.u64(object.wrapping_add(offset.into()));
        value.with_context(|| format!("cannot read {}::{}", names[0].0, names[0].1))
    }

    fn heap(&self) -> Result<u64> {
        let heap = self.fields.address(&[("Universe", "_collectedHeap")])?;
        aligned(self.memory.u64(heap)?).context("it has no heap yet")
    }

    fn space(&self, space: u64, is_eden: bool) -> Result<Space> {
        let start = [("MutableSpace", "_bottom"), ("ImmutableSpace", "_bottom")];
        Ok(Space {
            start: self.pointer(space, &start)?,
            end: self.pointer(space, &[("MutableSpace", "_top")])?,
            is_eden,
        })
    }

    fn contiguous(&self, space: u64, is_eden: bool) -> Result<Space> {
        let start = [("ContiguousSpace", "_bottom"), ("Space", "_bottom")];
        Ok(Space {
            start: self.pointer(space, &start)?,
            end: self.pointer(space, &[("ContiguousSpace", "_top")])?,
            is_eden,
        })
    }

    fn serial(&self) -> Result<Vec<Space>> {
        let heap = self.heap()?;
        let generations = [("GenCollectedHeap", "_gens")];
        let (young, old) = match self.fields.find_offset(&generations) {
            // JDK 8 has an array within.
            Some(offset) => {
                let at = heap + u64::from(offset);
                (self.memory.u64(at)?, self.memory.u64(at + 8)?)
            }
            None => (
                self.pointer(
                    heap,
                    &[
                        ("SerialHeap", "_young_gen"),
                        ("GenCollectedHeap", "_young_gen"),
                    ],
                )?,
                self.pointer(
                    heap,
                    &[("SerialHeap", "_old_gen"), ("GenCollectedHeap", "_old_gen")],
                )?,
            ),
        };
        let young_space = |name, is_eden| {
            let space = self.pointer(young, &[("DefNewGeneration", name)])?;
            self.contiguous(space, is_eden)
        };
        let tenured = [
            ("TenuredGeneration", "_the_space"),
            ("OneContigSpaceCardGeneration", "_the_space"),
        ];
        Ok(vec![
            young_space("_eden_space", true)?,
            young_space("_from_space", false)?,
            self.contiguous(self.pointer(old, &tenured)?, false)?,
        ])
    }

    fn parallel(&self) -> Result<Vec<Space>> {
        let generation = |name: &'static str| {
            let place = self.fields.address(&[("ParallelScavengeHeap", name)])?;
            aligned(self.memory.u64(place)?).context("it has no heap yet")
        };
        let (young, old) = (generation("_young_gen")?, generation("_old_gen")?);
        let young_space =
            |name, is_eden| self.space(self.pointer(young, &[("PSYoungGen", name)])?, is_eden);
        Ok(vec![
            young_space("_eden_space", true)?,
            young_space("_from_space", false)?,
            self.space(self.pointer(old, &[("PSOldGen", "_object_space")])?, false)?,
        ])
    }

    fn g1(&self) -> Result<Vec<Space>> {
        let manager = u64::from(self.fields.offset(&[("G1CollectedHeap", "_hrm")])?);
        let table = self.fields.offset(&[
            ("G1HeapRegionManager", "_regions"),
            ("HeapRegionManager", "_regions"),
        ])?;
        let table = self.heap()? + manager + u64::from(table);
        let base = self.pointer(table, &[("G1HeapRegionTable", "_base")])?;
        let count = self.pointer(table, &[("G1HeapRegionTable", "_length")])?;
        if count > MAX_REGIONS {
            bail!("it says that it has {count} regions");
        }
        let mut spaces = Vec::new();
        for index in 0..count {
            // What was never committed has no region.
            if let Some(region) = aligned(self.memory.u64(base + 8 * index)?) {
                spaces.extend(self.region(region)?);
            }
        }
        Ok(spaces)
    }

    /// A region's objects; none if it is free.
    fn region(&self, region: u64) -> Result<Option<Space>> {
        let start = [
            ("G1HeapRegion", "_bottom"),
            ("HeapRegion", "_bottom"),
            ("Space", "_bottom"),
        ];
        let end = [
            ("G1HeapRegion", "_top"),
            ("HeapRegion", "_top"),
            ("G1ContiguousSpace", "_top"),
            ("G1OffsetTableContigSpace", "_top"),
        ];
        let tag = self.tag(region)?;
        let has_tag = |name: &str| tag.is_some() && tag == self.tag_of(name);
        if has_tag("FreeTag") {
            return Ok(None);
        }
        Ok(Some(Space {
            start: self.pointer(region, &start)?,
            end: self.pointer(region, &end)?,
            is_eden: has_tag("EdenTag"),
        }))
    }

    /// What a region is; JDK 8 does not tell.
    fn tag(&self, region: u64) -> Result<Option<i32>> {
        let kind = [("G1HeapRegion", "_type"), ("HeapRegion", "_type")];
        let Some(kind) = self.fields.find_offset(&kind) else {
            return Ok(None);
        };
        let tag = [("G1HeapRegionType", "_tag"), ("HeapRegionType", "_tag")];
        let offset = u64::from(kind) + u64::from(self.fields.offset(&tag)?);
        Ok(Some(self.memory.i32(region.wrapping_add(offset))?))
    }

    fn tag_of(&self, name: &str) -> Option<i32> {
        let mut kinds = REGION_TYPES.iter();
        kinds.find_map(|kind| self.fields.0.int_constant(&format!("{kind}::{name}")))
    }
}

/// Where threads have room for objects that are not made yet: from the first address to the
/// second, for each thread.
///
/// # Errors
/// Names what the VM does not export.
pub fn unused(
    fields: Fields<'_>,
    memory: &dyn TargetMemory,
    threads: impl Iterator<Item = u64>,
) -> Result<Vec<(u64, u64)>, UnknownLayout> {
    let buffer = fields.offset(&[("Thread", "_tlab")])?;
    let top = fields.offset(&[("ThreadLocalAllocBuffer", "_top")])?;
    let end = fields.offset(&[("ThreadLocalAllocBuffer", "_end")])?;
    let mut found = Vec::new();
    for thread in threads {
        let at = |offset: u32| memory.u64(thread.wrapping_add(u64::from(buffer + offset)));
        if let (Ok(top), Ok(end)) = (at(top), at(end))
            && top != 0
            && top < end
        {
            found.push((top, end));
        }
    }
    found.sort_unstable();
    Ok(found)
}
