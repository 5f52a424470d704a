//! How a Java virtual machine's heap grew, and where its objects were
//! allocated: a part of the report's schema.
//!
//! Times are seconds since the run began unless a field says otherwise; sizes
//! are bytes.

use serde::{Deserialize, Serialize};

use super::{Frame, StackEnd, frames};

/// How the heap of one JVM grew, by its class histograms over the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JavaHeap {
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// Whether a full collection came before each histogram (`--live`).
    /// Without, garbage that was not collected yet counts too.
    pub live_only: bool,
    /// The histograms, oldest first.
    pub samples: Vec<HeapSample>,
    /// Classes with another count in the last histogram than in the first, and
    /// those that grow: these first, then most bytes gained first. At most
    /// 1,000.
    pub classes: Vec<ClassGrowth>,
    /// How many classes of that kind are left out of `classes`.
    pub omitted: u64,
    /// The VM's own samples of what it allocated during the run.
    pub sampled: HeapSampling,
    /// Why there are no histograms, or none after the last.
    pub problem: Option<String>,
    /// The VM's flight recording, if there was to be one (`--jfr`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flight_recording: Option<FlightRecording>,
}

/// Whether a VM's flight recording was asked who holds what grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum FlightRecording {
    /// It was not: the heap was read from outside, and each class that grows has a holder.
    Unneeded,
    /// It was.
    Asked {
        /// Objects of all classes that the VM had sampled and that lived through a collection.
        objects: u64,
        /// How long the VM took to answer, seconds.
        answered_in: f64,
        /// How long all Java threads stood still for that, seconds, as the VM counts it; `null` if it
        /// does not.
        pause: Option<f64>,
    },
    /// There is no answer.
    Failed {
        /// Why, and what mends it.
        problem: String,
    },
}

/// One class histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HeapSample {
    /// When it was complete.
    pub at: f64,
    /// How long the JVM took to answer, seconds.
    pub answered_in: f64,
    /// How long all Java threads stood still meanwhile, seconds, as the JVM
    /// counts it; `null` if it does not.
    pub pause: Option<f64>,
    /// Whether it was taken right after a collection: then there is little
    /// garbage in it. Also true of collectors that count no garbage at all
    /// (ZGC and Shenandoah).
    pub after_collection: bool,
    /// Collections since the JVM's start, as it counts them.
    pub collections: Option<u64>,
    /// Those of them that look through the old generation: full ones, and G1's cycles from
    /// JDK 11 on. `null` where the JVM does not count, and in reports of earlier versions.
    #[serde(default)]
    pub old_collections: Option<u64>,
    /// Objects of all classes.
    pub instances: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The objects of one class over the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassGrowth {
    /// The class's name as Java source has it: `byte[]`, `a.b.C$D`.
    pub class: String,
    /// Whether it grows.
    pub verdict: GrowthVerdict,
    /// Instances in each histogram of [`JavaHeap::samples`].
    pub instances: Vec<u64>,
    /// Bytes in each histogram, without what the objects point to.
    pub bytes: Vec<u64>,
    /// Where its objects were allocated during the run, as far as samples
    /// tell; most bytes first.
    pub allocated: Vec<AllocationPath>,
    /// Who holds its objects (`--holders`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<super::Holders>,
}

/// Samples of what a JVM allocated: each time that a thread's buffer was full,
/// the object for which it got a new one, and each object too large for that.
/// Or each object, if the JVM was started with probes that tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapSampling {
    /// Samples of all classes.
    pub samples: u64,
    /// The buffers and large objects that they stand for, bytes.
    pub bytes: u64,
    /// Whether each object is a sample of itself (`object__alloc`): counts and
    /// bytes are exact then, here and in [`AllocationPath`]. But a JVM before
    /// JDK 18 tells no size: bytes are 0 here and go by the histograms there,
    /// which is exact for all but arrays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// Why there are none.
    pub problem: Option<String>,
}

/// A call path on which objects of a class were allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPath {
    /// Samples of objects of the class.
    pub samples: u64,
    /// The buffers and large objects that they stand for, bytes: an estimate
    /// of what was allocated on the path, whatever became of it.
    pub bytes: u64,
    /// Why the stack ends where it does.
    pub stack_end: StackEnd,
    /// The call path, root first; the Java method that allocates is last.
    #[serde(deserialize_with = "frames")]
    pub frames: Vec<Frame>,
}

/// Whether a class grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrowthVerdict {
    /// It grows across collections: in the last third of the run there are
    /// always more than there ever were in the first.
    Grows,
    /// There are more, but too few collections to tell growth from garbage.
    Unknown,
    /// It does not, or goes up and down.
    Steady,
}
