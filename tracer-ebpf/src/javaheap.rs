//! Samples of what Java code allocates in the Java heap.
//!
//! Threads of HotSpot allocate in buffers of their own (TLABs), without a call
//! into the VM. Where one is full the VM takes a slow way, and tells its event
//! recorder of the object that needed the next one: `AllocTracer`'s functions
//! are called whether anything records or not. So each sample stands for a
//! buffer full of objects, one of which is known.

use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::frame;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, SiteKind};

use crate::inflight::{self, now};
use crate::maps::{self, SITES};

/// `send_allocation_in_new_tlab(klass, object, buffer size, object size, …)`,
/// or `send_allocation_outside_tlab(klass, object, object size, …)`: the third
/// argument is what the sample stands for.
#[inline(always)]
pub(crate) fn sample(context: &ProbeContext) {
    let (Some(klass), Some(bytes)) = (context.arg::<u64>(0), context.arg::<u64>(2)) else {
        return;
    };
    let Some(thread) = inflight::thread() else {
        return;
    };
    let time = now();
    let first = (SiteKind::Sample, frame::class(klass));
    // SAFETY: the context's registers and the thread's own record.
    let index = unsafe { inflight::site(context.regs, first, thread, time, bytes) };
    if index == LOST_SITE {
        maps::lose(LossCause::SitesFull, 1, bytes);
        return;
    }
    if let Some(site) = SITES.get_ptr_mut(index) {
        // SAFETY: fields of a live map value.
        unsafe {
            maps::add(&raw mut (*site).allocated_count, 1);
            maps::add(&raw mut (*site).allocated_bytes, bytes);
            (*site).last_seen = time;
        }
    }
}
