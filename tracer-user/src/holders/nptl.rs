//! glibc's threads, and whose thread-locals are where before a thread's descriptor.
//!
//! glibc tells debuggers where in its structures things are (`nptl_db/structs.def`): each
//! `_thread_db_…` is three numbers of 32 bits, a field's size in bits, how many there are, and
//! its offset in bytes. Since 2.34 libc has these itself; older ones have no such layout here.

use std::collections::HashMap;
use std::ops::Range;

use super::memory::Words;
use super::variables::Variables;
use crate::process::bytes::Bytes;
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::mappings::Mapping;
use crate::process::maps::FileId;

/// Threads of a list, and files with thread-locals, that are looked at.
const MAX_THREADS: usize = 4096;
const MAX_SLOTS: u64 = 4096;
/// Larger structures are not believed, bytes.
const MAX_SIZE: u32 = 1 << 16;

/// The variable that leads to the loader's (`_rtld_global`).
const GLOBAL: &str = "__nptl_rtld_global";
/// Fields, in the order of [`Layout::of_fields`].
const FIELDS: [&str; 12] = [
    "_thread_db_rtld_global__dl_stack_used",
    "_thread_db_rtld_global__dl_stack_user",
    "_thread_db_rtld_global__dl_tls_dtv_slotinfo_list",
    "_thread_db_list_t_next",
    "_thread_db_pthread_list",
    "_thread_db_pthread_tid",
    "_thread_db_dtv_slotinfo_list_len",
    "_thread_db_dtv_slotinfo_list_next",
    "_thread_db_dtv_slotinfo_list_slotinfo",
    "_thread_db_dtv_slotinfo_map",
    "_thread_db_link_map_l_tls_offset",
    "_thread_db_link_map_l_tls_modid",
];
/// Sizes: one number, bytes.
const SIZES: [&str; 2] = [
    "_thread_db_sizeof_pthread",
    "_thread_db_sizeof_dtv_slotinfo",
];

/// Where a descriptor has its own address (`tcbhead_t`, a part of the psABI's for x86-64).
const SELF: u64 = 16;
/// Where a file's entry (`link_map`, in `link.h`) has the address of its dynamic section.
const DYNAMIC: u64 = 16;

/// Offsets in structures, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Where the process has the address of the loader's variables.
    global: u64,
    /// Of the list of threads whose stacks glibc made, and of that of the others: the first
    /// thread is among these.
    lists: [u64; 2],
    slots: u64,
    next: u64,
    in_list: u64,
    id: u64,
    slots_length: u64,
    slots_next: u64,
    slots_first: u64,
    slot_map: u64,
    slot_size: u64,
    tls_offset: u64,
    tls_number: u64,
    /// A descriptor's size, bytes.
    pub descriptor: u64,
}

/// A thread that glibc knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Where its descriptor is.
    pub descriptor: u64,
    /// Whether glibc made its stack.
    pub has_own_stack: bool,
}

/// A file's part of the thread-locals that every thread has from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// How far before the descriptor it begins, bytes.
    pub before: u64,
    /// The file.
    pub file: FileId,
}

impl Layout {
    /// That of a process's libc; `None` if it has none, or an old one.
    pub fn of(code: &CodeSpace) -> Option<Self> {
        code.current()
            .filter(|mapping| is_libc(mapping))
            .find_map(|mapping| {
                let file = &mapping.file.as_ref().ok()?.content;
                let (offset, start) = (mapping.range.file_offset.0, mapping.range.start.0);
                let variables = Variables::read(file);
                let bias = variables.segments.bias(offset, start)?;
                Self::of_file(file, &variables, bias)
            })
    }

