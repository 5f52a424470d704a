//! What is at an address of a code cache, and how to go up from it.

use crate::rule::Rule;

/// Frames have fewer words than this: 32 KiB.
pub(super) const MAX_WORDS: u32 = (1 << Code::WORDS_BITS) - 1;

/// What is at an address of a code cache, in a word.
///
/// ```text
///  63    53 52            32 31           29 28            16 15           0
/// +--------+----------------+-------------+-+----------------+--------------+
/// |        | original pc at | deoptimised | | compile id, 13 | frame words  |
/// +--------+----------------+-------------+-+----------------+--------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Code(pub u64);

impl Code {
    /// The stub that calls Java code, after its call.
    pub const CALL_STUB: Self = Self(MAX_WORDS as u64);

    const WORDS_BITS: u32 = 12;
    const DEOPTIMISED: u64 = 1 << 31;
    const ID_SHIFT: u32 = 16;
    const ORIGINAL_SHIFT: u32 = 32;
    pub(super) const ORIGINAL_BITS: u32 = 20;

    /// The code of a blob whose frames have so many words.
    #[inline(always)]
    pub const fn of_blob(words: u64, id: u64) -> Self {
        Self(words & MAX_WORDS as u64 | (id & (crate::frame::IDS - 1)) << Self::ID_SHIFT)
    }

    /// Words of the frame, with the return address.
    #[inline(always)]
    pub const fn words(self) -> u64 {
        self.0 & MAX_WORDS as u64
    }

    /// The compile id of the method, modulo [`crate::frame::IDS`].
    #[inline(always)]
    pub const fn id(self) -> u64 {
        self.0 >> Self::ID_SHIFT & (crate::frame::IDS - 1)
    }

    /// Bytes above the stack pointer where the return address is that a
    /// deoptimisation replaced, if one did.
    #[inline(always)]
    pub const fn original(self) -> Option<u64> {
        if self.0 & Self::DEOPTIMISED == 0 {
            return None;
        }
        Some(self.0 >> Self::ORIGINAL_SHIFT)
    }

    #[inline(always)]
    pub(super) const fn deoptimised(self, original: u64) -> Self {
        Self(self.0 | Self::DEOPTIMISED | original << Self::ORIGINAL_SHIFT)
    }

    /// How to go up from it. Blobs without a frame size are stubs, which keep
    /// frame pointers if they have a frame at all.
    #[inline(always)]
    pub const fn rule(self) -> Rule {
        match self.words() {
            0 => Rule::FRAME_POINTER,
            words if words == MAX_WORDS as u64 => Rule::CALL_STUB,
            words => Rule::java(words),
        }
    }
}
