//! What is remembered of a walk, so that the next one from the same place need not be
//! made.
//!
//! The stack that a walk finds, and so its site, is a function of
//!
//! - what the walk begins with: the process image, its group, the thread if call paths
//!   are told apart by thread, the instruction and the stack pointer;
//! - rbp and rbx, if a frame counts from one before the walk has restored it;
//! - the words of the stack that led from one frame to the next: each return address, and
//!   each saved register (or realigned frame) that a later frame counts from;
//! - what is known of the code at those addresses: unwind tables and ranges.
//!
//! A memo has all of these, word by word, and the site. The last are in it as an epoch:
//! the number of times that anything of that kind had changed before the walk began
//! (`epoch` in `maps.rs` of the BPF program). When all are equal again the walk would go
//! from frame to frame as it did, by induction: the same address in the same tables has
//! the same rule, that counts from the same registers, and so reads the same words. Words
//! that no rule has asked for cannot change where it goes. A saved register that is
//! restored and never counted from is such a word: it may be different each time.
//!
//! Of a walk that depends on anything else nothing is remembered: one through a
//! signal's frame, from one stack to another, through code of a virtual machine or without
//! a file, by code that the kernel was asked for, past a return probe, or to any other end
//! than a thread's start.

#![expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits here, and numbers of words are small"
)]

use crate::limits::WINDOW_BYTES;
use crate::notes::{Beginning, Notes, VALUE_BITS, WORDS};
use crate::step::Registers;
use crate::volatile::{Volatile, opaque};

/// Words that are compared at once.
pub const STRIDE: u64 = 4;

/// Memos of a thread.
pub const MEMOS: u32 = 32;

/// Threads that have any, at most: 3 MiB. Others walk each time.
pub const MEMO_THREADS: u32 = 256;

/// Notes that are taken and not read: of walks that nothing is remembered of. By processor,
/// so that few write to the same.
pub const UNREAD: u32 = 64;

/// What a comparison of a word has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// It is the same.
    Same,
    /// It is another one.
    Differs,
    /// It lies where the stack was not read.
    Elsewhere,
    /// There is no such word: all were compared.
    All,
}

/// Whose walk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walker {
    /// The process image.
    pub image: u64,
    /// The image's group.
    pub group: u64,
    /// The thread; 0 unless call paths are told apart by thread.
    pub thread: u64,
}

/// A walk and its site. Only one thread reads or writes it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Memo {
    ip: Volatile,
    sp: Volatile,
    bp: Volatile,
    bx: Volatile,
    image: Volatile,
    group: Volatile,
    thread: Volatile,
    /// As of when it is true; 0 if there is none.
    epoch: Volatile,
    site: Volatile,
    /// Which of rbp and rbx have to be the same.
    registers: Volatile,
    /// How many words there are.
    count: Volatile,
    /// How many words from the stack pointer the farthest is.
    farthest: Volatile,
    /// The words: values, and above how many words from the stack pointer.
    words: [u64; WORDS],
}

/// Which memo of a thread is for a walk from here; `back` is the word on top of the
/// stack.
#[inline(always)]
pub const fn place(sp: u64, back: u64) -> u32 {
    let mixed = (sp ^ back.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 59) as u32 & (MEMOS - 1)
}

impl Memo {
    /// Forgets what is there: a walk begins.
    #[inline(always)]
    pub fn begin(&mut self, walker: Walker, at: Registers) {
        self.epoch.set(0);
        self.ip.set(at.ip);
        self.sp.set(at.sp);
        self.bp.set(at.bp);
        self.bx.set(at.bx);
        self.image.set(walker.image);
        self.group.set(walker.group);
        self.thread.set(walker.thread);
    }

    /// The walk, which began at this epoch and went by these words, has led to a site. The
    /// words themselves are copied to [`Self::words_mut`].
    #[inline(always)]
    pub fn finish(&mut self, notes: &Notes, epoch: u64, site: u32) {
        self.registers.set(notes.registers());
        self.count.set(notes.count());
        self.farthest.set(notes.farthest());
        self.site.set(u64::from(site));
        self.epoch.set(epoch);
    }

