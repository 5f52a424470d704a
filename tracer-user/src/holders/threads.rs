//! The threads of a process, with their stacks and descriptors.

use std::io::Read;
use std::ops::Range;

use super::areas::{Area, Kind};
use super::memory::Words;
use crate::process::handle::ProcessHandle;
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::resident::PageSet;
use crate::process::stack;

/// Threads that are looked at, at most.
const MAX_THREADS: usize = 4096;
/// A thread's descriptor (`struct pthread`), bytes; before it are its thread-locals.
const DESCRIPTOR: u64 = 0x900;
/// Where in it its own address is.
const SELF: [u64; 2] = [0, 16];
/// Where in it the thread's id is.
const ID: u64 = 0x2d0;
/// Memory that is searched for a descriptor before the end of a stack, bytes.
const SEARCHED: u64 = 256 << 10;
/// Larger mappings are not searched for that of the first thread.
const LARGEST: u64 = 16 << 20;
/// Thread-locals of the first thread, which is on another stack, bytes.
const LOCALS: u64 = 4096;

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Where its descriptor is, if it was found: right behind its thread-locals.
    pub descriptor: Option<u64>,
    /// What of its stack is in use, if it told; of a thread that runs all of it may be.
    pub stack: Option<Range<u64>>,
    /// The mapping that its stack is in.
    mapping: Option<Range<u64>>,
}

/// All threads.
pub fn read(
    process: &ProcessHandle,
    mappings: &[Mapping],
    words: &mut Words<'_>,
    present: &PageSet,
) -> Vec<Thread> {
    let ids = process.tasks().unwrap_or_default();
    let ids = ids.into_iter().take(MAX_THREADS);
    let mut threads: Vec<Thread> = ids.map(|id| thread(process, mappings, id)).collect();
    for thread in &mut threads {
        thread.descriptor = thread.own_descriptor(words, present);
    }
    let first = process.pid();
    let inner = process.inner_pid().unwrap_or(first);
    if let Some(first) = threads.iter_mut().find(|thread| thread.id == first) {
        first.descriptor = first_descriptor(mappings, words, present, inner);
    }
    threads
}

fn thread(process: &ProcessHandle, mappings: &[Mapping], id: u32) -> Thread {
    let pointer = stack::pointer(process, id);
    let holds = |mapping: &&Mapping| pointer.is_some_and(|it| mapping.range.contains(&it));
    let mapping = mappings.iter().find(holds).map(|it| it.range.clone());
    Thread {
        id,
        name: name(process, id),
        descriptor: None,
        stack: pointer.zip(mapping.clone()).map(|(it, all)| it..all.end),
        mapping,
    }
}

/// What the kernel calls a thread; empty if it is gone.
fn name(process: &ProcessHandle, id: u32) -> String {
    let mut name = Vec::new();
    let file = process.open_proc(&format!("task/{id}/comm"));
    let read = file.and_then(|file| file.take(64).read_to_end(&mut name));
    match read {
        Ok(_) => String::from_utf8_lossy(&name).trim_end().to_owned(),
        Err(_) => String::new(),
    }
}

impl Thread {
    /// Its areas: the stack from its stack pointer on, and its thread-locals. What is below
    /// the pointer holds nothing.
    pub fn areas(&self, number: u32) -> Vec<Area> {
        let kind = Kind::Thread(number);
        let mut areas = Vec::new();
        if let Some(stack) = &self.stack {
            areas.push(Area::new(stack.clone(), kind.clone()));
        }
        if let Some(at) = self.descriptor
            && !self.stack.iter().any(|stack| stack.contains(&at))
        {
            areas.push(Area::new(at.saturating_sub(LOCALS)..at + DESCRIPTOR, kind));
        }
        areas
    }

    /// What of its stack is dead.
    pub fn dead(&self) -> Option<Range<u64>> {
        let (stack, mapping) = (self.stack.as_ref()?, self.mapping.as_ref()?);
        // The red zone: 128 bytes that a function may use below it.
        Some(mapping.start..stack.start.saturating_sub(128).max(mapping.start))
    }

    /// The descriptor above its stack, as glibc has it.
    fn own_descriptor(&self, words: &mut Words<'_>, present: &PageSet) -> Option<u64> {
        let stack = self.stack.as_ref()?;
        let first = stack.start.max(stack.end.saturating_sub(SEARCHED));
        let is_one = |words: &mut Words<'_>, at| is_descriptor(words, at, self.id);
        search(words, present, &(first..stack.end), is_one)
    }
}

/// That of the first thread, which the loader has put into a mapping near the libraries;
/// others may have come right behind it.
fn first_descriptor(
    mappings: &[Mapping],
    words: &mut Words<'_>,
    present: &PageSet,
    id: u32,
) -> Option<u64> {
    let small = mappings.iter().rev().filter(|mapping| {
        let range = &mapping.range;
        let is_it = matches!(mapping.kind, MappingKind::Anonymous | MappingKind::Heap);
        is_it && mapping.is_writable && range.end - range.start <= LARGEST
    });
    let mut found = small.filter_map(|mapping| {
        search(words, present, &mapping.range, |words, at| {
            is_descriptor(words, at, id)
        })
    });
    found.next()
}

fn search(
    words: &mut Words<'_>,
    present: &PageSet,
    range: &Range<u64>,
    is_one: impl Fn(&mut Words<'_>, u64) -> bool,
) -> Option<u64> {
    let runs = present.runs(range).into_iter();
    let mut places = runs.flat_map(|run| run.step_by(16));
    places.find(|at| is_one(words, *at))
}

fn is_descriptor(words: &mut Words<'_>, at: u64, id: u32) -> bool {
    SELF.iter().all(|offset| words.get(at + offset) == Some(at))
        && words
            .get(at + ID)
            .is_some_and(|word| word & u64::from(u32::MAX) == u64::from(id))
}