    fn of_file(file: &dyn Bytes, variables: &Variables, bias: u64) -> Option<Self> {
        let mut wanted = vec![GLOBAL];
        wanted.extend(FIELDS);
        wanted.extend(SIZES);
        let addresses = variables.addresses(file, &wanted);
        let number = |name: &str, at: u64| {
            let place = variables.segments.file_offset(*addresses.get(name)?)?;
            let mut bytes = [0; 4];
            let filled = file.fill(&mut bytes, place.checked_add(4 * at)?);
            let number = u32::from_le_bytes(bytes);
            (filled == bytes.len() && number < MAX_SIZE).then(|| u64::from(number))
        };
        let fields: Option<Vec<u64>> = FIELDS.iter().map(|name| number(name, 2)).collect();
        let sizes: Option<Vec<u64>> = SIZES.iter().map(|name| number(name, 0)).collect();
        let global = addresses.get(GLOBAL)?.wrapping_add(bias);
        Self::of_fields(global, fields?.try_into().ok()?, sizes?.try_into().ok()?)
    }

    /// From offsets in the order of [`FIELDS`] and [`SIZES`].
    pub(super) fn of_fields(global: u64, fields: [u64; 12], sizes: [u64; 2]) -> Option<Self> {
        let [
            used,
            user,
            slots,
            next,
            in_list,
            id,
            length,
            slots_next,
            first,
            map,
            offset,
            number,
        ] = fields;
        let [descriptor, slot_size] = sizes;
        (slot_size > 0).then_some(Self {
            global,
            lists: [used, user],
            slots,
            next,
            in_list,
            id,
            slots_length: length,
            slots_next,
            slots_first: first,
            slot_map: map,
            slot_size,
            tls_offset: offset,
            tls_number: number,
            descriptor,
        })
    }

    /// The threads, by their ids in the process's own namespace. The process runs on: a list
    /// that is changed meanwhile may end early.
    pub fn threads(&self, words: &mut Words<'_>) -> HashMap<u32, Known> {
        let mut found = HashMap::new();
        let Some(global) = words.get(self.global) else {
            return found;
        };
        for (list, has_own_stack) in self.lists.into_iter().zip([true, false]) {
            let head = global.wrapping_add(list);
            let mut at = head;
            for _ in 0..MAX_THREADS {
                match words.get(at.wrapping_add(self.next)) {
                    Some(next) if next != head => at = next,
                    _ => break,
                }
                let descriptor = at.wrapping_sub(self.in_list);
                if let Some(id) = self.id_of(words, descriptor) {
                    found.insert(
                        id,
                        Known {
                            descriptor,
                            has_own_stack,
                        },
                    );
                }
            }
        }
        found
    }

    /// The id in a descriptor; `None` if it is none.
    fn id_of(&self, words: &mut Words<'_>, descriptor: u64) -> Option<u32> {
        if words.get(descriptor.wrapping_add(SELF))? != descriptor {
            return None;
        }
        let place = descriptor.checked_add(self.id)?;
        let word = words.get(place / 8 * 8)?.to_le_bytes();
        let into = usize::try_from(place % 8).ok()?;
        Some(u32::from_le_bytes(*word.get(into..)?.first_chunk()?))
    }

    /// The files whose thread-locals lie before every descriptor, the nearest first.
    pub fn modules(&self, words: &mut Words<'_>, mappings: &[Mapping]) -> Vec<Module> {
        let mut found = self.all_modules(words, mappings).unwrap_or_default();
        found.sort_by_key(|module| module.before);
        found
    }

    fn all_modules(&self, words: &mut Words<'_>, mappings: &[Mapping]) -> Option<Vec<Module>> {
        let mut found = Vec::new();
        let global = words.get(self.global)?;
        let mut list = words.get(global.checked_add(self.slots)?)?;
        let mut left = MAX_SLOTS;
        while list != 0 && left > 0 {
            let count = words.get(list.checked_add(self.slots_length)?)?.min(left);
            left -= count.max(1);
            let first = list.checked_add(self.slots_first)?;
            for number in 0..count {
                let slot = first.checked_add(number * self.slot_size)?;
                found.extend(self.module(words, mappings, slot));
            }
            list = words.get(list.checked_add(self.slots_next)?)?;
        }
        Some(found)
    }

