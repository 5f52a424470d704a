//! Unwind tables: which rule holds at an address.

#![expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of words"
)]

use crate::frame;

/// One row of a module's table, in one word: from which offset on (32 bits,
/// upper half) which rule holds (its number, lower half). Rows are sorted; a
/// row with rule number 0 begins a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Row(pub u64);

impl Row {
    /// The row of an offset and a rule's number.
    pub const fn new(offset: u32, rule: u32) -> Self {
        Self((offset as u64) << 32 | rule as u64)
    }

    /// Where it begins, bytes from the table's base.
    #[inline(always)]
    pub const fn offset(self) -> u64 {
        self.0 >> 32
    }

    /// The rule's number.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 as u32
    }
}

// SAFETY: one u64, any bit pattern is valid.
unsafe impl crate::Record for Row {}

/// Executable memory of an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Where the module's table counts from: an address minus this is an
    /// offset in the table.
    pub base: u64,
    /// First row for return addresses.
    pub returns: u32,
    /// How many there are.
    pub returns_len: u32,
    /// First row for addresses of any instruction.
    pub full: u32,
    /// How many there are; 0 if there was no room for them.
    pub full_len: u32,
    /// A [`RangeKind`].
    pub kind: u32,
    /// The number of the file that is mapped; 0 if none is.
    pub file: u32,
    /// Where the file's first byte would be: an address minus this is an offset
    /// in the file.
    pub origin: u64,
}

// SAFETY: repr(C), fields fill all 56 bytes, any bit pattern is valid.
unsafe impl crate::Record for Range {}

impl Range {
    /// The word of an address in it; see [`crate::frame`].
    #[inline(always)]
    pub const fn word(&self, address: u64, interrupted: u64) -> u64 {
        match self.file {
            0 => frame::native(address, interrupted),
            file => frame::in_file(file, address.wrapping_sub(self.origin), interrupted),
        }
    }
}

/// What is known of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// It has a table.
    Table = 0,
    /// It has none: just-in-time code, or a file without call frame
    /// information.
    Bare = 1,
    /// Its table is being built, or there was no room for it.
    Pending = 2,
    /// The kernel's trampolines of return probes.
    Trampoline = 3,
    /// A JVM's code cache: `returns` is the JVM's number, 0 if its layout is
    /// not known.
    Java = 4,
    /// As bare, in a process that runs V8: some of it V8 has compiled.
    Script = 5,
}

/// The ranges of one address space: a part of the array of all ranges. 0 of
/// them if it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Space {
    /// The first.
    pub first: u32,
    /// How many, sorted by address.
    pub len: u32,
    /// Another number for the same ranges, to go on with when one of them is
    /// not valid any more: nothing is cached under it. 0 if there is none.
    pub spare: u32,
    /// The number of the file that has V8 in it, whose JavaScript this process runs; 0 if
    /// none is known.
    pub v8: u32,
}

// SAFETY: repr(C), four u32, any bit pattern is valid.
unsafe impl crate::Record for Space {}

/// What code an image has, as user space saw it. Written by user space, and
/// made void by the kernel side if it cannot keep what was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Code {
    /// The number of its address space; 0 while it is not known.
    pub space: u32,
    /// The [`Replaced::count`] before it was looked at.
    pub as_of: u32,
}

// SAFETY: repr(C), two u32, any bit pattern is valid.
unsafe impl crate::Record for Code {}

/// What the kernel side saw of an image's code since. Written there only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Replaced {
    /// How often code was replaced by other memory: stacks before and after
    /// have nothing in common, though their addresses may be the same.
    pub count: u64,
    /// The address space in which the ranges of what was replaced last were
    /// marked.
    pub space: u32,
    /// Always zero.
    pub padding: u32,
}

// SAFETY: repr(C), fields fill all 16 bytes, any bit pattern is valid.
unsafe impl crate::Record for Replaced {}

impl Code {
    /// The number of the address space to look in; 0 if nothing is known.
    /// `spare` finds the spare number of one.
    #[inline(always)]
    pub fn valid(self, replaced: Replaced, spare: impl FnOnce(u32) -> u32) -> u32 {
        match (replaced.count as u32).wrapping_sub(self.as_of) {
            0 => self.space,
            // What was replaced is marked, but may be cached.
            1 if replaced.space == self.space => spare(self.space),
            _ => 0,
        }
    }
}

/// The last of `len` sorted elements from `first` on whose key is not above
/// `key`; `None` if there is none, or an element cannot be read.
///
/// Takes at most `ROUNDS` steps: enough for 2^ROUNDS - 1 elements.
#[inline(always)]
pub fn search<const ROUNDS: u32>(
    first: u32,
    len: u32,
    key: u64,
    key_of: impl Fn(u32) -> Option<u64>,
) -> Option<u32> {
    let mut low = first;
    let mut left = len;
    let mut round = 0;
    while round < ROUNDS && left > 0 {
        let half = left >> 1;
        let middle = low.wrapping_add(half);
        if key_of(middle)? <= key {
            low = middle.wrapping_add(1);
            left = left.wrapping_sub(half).wrapping_sub(1);
        } else {
            left = half;
        }
        round += 1;
    }
    (low != first).then(|| low.wrapping_sub(1))
}

/// The cache of what is known of return addresses. An entry has two words, each
/// with the address space and the address whole, so that they can be written and
/// read one by one: one has the number of the rule, the other that of the range.
pub mod cached {
    /// Entries, a power of two: 1 MiB.
    pub const ENTRIES: u32 = 1 << INDEX_BITS;

