//! Where a VM's code is: addresses that are fixed once it has started.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::fields::Fields;
use super::layout::Layout;
use super::libjvm::LibJvm;
use super::memory::TargetMemory;
use super::vmstructs::VmStructs;

/// HotSpot has three code heaps at most, and may come to have some more.
const MAX_HEAPS: i32 = 16;

/// The code cache has 2 GiB at most.
const MAX_HEAP: u64 = 4 << 30;

/// The static field that holds where a frame returns to whose callers are
/// in a virtual thread's continuation (JDK 21 and later). It is not exported.
const RETURN_BARRIER: &str = "_ZN12StubRoutines19_cont_returnBarrierE";

/// The static field that holds the first of the VM's threads that are not
/// Java's (JDK 11 and later). It is not exported.
const NON_JAVA_THREADS: &str = "_ZN13NonJavaThread9_the_listE";

/// One heap of the code cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeHeap {
    /// All addresses that its code may come to have.
    pub reserved: Range<u64>,
    /// The address of its segment map.
    pub segment_map: u64,
    /// The logarithm of a segment's size.
    pub log2_segment_size: u32,
}

/// The addresses of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The heaps of the code cache.
    pub heaps: Vec<CodeHeap>,
    /// The interpreter's code.
    pub interpreter: Range<u64>,
    /// Where the first Java frame that native code called returns to.
    pub call_stub_return: u64,
    /// Where the last frame of a mounted continuation returns to, if the VM
    /// has virtual threads and its file still has its symbols.
    pub return_barrier: Option<u64>,
    /// Where the VM has the first of its threads that are not Java's, if its
    /// file still has its symbols.
    pub non_java_threads: Option<u64>,
}

impl Places {
    /// The code cache: heaps are parts of one reservation.
    pub fn range(&self) -> Range<u64> {
        let starts = self.heaps.iter().map(|heap| heap.reserved.start);
        let ends = self.heaps.iter().map(|heap| heap.reserved.end);
        starts.min().unwrap_or(0)..ends.max().unwrap_or(0)
    }

    /// Reads them.
    ///
    /// # Errors
    /// Fails if the VM does not tell them, or has not started yet.
    pub fn read(
        structs: &VmStructs,
        layout: &Layout,
        library: &LibJvm,
        memory: &dyn TargetMemory,
    ) -> Result<Self> {
        let fields = Fields(structs);
        let call_stub = fields.address(&[("StubRoutines", "_call_stub_return_address")])?;
        // Both in one go: the table is large.
        let hidden = library.all(&[RETURN_BARRIER, NON_JAVA_THREADS]);
        let hidden = hidden.unwrap_or_default();
        let call_stub_return = memory.u64(call_stub)?;
        ensure!(call_stub_return != 0, "it has no stubs yet");
        Ok(Places {
            heaps: heaps(fields, layout, memory)
                .context("cannot read where the Java VM's compiled code is")?,
            interpreter: interpreter(fields, memory)
                .context("cannot read where the Java VM's interpreter is")?,
            call_stub_return,
            return_barrier: return_barrier(fields, hidden.get(RETURN_BARRIER), memory),
            non_java_threads: hidden.get(NON_JAVA_THREADS).copied(),
        })
    }
}

/// What a VM has reserved for its Java heap; collectors with more than one
/// range (ZGC) do not say.
pub fn java_heap(structs: &VmStructs, memory: &dyn TargetMemory) -> Option<Range<u64>> {
    const WORD: u64 = 8;
    let fields = Fields(structs);
    let heap = memory
        .u64(fields.find_address(&[("Universe", "_collectedHeap")])?)
        .ok()?;
    let reserved = fields.find_offset(&[("CollectedHeap", "_reserved")])?;
    let field = |name| {
        let offset = reserved + fields.find_offset(&[("MemRegion", name)])?;
        memory.u64(heap.wrapping_add(offset.into())).ok()
    };
    let start = field("_start")?;
    let end = start.checked_add(field("_word_size")?.checked_mul(WORD)?)?;
    (heap != 0 && start != 0 && start < end).then_some(start..end)
}

fn heaps(fields: Fields<'_>, layout: &Layout, memory: &dyn TargetMemory) -> Result<Vec<CodeHeap>> {
    // JDK 8 has one.
    if let Some(one) = fields.find_address(&[("CodeCache", "_heap")]) {
        return Ok(vec![heap(layout, memory, memory.u64(one)?)?]);
    }
    let array = memory.u64(fields.address(&[("CodeCache", "_heaps")])?)?;
    let length = [
        ("GrowableArrayBase", "_len"),
        ("GenericGrowableArray", "_len"),
    ];
    let count = memory.i32(array.wrapping_add(fields.offset(&length)?.into()))?;
    let data = fields.offset(&[("GrowableArray<int>", "_data")])?;
    let data = memory.u64(array.wrapping_add(data.into()))?;
    if !(1..=MAX_HEAPS).contains(&count) {
        bail!("it says that it has {count} code heaps");
    }
    (0..u64::from(count.unsigned_abs()))
        .map(|index| heap(layout, memory, memory.u64(data.wrapping_add(index * 8))?))
        .collect()
}

fn heap(layout: &Layout, memory: &dyn TargetMemory, address: u64) -> Result<CodeHeap> {
    let field = |offset: u32| memory.u64(address.wrapping_add(offset.into()));
    let reserved = field(layout.heap.low)?..field(layout.heap.high)?;
    let log2 = layout.heap.log2_segment_size.read(memory, address)?;
    let log2 = u32::try_from(log2).unwrap_or(u32::MAX);
    let size = reserved.end.saturating_sub(reserved.start);
    if size == 0 || size > MAX_HEAP || !(3..=16).contains(&log2) {
        bail!("a code heap of {size} bytes with segments of 2^{log2} is not believed");
    }
    Ok(CodeHeap {
        reserved,
        segment_map: field(layout.heap.segment_map)?,
        log2_segment_size: log2,
    })
}

fn interpreter(fields: Fields<'_>, memory: &dyn TargetMemory) -> Result<Range<u64>> {
    let queue = memory.u64(fields.address(&[("AbstractInterpreter", "_code")])?)?;
    let start = fields.offset(&[("StubQueue", "_stub_buffer")])?;
    let start = memory.u64(queue.wrapping_add(start.into()))?;
    let size = fields.number(&[("StubQueue", "_buffer_limit")])?;
    let size = size.read(memory, queue)?;
    let end = start.checked_add_signed(size).filter(|end| *end > start);
    Ok(start..end.context("it has no code")?)
}

fn return_barrier(
    fields: Fields<'_>,
    place: Option<&u64>,
    memory: &dyn TargetMemory,
) -> Option<u64> {
    fields.find_offset(&[("JavaThread", "_vthread")])?;
    let address = memory.u64(*place?).ok()?;
    (address != 0).then_some(address)
}
