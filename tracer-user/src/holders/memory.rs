//! A process's memory, as far as it is in memory.

use std::ops::Range;

use crate::process::pagemap::PAGE;
use crate::process::resident::PageSet;

/// Pieces that the kernel takes in one call (`UIO_MAXIOV`).
pub const MAX_PIECES: usize = 1024;

/// Memory that is read in pieces.
pub trait Memory {
    /// Reads pieces, one after the other, into the buffer; returns how many bytes of them
    /// were read: what follows a piece that cannot be read is left out.
    fn read(&self, pieces: &[Range<u64>], buffer: &mut [u8]) -> usize;
}

/// The memory of a process, by `process_vm_readv(2)`: that stops nobody.
#[derive(Debug)]
pub struct ProcessMemory(i32);

impl ProcessMemory {
    /// Of a process. It may end, and its id be another's: who reads asks afterwards.
    pub fn new(pid: u32) -> Self {
        Self(pid.cast_signed())
    }
}

impl Memory for ProcessMemory {
    fn read(&self, pieces: &[Range<u64>], buffer: &mut [u8]) -> usize {
        let pieces = pieces.iter().take(MAX_PIECES);
        let remote: Vec<libc::iovec> = pieces.map(vector).collect();
        let local = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: the kernel writes no more than the buffer has, and reads the vectors.
        let read = unsafe {
            let count = remote.len() as libc::c_ulong;
            libc::process_vm_readv(self.0, &raw const local, 1, remote.as_ptr(), count, 0)
        };
        usize::try_from(read).unwrap_or(0)
    }
}

fn vector(piece: &Range<u64>) -> libc::iovec {
    libc::iovec {
        iov_base: piece.start as *mut libc::c_void,
        iov_len: length(piece),
    }
}

/// Bytes of a piece.
pub fn length(piece: &Range<u64>) -> usize {
    usize::try_from(piece.end.saturating_sub(piece.start)).unwrap_or(usize::MAX)
}

/// A word, if its page is in memory.
pub fn word(memory: &dyn Memory, present: &PageSet, at: u64) -> Option<u64> {
    if !at.is_multiple_of(8) || !present.has(at) {
        return None;
    }
    let mut bytes = [0; 8];
    let piece = at..at.checked_add(8)?;
    let read = memory.read(std::slice::from_ref(&piece), &mut bytes);
    (read == bytes.len()).then(|| u64::from_le_bytes(bytes))
}

/// Words at successive places, through a part of memory that was read last.
pub struct Words<'a> {
    memory: &'a dyn Memory,
    present: &'a PageSet,
    data: Vec<u8>,
    start: u64,
}

/// Pages that are read at once.
const AT_ONCE: u64 = 64;

impl<'a> Words<'a> {
    /// Nothing is read yet.
    pub fn new(memory: &'a dyn Memory, present: &'a PageSet) -> Self {
        Self {
            memory,
            present,
            data: Vec::new(),
            start: 0,
        }
    }

    /// The word at an address that is a multiple of 8; `None` if its page is not in memory.
    pub fn get(&mut self, at: u64) -> Option<u64> {
        if !at.is_multiple_of(8) {
            return None;
        }
        if self.known(at).is_none() {
            self.load(at);
        }
        self.known(at)
    }

    /// Reads anew from now on.
    pub fn forget(&mut self) {
        self.data.clear();
    }

    fn known(&self, at: u64) -> Option<u64> {
        let into = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let bytes = self.data.get(into..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    fn load(&mut self, at: u64) {
        let first = at / PAGE * PAGE;
        let pages = (0..AT_ONCE).map_while(|page| first.checked_add(page * PAGE));
        let count = pages.take_while(|page| self.present.has(*page)).count() as u64;
        let piece = first..first.saturating_add(count * PAGE);
        self.data.resize(length(&piece), 0);
        let read = self
            .memory
            .read(std::slice::from_ref(&piece), &mut self.data);
        self.data.truncate(read);
        self.start = first;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Memory that a test wrote: bytes from an address on.
    pub struct Written(pub u64, pub Vec<u8>);

    impl Written {
        /// Zeros.
        pub fn new(range: Range<u64>) -> Self {
            Self(range.start, vec![0; length(&range)])
        }

        /// Writes a word.
        pub fn put(&mut self, at: u64, word: u64) {
            let into = usize::try_from(at - self.0).unwrap();
            self.1[into..into + 8].copy_from_slice(&word.to_le_bytes());
        }

        /// Its pages.
        pub fn present(&self) -> PageSet {
            let mut pages = PageSet::default();
            assert!(pages.insert(&(self.0..self.0 + self.1.len() as u64)));
            pages
        }
    }

    impl Memory for Written {
        fn read(&self, pieces: &[Range<u64>], buffer: &mut [u8]) -> usize {
            let mut filled = 0;
            for piece in pieces {
                let into = piece.start.checked_sub(self.0).map(usize::try_from);
                let Some(Ok(into)) = into else { break };
                let Some(bytes) = self.1.get(into..into + length(piece)) else {
                    break;
                };
                buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
                filled += bytes.len();
            }
            filled
        }
    }

    #[test]
    fn pieces_of_a_process_come_one_after_the_other_until_one_cannot_be_read() {
        let text = *b"one, two";
        let at = text.as_ptr() as u64;
        let memory = ProcessMemory::new(std::process::id());
        let mut buffer = [0; 64];
        let read = memory.read(
            &[at + 5..at + 8, at..at + 3, 8..16, at..at + 1],
            &mut buffer,
        );
        assert_eq!(&buffer[..read], b"twoone");
        assert_eq!(memory.read(&[], &mut buffer), 0);
        assert_eq!(
            ProcessMemory::new(u32::MAX).read(&[at..at + 3, at..at + 1], &mut buffer),
            0
        );
    }

    #[test]
    fn words_of_pages_that_are_not_in_memory_are_none() {
        let mut memory = Written::new(PAGE..3 * PAGE);
        memory.put(2 * PAGE - 8, 77);
        let mut present = PageSet::default();
        assert!(present.insert(&(PAGE..2 * PAGE)));
        let mut words = Words::new(&memory, &present);
        assert_eq!(words.get(2 * PAGE - 8), Some(77));
        assert_eq!(words.get(2 * PAGE), None);
        assert_eq!(words.get(PAGE + 4), None);
        assert_eq!(word(&memory, &present, 2 * PAGE - 8), Some(77));
        assert_eq!(word(&memory, &present, 2 * PAGE), None);
    }
}
