//! Ways from roots to blocks, by numbers.

use std::ops::Range;

use super::threads::InThread;
use crate::process::maps::FileId;

/// How a block was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing leads to it.
    Unreached,
    /// Nobody knows: the search was cut off.
    Unknown,
    /// Something does.
    Reached(Way),
}

/// A way from a root to a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What holds what, root first, each with how often it follows itself.
    pub links: Vec<(RawLink, u64)>,
    /// The words that lead from one to the next, each with its place, and the addresses of
    /// what it leads to: those that are nearest to the block, and the root's.
    pub words: Vec<(u64, Range<u64>)>,
}

impl Way {
    /// Whether its root may be a word that nobody uses any more: one on a stack, or in what could
    /// not be told from free memory.
    pub fn is_passing(&self) -> bool {
        match self.links.first() {
            Some((RawLink::Thread { place, .. }, _)) => *place == InThread::Stack,
            Some((RawLink::Heap, _)) | None => true,
            Some(_) => false,
        }
    }

    /// Without words.
    #[cfg(test)]
    pub fn of(links: Vec<(RawLink, u64)>) -> Self {
        let words = Vec::new();
        Self { links, words }
    }
}

/// What a block is that begins with an address of constant data, as an object with virtual
/// functions does, and which word of it leads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    /// The file that has the data.
    pub file: FileId,
    /// Its address.
    pub table: u64,
    /// How far in the block the word is, bytes.
    pub at: u64,
}

/// A holder, by numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RawLink {
    /// A variable of a file, at an address.
    Data(FileId, u64),
    /// A place on a thread's stack, or in its thread-locals.
    Thread {
        /// The thread's id.
        id: u32,
        /// Its name.
        name: String,
        /// Where in what it has.
        place: InThread,
    },
    /// A part of a heap that could not be gone through.
    Heap,
    /// A Java object that has an address in this range.
    Java(Range<u64>),
    /// A mapping, by its name; without one if it is empty.
    Mapping(String),
    /// A traced block: its site, and its class.
    Block(u32, Option<Class>),
    /// Another one: its size, and the same.
    Chunk(u64, Option<Class>),
    /// Between a holder and what follows: its word may be the end of the block before that.
    End,
}
