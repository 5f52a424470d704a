//! What a Java virtual machine told of itself by its own probes: a part of the
//! report's schema.
//!
//! Times are seconds since the run began, sizes are bytes, and counts are of
//! what happened during the run.

use serde::{Deserialize, Serialize};

/// One virtual machine of the HotSpot kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Jvm {
    /// Index into [`super::Report::processes`].
    pub process: usize,
    /// Since when its probes are watched. What a machine did before that is in
    /// no number here.
    pub began: f64,
    /// How often its probes were hit.
    pub probe_hits: u64,
    /// Hits whose arguments could not be read, and that are in no other number.
    pub unreadable: u64,
    /// Probes that this build of the machine does not have.
    pub missing_probes: Vec<String>,
    /// Why its probes are not watched, if they are not.
    pub problem: Option<String>,
    /// Why its native code's global handles are not counted, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_problem: Option<String>,
    /// Why the threads that it starts are not counted by call path, if they are
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_problem: Option<String>,
    /// Why it gave no perf map, if it was asked for one (`--jvm-attach`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perf_map_problem: Option<String>,
    /// Garbage collections.
    pub collections: Collections,
    /// Memory pools that were told of after a collection.
    pub pools: Vec<MemoryPool>,
    /// Classes.
    pub classes: Classes,
    /// Java threads.
    pub threads: Threads,
    /// Compiled methods.
    pub compiled: Compiled,
}

/// Garbage collections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collections {
    /// All that ended.
    pub count: u64,
    /// Those of the whole heap in one pause.
    pub full: u64,
    /// Pauses; a collector that works beside the program has several for one
    /// collection, or none.
    pub pauses: u64,
    /// Pauses for the whole heap.
    pub full_pauses: u64,
    /// Each collector.
    pub collectors: Vec<Collector>,
    /// The last 4,096 collections.
    pub recent: Vec<Collection>,
}

/// A collector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collector {
    /// The name that its management bean has.
    pub name: String,
    /// Collections that it ended.
    pub count: u64,
}

/// One collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// When it began; `null` if that was before the run.
    pub began: Option<f64>,
    /// When it ended.
    pub ended: f64,
    /// Whether the whole heap was collected in one pause.
    pub full: bool,
}

/// A memory pool over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryPool {
    /// Its name.
    pub name: String,
    /// Whether it is where objects that survive end up.
    pub old: bool,
    /// The least that was in use after collections in the first third of
    /// `points`; `null` with fewer than three.
    pub first_floor: Option<u64>,
    /// The same for the last third. Objects that are never freed raise it.
    pub last_floor: Option<u64>,
    /// What it was after collections, oldest first; at most 512, where there
    /// were more the lowest of some neighbours.
    pub points: Vec<PoolPoint>,
}

/// A pool after a collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolPoint {
    /// When.
    pub at: f64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that the machine has for it.
    pub committed: u64,
    /// Bytes that it may have, if that is bounded.
    pub max: Option<u64>,
}

/// Classes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// Classes loaded.
    pub loaded: u64,
    /// Classes unloaded.
    pub unloaded: u64,
    /// Classes initialised.
    pub initialised: u64,
    /// Times that a class could not be initialised.
    pub failed: u64,
    /// Classes by name, those that differ in a number only as one (`*`); the
    /// 100 that grew most.
    pub groups: Vec<ClassGroup>,
    /// Class loaders that loaded or unloaded something.
    pub loader_count: u64,
    /// Class loaders; the 100 that grew most.
    pub loaders: Vec<Loader>,
    /// Classes that could not be initialised; the 100 most frequent.
    pub failures: Vec<ClassFailure>,
}

/// Classes of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassGroup {
    /// The name.
    pub name: String,
    /// Loaded.
    pub loaded: u64,
    /// Unloaded.
    pub unloaded: u64,
}

/// A class loader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loader {
    /// The address of the machine's data about it. It may be used again once a
    /// loader is gone.
    pub data: u64,
    /// Classes loaded.
    pub loaded: u64,
    /// Classes unloaded.
    pub unloaded: u64,
}

/// A class that could not be initialised.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassFailure {
    /// The class.
    pub class: String,
    /// How often it was tried.
    pub count: u64,
    /// When it was tried last.
    pub last: f64,
}

/// Java threads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Threads {
    /// Threads that began.
    pub started: u64,
    /// Threads that ended, whenever they began.
    pub stopped: u64,
    /// Threads that began and have not ended.
    pub live: u64,
    /// The 100 oldest of these.
    pub oldest: Vec<LiveThread>,
}

/// A thread that began during the run and has not ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveThread {
    /// Its name when it began.
    pub name: String,
    /// The kernel's id of it.
    pub id: u32,
    /// When it began.
    pub began: f64,
    /// Whether it is a daemon.
    pub daemon: bool,
}

/// Methods that a compiler of the machine compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Compiled.
    pub loaded: u64,
    /// Thrown away.
    pub unloaded: u64,
}
