//! Fields of the VM's types, looked up by the names that they have had.

use std::fmt;
use std::io;

use super::memory::TargetMemory;
use super::vmstructs::{Place, VmStructs};

/// No object that is read here is larger, bytes.
const MAX_OFFSET: u64 = 1 << 16;

/// The VM does not export what its stacks or names cannot be read without:
/// its version is newer than this program, or it is not HotSpot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownLayout {
    /// What is missing, by its name in the VM's source.
    pub what: String,
}

impl fmt::Display for UnknownLayout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "this Java VM does not tell where its {} is", self.what)
    }
}

impl std::error::Error for UnknownLayout {}

/// A number within an object: where, how wide, and whether it has a sign.
/// Some fields' widths changed between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// Bytes from the object's start.
    pub offset: u32,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u8,
    /// Whether it can be negative.
    pub signed: bool,
}

impl Number {
    /// Its value in an object whose first bytes these are; none if they are
    /// too few.
    pub fn of(self, object: &[u8]) -> Option<i64> {
        let start = self.offset as usize;
        let bytes = object.get(start..start.checked_add(self.width.into())?)?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let unused = 64_u32.saturating_sub(8 * u32::from(self.width));
        let value = i64::from_le_bytes(word) << unused;
        Some(if self.signed {
            value >> unused
        } else {
            (value.cast_unsigned() >> unused).cast_signed()
        })
    }

    /// Its value in the object at an address.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn read(self, memory: &dyn TargetMemory, object: u64) -> io::Result<i64> {
        let alone = Number { offset: 0, ..self };
        let at = object.wrapping_add(self.offset.into());
        let bytes = memory.vec(at, self.width.into())?;
        Ok(alone.of(&bytes).unwrap_or_default())
    }
}

/// Looks up what must be there.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a VmStructs);

/// A type and a field of it.
pub type Name = (&'static str, &'static str);

impl Fields<'_> {
    /// The offset of a field, bytes, under the first of its names that there
    /// is.
    ///
    /// # Errors
    /// Fails if there is none, or it is out of all bounds.
    pub fn offset(self, names: &[Name]) -> Result<u32, UnknownLayout> {
        self.find_offset(names).ok_or_else(|| missing(names))
    }

    /// As [`offset`](Self::offset), if there may be none.
    pub fn find_offset(self, names: &[Name]) -> Option<u32> {
        names
            .iter()
            .find_map(|&(kind, name)| match self.0.field(kind, name)?.place {
                Place::Offset(offset) if offset < MAX_OFFSET => u32::try_from(offset).ok(),
                _ => None,
            })
    }

    /// A field that is a number.
    ///
    /// # Errors
    /// As [`offset`](Self::offset), and if the width is unknown.
    pub fn number(self, names: &[Name]) -> Result<Number, UnknownLayout> {
        self.find_number(names).ok_or_else(|| missing(names))
    }

    /// As [`number`](Self::number), if there may be none.
    pub fn find_number(self, names: &[Name]) -> Option<Number> {
        names.iter().find_map(|&name| {
            let offset = self.find_offset(&[name])?;
            let kind = &self.0.field(name.0, name.1)?.type_string;
            let (size, unsigned) = self.0.number(kind)?;
            let width = u8::try_from(size).ok()?;
            matches!(width, 1 | 2 | 4 | 8).then_some(Number {
                offset,
                width,
                signed: !unsigned,
            })
        })
    }

    /// The address of a static field.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn address(self, names: &[Name]) -> Result<u64, UnknownLayout> {
        self.find_address(names).ok_or_else(|| missing(names))
    }

    /// As [`address`](Self::address), if there may be none.
    pub fn find_address(self, names: &[Name]) -> Option<u64> {
        names
            .iter()
            .find_map(|&(kind, name)| match self.0.field(kind, name)?.place {
                Place::Static(address) => Some(address),
                Place::Offset(_) => None,
            })
    }

    /// The size of a type, bytes.
    ///
    /// # Errors
    /// Fails if it is unknown, or out of all bounds.
    pub fn size(self, kind: &'static str) -> Result<u32, UnknownLayout> {
        let size = self.0.type_size(kind).filter(|size| *size < MAX_OFFSET);
        size.and_then(|size| u32::try_from(size).ok())
            .ok_or_else(|| UnknownLayout { what: kind.into() })
    }
}

fn missing(names: &[Name]) -> UnknownLayout {
    let (kind, name) = names.first().copied().unwrap_or(("type", "field"));
    UnknownLayout {
        what: format!("{kind}::{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_width_and_sign() {
        let object = [0xff, 0xfe, 0xff, 0x01, 0, 0, 0, 0, 0x80];
        let number = |offset, width, signed| Number {
            offset,
            width,
            signed,
        };
        assert_eq!(number(0, 2, true).of(&object), Some(-257));
        assert_eq!(number(0, 2, false).of(&object), Some(0xfeff));
        assert_eq!(number(8, 1, true).of(&object), Some(-128));
        assert_eq!(number(1, 8, true).of(&object), Some(i64::MIN + 0x0001_fffe));
        assert_eq!(number(8, 2, false).of(&object), None);
        assert_eq!(number(u32::MAX, 8, false).of(&object), None);
    }
}
