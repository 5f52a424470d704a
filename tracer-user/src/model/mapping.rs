//! What there is to say of mappings and threads' stacks.

use serde::{Deserialize, Serialize};

/// Files of a call path that are told of one by one.
const MAX_FILES: usize = 4;

/// A file that a call path maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedFile {
    /// Its path as the process sees it.
    pub name: String,
    /// How many live mappings there are of it.
    pub mappings: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl MappedFile {
    /// Adds the files of another path, and keeps the largest.
    pub fn merge(sum: &mut Vec<Self>, others: &[Self]) {
        for other in others {
            match sum.iter_mut().find(|file| file.name == other.name) {
                Some(file) => {
                    file.mappings += other.mappings;
                    file.bytes += other.bytes;
                }
                None => sum.push(other.clone()),
            }
        }
        sum.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        sum.truncate(MAX_FILES);
    }
}

/// How many mappings a process has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mappings {
    /// All of them, at the last look.
    pub count: u64,
    /// How many it may have (`vm.max_map_count`).
    pub limit: u64,
}

impl Mappings {
    /// Whether it has more than half of what it may.
    pub const fn are_many(self) -> bool {
        self.count > self.limit / 2
    }
}

/// How many stacks are of which threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackOwners {
    /// Of threads that run.
    pub running: u64,
    /// Of threads that ended and were not joined. The C library keeps the stack
    /// until somebody does. (Some stacks of detached threads it keeps as well, for
    /// the next thread: 40 MiB of them.)
    pub ended: u64,
    /// Of threads that were joined: kept by the C library for the next thread.
    pub joined: u64,
}

impl StackOwners {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds those of another process.
    pub fn add(&mut self, other: Self) {
        self.running += other.running;
        self.ended += other.ended;
        self.joined += other.joined;
    }
}
