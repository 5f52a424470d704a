//! A JVM tells of its compiled code: handed over in a ring of its own, since it
//! compiles thousands of methods when it starts.

use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::compiled::{Compiled, Gone, NAMES, Name};
use tracer_ebpf::java::Vm;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::usdt::Place;

use crate::hit;
use crate::inflight::now;
use crate::maps::{self, COMPILED};
use crate::read;

/// `compiled__method__load`'s first instruction and size, after the address
/// and the length of each name.
const START: usize = 2 * NAMES;
const SIZE: usize = START + 1;

/// A method was compiled.
#[inline(always)]
pub(crate) fn compiled(context: &ProbeContext, image: u64, place: *const Place) {
    let Some(mut entry) = COMPILED.reserve::<Compiled>(0) else {
        maps::lose(LossCause::CodeRingFull, 1, 0);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: an entry of the ring that is ours until it is submitted, and a
    // live map value, of which only the hits change.
    unsafe {
        let argument = |number| hit::operand(context.regs, place, number);
        (*record).image = image;
        (*record).time = now();
        (*record).start = argument(START);
        (*record).size = argument(SIZE);
        for index in 0..NAMES {
            let (address, length) = (argument(2 * index), argument(2 * index + 1));
            read_name(&raw mut (*record).names[index], address, length);
        }
    }
    entry.submit(0);
}

/// # Safety
/// `name` is in an entry of the ring.
#[inline(always)]
unsafe fn read_name(name: *mut Name, address: u64, length: u64) {
    // SAFETY: the caller's entry.
    unsafe {
        let is_read = read::user_bytes(&raw mut (*name).bytes, address, length);
        (*name).length = if is_read { length } else { 0 };
    }
}

/// The JVM frees a `CodeBlob`. It lies in a block of the code cache, whose
/// header says how long it is.
///
/// # Safety
/// `vm` is a live map value.
#[inline(always)]
pub(crate) unsafe fn freed(image: u64, vm: *const Vm, blob: u64) {
    // SAFETY: the caller's; user space does not change these of a JVM that
    // lives.
    let (header, length, bits) =
        unsafe { ((*vm).block_header, (*vm).block_length, (*vm).segment_bits) };
    let start = blob.wrapping_sub(u64::from(header));
    let Some(segments) = read::user_word(start.wrapping_add(u64::from(length))) else {
        // Swapped out: nothing is known of its end.
        maps::lose(LossCause::CodeRingFull, 1, 0);
        return;
    };
    let Some(mut entry) = COMPILED.reserve::<Gone>(0) else {
        maps::lose(LossCause::CodeRingFull, 1, 0);
        return;
    };
    let bytes = (segments & 0xffff_ffff) << (bits & 31);
    entry.write(Gone {
        image,
        time: now(),
        start,
        end: start.wrapping_add(bytes),
    });
    entry.submit(0);
}
