//! Frees of blocks that nobody was seen to allocate.

use std::collections::HashSet;

use anyhow::Result;
use tracer_ebpf::block::Caller;

use super::Session;
use crate::process::address::CodeAddress;
use crate::process::code::CodeMapping;
use crate::process::maps::FileId;

impl Session {
    /// Frees of blocks from before the run, or below `--min-size`.
    ///
    /// Not what allocators and loaders free for themselves, in processes that
    /// began during the run: glibc's gives the blocks in a thread's cache back by
    /// `free` when the thread ends, although their owners have freed them.
    pub(super) fn untraced_frees(&self) -> u64 {
        let all = self.engine.object.untraced_frees.get(0).unwrap_or(0);
        let mut own = self.internal_frees;
        let counted = self.engine.object.for_each_unknown_free(|caller, count| {
            if self.is_internal(caller) {
                own += count;
            }
        });
        match counted {
            Ok(()) => all.saturating_sub(own),
            Err(_) => all,
        }
    }

    /// Keeps how many of these there were in images that ended, and are about to
    /// be forgotten.
    pub(super) fn settle_internal_frees(&mut self, ended: &HashSet<u64>) -> Result<()> {
        let mut own = 0;
        let mut callers = Vec::new();
        self.engine.object.for_each_unknown_free(|caller, count| {
            if ended.contains(&caller.image) {
                callers.push(caller);
                own += if self.is_internal(caller) { count } else { 0 };
            }
        })?;
        self.internal_frees += own;
        self.engine.object.forget_callers(&callers)
    }

    fn is_internal(&self, caller: Caller) -> bool {
        let index = self.images.index_of(caller.image);
        let image = index.and_then(|index| self.images.get(index));
        image.is_some_and(|image| image.from_start)
            && self
                .code_of_caller(caller)
                .is_some_and(|mapping| self.frees_for_itself(mapping.range.file))
    }

    /// Whether a file's code may free blocks that nobody has asked it for.
    pub(super) fn frees_for_itself(&self, file: FileId) -> bool {
        // A pool's file has functions that free what others ask them to.
        let mut placed = self.engine.placed.iter();
        placed.any(|placed| placed.file == file && !placed.is_pool) || self.is_loader(file)
    }

    /// The code from which a block was freed.
    pub(super) fn code_of_caller(&self, caller: Caller) -> Option<&CodeMapping> {
        let image = self.images.get(self.images.index_of(caller.image)?)?;
        // The call stands before the address that it returns to.
        let address = CodeAddress(caller.address.wrapping_sub(1));
        let end = image.ended.map_or(u64::MAX, |(time, _)| time);
        self.images.code(image)?.find(address, end)
    }
}
