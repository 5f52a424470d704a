//! Files with mapped code, as the kernel side knows them: by what a mapping says
//! of its file, without any process's address space.

use crate::frame::FILE_NUMBERS;
use crate::limits::MAX_FILES;

const _: () = assert!(MAX_FILES <= FILE_NUMBERS, "a frame has room for a number");

/// A file, by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FileKey {
    /// The inode's number.
    pub inode: u64,
    /// The device, as the kernel keeps it: see [`device`].
    pub device: u64,
}

// SAFETY: repr(C), two u64, any bit pattern is valid.
unsafe impl crate::Record for FileKey {}

/// The kernel's own form of a device (`MKDEV` in `include/linux/kdev_t.h`).
pub const fn device(major: u32, minor: u32) -> u64 {
    (major as u64) << 20 | minor as u64
}

/// Executable segments of a file that have a table; more are not known.
pub const MAX_PARTS: usize = 4;

/// A part of a file that holds code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Part {
    /// Where it begins in the file, bytes.
    pub start: u64,
    /// Where it ends. An empty part ends where it begins.
    pub end: u64,
    /// What is added to an offset in the file to get one in the table.
    pub shift: u64,
}

/// A file's unwind table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FileTable {
    /// The parts that hold code.
    pub parts: [Part; MAX_PARTS],
    /// First row for return addresses.
    pub returns: u32,
    /// How many there are.
    pub returns_len: u32,
    /// First row for addresses of any instruction.
    pub full: u32,
    /// How many there are; 0 if there was no room for them.
    pub full_len: u32,
    /// A [`TableKind`].
    pub kind: u32,
    /// Bytes of the function that allocates exceptions; 0 if the file has none.
    pub thrower_len: u32,
    /// Where it begins in the file.
    pub thrower: u64,
}

// SAFETY: repr(C), fields fill all 128 bytes, any bit pattern is valid.
unsafe impl crate::Record for FileTable {}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum TableKind {
    /// Its table is not there yet, or there is no room for it.
    Pending = 0,
    /// It has a table.
    Table = 1,
    /// It has no call frame information.
    Bare = 2,
}

impl FileTable {
    /// Whether a return address, by its offset in the file, is in the function that
    /// allocates exceptions.
    #[inline(always)]
    pub const fn makes_exception(&self, offset: u64) -> bool {
        offset.wrapping_sub(self.thrower).wrapping_sub(1) < self.thrower_len as u64
    }

    /// Where an offset in the file is in the table, if it is code.
    #[inline(always)]
    pub fn row_offset(&self, offset: u64) -> Option<u64> {
        let mut index = 0;
        while index < MAX_PARTS {
            let part = &self.parts[index];
            if offset >= part.start && offset < part.end {
                return Some(offset.wrapping_add(part.shift));
            }
            index += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_found_in_the_part_that_has_it() {
        let part = |start, end, shift| Part { start, end, shift };
        let table = FileTable {
            parts: [
                part(0x1000, 0x2000, 0x10),
                part(0x3000, 0x3001, u64::MAX),
                Part::default(),
                Part::default(),
            ],
            ..FileTable::default()
        };
        assert_eq!(table.row_offset(0x1000), Some(0x1010));
        assert_eq!(table.row_offset(0x1fff), Some(0x200f));
        assert_eq!(table.row_offset(0x3000), Some(0x2fff));
        for outside in [0, 0xfff, 0x2000, 0x3001] {
            assert_eq!(table.row_offset(outside), None);
        }
    }

    #[test]
    fn an_exceptions_allocator_is_known_by_return_addresses_within() {
        let mut table = FileTable::default();
        assert!((0..3).all(|offset| !table.makes_exception(offset)));
        (table.thrower, table.thrower_len) = (0x1000, 0x20);
        // The last instruction may be a call that does not return.
        for (offset, expected) in [
            (0x1000, false),
            (0x1001, true),
            (0x1020, true),
            (0x1021, false),
        ] {
            assert_eq!(table.makes_exception(offset), expected, "{offset:#x}");
        }
    }

    #[test]
    fn a_device_has_the_kernels_form() {
        assert_eq!(device(254, 3), 254 << 20 | 3);
    }
}
