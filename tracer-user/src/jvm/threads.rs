//! The VM's threads: which `JavaThread` a thread of the system is.

use std::collections::HashMap;
use std::io::{self, Read};

use super::fields::{Fields, Number, UnknownLayout};
use super::memory::TargetMemory;
use super::vmstructs::VmStructs;
use crate::process::handle::ProcessHandle;

/// More threads are not listed.
const MAX_THREADS: usize = 65_536;

/// `/proc/PID/task/TID/status` is about 1.5 KiB.
const MAX_STATUS: u64 = 64 << 10;

/// A thread that can run Java code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JavaThread {
    /// The thread's id in our pid namespace.
    pub tid: u32,
    /// The address of its `JavaThread`.
    pub address: u64,
    /// The name that the kernel knows (`/proc/PID/task/TID/comm`): the VM
    /// gives it the first 15 bytes of the Java name. The main thread keeps
    /// the program's name.
    pub name: String,
}

/// How the VM keeps its threads.
#[derive(Debug, Clone, Copy)]
pub struct ThreadsLayout {
    list: List,
    /// `JavaThread::_osthread`.
    osthread: u32,
    thread_id: Number,
}

#[derive(Debug, Clone, Copy)]
enum List {
    /// JDK 12 and later: an array.
    Array {
        head: u64,
        length: Number,
        threads: u32,
    },
    /// Earlier ones: each thread has the next.
    Linked { head: u64, next: u32 },
}

impl ThreadsLayout {
    /// Looks it up.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(structs: &VmStructs) -> Result<Self, UnknownLayout> {
        let fields = Fields(structs);
        let array = fields.find_address(&[("ThreadsSMRSupport", "_java_thread_list")]);
        let list = match array {
            Some(head) => List::Array {
                head,
                length: Number {
                    offset: fields.offset(&[("ThreadsList", "_length")])?,
                    width: 4,
                    signed: false,
                },
                threads: fields.offset(&[("ThreadsList", "_threads")])?,
            },
            None => List::Linked {
                head: fields.address(&[("Threads", "_thread_list")])?,
                next: fields.offset(&[("JavaThread", "_next")])?,
            },
        };
        Ok(ThreadsLayout {
            list,
            osthread: fields.offset(&[("JavaThread", "_osthread"), ("Thread", "_osthread")])?,
            // Its type has no size in the tables before JDK 22.
            thread_id: Number {
                offset: fields.offset(&[("OSThread", "_thread_id")])?,
                width: 4,
                signed: false,
            },
        })
    }

    /// The threads that run now. One that ends meanwhile may be missing, or
    /// listed still.
    ///
    /// # Errors
    /// Fails if the list cannot be read.
    pub fn list(
        &self,
        memory: &dyn TargetMemory,
        process: &ProcessHandle,
    ) -> io::Result<Vec<JavaThread>> {
        let outer = Namespace::of(process)?;
        let thread = |address| {
            let inner = self.inner_tid(memory, address).ok()?;
            let tid = outer.tid(inner)?;
            // No such task: what was read was no thread.
            let name = read_task(process, tid, "comm").ok()?;
            Some(JavaThread {
                tid,
                address,
                name: printable(&name),
            })
        };
        let addresses = self.addresses(memory)?;
        Ok(addresses.into_iter().filter_map(thread).collect())
    }

    /// The thread's id in the process's own pid namespace.
    fn inner_tid(&self, memory: &dyn TargetMemory, thread: u64) -> io::Result<u32> {
        let osthread = memory.u64(thread.wrapping_add(self.osthread.into()))?;
        let tid = self.thread_id.read(memory, osthread)?;
        u32::try_from(tid).map_err(io::Error::other)
    }

    fn addresses(&self, memory: &dyn TargetMemory) -> io::Result<Vec<u64>> {
        match self.list {
            List::Array {
                head,
                length,
                threads,
            } => {
                let list = memory.u64(head)?;
                let count = usize::try_from(length.read(memory, list)?).unwrap_or_default();
                let array = memory.u64(list.wrapping_add(threads.into()))?;
                let bytes = memory.vec(array, count.min(MAX_THREADS) * 8)?;
                let (words, _) = bytes.as_chunks();
                Ok(words.iter().copied().map(u64::from_le_bytes).collect())
            }
            List::Linked { head, next } => {
                let mut found = Vec::new();
                let mut thread = memory.u64(head)?;
                while thread != 0 && found.len() < MAX_THREADS {
                    found.push(thread);
                    thread = memory.u64(thread.wrapping_add(next.into()))?;
                }
                Ok(found)
            }
        }
    }
}

/// Thread ids as the process counts them, and as we do.
enum Namespace {
    Ours,
    Other(HashMap<u32, u32>),
}

impl Namespace {
    fn of(process: &ProcessHandle) -> io::Result<Self> {
        if process.inner_pid() == Some(process.pid()) {
            return Ok(Namespace::Ours);
        }
        let mut ids = HashMap::new();
        for task in process.tasks()?.into_iter().take(MAX_THREADS) {
            let status = read_task(process, task, "status").unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner = line.and_then(|ids| ids.split_whitespace().last()?.parse().ok());
            ids.extend(inner.map(|inner| (inner, task)));
        }
        Ok(Namespace::Other(ids))
    }

    fn tid(&self, inner: u32) -> Option<u32> {
        match self {
            Namespace::Ours => Some(inner),
            Namespace::Other(ids) => ids.get(&inner).copied(),
        }
    }
}

fn read_task(process: &ProcessHandle, tid: u32, file: &str) -> io::Result<String> {
    let mut text = Vec::new();
    process
        .open_proc(&format!("task/{tid}/{file}"))?
        .take(MAX_STATUS)
        .read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A name without its line end, safe to print.
fn printable(name: &str) -> String {
    name.trim_end_matches('\n')
        .replace(char::is_control, "\u{fffd}")
}
