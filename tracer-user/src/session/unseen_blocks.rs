//! Blocks that were allocated during the run by a function that is not probed, and
//! freed by one that is.
//!
//! Each block from before the run can be freed once. If an unknown block is freed where
//! an unknown one was freed before, it was allocated in between: that is no guess from
//! a rate. What is counted is a lower bound, since only the addresses freed last are
//! remembered.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use tracer_ebpf::block::Caller;

use super::Session;
use crate::model::Loss;

/// So few may be calls that were under way when the run began.
const MIN_UNSEEN: u64 = 32;
/// What is said of callers in no file.
const NO_FILE: &str = "code that is in no file";

/// By the file that freed them.
#[derive(Debug, Default)]
pub(super) struct UnseenBlocks(BTreeMap<String, u64>);

impl Session {
    /// The loss that they are.
    pub(super) fn unseen_blocks(&self) -> Loss {
        let mut all = self.unseen_blocks.0.clone();
        let read = self.engine.object.for_each_unseen_block(|caller, count| {
            if let Some(file) = self.freed_by_file(caller) {
                *all.entry(file).or_default() += count;
            }
        });
        // Without the map nothing is known.
        if read.is_err() {
            all.clear();
        }
        loss(&all)
    }

    /// Keeps those of images that ended, and are about to be forgotten.
    pub(super) fn settle_unseen_blocks(&mut self, ended: &HashSet<u64>) -> Result<()> {
        let mut callers = Vec::new();
        let mut files = Vec::new();
        self.engine.object.for_each_unseen_block(|caller, count| {
            if ended.contains(&caller.image) {
                callers.push(caller);
                files.extend(self.freed_by_file(caller).map(|file| (file, count)));
            }
        })?;
        for (file, count) in files {
            *self.unseen_blocks.0.entry(file).or_default() += count;
        }
        self.engine.object.forget_unseen_callers(&callers)
    }

    /// The file whose code has freed a block; none if it is an allocator's or a
    /// loader's, which give back what they were never asked for.
    fn freed_by_file(&self, caller: Caller) -> Option<String> {
        match self.code_of_caller(caller) {
            None => Some(NO_FILE.to_owned()),
            Some(mapping) if self.frees_for_itself(mapping.range.file) => None,
            Some(mapping) => Some(mapping.display_name()),
        }
    }
}

fn loss(files: &BTreeMap<String, u64>) -> Loss {
    let all: u64 = files.values().sum();
    let count = if all < MIN_UNSEEN { 0 } else { all };
    let mut meaning = "blocks that were freed, and had been allocated during the run without being seen: a function that allocates is not probed, and what it allocates is in no number; `unfreed doctor -p PID` lists the functions that are, --allocator names others".to_owned();
    if let Some((file, most)) = files.iter().max_by_key(|(_, count)| **count)
        && count > 0
    {
        meaning.push_str(&format!("; {most} of them were freed by {file}"));
    }
    Loss {
        cause: Loss::UNSEEN_ALLOCATION.to_owned(),
        count,
        meaning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(&str, u64)]) -> Loss {
        let files = counts.iter();
        loss(
            &files
                .map(|(file, count)| ((*file).to_owned(), *count))
                .collect(),
        )
    }

    #[test]
    fn whoever_frees_most_is_named() {
        let found = of(&[("/lib/a.so", 30), ("/lib/b.so", 70)]);
        assert_eq!(found.count, 100);
        assert!(
            found
                .meaning
                .ends_with("; 70 of them were freed by /lib/b.so")
        );
    }

    #[test]
    fn a_few_prove_nothing() {
        let found = of(&[("/lib/a.so", MIN_UNSEEN - 1)]);
        assert_eq!(found.count, 0);
        assert!(found.meaning.ends_with("--allocator names others"));
        assert_eq!(of(&[]).count, 0);
    }
}
