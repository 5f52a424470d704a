//! The threads of a process, with their stacks and descriptors.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use super::areas::{Area, Kind};
use super::memory::Words;
use super::nptl::{self, Known, Layout, Module};
use super::way::RawLink;
use crate::process::handle::ProcessHandle;
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::maps::FileId;
use crate::process::resident::PageSet;
use crate::process::stack;

/// Threads that are looked at, at most.
const MAX_THREADS: usize = 4096;
/// A descriptor (`struct pthread`) where libc does not tell its size, bytes.
const DESCRIPTOR: u64 = 0x900;
/// Where in it its own address is.
const SELF: [u64; 2] = [0, 16];
/// Where in it the thread's id is.
const ID: u64 = 0x2d0;
/// Memory that is searched for a descriptor before the end of a stack, bytes.
const SEARCHED: u64 = 256 << 10;
/// What of a mapping is searched for the first thread's, bytes from its end and its start:
/// others are put right before it or behind it.
const EDGE: u64 = 1 << 20;
/// Thread-locals of the first thread where libc does not tell whose are where, bytes.
const LOCALS: u64 = 4096;
/// What a function may use below its stack pointer (the psABI's red zone), bytes.
const RED_ZONE: u64 = 128;

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    /// Its id.
    id: u32,
    /// Its id in its process's own namespace.
    inner: u32,
    /// Its name.
    name: String,
    /// Where its descriptor is, if it was found: right behind its thread-locals.
    descriptor: Option<u64>,
    /// What of its stack is in use, if it told; of a thread that runs all of it may be.
    stack: Option<Range<u64>>,
    /// Whether it runs.
    is_running: bool,
    /// What of its stack is dead.
    dead: Range<u64>,
    /// The mapping that its stack is in.
    mapping: Option<Range<u64>>,
}

/// Where in what a thread has a place is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InThread {
    /// On its stack.
    Stack,
    /// In its descriptor.
    Descriptor,
    /// In the thread-locals of a file, at an offset.
    Local(FileId, u64),
    /// So many bytes before its descriptor, where libc does not tell whose are there.
    Before(u64),
}

/// All threads of a process.
#[derive(Debug)]
pub struct Threads {
    all: Vec<Thread>,
    /// Whose thread-locals are where, if libc tells.
    modules: Option<Vec<Module>>,
    /// A descriptor's size, bytes.
    descriptor: u64,
}

impl Threads {
    /// Reads them.
    pub fn read(
        process: &ProcessHandle,
        mappings: &[Mapping],
        words: &mut Words<'_>,
        present: &PageSet,
        layout: Option<&Layout>,
    ) -> Self {
        let ids = process.tasks().unwrap_or_default();
        let ids = ids.into_iter().take(MAX_THREADS);
        let mut all: Vec<Thread> = ids.map(|id| Thread::read(process, mappings, id)).collect();
        let known = layout
            .map(|layout| layout.threads(words))
            .unwrap_or_default();
        let modules = layout.map(|layout| layout.modules(words, mappings));
        let size = layout.map_or(DESCRIPTOR, |layout| layout.descriptor);
        match known.is_empty() {
            false => all
                .iter_mut()
                .for_each(|it| it.take(&known, size, mappings)),
            true => search_all(process.pid(), &mut all, mappings, words, present),
        }
        Self {
            all,
            modules: modules.filter(|modules| !modules.is_empty() && !known.is_empty()),
            descriptor: size,
        }
    }

    /// Their areas: stacks from the stack pointer on, thread-locals and descriptors. What is
    /// dead of stacks holds nothing.
    pub fn areas(&self) -> Vec<Area> {
        let numbered = (0..).zip(&self.all);
        let mut areas: Vec<Area> = numbered
            .flat_map(|(number, thread)| self.areas_of(number, thread))
            .collect();
        let dead = self.all.iter().map(|thread| thread.dead.clone());
        areas.extend(dead.filter(|range| !range.is_empty()).map(Area::none));
        areas
    }

