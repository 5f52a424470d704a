//! Handles that native code has of Java objects: what they lead to holds.
//!
//! Global ones are in blocks of words. JDK 8 has a list of them, whose form the VM exports. Later
//! ones have a store (`OopStorage`) whose place alone is exported: its array of blocks is found by
//! what each block says of itself, which store has it and which of the array's blocks it is. Nothing
//! is believed that does not say so.

use std::collections::HashMap;

use crate::jvm::fields::Fields;
use crate::jvm::memory::TargetMemory;
use crate::jvm::pool::aligned;

/// More handles are not kept.
const MAX_HANDLES: usize = 1 << 20;
/// More blocks of lists, and of a store, are not read.
const MAX_BLOCKS: usize = 1 << 18;
/// How often a store is read that changes meanwhile.
const TRIES: u32 = 5;
/// Words of a store among which the one that leads to its array is.
const STORE_WORDS: usize = 16;
/// Words of a store's block: handles, a bit for each, and then what it says of itself.
const STORE_BLOCK: usize = 68;
/// Handles of a store's block.
const OF_BLOCK: usize = 64;
/// Which words of a block say which are in use, whose it is, and its place in the array.
const IN_USE: usize = 64;
const OWNER: usize = 65;
const INDEX: usize = 67;
/// Bytes of an array before its blocks: its room, how many there are, and who reads it.
const ARRAY_HEADER: u64 = 24;

/// A handle, by the address of its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    /// The word, which has the object's address.
    pub slot: u64,
    /// Whether that is the first word of a block, to which the VM has pointers itself.
    pub is_first: bool,
}

/// Whose a handle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Anybody's, until it is deleted.
    Global(Handle),
    /// Of a thread, by its index in a list of them, until native code returns.
    Local(usize),
}

/// What handles there are.
#[derive(Debug, Default)]
pub struct Handles {
    by_object: HashMap<u64, (u64, Scope)>,
    /// Blocks that were read.
    blocks: usize,
    /// Why some could not be read.
    pub problem: Option<String>,
}

impl Handles {
    /// Those that there are now; `threads` are the addresses of the `JavaThread`s.
    pub fn read(
        fields: Fields<'_>,
        memory: &dyn TargetMemory,
        threads: impl Iterator<Item = u64>,
    ) -> Self {
        let mut handles = Self::default();
        if handles.add_globals(fields, memory).is_none() {
            handles.problem = Some("this Java VM does not tell where its JNI handles are".into());
        }
        handles.add_locals(fields, memory, threads);
        if handles.by_object.len() >= MAX_HANDLES {
            handles.problem = Some(format!("no more than {MAX_HANDLES} JNI handles are read"));
        }
        handles
    }

    /// The handle of an object: where it is, and whose.
    pub fn of(&self, object: u64) -> Option<(u64, Scope)> {
        self.by_object.get(&object).copied()
    }

    fn add(&mut self, object: u64, slot: u64, scope: Scope) {
        if aligned(object).is_none() || self.by_object.len() >= MAX_HANDLES {
            return;
        }
        self.by_object.entry(object).or_insert((slot, scope));
    }

    fn add_globals(&mut self, fields: Fields<'_>, memory: &dyn TargetMemory) -> Option<()> {
        let name = ("JNIHandles", "_global_handles");
        let place = fields.find_address(&[name])?;
        let kind = &fields.0.field(name.0, name.1)?.type_string;
        let first = memory.u64(place).ok().and_then(aligned)?;
        if kind.starts_with("JNIHandleBlock") {
            let of = |handle| Scope::Global(handle);
            return self.add_list(&List::of(fields)?, memory, first, &of);
        }
        (0..TRIES).find_map(|_| store(memory, first)).map(|all| {
            for (handle, object) in all {
                self.add(object, handle.slot, Scope::Global(handle));
            }
        })
    }

    fn add_locals(
        &mut self,
        fields: Fields<'_>,
        memory: &dyn TargetMemory,
        threads: impl Iterator<Item = u64>,
    ) -> Option<()> {
        let names = [
            ("JavaThread", "_active_handles"),
            ("Thread", "_active_handles"),
        ];
        let (active, list) = (fields.find_offset(&names)?, List::of(fields)?);
        for (index, thread) in threads.enumerate() {
            let place = thread.checked_add(active.into())?;
            // The thread may have ended, and have none.
            if let Some(first) = memory.u64(place).ok().and_then(aligned) {
                self.add_list(&list, memory, first, &|_| Scope::Local(index));
            }
        }
        Some(())
    }