    /// The file of a slot, if it has thread-locals before descriptors: those of one that was
    /// opened later are in a block of their own.
    fn module(&self, words: &mut Words<'_>, mappings: &[Mapping], slot: u64) -> Option<Module> {
        let entry = words.get(slot.checked_add(self.slot_map)?)?;
        words
            .get(entry.checked_add(self.tls_number)?)
            .filter(|number| *number > 0)?;
        let before = words.get(entry.checked_add(self.tls_offset)?)?;
        // 0 is not known yet, and all ones that it is in a block of its own.
        if before == 0 || before > MAX_BEFORE {
            return None;
        }
        let dynamic = words.get(entry.checked_add(DYNAMIC)?)?;
        let after = mappings.partition_point(|mapping| mapping.range.start <= dynamic);
        let mapping = mappings.get(after.checked_sub(1)?)?;
        mapping.range.contains(&dynamic).then_some(Module {
            before,
            file: mapping.file,
        })
    }
}

/// Thread-locals that are believed to lie before a descriptor, bytes.
const MAX_BEFORE: u64 = 64 << 20;

/// The thread-locals before a descriptor, and the file that a place is of with its offset in
/// the file's; modules come nearest first.
pub fn module_of(modules: &[Module], before: u64) -> Option<(FileId, u64)> {
    let module = modules.iter().find(|module| module.before >= before)?;
    Some((module.file, module.before - before))
}

/// The addresses of a descriptor and of all thread-locals before it.
pub fn with_locals(modules: &[Module], descriptor: u64, size: u64) -> Range<u64> {
    let before = modules.last().map_or(0, |module| module.before);
    descriptor.saturating_sub(before)..descriptor.saturating_add(size)
}

