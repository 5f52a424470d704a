//! What a JVM tells of compiled methods: names and places of new ones, and
//! which memory of its code cache is freed.

/// Strings of a new method: its class, its name and its signature.
pub const NAMES: usize = 3;

/// Bytes of a string that are read.
pub const NAME_BYTES: usize = 96;

/// A string that was read.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Name {
    /// How many bytes it has, of which the first [`NAME_BYTES`] were read; 0
    /// if none could be.
    pub length: u64,
    /// The bytes; what is beyond the length is of no meaning.
    pub bytes: [u8; NAME_BYTES],
}

impl Name {
    /// The bytes that were read.
    pub fn read(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        &self.bytes[..length.min(NAME_BYTES)]
    }

    /// Whether it has more bytes than were read.
    pub const fn is_cut(&self) -> bool {
        self.length > NAME_BYTES as u64
    }
}

/// A method was compiled.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Compiled {
    /// The process image.
    pub image: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`; the code may have run a moment before.
    pub time: u64,
    /// Its first instruction; 0 if it could not be read.
    pub start: u64,
    /// Bytes of its instructions.
    pub size: u64,
    /// The strings.
    pub names: [Name; NAMES],
}

// SAFETY: repr(C), fields fill all bytes, any bit pattern is valid.
unsafe impl crate::Record for Compiled {}

/// Code is freed: nothing runs there any more, and other code may follow.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Gone {
    /// The process image.
    pub image: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Its first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
}

// SAFETY: repr(C), four u64, no padding.
unsafe impl crate::Record for Gone {}

const _: () = assert!(
    size_of::<Compiled>() == 32 + (8 + NAME_BYTES) * NAMES,
    "what was compiled has no padding"
);
const _: () = assert!(
    size_of::<Compiled>() != size_of::<Gone>(),
    "records of one ring are told apart by their size"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_cut() {
        let mut name = Name {
            length: 3,
            bytes: [b'x'; NAME_BYTES],
        };
        assert_eq!((name.read(), name.is_cut()), (&b"xxx"[..], false));
        name.length = u64::MAX;
        assert_eq!((name.read().len(), name.is_cut()), (NAME_BYTES, true));
    }
}