    /// Adds those of a list of blocks. As for the collector, a block counts only if the one before
    /// it is full.
    fn add_list(
        &mut self,
        list: &List,
        memory: &dyn TargetMemory,
        first: u64,
        scope: &dyn Fn(Handle) -> Scope,
    ) -> Option<()> {
        let mut at = first;
        while self.blocks < MAX_BLOCKS {
            self.blocks += 1;
            let top = memory.u32(at.checked_add(list.top)?).ok()?;
            if u64::from(top) > list.room {
                return None;
            }
            let words = memory.vec(at.checked_add(list.handles)?, top as usize * 8);
            let words = words.ok()?;
            let slots = (at + list.handles..).step_by(8);
            for (slot, word) in slots.zip(words.as_chunks().0) {
                let handle = Handle {
                    slot,
                    is_first: slot == at,
                };
                self.add(u64::from_le_bytes(*word), slot, scope(handle));
            }
            let next = memory.u64(at.checked_add(list.next)?).ok()?;
            match aligned(next) {
                Some(next) if u64::from(top) == list.room => at = next,
                _ => return Some(()),
            }
        }
        // A list without an end.
        None
    }
}

/// Where in a block of a list its parts are, bytes; and how many handles it has room for.
struct List {
    handles: u64,
    top: u64,
    next: u64,
    room: u64,
}

impl List {
    fn of(fields: Fields<'_>) -> Option<Self> {
        let offset = |name| fields.find_offset(&[("JNIHandleBlock", name)]);
        let (handles, top) = (offset("_handles")?, offset("_top")?);
        Some(Self {
            handles: handles.into(),
            top: top.into(),
            next: offset("_next")?.into(),
            // The handles end where their number is.
            room: (top.checked_sub(handles)? / 8).into(),
        })
    }
}

/// The handles of a store, with their objects; none if it is of another form, or changed while it
/// was read.
fn store(memory: &dyn TargetMemory, store: u64) -> Option<Vec<(Handle, u64)>> {
    let words = (store..).step_by(8).take(STORE_WORDS);
    let arrays = words.filter_map(|at| memory.u64(at).ok().and_then(aligned));
    arrays
        .into_iter()
        .find_map(|array| of_array(memory, store, array))
}

