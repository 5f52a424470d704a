//! Looks at code in processes' memory: before a probe is placed, and for as long
//! as it stays.
//!
//! A placed breakpoint is hit by every process of the probe's scope, so all of
//! them are looked at: the one, or every process on the machine that maps the
//! file. Between the look and the breakpoint a process can hook its code all the
//! same; the kernel has nothing that would do both at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::jump::leads_to;
use super::plan::Returns;
use super::probes::Scope;
use super::stretch::{Stretch, difference};
use crate::attach::allocator::Allocator;
use crate::model::{LeftAlone, LeftAloneCause};
use crate::process::bytes::Bytes;
use crate::process::file::{ModuleFile, same_file};
use crate::process::handle::ProcessHandle;
use crate::process::maps::{FileId, MappedRange, MappingName, read_with_writable};
use crate::process::short_name::short_name;
use crate::process::translator;

/// Jumps that are followed from a hook on, at most: an agent's own code is
/// often reached by way of memory without a name.
const MAX_JUMPS: usize = 4;

/// Code that is decoded at each of them, bytes.
const JUMP_BYTES: usize = 320;

/// What the kernel calls its memory for optimized uprobes.
const TRAMPOLINE: &str = "[uprobes-trampoline]";

/// A difference that is gone after this time was the kernel at work.
const SETTLE: Duration = Duration::from_millis(2);

/// A function that must be left alone, and why.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The process.
    pub pid: u32,
    /// The function.
    pub stretch: Stretch,
    /// Why.
    pub cause: LeftAloneCause,
    /// See [`LeftAlone::leads_to`].
    pub leads_to: Vec<String>,
}

impl Finding {
    /// For the report. `at` is when it was found, in seconds of the run.
    pub fn describe(&self, module: &str, at: Option<f64>, unseen: &str) -> LeftAlone {
        LeftAlone {
            function: self.stretch.name.clone(),
            module: module.to_owned(),
            file_offset: self.stretch.start.0,
            pid: self.pid,
            process: short_name(self.pid).unwrap_or_default(),
            cause: self.cause,
            leads_to: self.leads_to.clone(),
            at,
            unseen: unseen.to_owned(),
        }
    }
}

/// What must be left alone of a file's functions in a scope, each once.
/// Processes that are gone have nothing that could be harmed.
pub fn inspect(scope: Scope, file: &ModuleFile, stretches: &[Stretch]) -> Vec<Finding> {
    let pids = match scope {
        Scope::Process(pid) => vec![pid],
        Scope::Everyone => all_processes(),
    };
    let mut findings: Vec<Finding> = Vec::new();
    for finding in pids
        .into_iter()
        .flat_map(|pid| inspect_process(pid, file, stretches))
    {
        // An instruction at which calls of several functions end is each one's.
        let is_new = |known: &Finding| {
            (known.stretch.start, &known.stretch.name)
                != (finding.stretch.start, &finding.stretch.name)
        };
        if findings.iter().all(is_new) {
            findings.push(finding);
        }
    }
    findings
}

/// The same of all that results taken in a way depend on in an allocator.
pub fn inspect_allocator(scope: Scope, allocator: &Allocator, returns: Returns) -> Vec<Finding> {
    let functions = allocator.functions.iter();
    let stretches: Vec<_> = functions
        .flat_map(|function| function.stretches(returns))
        .collect();
    inspect(scope, &allocator.file, &stretches)
}

/// The same for one process.
fn inspect_process(pid: u32, file: &ModuleFile, stretches: &[Stretch]) -> Vec<Finding> {
    Memory::of_process(pid).map_or_else(Vec::new, |memory| memory.inspect(file, stretches))
}

/// Fails if anything must be left alone.
///
/// # Errors
/// Says what, and why.
pub fn require(scope: Scope, file: &ModuleFile, path: &str, stretches: &[Stretch]) -> Result<()> {
    match inspect(scope, file, stretches).first() {
        None => Ok(()),
        Some(finding) => bail!(
            "{}",
            finding
                .describe(path, None, "none of these probes was placed")
                .sentence()
        ),
    }
}

