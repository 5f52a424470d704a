//! The stacks of a VM's threads, and of the others in its process.
//!
//! The VM tells of each of its threads where its stack begins and how large it
//! is. Other threads have the mapping that their stack pointer is in.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Jvm;
use super::fields::{Fields, Number};
use super::memory::TargetMemory;
use super::pool::aligned;
use super::threads::{MAX_THREADS, Namespace, ThreadsLayout};
use crate::model::java_native::{StackMemory, ThreadStacks};
use crate::process::pagemap::PageMap;
use crate::process::stack::{self, Writable};

/// How often threads that do not tell where their stacks are are asked, and when again.
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// A larger stack is not believed, bytes.
const MAX_STACK: u64 = 64 << 30;
/// More than this is not looked through for what is resident, bytes.
const MAX_TOTAL: u64 = 64 << 30;

/// Reads where they are, and how much of them is resident.
///
/// # Errors
/// The reason why that cannot be told.
pub fn read(jvm: &Jvm) -> Result<ThreadStacks> {
    let reader = Reader::of(jvm)?;
    let mut left: HashSet<u32> = jvm.process.tasks()?.into_iter().collect();
    let java = reader.layout.addresses(&jvm.memory)?;
    let java = reader.of_threads(&java, &mut left);
    let own = reader.non_java()?;
    let own = reader.of_threads(&own, &mut left);
    let known = [&*java, &*own].concat();
    let (others, unknown) = others(jvm, left, &known)?;
    let all = known.iter().chain(&others);
    let total = all.map(length).fold(0, u64::saturating_add);
    if total > MAX_TOTAL {
        bail!("its threads' stacks have {total} bytes: too many to look through");
    }
    let pages = PageMap::open(&jvm.process).context("cannot open its page map")?;
    Ok(ThreadStacks {
        java: memory_of(&java, &pages)?,
        vm: memory_of(&own, &pages)?,
        other: memory_of(&others, &pages)?,
        unknown,
    })
}

/// The stack of a `JavaThread`; none if what it says of it is not believed.
///
/// # Errors
/// Fails if the VM does not tell, or the process is gone.
pub fn of_thread(jvm: &Jvm, thread: u64) -> Result<Option<Range<u64>>> {
    Ok(Reader::of(jvm)?.stack(thread))
}

/// The stacks of threads that are not the VM's, and how many do not tell. One that runs
/// does not, nor one that is about to end; so they are asked again after a while.
fn others(
    jvm: &Jvm,
    threads: HashSet<u32>,
    known: &[Range<u64>],
) -> Result<(Vec<Range<u64>>, u64)> {
    let (mut found, mut silent) = (Vec::new(), threads);
    for round in 0..ROUNDS {
        if round > 0 {
            thread::sleep(PAUSE);
            let living: HashSet<u32> = jvm.process.tasks()?.into_iter().collect();
            silent.retain(|tid| living.contains(tid));
        }
        let writable = Writable::read(&jvm.process)?;
        silent.retain(|tid| {
            let pointer = stack::pointer(&jvm.process, *tid);
            let range = pointer.and_then(|pointer| writable.around(pointer, known));
            let is_silent = range.is_none();
            found.extend(range);
            is_silent
        });
        if silent.is_empty() {
            break;
        }
    }
    Ok((found, silent.len() as u64))
}

struct Reader<'a> {
    jvm: &'a Jvm,
    layout: ThreadsLayout,
    names: Namespace,
    base: u32,
    size: Number,
    /// `NonJavaThread::_next`, if the VM has such.
    next: Option<u32>,
}

impl<'a> Reader<'a> {
    fn of(jvm: &'a Jvm) -> Result<Self> {
        let fields = Fields(&jvm.structs);
        let base = [("JavaThread", "_stack_base"), ("Thread", "_stack_base")];
        let size = [("JavaThread", "_stack_size"), ("Thread", "_stack_size")];
        Ok(Reader {
            jvm,
            layout: ThreadsLayout::of(&jvm.structs)?,
            names: Namespace::of(&jvm.process)?,
            base: fields.offset(&base)?,
            size: Number {
                offset: fields.offset(&size)?,
                width: 8,
                signed: false,
            },
            next: next_of_non_java(fields),
        })
    }

    /// The VM's threads that are not Java's; none if it does not tell.
    fn non_java(&self) -> io::Result<Vec<u64>> {
        let memory = &self.jvm.memory;
        let mut found = Vec::new();
        let (Some(list), Some(next)) = (self.jvm.places.non_java_threads, self.next) else {
            return Ok(found);
        };
        let mut thread = memory.u64(list)?;
        while let Some(pointer) = aligned(thread).filter(|_| found.len() < MAX_THREADS) {
            found.push(pointer);
            thread = memory.u64(pointer.wrapping_add(next.into()))?;
        }
        Ok(found)
    }

    /// The stacks of those threads that live; they are taken from `left`.
    fn of_threads(&self, threads: &[u64], left: &mut HashSet<u32>) -> Vec<Range<u64>> {
        let stack = |thread: &u64| {
            let inner = self.layout.inner_tid(&self.jvm.memory, *thread).ok()?;
            let tid = self.names.tid(inner)?;
            let stack = self.stack(*thread).filter(|_| left.contains(&tid))?;
            left.remove(&tid);
            Some(stack)
        };
        threads.iter().filter_map(stack).collect()
    }

    fn stack(&self, thread: u64) -> Option<Range<u64>> {
        let memory = &self.jvm.memory;
        let base = memory.u64(thread.checked_add(self.base.into())?).ok()?;
        let base = aligned(base)?;
        let size = u64::try_from(self.size.read(memory, thread).ok()?).ok()?;
        let start = base.checked_sub(size)?;
        (size > 0 && size <= MAX_STACK).then_some(start..base)
    }
}

/// Where in a thread of the VM that is not Java's the next one is: the only
/// thing that it adds to a thread, as its size shows.
fn next_of_non_java(fields: Fields<'_>) -> Option<u32> {
    let thread = fields.size("Thread").ok()?;
    let non_java = fields.size("NonJavaThread").ok()?;
    (non_java == thread + 8).then_some(thread)
}

fn memory_of(stacks: &[Range<u64>], pages: &PageMap) -> Result<StackMemory> {
    let mut memory = StackMemory {
        threads: stacks.len() as u64,
        ..StackMemory::default()
    };
    for stack in stacks {
        memory.reserved += length(stack);
        memory.resident += pages.resident(stack).context("cannot read its page map")?;
    }
    Ok(memory)
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}
