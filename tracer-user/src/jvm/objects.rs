//! Java objects: their classes, and what their fields point to.
//!
//! A collection may move objects while they are read, so whoever reads them
//! says what it takes to believe what was read.

use std::io;

use super::fields::{Fields, Name, Number, UnknownLayout};
use super::memory::TargetMemory;

/// The lowest bits of an object's first word, and what they are in an object
/// that a collection has moved.
const MOVED: u64 = 0b11;

/// An object's header: how its class is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// In the upper bits of the first word (`UseCompactObjectHeaders`).
    Compact,
    /// In 32 bits of its own.
    Narrow,
    /// In 64 bits.
    Wide,
}

impl Header {
    /// Where an array has its length and its elements.
    pub fn array(self) -> (u64, u64) {
        match self {
            Header::Compact => (8, 12),
            Header::Narrow => (12, 16),
            Header::Wide => (16, 24),
        }
    }
}

/// Pointers of 32 bits: added to this after a shift.
#[derive(Debug, Clone, Copy)]
struct Narrow {
    base: u64,
    shift: u32,
}

impl Narrow {
    fn wide(self, narrow: u32) -> u64 {
        self.base.wrapping_add(u64::from(narrow) << self.shift)
    }
}

/// How objects are read.
#[derive(Debug, Clone, Copy)]
pub struct Objects {
    /// Where an object's class is, narrow.
    klass: u32,
    klasses: Narrow,
    /// Where in the first word, if that may be.
    mark_shift: Option<u32>,
    /// Whether pointers to classes may be wide. From JDK 21 on they are not,
    /// unless a flag of no use says so; and arrays have another form then.
    wide_klasses: bool,
    oops: Narrow,
}

impl Objects {
    /// Looks up what it takes.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(fields: Fields<'_>, memory: &dyn TargetMemory) -> Result<Self, UnknownLayout> {
        Ok(Objects {
            klass: fields.offset(&[
                ("oopDesc", "_metadata._compressed_klass"),
                // From JDK 27 on.
                ("oopDesc", "_compressed_klass"),
            ])?,
            klasses: narrow(
                fields,
                memory,
                [
                    ("CompressedKlassPointers", "_narrow_klass"),
                    ("Universe", "_narrow_klass"),
                    ("CompressedKlassPointers", ""),
                ],
            )?,
            mark_shift: fields
                .0
                .long_constant("markWord::klass_shift")
                .and_then(|shift| u32::try_from(shift).ok())
                .filter(|shift| *shift < 64),
            wide_klasses: fields
                .find_offset(&[("InstanceKlass", "_fields")])
                .is_some(),
            oops: narrow(
                fields,
                memory,
                [
                    ("CompressedOops", "_narrow_oop"),
                    ("Universe", "_narrow_oop"),
                    ("CompressedOops", ""),
                ],
            )?,
        })
    }

    /// The object that a field of an object points to.
    pub fn follow(
        &self,
        memory: &dyn TargetMemory,
        object: u64,
        field: u32,
        narrow: bool,
    ) -> Option<u64> {
        let address = object.checked_add(field.into())?;
        let to = match narrow {
            true => self
                .oops
                .wide(memory.u32(address).ok().filter(|oop| *oop != 0)?),
            false => memory.u64(address).ok()?,
        };
        (to != 0 && to < 1 << 47).then_some(to)
    }

    /// The header of an object of this very class; none if it is no such.
    pub fn header(&self, memory: &dyn TargetMemory, object: u64, class: u64) -> Option<Header> {
        let klass = memory.u64(object.checked_add(self.klass.into())?).ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let narrow = klass as u32;
        if self.klasses.wide(narrow) == class {
            return Some(Header::Narrow);
        }
        if self.wide_klasses && klass == class {
            return Some(Header::Wide);
        }
        let mark = memory.u64(object).ok()?;
        let narrow = u32::try_from(mark >> self.mark_shift?).ok()?;
        (self.klasses.wide(narrow) == class).then_some(Header::Compact)
    }

    /// The class of an object whose first 16 bytes these are, by how this VM keeps it.
    pub fn class(&self, header: Header, first: &[u8; 16]) -> u64 {
        let word = u128::from_le_bytes(*first);
        let at = 8 * self.klass;
        #[expect(clippy::cast_possible_truncation, reason = "parts of it are meant")]
        match header {
            Header::Wide => (word >> at) as u64,
            Header::Narrow => self.klasses.wide((word >> at) as u32),
            Header::Compact => {
                let shift = self.mark_shift.unwrap_or(0);
                self.klasses.wide((word as u64 >> shift) as u32)
            }
        }
    }

    /// The address of the object that a narrow pointer means; 0 is none.
    pub fn wide(&self, narrow: u32) -> u64 {
        match narrow {
            0 => 0,
            narrow => self.oops.wide(narrow),
        }
    }

    /// Whether a collection has moved the object: what is here is its past.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn is_moved(&self, memory: &dyn TargetMemory, object: u64) -> io::Result<bool> {
        Ok(memory.u64(object)? & MOVED == MOVED)
    }
}

/// The base and shift of narrow pointers, by the names that they have had: a
/// struct's fields, or fields.
fn narrow(
    fields: Fields<'_>,
    memory: &dyn TargetMemory,
    names: [Name; 3],
) -> Result<Narrow, UnknownLayout> {
    let find = |part: &'static str| {
        names.iter().find_map(|(kind, name)| {
            let name = match *name {
                "" => part.to_owned(),
                name => format!("{name}.{part}"),
            };
            fields.static_field(kind, &name)
        })
    };
    let unknown = || UnknownLayout {
        what: format!("{}::_base", names[2].0),
    };
    let shift = Number {
        offset: 0,
        width: 4,
        signed: false,
    };
    let base = find("_base").ok_or_else(unknown)?;
    let shift = shift.read(memory, find("_shift").ok_or_else(unknown)?);
    Ok(Narrow {
        base: memory.u64(base).unwrap_or(0),
        shift: shift
            .ok()
            .and_then(|shift| u32::try_from(shift).ok())
            .unwrap_or(0)
            & 31,
    })
}
