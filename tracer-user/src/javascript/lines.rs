//! Where the lines of a script begin.

use memchr::memchr2_iter;

use super::strings::Characters;
use crate::jvm::memory::TargetMemory;
use crate::jvm::unnamed::Unnamed;

/// Longer sources are not read, characters: what is behind has no line.
const MAX_SOURCE: u32 = 16 << 20;

/// More lines are not told apart.
const MAX_LINES: usize = 1 << 20;

/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

/// Where lines end, characters from the source's first, of the first lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    ends: Vec<u32>,
    /// So many characters were looked at.
    known: u32,
}

impl Lines {
    /// Those of a source.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(memory: &dyn TargetMemory, source: Characters) -> Result<Self, Unnamed> {
        let mut lines = Lines {
            ends: Vec::new(),
            known: 0,
        };
        let size = if source.is_narrow { 1 } else { 2 };
        let length = source.length.min(MAX_SOURCE);
        let mut last = 0;
        while lines.known < length && lines.ends.len() < MAX_LINES {
            let count = (PIECE / size).min((length - lines.known) as usize);
            let at = source
                .address
                .wrapping_add(u64::from(lines.known) * size as u64);
            let bytes = memory.vec(at, count * size)?;
            if source.is_narrow {
                last = lines.add_narrow(&bytes, last);
            } else {
                last = lines.add_wide(&bytes, last);
            }
            lines.known += u32::try_from(count).unwrap_or(0);
        }
        Ok(lines)
    }

    /// The line of a character, from 1 on; `None` if that was not read.
    pub fn of(&self, position: u32) -> Option<u32> {
        if position >= self.known {
            return None;
        }
        let before = self.ends.partition_point(|end| *end < position);
        u32::try_from(before + 1).ok()
    }

    /// What it takes, bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.ends.len() * size_of::<u32>()
    }

    fn add_narrow(&mut self, bytes: &[u8], before: u16) -> u16 {
        for at in memchr2_iter(b'\n', b'\r', bytes) {
            let last = match at.checked_sub(1) {
                Some(at) => u16::from(bytes[at]),
                None => before,
            };
            self.add(at, u16::from(bytes[at]), last);
        }
        bytes.last().map_or(before, |byte| u16::from(*byte))
    }

    fn add_wide(&mut self, bytes: &[u8], before: u16) -> u16 {
        let mut last = before;
        for (at, pair) in bytes.chunks_exact(2).enumerate() {
            let unit = u16::from_le_bytes([pair[0], pair[1]]);
            if matches!(unit, 0xa | 0xd | 0x2028 | 0x2029) {
                self.add(at, unit, last);
            }
            last = unit;
        }
        last
    }

    /// A line ends at a character, which is so far behind those that are known.
    fn add(&mut self, at: usize, unit: u16, last: u16) {
        let Some(end) = u32::try_from(at)
            .ok()
            .and_then(|at| at.checked_add(self.known))
        else {
            return;
        };
        // Of a pair of both the second ends the line.
        if unit == 0xa && last == 0xd && self.ends.last().is_some_and(|last| last + 1 == end) {
            self.ends.pop();
        }
        self.ends.push(end);
    }
}
