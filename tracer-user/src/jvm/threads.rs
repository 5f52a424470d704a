//! The VM's threads: which `JavaThread` a thread of the system is.

use std::collections::HashMap;
use std::io::{self, Read};

use super::fields::{Fields, Number, UnknownLayout};
use super::memory::TargetMemory;
use super::vmstructs::VmStructs;
use crate::process::handle::ProcessHandle;

/// More threads are not listed.
pub const MAX_THREADS: usize = 65_536;

/// `/proc/PID/task/TID/status` is about 1.5 KiB.
const MAX_STATUS: u64 = 64 << 10;

/// A thread that can run Java code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JavaThread {
    /// The thread's id in our pid namespace.
    pub tid: u32,
    /// The address of its `JavaThread`.
    pub address: u64,
    /// The Java name; or, if that cannot be read, the name that the kernel
    /// knows (`/proc/PID/task/TID/comm`), to which the VM gives the first 15
    /// bytes of it. There the main thread has the program's name.
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
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn inner_tid(&self, memory: &dyn TargetMemory, thread: u64) -> io::Result<u32> {
        let osthread = memory.u64(thread.wrapping_add(self.osthread.into()))?;
        let tid = self.thread_id.read(memory, osthread)?;
        u32::try_from(tid).map_err(io::Error::other)
    }

    /// The addresses of all threads that can run Java code.
    ///
    /// # Errors
    /// Fails if the list cannot be read.
    pub fn addresses(&self, memory: &dyn TargetMemory) -> io::Result<Vec<u64>> {
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
pub enum Namespace {
    /// They are the same.
    Ours,
    /// Ours by those that the process has.
    Other(HashMap<u32, u32>),
}

impl Namespace {
    /// That of a process.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub fn of(process: &ProcessHandle) -> io::Result<Self> {
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

    /// Our id of a thread.
    pub fn tid(&self, inner: u32) -> Option<u32> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;

    const LAYOUT: ThreadsLayout = ThreadsLayout {
        list: List::Array {
            head: 0x1000,
            length: NUMBER,
            threads: 16,
        },
        osthread: 0,
        thread_id: NUMBER,
    };

    const NUMBER: Number = Number {
        offset: 4,
        width: 4,
        signed: false,
    };

    #[test]
    fn an_array_of_threads_is_read() {
        let mut memory = Synthetic::default();
        memory.put(0x1000, &0x2000_u64.to_le_bytes());
        memory.put(0x2004, &2_u32.to_le_bytes());
        memory.put(0x2010, &0x3000_u64.to_le_bytes());
        memory.put(0x3000, &[0xa0_u64, 0xb0].map(u64::to_le_bytes).concat());
        assert_eq!(LAYOUT.addresses(&memory).unwrap(), [0xa0, 0xb0]);
        memory.put(0x2004, &u32::MAX.to_le_bytes());
        assert!(LAYOUT.addresses(&memory).is_err());
    }

    #[test]
    fn threads_in_a_circle_end() {
        let list = List::Linked {
            head: 0x1000,
            next: 8,
        };
        let layout = ThreadsLayout { list, ..LAYOUT };
        let mut memory = Synthetic::default();
        memory.put(0x1000, &0x2000_u64.to_le_bytes());
        memory.put(0x2008, &0_u64.to_le_bytes());
        assert_eq!(layout.addresses(&memory).unwrap(), [0x2000]);
        memory.put(0x2008, &0x2000_u64.to_le_bytes());
        assert_eq!(layout.addresses(&memory).unwrap().len(), MAX_THREADS);
    }

    #[test]
    fn threads_of_another_namespace_are_found_by_their_inner_ids() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        assert!(matches!(Namespace::of(&own).unwrap(), Namespace::Ours));
        let other = Namespace::Other(HashMap::from([(7, 4711)]));
        assert_eq!(other.tid(7), Some(4711));
        assert_eq!(other.tid(8), None);
        assert!(own.tasks().unwrap().contains(&std::process::id()));
    }
}
