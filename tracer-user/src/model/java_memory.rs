//! What a Java virtual machine says of its native memory when it is asked: a
//! part of the report's schema.
//!
//! Times are seconds since the run began; sizes are bytes.

use serde::{Deserialize, Serialize};

/// What one JVM says of its native memory at the run's start and end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JavaMemory {
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// At the start.
    pub first: JvmAccount,
    /// At the end; `null` if it did not answer any more.
    pub last: Option<JvmAccount>,
}

/// What a JVM says of its native memory at one moment. What it does not tell
/// is `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JvmAccount {
    /// When.
    pub at: f64,
    /// Its native memory tracking, if that is on.
    pub tracking: Option<Tracking>,
    /// Why there is no tracking, in the JVM's words.
    pub untracked: Option<String>,
    /// Committed bytes of the metaspace.
    pub metaspace: Option<u64>,
    /// Used bytes of the code cache, in whole KiB for each of its segments.
    pub code_cache: Option<u64>,
    /// Loaded classes.
    pub classes: Option<u64>,
    /// Live Java threads.
    pub threads: Option<u64>,
}

/// Native memory tracking at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// Sizes are multiples of this many bytes: 1 if they are exact.
    pub unit: u64,
    /// All categories together.
    pub total: NativeMemory,
    /// Each category, in the JVM's order.
    pub categories: Vec<MemoryCategory>,
}

/// One category of a JVM's native memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCategory {
    /// The JVM's name for it.
    pub name: String,
    /// Its memory.
    pub memory: NativeMemory,
}

/// Native memory as the JVM counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeMemory {
    /// Bytes of address space.
    pub reserved: u64,
    /// Bytes that it may use.
    pub committed: u64,
    /// Bytes from malloc among these, without the JVM's headers.
    pub malloc_bytes: u64,
    /// Blocks from malloc.
    pub malloc_count: u64,
}
