//! Changes of mapped code. A library that is unmapped leaves its ranges behind
//! in our tables; they must not speak for what is mapped there next.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::RawTracePointContext;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::limits::RANGE_ROUNDS;
use tracer_ebpf::site::NO_SITE;
use tracer_ebpf::table::search;

use crate::inflight::now;
use crate::maps::{self, CODE_OF, PROCESSES, RANGES, SPACES};
use crate::read::kernel;

/// Highest address that is no error code.
const MAX_ADDRESS: u64 = 0x7fff_ffff_ffff;

/// `vm_unmapped_area(address, info)`: the kernel chose where new memory of the
/// current process goes. Where there is room, no code is mapped any more.
#[inline(always)]
pub(crate) fn unmapped_area(context: &RawTracePointContext) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(process) = PROCESSES.get_ptr(pid) else {
        return;
    };
    let address: u64 = context.arg(0);
    let info: u64 = context.arg(1);
    let length = info + u64::from(maps::settings().unmapped_length);
    if let Some(length) = kernel::<u64>(length)
        && address <= MAX_ADDRESS
    {
        // SAFETY: a live map value.
        replaced(unsafe { (*process).image }, address, length);
    }
}

/// Memory is mapped over whatever was there. If that was code of ours, the
/// address space is not known any more, and user space must look again.
#[inline(always)]
pub(crate) fn replaced(image: u64, address: u64, length: u64) {
    let Some(code) = CODE_OF.get_ptr_mut(image) else {
        return;
    };
    // SAFETY: a live map value.
    let space = unsafe { (*code).space };
    if space != 0 && has_code(space, address, length) != 0 {
        // SAFETY: a live map value. Who reads it between the two sees an
        // address space that is not known.
        unsafe {
            (*code).space = 0;
            (*code).replaced += 1;
        }
        maps::send(&Event {
            kind: EventKind::CodeReplaced as u32,
            thread: bpf_get_current_pid_tgid() as u32,
            image,
            time: now(),
            address,
            length,
            flags: 0,
            other: 0,
            site: NO_SITE,
            padding: 0,
        });
    }
}

/// Whether a range of an address space begins in, or reaches into, `length`
/// bytes from `address` on. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn has_code(space: u32, address: u64, length: u64) -> u32 {
    let Some(space) = SPACES.get(space) else {
        return 0;
    };
    let last = address.wrapping_add(length).wrapping_sub(1);
    let start = |index: u32| RANGES.get(index).map(|range| range.start);
    let Some(index) = search::<RANGE_ROUNDS>(space.first, space.len, last, start) else {
        return 0;
    };
    match RANGES.get(index) {
        Some(range) if range.end > address => 1,
        _ => 0,
    }
}
