//! Whether the VM collects garbage, which moves objects.

use std::io;

use super::fields::{Fields, Number, UnknownLayout};
use super::memory::TargetMemory;

/// Where the VM counts collections.
#[derive(Debug, Clone, Copy)]
pub struct Collections {
    heap: u64,
    count: Number,
    /// Whether one runs that stops all threads.
    active: Option<Number>,
}

impl Collections {
    /// Looks it up. None until the VM has a heap.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(
        fields: Fields<'_>,
        memory: &dyn TargetMemory,
    ) -> Result<Option<Self>, UnknownLayout> {
        let heap = fields.address(&[("Universe", "_collectedHeap")])?;
        let collections = Collections {
            heap: memory.u64(heap).unwrap_or(0),
            count: fields.number(&[("CollectedHeap", "_total_collections")])?,
            active: fields.find_number(&[
                ("CollectedHeap", "_is_stw_gc_active"),
                ("CollectedHeap", "_is_gc_active"),
            ]),
        };
        Ok((collections.heap != 0).then_some(collections))
    }

    /// How many have begun; none while one stops all threads.
    ///
    /// # Errors
    /// Fails if that cannot be read.
    pub fn count(&self, memory: &dyn TargetMemory) -> io::Result<Option<i64>> {
        let active = self.active.map(|active| active.read(memory, self.heap));
        if active.transpose()?.is_some_and(|active| active != 0) {
            return Ok(None);
        }
        self.count.read(memory, self.heap).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;

    #[test]
    fn nothing_is_counted_while_one_runs() {
        let number = |offset, width| Number {
            offset,
            width,
            signed: false,
        };
        let collections = Collections {
            heap: 0x1000,
            count: number(4, 4),
            active: Some(number(0, 1)),
        };
        let mut memory = Synthetic::default();
        assert!(collections.count(&memory).is_err());
        memory.put(0x1000, &[0, 9, 9, 9, 7, 0, 0, 0]);
        assert_eq!(collections.count(&memory).unwrap(), Some(7));
        memory.put(0x1000, &[1]);
        assert_eq!(collections.count(&memory).unwrap(), None);
    }
}