    /// Where they have variables.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let areas = self.areas().into_iter();
        let areas = areas.filter(|area| area.kind.is_some());
        areas.map(|area| area.range).collect()
    }

    fn areas_of(&self, number: u32, thread: &Thread) -> Vec<Area> {
        let kind = Kind::Thread(number);
        let mut areas = Vec::new();
        if let Some(stack) = &thread.stack {
            let kind = match thread.is_running {
                true => Kind::Running(number),
                false => kind.clone(),
            };
            areas.push(Area::new(stack.clone(), kind));
        }
        if let Some(at) = thread.descriptor
            && !thread.stack.iter().any(|stack| stack.contains(&at))
        {
            let range = match &self.modules {
                Some(modules) => nptl::with_locals(modules, at, self.descriptor),
                None => at.saturating_sub(LOCALS)..at.saturating_add(self.descriptor),
            };
            areas.push(Area::new(range, kind));
        }
        areas
    }

    /// What a place is that is in an area of a thread.
    pub fn link(&self, number: u32, place: u64) -> Option<RawLink> {
        let thread = self.all.get(number as usize)?;
        Some(RawLink::Thread {
            id: thread.id,
            name: thread.name.clone(),
            place: self.place(thread.descriptor, place),
        })
    }

    fn place(&self, descriptor: Option<u64>, place: u64) -> InThread {
        let Some(descriptor) = descriptor else {
            return InThread::Stack;
        };
        let Some(before) = descriptor.checked_sub(place).filter(|before| *before > 0) else {
            return match place - descriptor < self.descriptor {
                true => InThread::Descriptor,
                false => InThread::Stack,
            };
        };
        match &self.modules {
            Some(modules) => match nptl::module_of(modules, before) {
                Some((file, offset)) => InThread::Local(file, offset),
                None => InThread::Stack,
            },
            None => InThread::Before(before),
        }
    }
}

impl Thread {
    fn read(process: &ProcessHandle, mappings: &[Mapping], id: u32) -> Self {
        let pointer = stack::pointer(process, id);
        // Of one that runs it is not known: all of its stack may be in use.
        let is_first = pointer.is_none() && id == process.pid();
        let holds = |mapping: &&Mapping| match pointer {
            Some(pointer) => mapping.range.contains(&pointer),
            None => is_first && mapping.kind == MappingKind::Stack,
        };
        let mapping = mappings.iter().find(holds);
        let range = mapping.map(|it| it.range.clone());
        let start = pointer.or_else(|| range.as_ref().map(|all| all.start));
        let mut thread = Self {
            id,
            inner: inner_id(process, id),
            name: name(process, id),
            descriptor: None,
            stack: start.zip(range.clone()).map(|(it, all)| it..all.end),
            is_running: pointer.is_none(),
            dead: 0..0,
            mapping: range,
        };
        if mapping.is_some_and(|mapping| mapping.kind == MappingKind::Stack) {
            thread.end_below();
        }
        thread
    }

    /// All of its mapping below its stack pointer is dead, but for the red zone.
    fn end_below(&mut self) {
        if let (Some(stack), Some(mapping)) = (&self.stack, &self.mapping) {
            let end = stack.start.saturating_sub(RED_ZONE);
            self.dead = mapping.start..end.max(mapping.start);
        }
    }

    /// Takes what libc knows of it.
    fn take(&mut self, known: &HashMap<u32, Known>, size: u64, mappings: &[Mapping]) {
        if let Some(known) = known.get(&self.inner) {
            if self.stack.is_none() && known.has_own_stack {
                let mut mappings = mappings.iter();
                let mapping = mappings.find(|it| it.range.contains(&known.descriptor));
                self.mapping = mapping.map(|it| it.range.clone());
                self.stack.clone_from(&self.mapping);
            }
            self.put(known.descriptor, size, known.has_own_stack);
        }
    }

    /// Its descriptor is at the end of its stack, if libc made that: what is behind it is
    /// another's, and what is below the stack pointer is dead. Where the pointer is in a
    /// mapping without the descriptor, the program made that stack: nobody knows its bounds.
    fn put(&mut self, descriptor: u64, size: u64, is_own: bool) {
        self.descriptor = Some(descriptor);
        let stack = self.stack.as_mut().filter(|it| it.contains(&descriptor));
        let Some(stack) = stack.filter(|_| is_own) else {
            return;
        };
        stack.end = stack.end.min(descriptor.saturating_add(size));
        self.end_below();
    }

    /// The descriptor above its stack, as glibc has it.
    fn search(&self, words: &mut Words<'_>, present: &PageSet) -> Option<u64> {
        let stack = self.stack.as_ref()?;
        let first = stack.start.max(stack.end.saturating_sub(SEARCHED));
        search(words, present, &(first..stack.end), self.inner)
    }
}

