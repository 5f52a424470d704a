//! USDT probes as the kernel side knows them: which places are watched, and
//! what was told there.

use crate::operand::Operand;

/// Arguments of one probe that are read: HotSpot's largest has 8.
pub const MAX_ARGUMENTS: usize = 8;

/// Strings among them.
pub const MAX_TEXTS: usize = 2;

/// Bytes of a string that are read.
pub const TEXT_BYTES: usize = 128;

/// Places that can be watched in all processes together. A JVM has some 25.
pub const MAX_PLACES: u32 = 2048;

/// No argument.
pub const NO_ARGUMENT: u8 = u8::MAX;

/// A place in a process image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PlaceKey {
    /// The process image.
    pub image: u64,
    /// The probed instruction.
    pub ip: u64,
}

// SAFETY: repr(C), two u64, no padding.
unsafe impl crate::Record for PlaceKey {}

/// Which arguments are a string: its address, and its length in bytes. Both
/// are [`NO_ARGUMENT`] if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct TextArguments {
    /// The argument that is the address.
    pub address: u8,
    /// The argument that is the length.
    pub length: u8,
}

impl TextArguments {
    /// No string.
    pub const NONE: Self = Self {
        address: NO_ARGUMENT,
        length: NO_ARGUMENT,
    };
}

/// What is told of hits.
pub mod tells {
    /// Nothing: they are only counted.
    pub const NOTHING: u16 = 0;
    /// Each, with its arguments: [`Told`](super::Told).
    pub const ARGUMENTS: u16 = 1;
    /// Each is of a method that was compiled:
    /// [`Compiled`](crate::compiled::Compiled).
    pub const CODE: u16 = 2;
}

/// What is done at a place.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Place {
    /// How often it was hit.
    pub hits: u64,
    /// User space's number for the probe.
    pub probe: u16,
    /// What is told of each hit; one of [`tells`].
    pub tells: u16,
    /// Strings among the arguments.
    pub texts: [TextArguments; MAX_TEXTS],
    /// The arguments.
    pub operands: [Operand; MAX_ARGUMENTS],
}

// SAFETY: repr(C), fields fill all 144 bytes, any bit pattern is valid.
unsafe impl crate::Record for Place {}

/// A string that was read.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Text {
    /// How many bytes it has, of which the first [`TEXT_BYTES`] were read.
    pub length: u32,
    /// 1 if it was read.
    pub is_known: u32,
    /// The bytes; what is beyond the length is of no meaning.
    pub bytes: [u8; TEXT_BYTES],
}

impl Text {
    /// The bytes that were read; `None` if none could be.
    pub fn read(&self) -> Option<&[u8]> {
        let length = (self.length as usize).min(TEXT_BYTES);
        (self.is_known == 1).then(|| &self.bytes[..length])
    }

    /// Whether it has more bytes than were read.
    pub fn is_cut(&self) -> bool {
        self.length as usize > TEXT_BYTES
    }
}

/// What a hit told.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Told {
    /// The process image.
    pub image: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Thread id in the initial pid namespace.
    pub thread: u32,
    /// User space's number for the probe.
    pub probe: u16,
    /// One bit for each argument that could be read.
    pub known: u16,
    /// The arguments' values.
    pub arguments: [u64; MAX_ARGUMENTS],
    /// The strings.
    pub texts: [Text; MAX_TEXTS],
}

// SAFETY: repr(C), fields fill all bytes, any bit pattern is valid.
unsafe impl crate::Record for Told {}

impl Told {
    /// An argument, if it could be read.
    pub fn argument(&self, index: usize) -> Option<u64> {
        let value = self.arguments.get(index)?;
        (self.known >> index & 1 == 1).then_some(*value)
    }
}

const _: () = assert!(
    size_of::<Place>() == 16 + 16 * MAX_ARGUMENTS,
    "a place has no padding"
);
const _: () = assert!(
    size_of::<Told>() == 24 + 8 * MAX_ARGUMENTS + (8 + TEXT_BYTES) * MAX_TEXTS,
    "what was told has no padding"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_cut_and_may_be_unknown() {
        let mut text = Text {
            length: 3,
            is_known: 1,
            bytes: [b'x'; TEXT_BYTES],
        };
        assert_eq!((text.read(), text.is_cut()), (Some(&b"xxx"[..]), false));
        text.length = u32::MAX;
        assert_eq!(text.read().map(<[u8]>::len), Some(TEXT_BYTES));
        assert!(text.is_cut());
        text.is_known = 0;
        assert_eq!(text.read(), None);
    }

    #[test]
    fn arguments_that_could_not_be_read_are_absent() {
        let told: Told = crate::read_record(&[3; size_of::<Told>()]).unwrap();
        assert!(told.argument(0).is_some() && told.argument(1).is_some());
        assert_eq!(told.argument(2), None);
        assert_eq!(told.argument(MAX_ARGUMENTS), None);
    }
}
