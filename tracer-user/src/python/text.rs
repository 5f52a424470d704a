//! Python's strings.

use crate::jvm::memory::TargetMemory;
use crate::jvm::unnamed::Unnamed;

/// Characters of a string that are read; of a longer one the first.
const MAX_CHARACTERS: u64 = 1024;

/// Where `length` and `state` are in a `PyASCIIObject` (`Include/cpython/unicodeobject.h`).
const LENGTH: u64 = 16;
const STATE: u64 = 32;
/// Bits of the state: the size of a character, whether the characters are behind the
/// object, and whether all are ASCII.
const KIND: u32 = 7 << 2;
const COMPACT: u32 = 1 << 5;
const ASCII: u32 = 1 << 6;

/// Where characters are, bytes from an object's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Characters {
    /// The size of a `PyASCIIObject`.
    pub ascii: u64,
    /// The size of a `PyCompactUnicodeObject`.
    pub other: u64,
}

impl Characters {
    /// Those of a version of Python.
    pub const fn of(version: (u8, u8)) -> Self {
        match version {
            // `wstr` went away.
            (3, 12..) => Characters {
                ascii: 40,
                other: 56,
            },
            _ => Characters {
                ascii: 48,
                other: 72,
            },
        }
    }

    /// The text of the string at an address.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(self, memory: &dyn TargetMemory, address: u64) -> Result<String, Unnamed> {
        let field = |offset: u64| address.checked_add(offset).ok_or(Unnamed::NoPython);
        let state = memory.u32(field(STATE)?)?;
        if state & COMPACT == 0 {
            return Err(Unnamed::NoPython);
        }
        let all = memory.u64(field(LENGTH)?)?;
        let length = usize::try_from(all.min(MAX_CHARACTERS)).unwrap_or(0);
        let start = match state & ASCII {
            0 => self.other,
            _ => self.ascii,
        };
        let size = match (state & KIND) >> 2 {
            size @ (1 | 2 | 4) => size as usize,
            _ => return Err(Unnamed::NoPython),
        };
        let bytes = memory.vec(field(start)?, length * size)?;
        let mut text: String = bytes.chunks_exact(size).map(character).collect();
        if all > MAX_CHARACTERS {
            text.push('…');
        }
        Ok(text)
    }
}

/// The character of one, two or four bytes.
fn character(bytes: &[u8]) -> char {
    let code = bytes
        .iter()
        .rev()
        .fold(0, |code, byte| code << 8 | u32::from(*byte));
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}