/// The processes of this machine. Kernel threads are among them: they map
/// nothing.
pub fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Where a process has code of a file: added to an offset of the file in
/// `offsets` it is an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    bias: u64,
    offsets: std::ops::Range<u64>,
    writable: bool,
}

impl Mapped {
    fn address(&self, stretch: &Stretch) -> Option<u64> {
        self.offsets
            .contains(&stretch.start.0)
            .then(|| stretch.start.0.wrapping_add(self.bias))
    }
}

/// Whether code that was mapped there is as in the file: quickly, and `false`
/// whenever it is worth another look.
pub fn is_intact(
    process: &ProcessHandle,
    file: &ModuleFile,
    stretches: &[Stretch],
    mapped: &[Mapped],
) -> bool {
    let Ok(memory) = process.open_proc("mem") else {
        return false;
    };
    mapped.iter().all(|mapped| {
        let addresses = stretches
            .iter()
            .filter_map(|stretch| Some((stretch, mapped.address(stretch)?)));
        !mapped.writable
            && addresses.into_iter().all(|(stretch, address)| {
                let stored = stored(file, stretch);
                let mut found = vec![0; stored.len()];
                memory.read_exact_at(&mut found, address).is_ok()
                    && difference(&stored, &found, |_| false).is_none()
            })
    })
}

fn stored(file: &ModuleFile, stretch: &Stretch) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(stretch.length).unwrap_or(0)];
    let filled = file.content.fill(&mut bytes, stretch.start.0);
    bytes.truncate(filled);
    bytes
}

/// A process's memory, and what is executable in it.
pub struct Memory {
    pid: u32,
    maps: Vec<(MappedRange, bool)>,
    bytes: File,
}

impl Memory {
    /// A process's memory as it is mapped now; `None` if it has none, or is gone.
    pub fn of_process(pid: u32) -> Option<Self> {
        Self::of(&ProcessHandle::open(pid).ok()?).ok()
    }

    /// What must be left alone of a file's functions. A difference counts if it
    /// stays: a breakpoint that comes or goes takes several steps.
    pub fn inspect(&self, file: &ModuleFile, stretches: &[Stretch]) -> Vec<Finding> {
        if self.findings(file, stretches).is_empty() {
            return Vec::new();
        }
        thread::sleep(SETTLE);
        Self::of_process(self.pid).map_or_else(Vec::new, |now| now.findings(file, stretches))
    }

    /// By a thread that still has it: the first may have ended before others.
    fn of(process: &ProcessHandle) -> io::Result<Self> {
        let by = |folder: String| -> io::Result<Self> {
            Ok(Self {
                pid: process.pid(),
                maps: read_with_writable(process.open_proc(&format!("{folder}maps"))?)?,
                bytes: process.open_proc(&format!("{folder}mem"))?,
            })
        };
        let main = by(String::new());
        if main.as_ref().is_ok_and(|memory| !memory.maps.is_empty()) {
            return main;
        }
        let others = process.tasks()?.into_iter();
        others
            .filter_map(|thread| by(format!("task/{thread}/")).ok())
            .find(|memory| !memory.maps.is_empty())
            .map_or(main, Ok)
    }

