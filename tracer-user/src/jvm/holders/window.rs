//! A piece of a process's memory that is read at once. Pages that are not in memory are not
//! touched.

use std::io;
use std::ops::Range;

use crate::jvm::memory::TargetMemory;
use crate::process::pagemap::{Kept, PAGE, PageMap};

/// What is read at once, bytes.
const PIECE: u64 = 1 << 20;

/// Reads ahead.
pub struct Window<'a> {
    memory: &'a dyn TargetMemory,
    resident: Vec<Range<u64>>,
    start: u64,
    bytes: Vec<u8>,
    /// Bytes that were read in all.
    pub read: u64,
}

impl<'a> Window<'a> {
    /// Of memory of which these runs are resident, in order.
    pub fn new(memory: &'a dyn TargetMemory, resident: Vec<Range<u64>>) -> Self {
        Self {
            memory,
            resident,
            start: 0,
            bytes: Vec::new(),
            read: 0,
        }
    }

    /// The bytes at an address, at most [`PIECE`]; none if not all are resident.
    pub fn at(&mut self, address: u64, length: usize) -> Option<&[u8]> {
        let within = |start: u64, bytes: &[u8]| {
            let from = usize::try_from(address.checked_sub(start)?).ok()?;
            let to = from.checked_add(length)?;
            (to <= bytes.len()).then_some(from..to)
        };
        let range = match within(self.start, &self.bytes) {
            Some(range) => range,
            None => {
                self.load(address)?;
                within(self.start, &self.bytes)?
            }
        };
        self.bytes.get(range)
    }

    /// One word.
    pub fn u64(&mut self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(*self.at(address, 8)?.first_chunk()?))
    }

    /// Half a word.
    pub fn u32(&mut self, address: u64) -> Option<u32> {
        Some(u32::from_le_bytes(*self.at(address, 4)?.first_chunk()?))
    }

    /// The first address from this one on that is resident.
    pub fn next_resident(&self, address: u64) -> Option<u64> {
        let run = self.run(address)?;
        Some(run.start.max(address))
    }

    /// The first run that ends behind an address.
    fn run(&self, address: u64) -> Option<&Range<u64>> {
        let index = self.resident.partition_point(|run| run.end <= address);
        self.resident.get(index)
    }

    /// Bytes that are resident.
    pub fn resident(&self) -> u64 {
        self.resident.iter().map(|run| run.end - run.start).sum()
    }

    fn load(&mut self, address: u64) -> Option<()> {
        let run = self.run(address)?.clone();
        if !run.contains(&address) {
            return None;
        }
        let start = address / PAGE * PAGE;
        let length = usize::try_from(run.end.min(start + PIECE) - start).ok()?;
        self.bytes.resize(length, 0);
        self.start = start;
        if self.memory.read(start, &mut self.bytes).is_err() {
            self.bytes.clear();
            return None;
        }
        self.read += length as u64;
        Some(())
    }
}

/// The runs of pages in ranges that are in memory, in order.
///
/// # Errors
/// Fails if the page map cannot be read.
pub fn resident(
    pages: &PageMap,
    ranges: impl Iterator<Item = Range<u64>>,
) -> io::Result<Vec<Range<u64>>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        pages.each(&range, None, &mut |run, kept| {
            if kept == Kept::Swapped {
                return;
            }
            match runs.last_mut() {
                Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
                _ => runs.push(run),
            }
        })?;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;

    #[test]
    fn what_is_not_resident_is_not_read() {
        let mut memory = Synthetic::default();
        memory.put(0x1000, &[1; 0x2000]);
        memory.put(0x5000, &[2; 0x1000]);
        let mut window = Window::new(&memory, vec![0x1000..0x2000, 0x5000..0x6000]);
        assert_eq!(window.at(0x1ff8, 8), Some(&[1; 8][..]));
        assert_eq!(window.at(0x1ff8, 9), None, "its second page is not");
        assert_eq!(window.at(0x2000, 1), None);
        assert_eq!(window.next_resident(0x1ff0), Some(0x1ff0));
        assert_eq!(window.next_resident(0x2000), Some(0x5000));
        assert_eq!(window.next_resident(0x6000), None);
        assert_eq!(window.u32(0x5ffc), Some(0x0202_0202));
        assert_eq!(window.u64(u64::MAX - 3), None);
        assert_eq!((window.resident(), window.read), (0x2000, 0x3000));
    }
}
