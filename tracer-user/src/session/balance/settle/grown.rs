//! Where a process grew.

use std::ops::Range;

use crate::model::balance::{GrownMapping, PartName};
use crate::process::mappings::{Mapping, MappingKind};

/// Growth below this is not told, bytes.
const MIN_GROWN: u64 = 64 << 10;

/// Regions of one mapping, side by side, that are of the same part.
pub struct Grown {
    /// The part.
    pub name: PartName,
    /// Where they are.
    pub range: Range<u64>,
    /// By how much they grew, bytes.
    pub bytes: i64,
    /// Whether the first of them was mapped at the start.
    pub is_older: bool,
    /// Bytes of them that are in memory.
    pub resident: u64,
}

impl Grown {
    /// As a mapping that grew, if it did so by enough, and nobody else tells of it.
    pub fn mapping(self, mapping: &Mapping, last: Option<&Mapping>) -> Option<GrownMapping> {
        let is_told = matches!(
            self.name,
            PartName::KeptByAllocators | PartName::JavaHeap | PartName::JavaCode
        );
        let growth = u64::try_from(self.bytes).ok()?;
        (!is_told && growth >= MIN_GROWN).then(|| GrownMapping {
            start: self.range.start,
            end: self.range.end,
            growth,
            resident: self.resident,
            name: name_of(mapping, last),
            // A mapping of the run may lie where an older one did.
            is_older: self.is_older && self.name != PartName::Mappings,
            is_traced: self.name == PartName::Mappings,
            owner: None,
        })
    }
}

/// The file whose variables lie in a mapping right behind its last one.
pub fn variables_of<'a>(mapping: &Mapping, last: Option<&'a Mapping>) -> Option<&'a Mapping> {
    last.filter(|last| {
        last.kind == MappingKind::File && last.is_writable && last.range.end == mapping.range.start
    })
}

/// The kernel's name; that of the file whose variables it has, if it has none.
fn name_of(mapping: &Mapping, last: Option<&Mapping>) -> String {
    match variables_of(mapping, last) {
        Some(file) if mapping.name.is_empty() => format!("variables of {}", file.name),
        _ => mapping.name.clone(),
    }
}
