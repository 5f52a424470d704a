//! What is followed at the moment, where a budget changes that during the run
//! (`--overhead`).
//!
//! In a *burst* all allocations are followed for a short time, and frees for some time
//! more (Hirzel and Chilimbi, "Bursty Tracing", 2001, have the name). What user space
//! must know of each death of a block that a burst could not see by chance alone is told
//! one by one: see [`Death`].

/// Which allocations are followed. A word, since user space changes it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Choice {
    /// None, and no frees either.
    Pause = 0,
    /// All of them.
    All = 1,
    /// Those that a sample has by chance; see [`crate::sample`].
    Sample = 2,
    /// None: frees alone are.
    Frees = 3,
}

/// What is followed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Phase {
    /// A [`Choice`].
    pub choice: u64,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`: the burst, or the time in which
    /// everything is seen.
    pub began: u64,
    /// Up to this age, nanoseconds, each death of a block is seen that began in this
    /// phase.
    pub followed: u64,
    /// 1 if page faults are followed, 0 if they are passed over.
    pub faults: u64,
}

impl Phase {
    /// Nothing is followed.
    pub const NONE: Self = Self {
        choice: Choice::Pause as u64,
        began: 0,
        followed: 0,
        faults: 0,
    };

    /// Whether the death of a block is to be told: it was allocated in an earlier phase,
    /// or is older than all blocks of this one are followed.
    #[inline(always)]
    pub const fn tells(&self, born: u64, died: u64) -> bool {
        born < self.began || died.saturating_sub(born) > self.followed
    }
}

/// A block has died that was allocated in an earlier phase, or lived long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Death {
    /// Index of its site.
    pub site: u32,
    /// 1 if its address was handed out again: it was freed some time before, unseen.
    pub unseen: u32,
    /// Bytes.
    pub size: u64,
    /// When it was allocated, nanoseconds of `CLOCK_MONOTONIC`.
    pub born: u64,
    /// When it was freed, or seen to have been.
    pub died: u64,
    /// 1 if it stands for itself, 0 if it was chosen for a sample.
    pub certain: u64,
}

/// Room for deaths that user space has not read yet, bytes.
pub const DEATH_RING_BYTES: u32 = 1 << 18;

// SAFETY: repr(C), u64 alone, any bit pattern is valid.
unsafe impl crate::Record for Phase {}
// SAFETY: repr(C), fields fill all 40 bytes, any bit pattern is valid.
unsafe impl crate::Record for Death {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_told_of_old_blocks_and_of_those_of_earlier_phases() {
        let phase = Phase {
            choice: Choice::All as u64,
            began: 1000,
            followed: 50,
            faults: 0,
        };
        assert!(!phase.tells(1000, 1050));
        assert!(phase.tells(1000, 1051));
        assert!(phase.tells(999, 1001));
        let full = Phase {
            followed: u64::MAX,
            ..phase
        };
        assert!(!full.tells(1000, u64::MAX));
        assert!(full.tells(999, 1000));
    }
}
