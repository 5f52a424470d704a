//! HotSpot's compressed numbers (UNSIGNED5), of which debug information and
//! line tables are made.
//!
//! A number has one to five bytes, the lowest digit first; a byte of 192 or
//! more says that another follows, and counts 64 times less than that. JDK 20
//! left the byte 0 out, so that it can end a stream, and all digits became
//! one greater. The exported tables have no trace of that, so the version
//! decides: `JDK_Version::_current` up to JDK 21, and from then on
//! `Abstract_VM_Version::_vm_major_version` (which is 25 for JDK 8 too).

use std::io;

use super::fields::{Fields, Number, UnknownLayout};
use super::memory::TargetMemory;

/// A byte of at least this says that another follows.
const HIGH: u8 = 192;

/// Bits that each further byte adds.
const DIGIT: u32 = 6;

/// The last byte of the longest number.
const LAST: u32 = 4;

/// The first version without the byte 0.
const WITHOUT_ZERO: i64 = 20;

/// How numbers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Any byte may come.
    WithZero,
    /// The byte 0 is no digit.
    WithoutZero,
}

impl Encoding {
    /// The encoding of a VM, by its version.
    ///
    /// # Errors
    /// Fails if the version is not exported, or cannot be read.
    pub fn of(fields: Fields<'_>, memory: &dyn TargetMemory) -> Result<Self, UnknownLayout> {
        let version = version(fields, memory).unwrap_or(None);
        match version {
            None => Err(UnknownLayout {
                what: "Abstract_VM_Version::_vm_major_version".into(),
            }),
            Some(WITHOUT_ZERO..) => Ok(Encoding::WithoutZero),
            Some(_) => Ok(Encoding::WithZero),
        }
    }

    fn lowest(self) -> u8 {
        match self {
            Encoding::WithZero => 0,
            Encoding::WithoutZero => 1,
        }
    }
}

fn version(fields: Fields<'_>, memory: &dyn TargetMemory) -> io::Result<Option<i64>> {
    if let Some(current) = fields.find_address(&[("JDK_Version", "_current")])
        && let Some(major) = fields.find_number(&[("JDK_Version", "_major")])
    {
        return major.read(memory, current).map(Some);
    }
    let major = fields.find_address(&[("Abstract_VM_Version", "_vm_major_version")]);
    let number = Number {
        offset: 0,
        width: 4,
        signed: true,
    };
    major
        .map(|address| number.read(memory, address))
        .transpose()
}

/// Reads numbers, one after the other. Gives nothing at the end.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    bytes: std::slice::Iter<'a, u8>,
    encoding: Encoding,
}

impl<'a> Stream<'a> {
    /// Begins with the first byte.
    pub fn new(bytes: &'a [u8], encoding: Encoding) -> Self {
        Stream {
            bytes: bytes.iter(),
            encoding,
        }
    }

    /// A byte that is not compressed.
    pub fn byte(&mut self) -> Option<u8> {
        self.bytes.next().copied()
    }

    /// A number without sign.
    pub fn unsigned(&mut self) -> Option<u32> {
        let lowest = self.encoding.lowest();
        let mut sum = 0_u32;
        for place in 0..=LAST {
            let byte = self.byte()?;
            let digit = u32::from(byte.checked_sub(lowest)?);
            sum = sum.wrapping_add(digit << (DIGIT * place));
            if byte < HIGH {
                break;
            }
        }
        Some(sum)
    }

    /// A number whose lowest bit is its sign.
    pub fn signed(&mut self) -> Option<i32> {
        let value = self.unsigned()?;
        let half = (value >> 1).cast_signed();
        Some(if value & 1 == 0 { half } else { !half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_lengths_are_read() {
        let cases: [(&[u8], u32); 7] = [
            (&[0], 0),
            (&[191], 191),
            (&[192, 0], 192),
            (&[255, 191], 255 + 191 * 64),
            (&[192, 192, 0], 192 + 192 * 64),
            (
                &[192, 192, 192, 192, 5],
                192 + (192 << 6) + (192 << 12) + (192 << 18) + (5 << 24),
            ),
            (
                &[255, 255, 255, 255, 255],
                255_u32
                    .wrapping_add(255 << 6)
                    .wrapping_add(255 << 12)
                    .wrapping_add(255 << 18)
                    .wrapping_add(255 << 24),
            ),
        ];
        for (bytes, value) in cases {
            let mut stream = Stream::new(bytes, Encoding::WithZero);
            assert_eq!(stream.unsigned(), Some(value), "{bytes:?}");
            assert_eq!(stream.unsigned(), None);
        }
    }

    #[test]
    fn without_zero_all_digits_are_one_greater() {
        let cases: [(&[u8], u32); 5] = [
            (&[1], 0),
            (&[191], 190),
            (&[192, 1], 191),
            (&[255, 191], 254 + 190 * 64),
            (&[192, 192, 1], 191 + 191 * 64),
        ];
        for (bytes, value) in cases {
            let mut stream = Stream::new(bytes, Encoding::WithoutZero);
            assert_eq!(stream.unsigned(), Some(value), "{bytes:?}");
        }
        assert_eq!(Stream::new(&[0], Encoding::WithoutZero).unsigned(), None);
        assert_eq!(
            Stream::new(&[200, 0], Encoding::WithoutZero).unsigned(),
            None
        );
    }

    #[test]
    fn signs_are_in_the_lowest_bit() {
        let mut stream = Stream::new(&[0, 1, 2, 3, 190], Encoding::WithZero);
        let values: Vec<_> = std::iter::from_fn(|| stream.signed()).collect();
        assert_eq!(values, [0, -1, 1, -2, 95]);
    }

    #[test]
    fn what_is_cut_off_is_no_number() {
        for length in 0..4 {
            let bytes = [255, 255, 255, 255, 1];
            let mut stream = Stream::new(&bytes[..length], Encoding::WithoutZero);
            assert_eq!(stream.unsigned(), None);
        }
    }
}
