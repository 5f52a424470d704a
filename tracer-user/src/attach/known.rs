//! Allocators that get no probes, since a sampler tells what they allocate: what they map
//! is theirs all the same.

use std::ops::Range;

use super::allocator::Allocator;
use super::linkage::Linkage;
use crate::process::address::FileOffset;

/// An allocator that gets no probes.
pub struct Known {
    /// It.
    pub allocator: Allocator,
    /// Functions that those that allocate go on with by a jump.
    inner: Vec<Range<u64>>,
}

impl Known {
    /// What is to be known of an allocator.
    pub fn of(allocator: &Allocator) -> Self {
        let linkage = Linkage::read(&allocator.file.content).unwrap_or_default();
        let mut inner = Vec::new();
        for function in &allocator.functions {
            let own = function.start.0..function.start.0.saturating_add(function.size);
            let ends = function
                .ends
                .as_ref()
                .ok()
                .filter(|_| function.probed.allocates());
            let returns = ends.map_or(&[][..], |ends| &ends.returns);
            let others = returns.iter().filter(|at| !own.contains(at));
            inner.extend(others.filter_map(|at| linkage.extent(*at)));
        }
        Self {
            allocator: allocator.clone(),
            inner,
        }
    }

    /// Whether a return address in it says that it is at work.
    pub fn allocates_at(&self, offset: FileOffset) -> bool {
        let mut functions = self.allocator.functions.iter();
        self.allocator.is_alone
            || functions.any(|it| it.allocates_at(offset))
            || self.inner.iter().any(|range| range.contains(&offset.0))
    }
}
