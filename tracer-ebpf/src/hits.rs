//! Hits of probes: counted by what they cost the kernel, each of them, and some of
//! them timed, so that user space can tell what tracing costs a target.
//!
//! What the kernel's traps cost is the same for all hits of a kind, and calibrated. How
//! long our programs run is not: it depends on the stack. So each thread times a hit of
//! a kind now and then, at random distances, and the mean of those is that of all.

/// What a hit is to the kernel, and which program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// The entry of an allocating function, at an instruction that the kernel emulates.
    Entry = 0,
    /// The same at one that it single-steps.
    SteppedEntry = 1,
    /// The entry of a freeing function, at an instruction that the kernel emulates.
    Free = 2,
    /// The same at one that it single-steps.
    SteppedFree = 3,
    /// A return probe.
    Return = 4,
    /// A return instruction, which is single-stepped.
    End = 5,
    /// A jump that ends a call, which is emulated.
    JumpEnd = 6,
    /// A page was not in memory when it was touched. There is no trap but the target's
    /// own.
    Fault = 7,
}

/// Counters of a thread: one for each kind, and the rest unused.
pub const KINDS: usize = 8;

impl Kind {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Entry,
        Self::SteppedEntry,
        Self::Free,
        Self::SteppedFree,
        Self::Return,
        Self::End,
        Self::JumpEnd,
        Self::Fault,
    ];

    /// Whether it is at the end of a call.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Return | Self::End | Self::JumpEnd)
    }

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::SteppedEntry => "stepped_entry",
            Self::Free => "free",
            Self::SteppedFree => "stepped_free",
            Self::Return => "return_probe",
            Self::End => "return_instruction",
            Self::JumpEnd => "ending_jump",
            Self::Fault => "page_fault",
        }
    }
}

/// Hits of a kind in one thread. Only the thread itself touches it. All zero is a
/// counter that has counted nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Hits until the next one is timed; none or less if it is due.
    left: u32,
    /// What `left` was when hits were last added to all threads' sum.
    period: u32,
}

/// Hits between two that are timed: from this on, and less than three times as many.
const SHORTEST_PERIOD: u32 = 32;

impl Counter {
    /// Counts a hit. Whether it is to be timed, or this is the thread's first.
    #[inline(always)]
    pub const fn hit(&mut self) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left.wrapping_sub(1) >= u32::MAX >> 1
    }

    /// Whether no period was chosen yet.
    #[inline(always)]
    pub const fn is_new(&self) -> bool {
        self.period == 0
    }

    /// Hits that are not in the sum of all threads.
    #[inline(always)]
    pub const fn pending(&self) -> u32 {
        self.period.wrapping_sub(self.left)
    }

    /// Begins the first period, of which a random part is over: else the first timed
    /// hits of short threads would all be early ones. `every` is as for
    /// [`Counter::renew`].
    #[inline(always)]
    pub const fn start(&mut self, every: u32, random: u32) {
        let left = match every {
            0 => random % (2 * SHORTEST_PERIOD) + 1,
            every => every,
        };
        let pending = self.pending();
        self.left = left;
        self.period = left.wrapping_add(pending);
    }

    /// Begins another period: what was pending is in the sum. The hit after `every`
    /// hits is timed, or, if that is 0, one at random.
    #[inline(always)]
    pub const fn renew(&mut self, every: u32, random: u32) {
        self.left = match every {
            0 => SHORTEST_PERIOD + random % (2 * SHORTEST_PERIOD),
            every => every,
        };
        self.period = self.left;
    }
}

/// The hit that a thread is timing, if any.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Timing {
    /// When its program began, nanoseconds of `CLOCK_MONOTONIC`; 0 if none is timed.
    pub began: u64,
    /// Its [`Kind`].
    pub kind: u64,
}

/// All hits of a kind, but those that are pending in threads' [`Counter`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cost {
    /// How many there were.
    pub hits: u64,
    /// How many of them were timed.
    pub timed: u64,
    /// Time of our programs in those, nanoseconds.
    pub nanoseconds: u64,
    /// The sum of their squares.
    pub squares: u64,
    /// How many were timed and took longer than `limit`.
    pub interrupted: u64,
    /// The longest time that is believed, nanoseconds: what takes longer was preempted.
    /// 0 for any. Written by user space.
    pub limit: u64,
    /// After how many hits one is timed; 0 for random periods. Written by user space.
    pub every: u64,
}

// SAFETY: repr(C), u64 alone, any bit pattern is valid.
unsafe impl crate::Record for Cost {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread with a counter, and the sum that it hands its hits to.
    fn run(hits: u32, every: u32, mut random: impl FnMut() -> u32) -> (u64, Vec<u32>) {
        let (mut counter, mut sum, mut timed) = (Counter::default(), 0, Vec::new());
        for hit in 0..hits {
            if counter.hit() {
                if counter.is_new() {
                    counter.start(every, random());
                } else {
                    sum += u64::from(counter.pending());
                    counter.renew(every, random());
                    timed.push(hit);
                }
            }
            assert_eq!(sum + u64::from(counter.pending()), u64::from(hit) + 1);
        }
        (sum + u64::from(counter.pending()), timed)
    }

    #[test]
    fn every_hit_is_counted_and_one_in_64_is_timed() {
        let mut state = 1u32;
        let (counted, timed) = run(1_000_000, 0, || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        });
        assert_eq!(counted, 1_000_000);
        assert!((15_000..17_000).contains(&timed.len()), "{}", timed.len());
        // Programs that repeat themselves every so many calls are met at each.
        for period in [2, 3, 16, 64, 100] {
            let mut met = vec![0u32; period as usize];
            timed
                .iter()
                .for_each(|hit| met[(hit % period) as usize] += 1);
            let expected = timed.len() as f64 / f64::from(period);
            for times in met {
                let away = (f64::from(times) - expected).abs();
                assert!(away < 6.0 * expected.sqrt(), "{period} {times} {expected}");
            }
        }
    }

    #[test]
    fn all_but_the_first_can_be_timed() {
        let (counted, timed) = run(100, 1, || 0);
        assert_eq!((counted, timed.len()), (100, 99));
    }

    #[test]
    fn numbers_of_kinds_are_their_places() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        const { assert!(Kind::ALL.len() <= KINDS) };
    }
}
