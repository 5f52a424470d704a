//! Live blocks: what the kernel remembers of each address.

/// An address, or a handle, in one process image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BlockKey {
    /// The address that the allocator returned, or the word of a [`handle`], of a
    /// [`thread`] or of a [`page`].
    pub address: u64,
    /// The process image; see [`crate::thread::Process`].
    pub image: u64,
}

/// Who called `free`, in one process image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Caller {
    /// The process image.
    pub image: u64,
    /// The return address.
    pub address: u64,
}

/// Callers that frees of unknown blocks are counted for, at most.
pub const MAX_CALLERS: u32 = 1024;

/// Words of what is no memory, and no address, are not below this.
pub const OTHERS: u64 = 1 << 62;

/// Addresses of unknown blocks that are remembered when they are freed, those freed
/// last.
pub const MAX_FREED_UNKNOWN: u32 = 1 << 15;

/// The word of a JVM's handle. No address of user space has the highest bit.
#[inline(always)]
pub const fn handle(handle: u64) -> u64 {
    handle | 1 << 63
}

/// The word of a thread, by its id. No address of user space has this bit.
#[inline(always)]
pub const fn thread(id: u32) -> u64 {
    id as u64 | 1 << 62
}

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The bits of the word of a page that no address of user space has.
const PAGE_BITS: u64 = 3 << 61;

/// The word of the page that has an address of user space.
#[inline(always)]
pub const fn page(address: u64) -> u64 {
    address & !(PAGE - 1) | PAGE_BITS
}

/// The address of the page that a word is of, if it is the word of one.
pub const fn page_of(word: u64) -> Option<u64> {
    match word >> 61 {
        3 => Some(word & !PAGE_BITS),
        _ => None,
    }
}

/// A block that was allocated, a handle that was made, a thread that was started, or a
/// page that was touched, and not yet freed, deleted, ended or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Block {
    /// Bytes asked for.
    pub size: u64,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Index of the site.
    pub site: u32,
    /// 1 if it was followed when all were (`--overhead`), so that it stands for itself
    /// also where others were chosen for a sample; a [`crate::stated::word`] of a sample
    /// that the process took itself; else 0.
    pub certain: u32,
}

/// A live object of an arena, which lets all its objects go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Object {
    /// The object as a block.
    pub block: Block,
    /// The arena that it is of.
    pub arena: u64,
    /// The object that the arena had handed out before, or 0.
    pub next: u64,
}

// SAFETY: repr(C), a Block and two u64, no padding, any bit pattern is valid.
unsafe impl crate::Record for Object {}
// SAFETY: repr(C), two u64, no padding.
unsafe impl crate::Record for BlockKey {}
// SAFETY: repr(C), two u64, no padding.
unsafe impl crate::Record for Caller {}
// SAFETY: repr(C), fields fill all 24 bytes, any bit pattern is valid.
unsafe impl crate::Record for Block {}

/// Kernel memory of one entry of a preallocated hash map, bytes: the kernel's
/// element header (48), the key and the value, and a bucket head (16) for each
/// entry rounded up to a power of two.
pub const fn hash_entry_bytes(key: usize, value: usize) -> usize {
    48 + key.next_multiple_of(8) + value.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_page_is_nothing_elses() {
        // The highest address with five levels of page tables.
        let highest = (1 << 56) - PAGE;
        for address in [PAGE, 0x7fff_ffff_f000, highest] {
            assert_eq!(page_of(page(address + 17)), Some(address));
            assert!(page(address) >= OTHERS);
        }
        for other in [highest, handle(highest), thread(u32::MAX)] {
            assert_eq!(page_of(other), None);
        }
    }
}
