//! What the tracer has written into the library before it handed it to the program.

use core::sync::atomic::{AtomicU64, Ordering};

/// How the tracer finds the place in the file.
const MAGIC: [u64; 2] = [0x6e75_6672_6565_6421, 0x7361_6d70_6c65_7221];

/// The settings.
#[repr(C)]
struct Config {
    magic: [u64; 2],
    interval: AtomicU64,
    seed: AtomicU64,
}

#[used]
#[unsafe(link_section = ".data")]
static CONFIG: Config = Config {
    magic: MAGIC,
    interval: AtomicU64::new(512 << 10),
    seed: AtomicU64::new(0),
};

/// The mean number of bytes between two samples.
pub fn interval() -> f64 {
    CONFIG.interval.load(Ordering::Relaxed) as f64
}

/// What random numbers begin with, if they are to be the same each time; 0 if not.
pub fn seed() -> u64 {
    CONFIG.seed.load(Ordering::Relaxed)
}

/// For the linker, which would leave out what nobody reads.
pub fn is_there() -> bool {
    CONFIG.magic == MAGIC
}
