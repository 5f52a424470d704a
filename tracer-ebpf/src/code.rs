//! Changes of mapped code. A library that is unmapped leaves its ranges behind
//! in our tables; they must not speak for what is mapped there next.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::RawTracePointContext;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::limits::RANGE_ROUNDS;
use tracer_ebpf::table::{RangeKind, Replaced, search};

use crate::inflight::now;
use crate::maps::{self, ANY_REPLACED, CODE_CHANGES, CODE_OF, RANGES, REPLACED, SPACES};
use crate::read::kernel;

/// Ranges that are replaced at once, at most, while the others stay known.
const MAX_MARKED: u32 = 16;

/// Highest address that is no error code.
pub(crate) const MAX_ADDRESS: u64 = 0x7fff_ffff_ffff;

/// `vm_unmapped_area(address, info)`: the kernel chose where new memory of the
/// current process goes. Where there is room, no code is mapped any more. Where
/// the process chose itself, the probe of `mmap` tells.
#[inline(always)]
pub(crate) fn unmapped_area(context: &RawTracePointContext) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(process) = maps::process(pid) else {
        return;
    };
    let address: u64 = context.arg(0);
    let info: u64 = context.arg(1);
    let length = info + u64::from(maps::setting!(unmapped_length));
    if let Some(length) = kernel::<u64>(length)
        && address <= MAX_ADDRESS
    {
        replaced(process.image, address, length);
    }
}

/// What was replaced of an image's code, ever.
#[inline(always)]
pub(crate) fn replaced_of(image: u64) -> Replaced {
    if ANY_REPLACED.get(0).is_none_or(|any| *any == 0) {
        return Replaced::default();
    }
    match REPLACED.get_ptr(image) {
        // SAFETY: a live map value.
        Some(replaced) => unsafe { *replaced },
        None => Replaced::default(),
    }
}

/// Memory is mapped over whatever was there. Code of ours that was there is
/// not known any more, and user space must look again.
#[inline(always)]
pub(crate) fn replaced(image: u64, address: u64, length: u64) {
    let Some(code) = CODE_OF.get_ptr(image) else {
        return;
    };
    // SAFETY: a live map value.
    let space = unsafe { (*code).space };
    if space == 0 {
        return;
    }
    match forget_code(space, address, length) {
        0 => return,
        // From two on nothing is known of the space at all.
        marked => {
            note_replaced(image, space, if marked <= MAX_MARKED { 1 } else { 2 });
        }
    }
    let thread = bpf_get_current_pid_tgid() as u32;
    maps::send(&Event {
        address,
        length,
        ..Event::new(EventKind::CodeReplaced, thread, image, now())
    });
}

/// Counts that code of an image was replaced. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_replaced(image: u64, space: u32, times: u64) -> u32 {
    const BPF_NOEXIST: u64 = 1;
    maps::count(&ANY_REPLACED);
    // That it is there already is fine.
    let _ = REPLACED.insert(image, Replaced::default(), BPF_NOEXIST);
    match REPLACED.get_ptr_mut(image) {
        // SAFETY: a live map value.
        Some(replaced) => unsafe {
            (*replaced).space = space;
            maps::add(&raw mut (*replaced).count, times);
        },
        // No room: nothing is known of it until user space has looked.
        None => {
            if let Some(code) = CODE_OF.get_ptr_mut(image) {
                // SAFETY: a live map value. To remove it might be refused.
                unsafe { (*code).space = 0 };
            }
        }
    }
    maps::count(&CODE_CHANGES);
    0
}

/// Marks the ranges of an address space that reach into `length` bytes from
/// `address` on as not known, [`MAX_MARKED`] at most, and returns how many
/// there are. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forget_code(space: u32, address: u64, length: u64) -> u32 {
    let Some(space) = SPACES.get(space) else {
        return 0;
    };
    let last = address.wrapping_add(length).wrapping_sub(1);
    let start = |index: u32| RANGES.get(index).map(|range| range.start);
    let Some(mut index) = search::<RANGE_ROUNDS>(space.first, space.len, last, start) else {
        return 0;
    };
    let mut marked = 0;
    while marked <= MAX_MARKED {
        let Some(range) = RANGES.get_ptr_mut(index) else {
            return marked;
        };
        // SAFETY: a live map value. That its kind changes under others that
        // read it is of no harm: they find nothing a moment earlier.
        unsafe {
            if (*range).end <= address {
                return marked;
            }
            // A JVM maps its code cache part by part, and never elsewhere.
            if (*range).kind == RangeKind::Java as u32 {
                return marked;
            }
            (&raw mut (*range).kind).write_volatile(RangeKind::Pending as u32);
        }
        marked += 1;
        if index == space.first {
            return marked;
        }
        index = index.wrapping_sub(1);
    }
    marked
}
