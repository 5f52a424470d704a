//! Changes of mapped code. A library that is unmapped leaves its ranges behind
//! in our tables; they must not speak for what is mapped there next.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::RawTracePointContext;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::limits::RANGE_ROUNDS;
use tracer_ebpf::site::NO_SITE;
use tracer_ebpf::table::{RangeKind, search};

use crate::inflight::now;
use crate::maps::{self, CODE_OF, PROCESSES, RANGES, SPACES};
use crate::read::kernel;

/// Code that is replaced at once is in few ranges.
const MOST_RANGES: u32 = 8;

/// Highest address that is no error code.
const MAX_ADDRESS: u64 = 0x7fff_ffff_ffff;

/// `vm_unmapped_area(address, info)`: the kernel chose where new memory of the
/// current process goes. Where there is room, no code is mapped any more. Where
/// the process chose itself, the probe of `mmap` tells.
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

/// Memory is mapped over whatever was there. Code of ours that was there is
/// not known any more, and user space must look again.
#[inline(always)]
pub(crate) fn replaced(image: u64, address: u64, length: u64) {
    let Some(code) = CODE_OF.get_ptr_mut(image) else {
        return;
    };
    // SAFETY: a live map value.
    let space = unsafe { (*code).space };
    if space == 0 {
        return;
    }
    let next = without_code(space, address, length);
    if next == space {
        return;
    }
    // SAFETY: a live map value.
    unsafe {
        (*code).space = next;
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

/// An address space in which nothing is known of `length` bytes from `address`
/// on: itself, if there was nothing; otherwise its spare number, under which
/// nothing is cached; 0 if there is none, or too much changes. Verified once,
/// on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn without_code(number: u32, address: u64, length: u64) -> u32 {
    let Some(space) = SPACES.get(number) else {
        return 0;
    };
    let last = address.wrapping_add(length).wrapping_sub(1);
    let start = |index: u32| RANGES.get(index).map(|range| range.start);
    let Some(mut index) = search::<RANGE_ROUNDS>(space.first, space.len, last, start) else {
        return number;
    };
    let mut next = number;
    let mut round = 0;
    while round < MOST_RANGES {
        let Some(range) = RANGES.get_ptr_mut(index) else {
            return 0;
        };
        // SAFETY: a live map value. That its kind changes under others that
        // read it is of no harm: they find nothing a moment earlier.
        unsafe {
            if (*range).end <= address {
                return next;
            }
            (&raw mut (*range).kind).write_volatile(RangeKind::Pending as u32);
        }
        next = space.spare;
        if index == space.first {
            return next;
        }
        index = index.wrapping_sub(1);
        round += 1;
    }
    0
}
