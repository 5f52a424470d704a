//! The kernel maps that stacks are unwound by.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use tracer_ebpf::file::{FileKey, FileTable};
use tracer_ebpf::python;
use tracer_ebpf::rule::Rule;
use tracer_ebpf::table::{Code, Range, Replaced, Row, Space, cached};
use tracer_ebpf::{read_record, v8};

use super::mapped::MappedArray;

/// `membarrier`'s command that waits for all running programs.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// The maps. Programs read them at any time: nothing that they can reach may
/// be changed.
pub struct TableMaps {
    /// Rows of all tables.
    pub rows: MappedArray<Row>,
    /// Rules by number.
    pub rules: MappedArray<Rule>,
    /// Ranges of all address spaces.
    pub ranges: MappedArray<Range>,
    /// Address spaces by number.
    pub spaces: MappedArray<Space>,
    /// Rules and ranges by address.
    pub cache: MappedArray<cached::Entry>,
    /// Numbers of files: by a [`FileKey`] as plain words.
    pub files: HashMap<MapData, [u64; 2], u32>,
    /// Tables of files by number.
    pub file_tables: MappedArray<FileTable>,
    /// Interpreters of Python by their files' numbers.
    pub pythons: MappedArray<python::Layout>,
    /// What is known of V8 by the numbers of files that have it.
    pub v8s: MappedArray<v8::Layout>,
    /// Where functions of JavaScript were last: by a [`v8::Key`], a [`v8::Function`] as plain
    /// words.
    pub scripts: HashMap<MapData, [u64; 2], [u64; 3]>,
    /// Images' code: a [`Code`] as plain words.
    pub code_of: HashMap<MapData, u64, [u32; 2]>,
    /// How often any of this has changed: what programs remember is as of one number.
    pub code_changes: MappedArray<u64>,
    /// What was replaced of it: a [`Replaced`] as plain words.
    pub replaced: HashMap<MapData, u64, [u64; 2]>,
}

impl TableMaps {
    /// Lets a file's table be found by the file's number and, unless it has no
    /// inode of its own, by that. It is not changed any more.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn set_file_table(&mut self, number: u32, key: FileKey, table: FileTable) -> Result<()> {
        self.file_tables.set(number, table);
        self.files
            .insert([key.inode, key.device], number, 0)
            .context("cannot tell the kernel side of a file")
    }

    /// Lets an image have an address space, which is all in place. `as_of` is
    /// what [`Self::replaced`] said before its code was looked at.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn assign(&mut self, image: u64, space: u32, as_of: u32) -> Result<()> {
        self.code_of
            .insert(image, [space, as_of], 0)
            .context("cannot tell the kernel side of an address space")?;
        self.code_changes.count(0);
        Ok(())
    }

    /// The function of JavaScript of a word, and where it was last; `None` if there was no
    /// room for it.
    pub fn script(&self, image: u64, word: u64) -> Option<v8::Function> {
        let words = self.scripts.get(&[image, word], 0).ok()?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        read_record(&bytes)
    }

    /// Takes an image's address space away.
    pub fn forget(&mut self, image: u64) {
        // Gone already is fine.
        let _ = self.code_of.remove(&image);
        let _ = self.replaced.remove(&image);
        self.code_changes.count(0);
    }

    /// What code an image has.
    pub fn code_of(&self, image: u64) -> Code {
        let [space, as_of] = self.code_of.get(&image, 0).unwrap_or_default();
        Code { space, as_of }
    }

    /// How often code of an image was replaced, modulo 2^32.
    pub fn replaced(&self, image: u64) -> u32 {
        let [count, _] = self.replaced.get(&image, 0).unwrap_or_default();
        u32::try_from(count & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// The address spaces that programs can reach, by image.
    pub fn reachable(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.code_of
            .iter()
            .filter_map(|entry| entry.ok().map(|(image, [space, _])| (image, space)))
    }

    /// Empties the cache of everything that belongs to some address spaces.
    pub fn forget_cached(&mut self, is_gone: impl Fn(u32) -> bool) {
        for index in 0..self.cache.len() {
            let entry = self.cache.get(index).unwrap_or_default();
            let has_gone = |word: u64| word != 0 && is_gone(cached::space(word));
            if has_gone(entry.rule) || has_gone(entry.range) {
                self.cache.set(index, cached::Entry::default());
            }
        }
    }
}

const _: () = assert!(
    size_of::<Code>() == size_of::<[u32; 2]>() && size_of::<Replaced>() == size_of::<[u64; 2]>(),
    "these are the maps' values"
);

/// Waits until every program that runs now has ended: programs on probes run
/// within the kernel's read-copy-update sections, and this system call waits
/// for all of those (membarrier(2)). Where it is refused, as with CPUs that
/// have no timer tick, a second is a million times what a program takes.
pub fn wait_for_programs() {
    // SAFETY: the call takes plain numbers and touches no memory of ours.
    let status = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if status != 0 {
        std::thread::sleep(Duration::from_secs(1));
    }
}
