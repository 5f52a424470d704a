//! Processes that outlive their main thread, which the kernel ties probes to.
//!
//! A breakpoint stays in a process's memory while somebody wants it there. A
//! probe of one process answers by comparing that memory with the memory of the
//! task that the process id stands for, the main thread
//! (`uprobe_multi_link_filter` in the kernel's `bpf_trace.c`,
//! `__uprobe_perf_filter` in `trace_uprobe.c`). A thread that has ended has none
//! (`exit_mm`), so from then on the answer is no, though the other threads run
//! on in that memory. Breakpoints that are there stay until the kernel asks
//! again: when any probe of the same place goes, in whatever process
//! (`register_for_each_vma` in `uprobes.c`), and on the perf road at the next
//! hit already (`uprobe_perf_func`). Nothing tells of it, but it shows: where
//! the breakpoint was, the code is as in the file again (until somebody else wants
//! it there, who probes everyone: then our programs run again too).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Session;
use crate::attach::probes::Scope;
use crate::process::bytes::Bytes;
use crate::process::code::CodeSpace;
use crate::process::file::ModuleFile;
use crate::process::handle::ProcessHandle;
use crate::process::maps::MappedRange;

impl Session {
    /// Notes targets that have lost probes with their main thread, each once.
    pub(super) fn note_orphans(&mut self) {
        if self.options.follow || self.engine.probes.are_away() {
            // Probes of everyone ask for nobody's memory.
            return;
        }
        for target in &self.targets {
            let pid = target.pid;
            if self.orphans.contains(&pid)
                || !self.is_probed(self.scope(pid))
                || !target.has_outlived_its_main_thread()
            {
                continue;
            }
            let Some(code) = self.images.current_code(pid) else {
                continue;
            };
            let scope = self.scope(pid);
            let mut probed = self.engine.probes.places(scope);
            let mut samplers = self.samplers.placed().iter();
            if probed.any(|(file, offsets)| has_lost_any(code, file, offsets))
                || samplers.any(|(placed, sampler)| {
                    let offsets: Vec<_> = sampler.spots().map(|spot| spot.offset).collect();
                    *placed == scope && has_lost_any(code, &sampler.file, &offsets)
                })
            {
                self.orphans.insert(pid);
            }
        }
    }

    fn is_probed(&self, scope: Scope) -> bool {
        let mut samplers = self.samplers.placed().iter();
        self.engine.probes.places(scope).next().is_some()
            || samplers.any(|(placed, _)| *placed == scope)
    }
}

/// Whether code of this file is without a breakpoint at one of the offsets.
fn has_lost_any(code: &CodeSpace, file: &ModuleFile, offsets: &[u64]) -> bool {
    let mut mappings = code
        .current()
        .filter(|mapping| mapping.range.file == file.mapped);
    mappings.any(|mapping| {
        offsets.iter().any(|offset| {
            address_in(&mapping.range, *offset).is_some_and(|address| {
                is_as_stored(code.process(), &file.content, *offset, address)
            })
        })
    })
}

/// Where a mapping has an offset of its file.
fn address_in(range: &MappedRange, offset: u64) -> Option<u64> {
    let distance = offset.checked_sub(range.file_offset.0)?;
    let address = range.start.0.checked_add(distance)?;
    (address < range.end.0).then_some(address)
}

/// Whether a process has the byte in memory that its file has. What cannot be
/// read says nothing: the process may be ending.
fn is_as_stored(process: &ProcessHandle, file: &dyn Bytes, offset: u64, address: u64) -> bool {
    let mut stored = [0];
    let in_memory = byte_of_any_thread(process, address);
    file.fill(&mut stored, offset) == 1 && in_memory.is_ok_and(|byte| byte == stored[0])
}

/// A byte of a process's memory, by a thread that still has it.
fn byte_of_any_thread(process: &ProcessHandle, address: u64) -> io::Result<u8> {
    let read = |thread: u32| -> io::Result<u8> {
        let mut byte = [0];
        let memory: File = process.open_proc(&format!("task/{thread}/mem"))?;
        memory.read_exact_at(&mut byte, address)?;
        Ok(byte[0])
    };
    let mut threads = process.tasks()?.into_iter();
    threads
        .find_map(|thread| read(thread).ok())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}