    /// Where the words belong, [`STRIDE`] at a time.
    #[inline(always)]
    pub const fn words_mut(&mut self) -> &mut [u64; WORDS] {
        &mut self.words
    }

    /// Whether it is of a walk that begins with the same; `epoch` is that of now.
    #[inline(always)]
    pub fn is_of(&self, walker: Walker, at: Registers, epoch: u64) -> bool {
        let used = self.registers.get();
        let other = (self.ip.get() ^ at.ip)
            | (self.sp.get() ^ at.sp)
            | (self.image.get() ^ walker.image)
            | (self.group.get() ^ walker.group)
            | (self.thread.get() ^ walker.thread)
            | (self.epoch.get() ^ epoch)
            | ((self.bp.get() ^ at.bp) & (used & Beginning::Bp as u64).wrapping_neg())
            | ((self.bx.get() ^ at.bx) & (used / Beginning::Bx as u64).wrapping_neg());
        other == 0
    }

    /// How many bytes of the stack it goes by.
    #[inline(always)]
    pub fn reach(&self) -> u64 {
        8 * (self.farthest.get() + 1)
    }

    /// Whether the words are the same in what was read from the stack pointer on, which
    /// has all of them.
    #[inline(always)]
    pub fn is_same(&self, window: &[u64; WINDOW_BYTES / 8]) -> bool {
        // Read anew each time: the verifier would follow what it knows of the number.
        let (strides, _) = self.words.as_chunks::<{ STRIDE as usize }>();
        let (mut other, mut compared) = (0, 0);
        for stride in strides {
            if compared >= self.count.get() {
                break;
            }
            for word in stride {
                let at = opaque((word >> VALUE_BITS) as usize) & (WINDOW_BYTES / 8 - 1);
                other |= window[at] ^ (word & ((1 << VALUE_BITS) - 1));
            }
            compared += STRIDE;
        }
        other == 0
    }

    /// Compares word number `index` with what was read of the stack: `length` bytes
    /// from `start` on.
    #[inline(always)]
    pub fn compare(
        &self,
        index: u64,
        (start, length): (u64, u64),
        window: &[u64; WINDOW_BYTES / 8],
    ) -> Compared {
        let bounded = opaque(index as usize);
        if index >= self.count.get() || bounded >= WORDS {
            return Compared::All;
        }
        let word = self.words[bounded];
        let first = start.wrapping_sub(self.sp.get()) >> 3;
        let at = (word >> VALUE_BITS).wrapping_sub(first);
        if at >= length >> 3 {
            return Compared::Elsewhere;
        }
        let is = window[opaque(at as usize) & (WINDOW_BYTES / 8 - 1)];
        match is == word & ((1 << VALUE_BITS) - 1) {
            true => Compared::Same,
            false => Compared::Differs,
        }
    }

    /// How many words there are.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// The address of word number `index`.
    #[inline(always)]
    pub fn address(&self, index: u64) -> u64 {
        let index = opaque(index as usize);
        if index >= WORDS {
            return 0;
        }
        self.sp
            .get()
            .wrapping_add(self.words[index] >> VALUE_BITS << 3)
    }

    /// The site that the walk led to.
    #[inline(always)]
    pub fn site(&self) -> u32 {
        self.site.get() as u32
    }
}

impl Default for Memo {
    /// Nothing is remembered.
    fn default() -> Self {
        let zero = Volatile::default();
        Self {
            ip: zero,
            sp: zero,
            bp: zero,
            bx: zero,
            image: zero,
            group: zero,
            thread: zero,
            epoch: zero,
            site: zero,
            registers: zero,
            count: zero,
            farthest: zero,
            words: [0; WORDS],
        }
    }
}

const _: () = assert!(
    size_of::<Memo>() == 384 && WORDS.is_multiple_of(STRIDE as usize),
    "a number of whole cache lines, and of whole strides"
);

#[cfg(test)]
mod tests;
