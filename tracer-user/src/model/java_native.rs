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
    /// Class loaders and hidden classes of which there are more at the end than at the start, most
    /// first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown_loaders: Vec<GrownLoaders>,
}

/// Class loaders of one class, or hidden classes of one name, of which there are more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrownLoaders {
    /// What they are.
    pub kind: LoaderKind,
    /// The loaders' class, or the classes' name without what differs from one to the next.
    pub class: String,
    /// How many there were at the start.
    pub before: u64,
    /// How many there are at the end.
    pub after: u64,
    /// Who holds them (`--holders`): of those that came during the run, some that are as far apart
    /// as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<super::Holders>,
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
    /// Class loaders, and hidden classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_loaders: Option<ClassLoaders>,
    /// Why they cannot be told, if they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_loaders_problem: Option<String>,
    /// The stacks of all threads.
    pub stacks: Option<ThreadStacks>,
    /// Why they cannot be told, if they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks_problem: Option<String>,
}

/// Class loaders whose classes are loaded. They go with a collection of the old generation, once
/// nothing holds them; until then they count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassLoaders {
    /// All of them, but for the VM's own first one; and hidden classes that go by themselves.
    pub count: u64,
    /// By class, most first: at most 1,000 rows.
    pub by_class: Vec<LoaderCount>,
}

/// How many there are of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderCount {
    /// What they are.
    pub kind: LoaderKind,
    /// The loaders' class, or the classes' name without what differs from one to the next.
    pub class: String,
    /// How many.
    pub count: u64,
}

/// What goes with all that it has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoaderKind {
    /// A class loader.
    ClassLoader,
    /// A class that no loader keeps, as of lambdas (`defineHiddenClass`, `defineAnonymousClass`).
    HiddenClass,
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