    const INDEX_BITS: u32 = 16;
    const NUMBER_BITS: u32 = 19;
    const SPACE_BITS: u32 = 13;

    /// Rules and ranges have numbers below this.
    pub const NUMBERS: u32 = 1 << NUMBER_BITS;
    /// Address spaces have numbers below this, and above 0.
    pub const SPACES: u32 = 1 << SPACE_BITS;

    /// What is known of an address. A zero word says nothing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    #[repr(C)]
    pub struct Entry {
        /// A tag and the rule's number.
        pub rule: u64,
        /// A tag and the range's number.
        pub range: u64,
    }

    // SAFETY: repr(C), two u64, any bit pattern is valid.
    unsafe impl crate::Record for Entry {}

    /// Where an address's entry is. The lower bits of the address are mixed
    /// with a hash of everything else: so what the tag leaves out is told by the
    /// place.
    #[inline(always)]
    pub const fn index(space: u32, address: u64) -> u32 {
        let rest = tag(space, address).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        ((address ^ rest) & (ENTRIES as u64 - 1)) as u32
    }

    /// What the words of this address begin with.
    #[inline(always)]
    pub const fn tag(space: u32, address: u64) -> u64 {
        (address >> INDEX_BITS) << 32 | (space as u64) << NUMBER_BITS
    }

    /// The address space of a word.
    pub const fn space(word: u64) -> u32 {
        (word >> NUMBER_BITS) as u32 & (SPACES - 1)
    }

    /// The number in a word, if the word has this tag.
    #[inline(always)]
    pub const fn number(word: u64, tag: u64) -> Option<u32> {
        if word & !(NUMBERS as u64 - 1) == tag {
            Some((word & (NUMBERS as u64 - 1)) as u32)
        } else {
            None
        }
    }
}

/// Rules that every run has, and their numbers.
pub mod fixed {
    use crate::rule::Rule;

    /// [`Rule::NONE`].
    pub const NONE: u32 = 0;
    /// [`Rule::END`].
    pub const END: u32 = 1;
    /// [`Rule::SIGNAL`].
    pub const SIGNAL: u32 = 2;
    /// [`Rule::FRAME_POINTER`].
    pub const FRAME_POINTER: u32 = 3;
    /// [`Rule::UNSUPPORTED`].
    pub const UNSUPPORTED: u32 = 4;
    /// [`Rule::SCRIPT`].
    pub const SCRIPT: u32 = 5;

    /// The rules, in the order of their numbers.
    pub const RULES: [Rule; 6] = [
        Rule::NONE,
        Rule::END,
        Rule::SIGNAL,
        Rule::FRAME_POINTER,
        Rule::UNSUPPORTED,
        Rule::SCRIPT,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(keys: &[u64], key: u64) -> Option<u32> {
        search::<5>(10, keys.len() as u32, key, |index| {
            keys.get(index as usize - 10).copied()
        })
        .map(|index| index - 10)
    }

    #[test]
    fn the_last_element_not_above_the_key_is_found() {
        let keys: Vec<u64> = (0..31).map(|index| 100 + 10 * index).collect();
        for len in 0..=keys.len() {
            for key in 95..420 {
                let expected = keys[..len].iter().rposition(|k| *k <= key);
                assert_eq!(find(&keys[..len], key).map(|i| i as usize), expected);
            }
        }
    }

    #[test]
    fn an_address_space_is_valid_until_its_code_is_replaced() {
        let code = Code {
            space: 7,
            as_of: 40,
        };
        let valid = |count, space| {
            let replaced = Replaced {
                count,
                space,
                padding: 0,
            };
            code.valid(replaced, |number| number + 100)
        };
        assert_eq!(valid(40, 3), 7);
        assert_eq!(valid(41, 7), 107, "marked in this one");
        assert_eq!(valid(41, 3), 0, "marked in one that is gone");
        assert_eq!(valid(42, 7), 0, "the spare may know what is gone now");
        assert_eq!(valid(39, 7), 0);
    }

    #[test]
    fn an_element_that_cannot_be_read_is_not_guessed() {
        assert_eq!(search::<5>(0, 4, 7, |_| None), None);
    }

    #[test]
    fn a_row_keeps_offset_and_rule() {
        let row = Row::new(0xffff_fff0, 0x7_ffff);
        assert_eq!((row.offset(), row.rule()), (0xffff_fff0, 0x7_ffff));
        assert!(Row::new(1, 9) < Row::new(2, 0));
    }

    #[test]
    fn an_entry_belongs_to_one_address_of_one_space() {
        let address = 0x7f12_3456_789a;
        let tag = cached::tag(77, address);
        let entry = tag | 1234;
        assert_eq!(cached::number(entry, tag), Some(1234));
        assert_eq!(cached::space(entry), 77);
        for other in (0..47).map(|bit| address ^ 1 << bit) {
            let same_place = cached::index(77, other) == cached::index(77, address);
            let same_tag = cached::tag(77, other) == tag;
            assert!(!(same_place && same_tag), "{other:x}");
        }
        assert_eq!(cached::number(entry, cached::tag(78, address)), None);
        assert_eq!(cached::number(0, cached::tag(1, 0)), None);
        assert!(cached::index(8191, u64::MAX >> 17) < cached::ENTRIES);
    }
}
