//! Which files are mapped: the kernel's programs tell where, the process's mappings
//! what.

use std::collections::HashMap;

use tracer_ebpf::event::Event;

use crate::process::regions::Region;

/// Names of one image take at most so many bytes. Files beyond are in the sums, and
/// have no name.
const MAX_BYTES: usize = 1 << 20;
/// Files that are told of one by one, at most.
const MAX_TOLD: usize = 4;

/// The files of one image's mappings.
#[derive(Debug, Clone, Default)]
pub struct MappedFiles {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
    bytes: usize,
    /// The file of each mapping, an index of `names`.
    of: HashMap<u64, usize>,
    /// Mappings without a name yet, with their first addresses.
    unnamed: Vec<(u64, u64)>,
    /// Segments that were attached, of unknown length.
    attached: Vec<Event>,
}

impl MappedFiles {
    /// A file was mapped at an address.
    pub fn mapped(&mut self, start: u64, mapping: u64) {
        self.unnamed.push((start, mapping));
    }

    /// A segment was attached.
    pub fn attached(&mut self, event: &Event) {
        self.attached.push(*event);
    }

    /// It was detached.
    pub fn detached(&mut self, address: u64) {
        self.attached.retain(|event| event.address != address);
    }

    /// Whether anything is to be found in the process's mappings.
    pub fn wants_regions(&self) -> bool {
        !self.unnamed.is_empty() || !self.attached.is_empty()
    }

    /// The segments that were attached, with their lengths. What is gone again is
    /// left out.
    pub fn lengths(&mut self, regions: &[Region]) -> Vec<Event> {
        let attached = std::mem::take(&mut self.attached);
        let known = attached.into_iter().filter_map(|event| {
            let region = region_at(regions, event.address)?;
            let is_it = region.range.start == event.address;
            let length = region.range.end - region.range.start;
            is_it.then_some(Event { length, ..event })
        });
        known.collect()
    }

    /// Names what has no name: `mapping_at` tells which mapping is at an address now.
    pub fn name(&mut self, regions: &[Region], mapping_at: impl Fn(u64) -> Option<u64>) {
        for (start, mapping) in std::mem::take(&mut self.unnamed) {
            let region = region_at(regions, start);
            if mapping_at(start) == Some(mapping)
                && let Some(region) = region
                && let Some(number) = self.number(&region.name)
            {
                self.of.insert(mapping, number);
            }
        }
    }

    fn number(&mut self, name: &str) -> Option<usize> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        self.bytes += 2 * name.len();
        if self.bytes > MAX_BYTES {
            return None;
        }
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), self.names.len() - 1);
        Some(self.names.len() - 1)
    }

    /// A mapping is gone.
    pub fn forget(&mut self, mapping: u64) {
        self.of.remove(&mapping);
    }

    /// The largest files of some mappings, each with their number and bytes.
    pub fn sums(&self, mappings: impl Iterator<Item = (u64, u64)>) -> Vec<(String, u64, u64)> {
        let mut sums: HashMap<usize, (u64, u64)> = HashMap::new();
        for (mapping, bytes) in mappings {
            if let Some(file) = self.of.get(&mapping) {
                let sum = sums.entry(*file).or_default();
                *sum = (sum.0 + 1, sum.1 + bytes);
            }
        }
        let name = |file: usize| self.names.get(file).cloned().unwrap_or_default();
        let files = sums.into_iter();
        let mut files: Vec<_> = files.map(|(at, (n, bytes))| (name(at), n, bytes)).collect();
        files.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        files.truncate(MAX_TOLD);
        files
    }
}

/// The region that an address is in; they come by address.
fn region_at(regions: &[Region], address: u64) -> Option<&Region> {
    let after = regions.partition_point(|region| region.range.start <= address);
    let region = regions.get(after.checked_sub(1)?)?;
    (address < region.range.end).then_some(region)
}
