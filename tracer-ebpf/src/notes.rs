//! What a walk goes by, word by word: what a [`memo`](crate::memo) is made of.
//!
//! Next to nothing here is decided by a branch: the verifier would follow the rest of a walk for
//! each way, and verifying walks is most of what a start of the tracer costs.

#![expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits here, and numbers of words are small"
)]

use crate::choice::is_not_zero;
use crate::volatile::{Volatile, opaque};

/// Words of the stack that a memo has at most: most stacks of 30 frames have fewer.
pub const WORDS: usize = 36;

/// Bits of a word's value; those above have where it is, in words from the stack pointer.
/// No address of user space, with four levels of page tables, has more.
pub const VALUE_BITS: u32 = 48;

/// A register that the walk began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Beginning {
    /// rbp.
    Bp = 1,
    /// rbx.
    Bx = 2,
}

/// What the walk that is being made has gone by until now.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Notes {
    /// The stack pointer that it began with.
    sp: Volatile,
    /// Which of rbp and rbx it went by as they were then, as [`Beginning`] has them.
    registers: Volatile,
    /// How many words there are, also beyond the room.
    count: Volatile,
    /// How many words from the stack pointer the farthest is.
    farthest: Volatile,
    /// Not 0 if the walk depends on something for which there is no room.
    beyond: Volatile,
    words: [u64; WORDS],
}

impl Notes {
    /// A walk begins with this stack pointer.
    #[inline(always)]
    pub fn begin(&mut self, sp: u64) {
        self.sp.set(sp);
        self.registers.set(0);
        self.count.set(0);
        self.farthest.set(0);
        self.beyond.set(0);
    }

    /// The walk depends on something else.
    #[inline(always)]
    pub fn give_up(&mut self) {
        self.beyond.set(1);
    }

    /// It does, if `is` is 1 and not 0.
    #[inline(always)]
    pub fn give_up_if(&mut self, is: u64) {
        self.beyond.set(self.beyond.get() | is);
    }

    /// It goes by this word of the stack.
    #[inline(always)]
    pub fn add_word(&mut self, address: u64, value: u64) {
        self.add_word_if(1, address, value);
    }

    /// It goes by this word, if `used` is 1 and not 0.
    #[inline(always)]
    pub fn add_word_if(&mut self, used: u64, address: u64, value: u64) {
        let place = address.wrapping_sub(self.sp.get()) >> 3;
        let mask = used.wrapping_neg();
        let beyond = place >> (64 - VALUE_BITS) | value >> VALUE_BITS;
        self.beyond.set(self.beyond.get() | beyond & mask);
        let count = self.count.get();
        self.words[within(count)] = place << VALUE_BITS | value;
        self.count.set(count + used);
        // The greater of both.
        let farthest = self.farthest.get();
        let is_less = (farthest.wrapping_sub(place) >> 63).wrapping_neg();
        self.farthest
            .set(farthest ^ ((farthest ^ place) & is_less & mask));
    }

    /// If `used` is 1, it goes by a register, which was read `at` that address, or is as it
    /// was at the beginning (0).
    #[inline(always)]
    pub fn add_register(&mut self, used: u64, register: Beginning, at: u64, value: u64) {
        let is_read = is_not_zero(at);
        let first = (register as u64) & (used & (is_read ^ 1)).wrapping_neg();
        self.registers.set(self.registers.get() | first);
        self.add_word_if(used & is_read, at, value);
    }

    /// Whether a memo can have all of it.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.beyond.get() == 0 && self.count.get() <= WORDS as u64
    }

    /// Which of rbp and rbx it went by; see [`Beginning`].
    #[inline(always)]
    pub fn registers(&self) -> u64 {
        self.registers.get()
    }

    /// How many words it went by.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// How many words from the stack pointer the farthest of them is.
    #[inline(always)]
    pub fn farthest(&self) -> u64 {
        self.farthest.get()
    }

    /// The words: values, and above how many words from the stack pointer.
    #[inline(always)]
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Has the words after the last be the first, so that whole strides can be compared.
    #[inline(always)]
    pub fn fill(&mut self, stride: u64) {
        let count = self.count.get();
        for next in 0..stride - 1 {
            let index = opaque((count + next) as usize);
            if index < WORDS {
                self.words[index] = self.words[0];
            }
        }
    }
}

/// The place of a word; the first one of those for which there is no room.
#[inline(always)]
fn within(index: u64) -> usize {
    let index = opaque(index as usize);
    if index < WORDS { index } else { 0 }
}

impl Default for Notes {
    /// Of no walk.
    fn default() -> Self {
        let zero = Volatile::default();
        Self {
            sp: zero,
            registers: zero,
            count: zero,
            farthest: zero,
            beyond: zero,
            words: [0; WORDS],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 0x7ffd_1000_0000;

    fn notes() -> Notes {
        let mut notes = Notes::default();
        notes.begin(STACK);
        notes
    }

    #[test]
    fn there_is_room_for_so_many_words_and_no_more() {
        let mut whole = notes();
        for word in 0..WORDS as u64 {
            whole.add_word(STACK + 8 * word, word);
        }
        assert!(whole.is_whole() && whole.farthest() == WORDS as u64 - 1);
        assert_eq!(whole.words()[3], 3 << VALUE_BITS | 3);
        whole.add_word(STACK, 1);
        assert!(!whole.is_whole());
        for word in 0..700 {
            whole.add_word(STACK + 8 * word, word);
        }
        assert!(!whole.is_whole());
    }

    #[test]
    fn what_cannot_be_written_down_is_not() {
        for (address, value) in [
            (STACK - 8, 1),
            (STACK + (8 << 16), 1),
            (STACK, 1 << VALUE_BITS),
        ] {
            let mut notes = notes();
            notes.add_word(address, value);
            assert!(!notes.is_whole(), "{address:x} {value:x}");
        }
    }

    #[test]
    fn a_register_counts_by_where_it_is_from() {
        let mut notes = notes();
        notes.add_register(0, Beginning::Bp, 0, 5);
        notes.add_register(0, Beginning::Bx, STACK - 8, 5);
        assert_eq!((notes.registers(), notes.count()), (0, 0));
        notes.add_register(1, Beginning::Bx, 0, 5);
        assert_eq!((notes.registers(), notes.count()), (2, 0));
        notes.add_register(1, Beginning::Bp, STACK + 16, 5);
        assert_eq!((notes.registers(), notes.count()), (2, 1));
        assert!(notes.is_whole());
        assert_eq!(notes.words()[0], 2 << VALUE_BITS | 5);
    }
}
