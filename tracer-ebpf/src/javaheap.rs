//! What Java code allocates in the Java heap: samples, or each object if the
//! JVM was started with the probes for that.
//!
//! Threads of HotSpot allocate in buffers of their own (TLABs), without a call
//! into the VM. Where one is full the VM takes a slow way, and tells its event
//! recorder of the object that needed the next one: `AllocTracer`'s functions
//! are called whether anything records or not. So each sample stands for a
//! buffer full of objects, one of which is known.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::class_name::{ClassName, NAME_BYTES};
use tracer_ebpf::frame;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, SiteKind};
use tracer_ebpf::thread::Thread;
use tracer_ebpf::usdt::{Place, PlaceKey};

use crate::hit;
use crate::inflight::{self, now};
use crate::maps::{self, CLASS_NAMES, PLACES, SITES};
use crate::read;
use crate::unwind;

const BPF_NOEXIST: u64 = 1;

/// Arguments of `object__alloc`: the class's name, its length, and the
/// object's size. The thread comes first.
const NAME: usize = 1;
const LENGTH: usize = 2;
const SIZE: usize = 3;

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
    let index = unsafe {
        inflight::site(
            (context.regs, Arguments::AT_ENTRY),
            first,
            thread,
            time,
            bytes,
        )
    };
    count(index, time, bytes);
}

/// `object__alloc(thread, name of the class, its length, bytes)`, anywhere in
/// a function.
#[inline(always)]
pub(crate) fn object(context: &ProbeContext) {
    let Some(thread) = inflight::thread() else {
        return;
    };
    let key = PlaceKey {
        // SAFETY: the thread's own record.
        image: unsafe { (*thread).image },
        // SAFETY: the context's registers.
        ip: unsafe { (*context.regs).rip },
    };
    let Some(place) = PLACES.get_ptr_mut(key) else {
        return;
    };
    let time = now();
    // SAFETY: a live map value, the context's registers and the thread's own
    // record.
    unsafe {
        maps::add(&raw mut (*place).hits, 1);
        let bytes = size(hit::operand(context.regs, place, SIZE));
        let first = read_name(context.regs, place, thread);
        let walk = unwind::capture(context.regs, unwind::Place::Inside, first, thread);
        let index = inflight::site_of(&walk, SiteKind::Sample, thread, time, bytes);
        count(index, time, bytes);
    }
}

/// Until JDK 17 the size is an `int`, which objects of more than 2 GiB make
/// negative.
#[inline(always)]
const fn size(argument: u64) -> u64 {
    if argument.cast_signed() < 0 {
        argument & 0xffff_ffff
    } else {
        argument
    }
}

/// Reads the class's name, keeps it if it is new, and returns its word. The
/// room for a part of the stack serves for that: no walk has begun.
///
/// # Safety
/// See [`hit::operand`]; `thread` is the current thread's record.
#[inline(always)]
unsafe fn read_name(regs: *mut pt_regs, place: *const Place, thread: *mut Thread) -> u64 {
    let seed = maps::setting!(hash_seed);
    // SAFETY: the window is larger than a name, and both have whole words. A
    // fault in the target's memory is an error code, and leaves zeros.
    unsafe {
        let name = (&raw mut (*thread).window).cast::<ClassName>();
        let length = hit::operand(regs, place, LENGTH);
        let address = hit::operand(regs, place, NAME);
        clear(name);
        let into = (&raw mut (*name).words).cast::<[u8; NAME_BYTES]>();
        if read::user_bytes(into, address, length) {
            (*name).length = length;
        }
        let word = (*name).word(seed);
        if CLASS_NAMES.get_ptr(word).is_none() {
            // Not a copy: the program's stack has little room.
            let name: &ClassName = &*name;
            // Another thread's is the same. If there is no room the class has
            // no name, and its objects still count.
            let _ = CLASS_NAMES.insert(word, name, BPF_NOEXIST);
        }
        word
    }
}

/// Zeros, word by word: the compiler would call a function that is not there.
///
/// # Safety
/// `name` is in the thread's own record.
#[inline(always)]
unsafe fn clear(name: *mut ClassName) {
    let mut index = 0;
    while index < size_of::<ClassName>() / 8 {
        // SAFETY: within the name.
        unsafe { name.cast::<u64>().add(index).write_volatile(0) };
        index += 1;
    }
}

/// Counts an object, or what a sample stands for, at its site.
#[inline(always)]
fn count(index: u32, time: u64, bytes: u64) {
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