/// The id of a thread in its process's own namespace.
fn inner_id(process: &ProcessHandle, id: u32) -> u32 {
    match process.inner_pid() == Some(process.pid()) {
        true => id,
        false => process.inner_task(id).unwrap_or(id),
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

/// Searches for the descriptors where libc does not tell where they are.
fn search_all(
    pid: u32,
    threads: &mut [Thread],
    mappings: &[Mapping],
    words: &mut Words<'_>,
    present: &PageSet,
) {
    for thread in threads {
        let found = match thread.id == pid {
            true => first_descriptor(mappings, words, present, thread.inner),
            false => thread.search(words, present),
        };
        if let Some(descriptor) = found {
            thread.put(descriptor, DESCRIPTOR, true);
        }
    }
}

/// That of the first thread, which the loader has put into a mapping near the libraries.
fn first_descriptor(
    mappings: &[Mapping],
    words: &mut Words<'_>,
    present: &PageSet,
    id: u32,
) -> Option<u64> {
    let private = mappings.iter().rev().filter(|mapping| {
        let is_it = matches!(mapping.kind, MappingKind::Anonymous | MappingKind::Heap);
        is_it && mapping.is_writable
    });
    let mut edges = private.flat_map(|mapping| edges(&mapping.range));
    edges.find_map(|range| search(words, present, &range, id))
}

/// The end and the start of a range, or all of it if it is small.
fn edges(range: &Range<u64>) -> Vec<Range<u64>> {
    match range.end - range.start > 2 * EDGE {
        true => vec![range.end - EDGE..range.end, range.start..range.start + EDGE],
        false => vec![range.clone()],
    }
}

fn search(words: &mut Words<'_>, present: &PageSet, range: &Range<u64>, id: u32) -> Option<u64> {
    let runs = present.runs(range).into_iter();
    let mut places = runs.flat_map(|run| run.step_by(16));
    places.find(|at| is_descriptor(words, *at, id))
}

fn is_descriptor(words: &mut Words<'_>, at: u64, id: u32) -> bool {
    SELF.iter().all(|offset| words.get(at + offset) == Some(at))
        && words
            .get(at + ID)
            .is_some_and(|word| word & u64::from(u32::MAX) == u64::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(stack: Option<Range<u64>>) -> Thread {
        Thread {
            id: 7,
            inner: 7,
            name: String::new(),
            descriptor: None,
            is_running: stack.is_none(),
            stack,
            dead: 0..0,
            mapping: Some(0x1000..0x9000),
        }
    }

    #[test]
    fn a_stack_ends_with_its_descriptor_and_is_dead_below_its_pointer() {
        let mut own = thread(Some(0x4000..0x9000));
        own.put(0x6000, 0x900, true);
        assert_eq!(own.stack, Some(0x4000..0x6900));
        assert_eq!(own.dead, 0x1000..0x4000 - 128);
        // The program's own, a thread that is on another stack, and one that runs.
        for (stack, descriptor, is_own) in [
            (Some(0x4000..0x9000), 0x6000, false),
            (Some(0x4000..0x9000), 0xf000, true),
            (Some(0x4000..0x9000), 0x2000, true),
            (None, 0x6000, true),
        ] {
            let mut other = thread(stack.clone());
            other.put(descriptor, 0x900, is_own);
            assert_eq!((other.stack, other.dead), (stack, 0..0));
            assert_eq!(other.descriptor, Some(descriptor));
        }
    }

    #[test]
    fn places_of_a_thread_are_told_apart() {
        let device = crate::process::maps::Device { major: 0, minor: 0 };
        let file = FileId::new(device, 5);
        let mut own = thread(Some(0x4000..0x7000));
        own.descriptor = Some(0x6000);
        let mut threads = Threads {
            all: vec![own],
            modules: Some(vec![Module { before: 64, file }]),
            descriptor: 0x900,
        };
        let place = |threads: &Threads, at| match threads.link(0, at) {
            Some(RawLink::Thread { id: 7, place, .. }) => place,
            other => panic!("{other:?}"),
        };
        for (at, expected) in [
            (0x5000, InThread::Stack),
            (0x6000 - 72, InThread::Stack),
            (0x6000 - 64, InThread::Local(file, 0)),
            (0x6000 - 8, InThread::Local(file, 56)),
            (0x6000, InThread::Descriptor),
            (0x68f8, InThread::Descriptor),
            (0x6900, InThread::Stack),
        ] {
            assert_eq!(place(&threads, at), expected, "{at:x}");
        }
        threads.modules = None;
        assert_eq!(place(&threads, 0x6000 - 8), InThread::Before(8));
        assert_eq!(threads.link(1, 0x6000), None);
    }

    #[test]
    fn large_mappings_are_searched_at_both_ends() {
        let range = 0..10 * EDGE;
        assert_eq!(edges(&range), [9 * EDGE..10 * EDGE, 0..EDGE]);
        let small = 0..EDGE;
        assert_eq!(edges(&small), [small]);
    }
}