    /// Where the process has code of a file.
    pub fn mapped(&self, file: FileId) -> impl Iterator<Item = Mapped> + '_ {
        let own = self
            .maps
            .iter()
            .filter(move |(range, _)| range.file.inode != 0 && same_file(range.file, file));
        own.map(|(range, writable)| Mapped {
            bias: range.start.0.wrapping_sub(range.file_offset.0),
            offsets: range.file_offset.0
                ..range
                    .file_offset
                    .0
                    .saturating_add(range.end.0 - range.start.0),
            writable: *writable,
        })
    }

    fn findings(&self, file: &ModuleFile, stretches: &[Stretch]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for mapped in self.mapped(file.mapped) {
            for stretch in stretches {
                let Some(address) = mapped.address(stretch) else {
                    continue;
                };
                let found = self.cause(file, stretch, address, mapped.writable);
                findings.extend(found.map(|(cause, leads_to)| Finding {
                    pid: self.pid,
                    stretch: stretch.clone(),
                    cause,
                    leads_to,
                }));
            }
        }
        findings
    }

    /// The translator of machine code that runs the process, if one does.
    fn translator(&self) -> Option<&'static str> {
        let ranges = self.maps.iter();
        translator::of_files(ranges.filter_map(|(range, _)| range.name.path()))
    }

    fn cause(
        &self,
        file: &ModuleFile,
        stretch: &Stretch,
        address: u64,
        writable: bool,
    ) -> Option<(LeftAloneCause, Vec<String>)> {
        if let Some(translator) = self.translator() {
            return Some((LeftAloneCause::Translated, vec![translator.to_owned()]));
        }
        let stored = stored(file, stretch);
        let found = self.read(address, stored.len());
        if found.is_empty() {
            return Some((LeftAloneCause::Unreadable, Vec::new()));
        }
        let is_trampoline = |at: usize| {
            let to = leads_to(&found[at..], address + at as u64, |_| None);
            to.and_then(|to| self.at(to))
                .is_some_and(|range| name_of(range) == TRAMPOLINE)
        };
        if let Some(at) = difference(&stored, &found, is_trampoline) {
            let hook = self.destinations(file.mapped, &found, address, at);
            return Some((LeftAloneCause::Hooked, hook));
        }
        writable.then_some((LeftAloneCause::Writable, Vec::new()))
    }

    /// The names of what a hook leads to, whose code differs from the file's
    /// first at `at`.
    fn destinations(&self, hooked: FileId, code: &[u8], address: u64, at: usize) -> Vec<String> {
        let read = |address| {
            let word = self.read(address, 8);
            Some(u64::from_le_bytes(word.try_into().ok()?))
        };
        // A breakpoint may have been put over the hook's first byte since.
        let mut without = code.to_vec();
        without[0] = 0xe9;
        let mut next = leads_to(code, address, read)
            .or_else(|| leads_to(&code[at..], address + at as u64, read))
            .or_else(|| leads_to(&without, address, read).filter(|_| code[0] == 0xcc));
        let mut names: Vec<String> = Vec::new();
        for _ in 0..MAX_JUMPS {
            let Some(target) = next else {
                break;
            };
            let Some(range) = self.at(target) else {
                names.push(format!("{target:#x}, where nothing executable is mapped"));
                break;
            };
            let name = name_of(range);
            if names.last() != Some(&name) {
                names.push(name);
            }
            if range.file.inode != 0 && !same_file(range.file, hooked) {
                break;
            }
            next = leads_to(&self.read(target, JUMP_BYTES), target, read);
        }
        // Back into the hooked file is the way to the original.
        let original = self
            .maps
            .iter()
            .find(|(range, _)| same_file(range.file, hooked));
        let original = original.map(|(range, _)| name_of(range));
        if names.len() > 1 && names.last() == original.as_ref() {
            names.pop();
        }
        names
    }

    fn at(&self, address: u64) -> Option<&MappedRange> {
        let holds = |range: &&MappedRange| (range.start.0..range.end.0).contains(&address);
        self.maps.iter().map(|(range, _)| range).find(holds)
    }

    /// Up to `length` bytes.
    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while let Ok(read @ 1..) = self
            .bytes
            .read_at(&mut bytes[filled..], address + filled as u64)
        {
            filled += read;
        }
        bytes.truncate(filled);
        bytes
    }
}

fn name_of(range: &MappedRange) -> String {
    match &range.name {
        MappingName::Anonymous => "[anonymous]".to_owned(),
        MappingName::Special(name) => name.clone(),
        name => name
            .path()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}
