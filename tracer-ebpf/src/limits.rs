//! Fixed limits, with the reason for each.

/// Frames of one stack: what `perf` and every viewer cope with, and the most
/// that fits with its length into 1 KiB.
pub const MAX_FRAMES: usize = 127;

/// Bytes of target stack read at once: 80 ns a read whatever its size up to
/// a few KiB, so one read serves many frames.
pub const WINDOW_BYTES: usize = 2048;

/// Buckets of a lifetime histogram: powers of two from 1 us to 6 days.
pub const LIFETIME_BUCKETS: usize = 40;

/// Thread records, made when a thread first allocates.
pub const MAX_THREADS: u32 = 32_768;

/// Traced processes, including followed children.
pub const MAX_PROCESSES: u32 = 16_384;

/// Images that have reserved addresses for memory that they make later.
pub const MAX_RESERVERS: u32 = 4096;

/// Bytes of the ring buffer for mapping and lifecycle events.
pub const EVENT_RING_BYTES: u32 = 1 << 20;

/// Bytes of the ring buffer for what USDT probes tell: some 5,000 hits.
pub const PROBE_RING_BYTES: u32 = 1 << 21;

/// Bytes of the ring buffer for what JVMs tell of compiled code: some 3,000
/// methods, of which a JVM that starts compiles as many in a second.
pub const CODE_RING_BYTES: u32 = 1 << 20;

/// First address past user space on x86-64 with 4-level page tables.
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;

/// Ranges of executable memory in all address spaces together.
pub const MAX_RANGES: u32 = 1 << 16;

/// Address spaces whose ranges are known.
pub const MAX_SPACES: u32 = crate::table::cached::SPACES;

/// Files with mapped code. Their numbers are above 0.
pub const MAX_FILES: u32 = 4096;

/// Different unwind rules. Large libraries have some thousands, most of them
/// the same ones.
pub const MAX_RULES: u32 = 1 << 16;

/// log2 of the most rows of one table.
pub const ROW_ROUNDS: u32 = 24;

/// log2 of the most ranges of one address space.
pub const RANGE_ROUNDS: u32 = 12;

/// The most ranges of one address space. (Neighbouring pages of a just-in-time
/// compiler are one.)
pub const MAX_RANGES_OF_ONE: u32 = (1 << RANGE_ROUNDS) - 1;

/// Return probes nest no deeper than this: the kernel's own limit.
pub const MAX_RETURN_PROBES: u32 = 64;
