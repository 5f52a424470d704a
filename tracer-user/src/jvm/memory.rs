//! A target's memory, which is only ever read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::process::handle::ProcessHandle;

/// What is read at once, and the greatest piece that is mapped or not mapped
/// as a whole.
const PAGE: usize = 4096;

/// Pages that are remembered at once, 16 MiB.
const MAX_PAGES: usize = 4096;

/// Something that has addresses.
pub trait TargetMemory {
    /// Fills the buffer with what is at an address.
    ///
    /// # Errors
    /// Fails if any of it is not mapped, or the process is gone.
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// One byte.
    ///
    /// # Errors
    /// As [`read`](Self::read), here and below.
    fn u8(&self, address: u64) -> io::Result<u8> {
        Ok(u8::from_le_bytes(bytes(self, address)?))
    }

    /// Two bytes, unsigned.
    fn u16(&self, address: u64) -> io::Result<u16> {
        Ok(u16::from_le_bytes(bytes(self, address)?))
    }

    /// Four bytes, signed.
    fn i32(&self, address: u64) -> io::Result<i32> {
        Ok(i32::from_le_bytes(bytes(self, address)?))
    }

    /// Four bytes, unsigned.
    fn u32(&self, address: u64) -> io::Result<u32> {
        Ok(u32::from_le_bytes(bytes(self, address)?))
    }

    /// Eight bytes, unsigned: a pointer too.
    fn u64(&self, address: u64) -> io::Result<u64> {
        Ok(u64::from_le_bytes(bytes(self, address)?))
    }

    /// `length` bytes. The caller bounds the length.
    fn vec(&self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        self.read(address, &mut buffer)?;
        Ok(buffer)
    }

    /// The bytes before the first zero; an error if there is none among the
    /// first `limit`. No page is read in which the string is not.
    fn c_string(&self, address: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut string = Vec::new();
        let mut at = address;
        while string.len() < limit {
            let rest = usize::try_from((PAGE as u64 - at % PAGE as u64).min(64)).unwrap_or(1);
            let piece = self.vec(at, rest.min(limit - string.len()))?;
            if let Some(end) = memchr::memchr(0, &piece) {
                string.extend_from_slice(&piece[..end]);
                return Ok(string);
            }
            at = at.checked_add(piece.len() as u64).ok_or_else(too_long)?;
            string.extend_from_slice(&piece);
        }
        Err(too_long())
    }
}

fn bytes<const N: usize>(
    memory: &(impl TargetMemory + ?Sized),
    address: u64,
) -> io::Result<[u8; N]> {
    let mut buffer = [0; N];
    memory.read(address, &mut buffer)?;
    Ok(buffer)
}

fn too_long() -> io::Error {
    io::Error::other("a string has no end")
}

/// The memory of a process.
///
/// It is read through one descriptor of `/proc/PID/mem`, which stays with the
/// memory that it was opened for: after an exit or an `exec` it fails, where
/// `process_vm_readv` would read whoever has the pid by then.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens the memory of a living process.
    ///
    /// # Errors
    /// Fails if it is gone, or may not be read.
    pub fn open(process: &ProcessHandle) -> io::Result<Self> {
        process.open_proc("mem").map(ProcessMemory)
    }
}

impl TargetMemory for ProcessMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        // pread takes signed offsets; no address of a user is that large.
        if i64::try_from(address).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.read_exact_at(buffer, address)
    }
}

/// Memory that does not change while this lives, read by pages, each once.
pub struct CachedMemory<'a> {
    memory: &'a dyn TargetMemory,
    pages: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl<'a> CachedMemory<'a> {
    /// Nothing is read yet.
    pub fn new(memory: &'a dyn TargetMemory) -> Self {
        CachedMemory {
            memory,
            pages: RefCell::default(),
        }
    }

    fn copy_from_page(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let into = usize::try_from(address % PAGE as u64).unwrap_or(0);
        let start = address - address % PAGE as u64;
        let mut pages = self.pages.borrow_mut();
        if !pages.contains_key(&start) {
            let page = self.memory.vec(start, PAGE)?;
            if pages.len() >= MAX_PAGES {
                pages.clear();
            }
            pages.insert(start, page.into());
        }
        let rest = pages.get(&start).map_or(&[][..], |page| &page[into..]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl TargetMemory for CachedMemory<'_> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = address
                .checked_add(done as u64)
                .ok_or(io::ErrorKind::InvalidInput)?;
            done += self.copy_from_page(at, &mut buffer[done..])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use crate::jvm::tests::synthetic::Synthetic;

    #[test]
    fn strings_end_before_what_is_not_mapped() {
        let mut memory = Synthetic::default();
        // The last bytes of a page; nothing follows.
        memory.put(0x1ff8, b"\0name\0xx");
        assert_eq!(memory.c_string(0x1ff9, 100).unwrap(), b"name");
        assert!(memory.c_string(0x1ffe, 100).is_err());
        memory.put(0x2000, &[b'y'; 500]);
        assert!(memory.c_string(0x1ffe, 100).is_err());
        memory.put(0x2050, &[0]);
        assert_eq!(memory.c_string(0x1ffe, 100).unwrap().len(), 0x52);
    }

    #[test]
    fn pages_are_read_once_and_joined() {
        let mut memory = Synthetic::default();
        memory.put(0x1000, &[1; 2 * PAGE]);
        let cached = CachedMemory::new(&memory);
        assert_eq!(cached.vec(0x1ffc, 8).unwrap(), [1; 8]);
        assert_eq!(cached.pages.borrow().len(), 2);
        assert!(cached.vec(0x2ffc, 8).is_err());
        assert!(cached.vec(u64::MAX - 3, 8).is_err());
    }

    #[test]
    fn memory_of_a_process_that_is_gone_is_not_read() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // What answers has all of its memory: its exec is over.
        child.stdin.as_mut().unwrap().write_all(b".").unwrap();
        let mut answer = [0];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut answer).unwrap();
        let process = ProcessHandle::open(child.id()).unwrap();
        let maps = process.open_proc("maps").unwrap();
        let code = crate::process::maps::read_executable(maps).unwrap();
        let start = code[0].start.0;
        let memory = ProcessMemory::open(&process).unwrap();
        assert!(memory.u64(start).is_ok());
        assert!(memory.u64(u64::MAX - 4).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        // Whoever places a probe in the file meanwhile, in whatever process,
        // has the kernel hold the memory of all that map it for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while memory.u64(start).is_ok() {
            assert!(Instant::now() < deadline, "read what is gone");
            std::thread::yield_now();
        }
    }
}
