//! One entry of the cache of code by address, in one word, so that it is
//! never half written. It is believed only as long as its JVM has not freed
//! any code since.
//!
//! ```text
//!  63      51 50       39 38        22 21      16 15           0
//! +----------+-----------+------------+----------+--------------+
//! | id, 13   | words, 12 | freed, 17  | VM, 6    | offset >> 16 |
//! +----------+-----------+------------+----------+--------------+
//! ```

use super::Freed;
use super::code::Code;

/// Entries, a power of two: 512 KiB.
pub const ENTRIES: u32 = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 16;
const VM_SHIFT: u32 = 16;
const FREED_SHIFT: u32 = 22;
const FREED_BITS: u32 = 17;
const WORDS_SHIFT: u32 = 39;
const ID_SHIFT: u32 = 51;

/// So often code may be freed until the cache must be emptied: then the
/// count of an old entry would pass for a new one.
pub const EMPTY_AFTER: Freed = 1 << (FREED_BITS - 1);

/// Where the code at an offset in a JVM's code cache is kept, which is
/// smaller than 4 GiB.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is below ENTRIES")]
pub const fn index(vm: u32, offset: u64) -> u32 {
    let rest =
        (offset >> INDEX_BITS | (vm as u64) << VM_SHIFT).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    ((offset ^ rest) & (ENTRIES as u64 - 1)) as u32
}

/// What an entry ends with.
#[inline(always)]
pub const fn tag(vm: u32, offset: u64, freed: Freed) -> u64 {
    offset >> INDEX_BITS & 0xffff
        | (vm as u64) << VM_SHIFT
        | (freed & ((1 << FREED_BITS) - 1)) << FREED_SHIFT
}

/// Numbers of JVMs are below this.
pub const VMS: u32 = 1 << (FREED_SHIFT - VM_SHIFT);

/// The number of the JVM of an entry.
#[expect(clippy::cast_possible_truncation, reason = "a field is cut out")]
pub const fn vm(entry: u64) -> u32 {
    (entry >> VM_SHIFT) as u32 & (VMS - 1)
}

/// The code in an entry, if it is that of `tag`.
#[inline(always)]
pub const fn code(entry: u64, tag: u64) -> Option<Code> {
    if entry & ((1 << WORDS_SHIFT) - 1) != tag {
        return None;
    }
    let words = entry >> WORDS_SHIFT;
    Some(Code::of_blob(words, entry >> ID_SHIFT))
}

/// The entry of code; a deoptimised frame's has no room.
#[inline(always)]
pub const fn entry(tag: u64, code: Code) -> Option<u64> {
    if code.original().is_some() {
        return None;
    }
    Some(tag | code.words() << WORDS_SHIFT | code.id() << ID_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::super::{Code, cached};

    #[test]
    fn a_cached_entry_belongs_to_one_address_of_one_state() {
        let tag = cached::tag(5, 0x1234_5678, 77);
        let code = Code::of_blob(14, 99);
        let entry = cached::entry(tag, code).unwrap();
        assert_eq!(cached::vm(entry), 5);
        assert_eq!(cached::code(entry, tag), Some(code));
        for other in (0..32).map(|bit| 0x1234_5678 ^ 1 << bit) {
            let same_place = cached::index(5, other) == cached::index(5, 0x1234_5678);
            assert!(!(same_place && cached::tag(5, other, 77) == tag), "{other}");
        }
        assert_eq!(cached::code(entry, cached::tag(6, 0x1234_5678, 77)), None);
        assert_eq!(cached::code(entry, cached::tag(5, 0x1234_5678, 78)), None);
        assert_eq!(cached::code(0, cached::tag(1, 0, 0)), None);
        assert_eq!(cached::entry(tag, code.deoptimised(8)), None);
    }
}