/// The handles of an array of blocks, if all are blocks of this store.
fn of_array(memory: &dyn TargetMemory, store: u64, array: u64) -> Option<Vec<(Handle, u64)>> {
    let room = usize::try_from(memory.u64(array).ok()?).ok()?;
    let count = usize::try_from(memory.u64(array.checked_add(8)?).ok()?).ok()?;
    if count == 0 || count > room || count > MAX_BLOCKS {
        return None;
    }
    let blocks = memory.vec(array.checked_add(ARRAY_HEADER)?, count * 8);
    let blocks = blocks.ok()?;
    let mut handles = Vec::new();
    for (index, block) in (0..).zip(blocks.as_chunks().0) {
        let block = aligned(u64::from_le_bytes(*block))?;
        let bytes = memory.vec(block, STORE_BLOCK * 8).ok()?;
        let words: Vec<u64> = bytes
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(u64::from_le_bytes)
            .collect();
        if *words.get(OWNER)? != store || *words.get(INDEX)? != index {
            return None;
        }
        let in_use = *words.get(IN_USE)?;
        for (number, object) in words.iter().take(OF_BLOCK).enumerate() {
            if in_use & (1 << number) != 0 && handles.len() < MAX_HANDLES {
                let handle = Handle {
                    slot: block + 8 * number as u64,
                    is_first: number == 0,
                };
                handles.push((handle, *object));
            }
        }
    }
    Some(handles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;
    use crate::jvm::vmstructs::{Place, VmStructs};

    const ROOT: u64 = 0x1000;
    const STORE: u64 = 0x2000;
    const ARRAY: u64 = 0x3000;
    const BLOCKS: [u64; 2] = [0x4000, 0x5000];
    const THREAD: u64 = 0x6000;

    fn put(memory: &mut Synthetic, at: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|it| it.to_le_bytes()).collect();
        memory.put(at, &bytes);
    }

    /// A store of two blocks, of which words 0 and 5, and 63, are in use.
    fn with_store() -> Synthetic {
        let mut memory = Synthetic::default();
        put(&mut memory, ROOT, &[STORE]);
        put(&mut memory, STORE, &[0; 16]);
        put(&mut memory, STORE, &[7, 0x9000, ARRAY]);
        put(&mut memory, ARRAY, &[8, 2, 1, BLOCKS[0], BLOCKS[1]]);
        for (index, block) in BLOCKS.into_iter().enumerate() {
            let mut words = [0x10_0000 * (index as u64 + 1); STORE_BLOCK];
            for (at, word) in words.iter_mut().enumerate() {
                *word += 8 * at as u64;
            }
            words[IN_USE] = [1 | 1 << 5, 1 << 63][index];
            (words[OWNER], words[INDEX]) = (STORE, index as u64);
            put(&mut memory, block, &words);
        }
        memory
    }

    fn read(memory: &Synthetic, kind: &str) -> Handles {
        let fields = [
            ("JNIHandles", "_global_handles", kind, Place::Static(ROOT)),
            ("JNIHandleBlock", "_handles", "", Place::Offset(0)),
            ("JNIHandleBlock", "_top", "int", Place::Offset(32)),
            ("JNIHandleBlock", "_next", "", Place::Offset(40)),
            ("Thread", "_active_handles", "", Place::Offset(8)),
        ];
        let structs = VmStructs::of_parts(&fields, &[], &[]);
        Handles::read(Fields(&structs), memory, [THREAD].into_iter())
    }

    const STORED: &str = "OopStorage*";
    const LISTED: &str = "JNIHandleBlock*";

    fn global(slot: u64, is_first: bool) -> Option<(u64, Scope)> {
        Some((slot, Scope::Global(Handle { slot, is_first })))
    }

    #[test]
    fn handles_of_a_store_are_those_in_use() {
        let handles = read(&with_store(), STORED);
        assert_eq!(handles.by_object.len(), 3);
        assert_eq!(handles.of(0x10_0000), global(BLOCKS[0], true));
        assert_eq!(handles.of(0x10_0028), global(BLOCKS[0] + 40, false));
        assert_eq!(handles.of(0x20_01f8), global(BLOCKS[1] + 504, false));
        assert!(handles.problem.is_none());
    }

    #[test]
    fn a_store_that_lies_is_not_believed() {
        for (at, word) in [
            (BLOCKS[1] + 8 * OWNER as u64, STORE + 8),
            (BLOCKS[1] + 8 * INDEX as u64, 0),
            (ARRAY + 8, 9),
            (ARRAY + 8, u64::MAX),
            (ARRAY + 8, 0),
            (ARRAY + 32, 0x7777_0000),
            (STORE + 16, 0),
        ] {
            let mut memory = with_store();
            put(&mut memory, at, &[word]);
            let handles = read(&memory, STORED);
            assert!(handles.by_object.is_empty(), "{at:#x}");
            assert!(handles.problem.unwrap().contains("JNI handles"), "{at:#x}");
        }
    }

    #[test]
    fn a_list_ends_at_the_first_block_that_is_not_full() {
        let mut memory = Synthetic::default();
        put(&mut memory, ROOT, &[0x2000]);
        put(&mut memory, THREAD + 8, &[0x4000]);
        for (at, next, top) in [(0x2000, 0x3000, 4), (0x3000, 0x4000, 1), (0x4000, 0, 2)] {
            let objects = [at + 0x10_0000, at + 0x10_0008, 0, 13];
            put(&mut memory, at, &objects);
            put(&mut memory, at + 32, &[top, next]);
        }
        let handles = read(&memory, LISTED);
        assert_eq!(handles.of(0x10_2000), global(0x2000, true));
        assert_eq!(handles.of(0x10_2008), global(0x2008, false));
        assert_eq!(handles.of(0x10_3000), global(0x3000, true));
        assert_eq!(handles.of(0x10_3008), None, "behind the last");
        assert_eq!(handles.of(0x10_4000), Some((0x4000, Scope::Local(0))));
        assert_eq!((handles.of(13), handles.problem), (None, None));
    }

    #[test]
    fn a_list_in_a_circle_ends_and_is_said() {
        let mut memory = Synthetic::default();
        put(&mut memory, ROOT, &[0x2000]);
        put(&mut memory, 0x2000, &[0, 0, 0, 0, 4, 0x2000]);
        let handles = read(&memory, LISTED);
        assert!(handles.blocks == MAX_BLOCKS && handles.problem.is_some());
        put(&mut memory, 0x2020, &[5]);
        assert!(
            read(&memory, LISTED).problem.is_some(),
            "more than it has room for"
        );
    }
}