fn is_libc(mapping: &CodeMapping) -> bool {
    let path = mapping.range.name.path();
    let name = path.and_then(|path| path.file_name()?.to_str());
    name.is_some_and(|name| name == "libc.so.6" || name.starts_with("libc-"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use super::super::memory::ProcessMemory;
    use super::super::memory::tests::Written;
    use super::*;
    use crate::process::file::ModuleFiles;
    use crate::process::handle::ProcessHandle;
    use crate::process::mappings;
    use crate::process::pagemap::{PAGE, PageMap};
    use crate::process::resident::{MAX_CHUNKS, Residents};

    thread_local! {
        static LOCAL: Cell<u64> = const { Cell::new(7) };
    }

    #[test]
    fn every_thread_of_this_program_is_where_it_says_itself() {
        let (told, tell) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            LOCAL.set(8);
            // SAFETY: both take no arguments.
            let (id, own) = unsafe { (libc::gettid(), libc::pthread_self()) };
            let local = LOCAL.with(|local| std::ptr::from_ref(local) as u64);
            told.send((id.unsigned_abs(), own, local)).unwrap();
            stopped.recv().unwrap_err();
        });
        let (id, own, local) = tell.recv().unwrap();

        let process = ProcessHandle::open(std::process::id()).unwrap();
        let code = CodeSpace::attach(std::process::id(), 0, &mut ModuleFiles::new()).unwrap();
        let layout = Layout::of(&code).unwrap();
        let all = mappings::read(&process).unwrap();
        let map = PageMap::open(&process).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let pages = Residents::read(&map, &all, deadline, &mut MAX_CHUNKS.clone()).unwrap();
        let memory = ProcessMemory::new(std::process::id());
        let mut words = Words::new(&memory, &pages.present);

        let threads = layout.threads(&mut words);
        let expected = Known {
            descriptor: own,
            has_own_stack: true,
        };
        assert_eq!(threads.get(&id), Some(&expected));
        let first = threads.get(&std::process::id()).unwrap();
        assert!(!first.has_own_stack);

        let modules = layout.modules(&mut words, &all);
        let (file, offset) = module_of(&modules, own - local).unwrap();
        assert!(code.is_program_file(file));
        assert!(with_locals(&modules, own, layout.descriptor).contains(&local));
        let module = code.of_file(file).unwrap().file.as_ref().unwrap();
        let variables = Variables::read(&module.content);
        let name = variables.local(&module.content, offset).unwrap();
        assert!(name.contains("LOCAL"), "{name}");
        drop(stop);
        thread.join().unwrap();
    }

    const BASE: u64 = 16 * PAGE;

    fn layout() -> Layout {
        // The variables begin at BASE + 256.
        let fields = [16, 32, 48, 0, 704, 720, 0, 8, 16, 8, 24, 32];
        Layout::of_fields(BASE, fields, [2368, 16]).unwrap()
    }

    fn memory() -> Written {
        let mut memory = Written::new(BASE..BASE + 4 * PAGE);
        let global = BASE + 256;
        memory.put(BASE, global);
        for head in [global + 16, global + 32] {
            memory.put(head, head);
        }
        memory
    }

    /// Puts a descriptor at the end of a list that ends so far with `last`.
    fn put(memory: &mut Written, descriptor: u64, id: u64, (last, head): (u64, u64)) {
        memory.put(descriptor + SELF, descriptor);
        memory.put(descriptor + 720, id | 77 << 32);
        memory.put(last, descriptor + 704);
        memory.put(descriptor + 704, head);
    }

    fn threads(memory: &Written) -> HashMap<u32, Known> {
        let present = memory.present();
        layout().threads(&mut Words::new(memory, &present))
    }

    #[test]
    fn both_lists_are_followed_to_their_ends() {
        let mut memory = memory();
        let (used, user) = (BASE + 256 + 16, BASE + 256 + 32);
        let [one, two, first] = [1, 2, 3].map(|page| BASE + page * PAGE);
        put(&mut memory, one, 101, (used, used));
        put(&mut memory, two, 102, (one + 704, used));
        put(&mut memory, first, 100, (user, user));
        let found = threads(&memory);
        let known = |descriptor, has_own_stack| Known {
            descriptor,
            has_own_stack,
        };
        let expected = [
            (100, known(first, false)),
            (101, known(one, true)),
            (102, known(two, true)),
        ];
        assert_eq!(found, HashMap::from(expected));
    }

    #[test]
    fn lists_that_lead_astray_end() {
        let mut memory = memory();
        let used = BASE + 256 + 16;
        let one = BASE + PAGE;
        // It leads to itself, and not back.
        put(&mut memory, one, 101, (used, one + 704));
        assert_eq!(threads(&memory).len(), 1);
        // Where it leads is not in memory.
        memory.put(one + 704, u64::MAX - 7);
        assert_eq!(threads(&memory).len(), 1);
        // A descriptor that does not have its own address is none.
        memory.put(one + SELF, 1);
        assert_eq!(threads(&memory).len(), 0);
        memory.put(BASE, u64::MAX);
        assert_eq!(threads(&memory).len(), 0);
    }

    #[test]
    fn thread_locals_are_of_the_nearest_file_that_begins_before_them() {
        let device = crate::process::maps::Device { major: 0, minor: 0 };
        let file = |inode| FileId::new(device, inode);
        let module = |before, inode| Module {
            before,
            file: file(inode),
        };
        let modules = [module(64, 1), module(96, 2)];
        assert_eq!(module_of(&modules, 64), Some((file(1), 0)));
        assert_eq!(module_of(&modules, 8), Some((file(1), 56)));
        assert_eq!(module_of(&modules, 72), Some((file(2), 24)));
        assert_eq!(module_of(&modules, 97), None);
        assert_eq!(with_locals(&modules, 1000, 10), 904..1010);
        assert_eq!(with_locals(&[], 1000, 10), 1000..1010);
    }

    #[test]
    fn files_whose_list_lies_about_its_length_are_bounded() {
        let mut memory = memory();
        let list = BASE + PAGE;
        memory.put(BASE + 256 + 48, list);
        memory.put(list, u64::MAX);
        memory.put(list + 8, list);
        let present = memory.present();
        let mut words = Words::new(&memory, &present);
        assert!(layout().modules(&mut words, &[]).is_empty());
    }
}
