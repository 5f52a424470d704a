//! What ended processes leave to their children: copies of blocks, whose frees
//! are told apart from others.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use tracer_ebpf::block::{Block, BlockKey};

use super::Session;
use crate::targets::images::Images;

impl Images {
    /// When the last child was forked, of each image that a running one descends
    /// from; nanoseconds of `CLOCK_MONOTONIC`.
    fn last_forks(&self) -> HashMap<u64, u64> {
        let mut forks: HashMap<u64, u64> = HashMap::new();
        for index in self.running() {
            let mut image = self.get(index);
            while let Some(child) = image.filter(|image| image.parent != 0) {
                let last = forks.entry(child.parent).or_default();
                *last = child.began.max(*last);
                image = self.index_of(child.parent).and_then(|at| self.get(at));
            }
        }
        forks
    }
}

impl Session {
    /// Remembers blocks of images that ended for their children.
    pub(super) fn leave_to_children(&mut self, blocks: &[(BlockKey, Block)]) -> Result<()> {
        if blocks.is_empty() || !self.options.follow {
            return Ok(());
        }
        let forks = self.images.last_forks();
        let is_theirs = |(key, block): &&(BlockKey, Block)| {
            forks.get(&key.image).is_some_and(|fork| block.time < *fork)
        };
        let left: Vec<_> = blocks.iter().filter(is_theirs).copied().collect();
        self.images.forgotten += self.engine.object.freed_since.keep(&left)?;
        Ok(())
    }

    /// Forgets what images had whose last descendant has ended; `ended` are some
    /// that have ended themselves.
    pub(super) fn forget_the_childless(&mut self, ended: &[u64]) -> Result<()> {
        if !self.options.follow {
            return Ok(());
        }
        for id in ended {
            let image = self.images.index_of(*id).and_then(|at| self.images.get(at));
            // A child may have given up copies, even if it had no children.
            let is_child = image.is_some_and(|image| image.parent != 0);
            if self.images.parents.contains(id) || (is_child && self.options.min_size > 0) {
                self.images.remembered.insert(*id);
            }
        }
        if self.images.remembered.is_empty() {
            return Ok(());
        }
        let forks = self.images.last_forks();
        let childless: HashSet<u64> = self
            .images
            .remembered
            .extract_if(|image| !forks.contains_key(image))
            .collect();
        self.engine.object.freed_since.forget(&childless)
    }
}
