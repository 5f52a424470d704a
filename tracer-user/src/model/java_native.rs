//! Native memory of a Java virtual machine as its own memory tells it, without
//! a question to it: a part of the report's schema.

use serde::{Deserialize, Serialize};

/// One virtual machine, at the run's start and end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JavaNative {
    /// Index into [`super::Report::processes`].
    pub process: usize,
    /// When it was first seen.
    pub first: NativeView,
    /// At the end of the run; `null` if it had ended before.
    pub last: Option<NativeView>,
}

/// One virtual machine at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NativeView {
    /// When, seconds since the run began.
    pub at: f64,
    /// Buffers outside of the Java heap, as the JDK counts them.
    pub buffers: Option<Buffers>,
    /// Why they cannot be told, if they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffers_problem: Option<String>,
    /// The stacks of all threads.
    pub stacks: Option<ThreadStacks>,
    /// Why they cannot be told, if they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks_problem: Option<String>,
}

/// Buffers (`java.nio`), as `BufferPoolMXBean` has them. What libraries take by
/// `Unsafe` without counting it there is not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffers {
    /// Direct buffers.
    pub direct: BufferPool,
    /// Files that are mapped.
    pub mapped: BufferPool,
}

/// Buffers of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferPool {
    /// Buffers.
    pub count: u64,
    /// Bytes in them.
    pub capacity: u64,
    /// Bytes that they take.
    pub used: u64,
    /// Bytes that they may take at most (`-XX:MaxDirectMemorySize`), if that
    /// is bounded and known.
    pub limit: Option<u64>,
}

/// Stacks of a process's threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStacks {
    /// Threads that can run Java code, the machine's compilers among them.
    pub java: StackMemory,
    /// Other threads of the machine: its collector's, for example. If it does
    /// not tell of them they are among the others.
    pub vm: StackMemory,
    /// Threads that are not the machine's: the mappings that their stack
    /// pointers are in.
    pub other: StackMemory,
    /// Threads whose stack was not found.
    pub unknown: u64,
}

/// Stacks of some threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackMemory {
    /// Threads.
    pub threads: u64,
    /// Bytes of address space.
    pub reserved: u64,
    /// Bytes of these that are in memory.
    pub resident: u64,
}
