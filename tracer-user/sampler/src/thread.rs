//! What a thread has of its own: how many bytes are left until its next sample, and its
//! random numbers.
//!
//! It lies in the memory that each thread has from its start ("initial exec"), so to
//! reach it is two loads, and nothing has to be made or given back.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{config, math, system};

global_asm!(
    ".pushsection .tbss.unfreed_sampler, \"awT\", @nobits",
    ".p2align 4",
    ".type unfreed_sampler_thread, @object",
    "unfreed_sampler_thread: .zero 32",
    ".size unfreed_sampler_thread, 32",
    ".popsection",
);

/// All zero in a thread that has not allocated yet.
#[repr(C)]
pub struct Thread {
    /// Bytes until the next sample; that is the block that brings it to 0 or below.
    left: i64,
    /// The state of its random numbers.
    random: u64,
    /// The process that it was in when they began; 0 before that.
    process: usize,
    /// Whether it is looking for the functions that we stand before.
    pub is_resolving: usize,
}

const _: () = assert!(size_of::<Thread>() == 32, "what is set aside above");

/// How many threads have begun.
static THREADS: AtomicU64 = AtomicU64::new(0);

/// The current thread's.
#[inline(always)]
pub fn current() -> *mut Thread {
    let thread;
    // SAFETY: two loads of the thread's own address and of where its part is.
    unsafe {
        asm!(
            "mov {thread}, qword ptr fs:[0]",
            "add {thread}, qword ptr [rip + unfreed_sampler_thread@GOTTPOFF]",
            thread = out(reg) thread,
            options(pure, readonly, nostack),
        );
    }
    thread
}

/// Takes a block's bytes from what is left. Whether the choice falls on it: then the
/// caller goes on with [`choose`].
#[inline(always)]
pub fn take(size: usize) -> bool {
    // One of no bytes counts as one of a byte.
    let size = size + usize::from(size == 0);
    let left: i64;
    // SAFETY: the thread's own first word; see above.
    unsafe {
        asm!(
            "mov {left}, qword ptr [rip + unfreed_sampler_thread@GOTTPOFF]",
            "sub qword ptr fs:[{left}], {size}",
            "mov {left}, qword ptr fs:[{left}]",
            left = out(reg) left,
            size = in(reg) size,
            options(nostack),
        );
    }
    left <= 0
}

/// What a block stands for that the choice fell on, bytes; 0 if it has not after all,
/// since this is the thread's first.
///
/// Bytes until the next sample are drawn anew after each, with a mean of R: -R ln u of a
/// random u, rounded up. So a block of S bytes is chosen with 1 - e^(-S/R), whatever came
/// before it, and a chosen one stands for S/p.
pub fn choose(size: usize) -> usize {
    let size = size.max(1);
    // SAFETY: the current thread's own.
    let thread = unsafe { &mut *current() };
    let process = system::process();
    if thread.process != process {
        let is_first = thread.process == 0;
        thread.begin(process);
        // A copy by fork has its parent's count: it is as good as another.
        if is_first {
            thread.left = thread.skip().saturating_sub(bytes(size));
            if thread.left > 0 {
                return 0;
            }
        }
    }
    thread.left = thread.skip();
    let p = math::one_less_exp(size as f64 / config::interval());
    // Rounded by chance: the mean is right.
    let weighted = size as f64 / p + thread.uniform();
    (weighted as usize).max(size)
}

fn bytes(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Thread {
    fn begin(&mut self, process: usize) {
        let ordinal = THREADS.fetch_add(1, Ordering::Relaxed);
        self.random = match config::seed() {
            0 => system::random(),
            seed => seed.wrapping_add(ordinal.wrapping_mul(0xd134_2543_de82_ef95)),
        };
        self.process = process;
    }

    /// Splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    /// generators", 2014).
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// At least 0, and below 1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Bytes until the next sample.
    fn skip(&mut self) -> i64 {
        let skip = -math::ln(1.0 - self.uniform()) * config::interval();
        skip as i64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 100,000 blocks as many are chosen as there should be, and they stand for all.
    /// The seed is fixed: this never fails by chance.
    #[test]
    fn the_choice_is_made_with_the_stated_probability() {
        for size in [1_usize, 1009, 100_003, 700_001] {
            let mut thread = Thread {
                left: 0,
                random: 7,
                process: 1,
                is_resolving: 0,
            };
            thread.left = thread.skip();
            let p = math::one_less_exp(size as f64 / config::interval());
            let blocks = 100_000.0_f64.max(30.0 / p);
            let mut chosen = 0.0;
            for _ in 0..blocks as usize {
                thread.left -= bytes(size);
                if thread.left <= 0 {
                    chosen += 1.0;
                    thread.left = thread.skip();
                }
            }
            let error = (blocks * p * (1.0 - p)).sqrt();
            assert!(
                (chosen - blocks * p).abs() < 4.0 * error,
                "{size}: {chosen} of {blocks}"
            );
        }
    }
}
