//! A USDT probe was hit: its arguments are read and told.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::operand::{Machine, Register};
use tracer_ebpf::usdt::{MAX_ARGUMENTS, MAX_TEXTS, Place, PlaceKey, Text, Told, tells};
use tracer_ebpf::volatile::opaque;

use crate::code_told;
use crate::inflight::now;
use crate::maps::{self, PLACES, TOLD};
use crate::read;

/// The thread that ran into the probe.
pub(crate) struct Here(pub(crate) *mut pt_regs);

impl Machine for Here {
    #[inline(always)]
    fn register(&self, register: Register) -> Option<u64> {
        read::register(self.0, register)
    }

    #[inline(always)]
    fn memory(&self, address: u64, bytes: u32) -> Option<u64> {
        let mut value = 0u64;
        // SAFETY: at most eight bytes into a local; a fault is an error code.
        let status =
            unsafe { bpf_probe_read_user((&raw mut value).cast(), bytes, address as *const _) };
        (status == 0).then_some(value)
    }
}

/// One of a place's operands; 0 if it cannot be read.
///
/// # Safety
/// The context's registers, and a live map value.
#[inline(always)]
pub(crate) unsafe fn operand(regs: *mut pt_regs, place: *const Place, number: usize) -> u64 {
    let mut value = 0;
    // SAFETY: only the hits of a place change. Without a value it is 0.
    unsafe { (*place).operands[number].evaluate_into(&Here(regs), &mut value) };
    value
}

#[inline(always)]
pub(crate) fn hit(context: &ProbeContext) {
    if !maps::is_active() {
        return;
    }
    let id = bpf_get_current_pid_tgid();
    let Some(process) = maps::process((id >> 32) as u32) else {
        return;
    };
    let key = PlaceKey {
        image: process.image,
        // SAFETY: the context's registers.
        ip: unsafe { (*context.regs).rip },
    };
    let Some(place) = PLACES.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a pointer to a field of a live map value.
    unsafe { maps::add(&raw mut (*place).hits, 1) };
    // SAFETY: a live map value, of which only the hits change.
    match unsafe { (*place).tells } {
        tells::ARGUMENTS => tell(context, key.image, id as u32, place),
        tells::CODE => code_told::compiled(context, key.image, place),
        _ => {}
    }
}

#[inline(always)]
fn tell(context: &ProbeContext, image: u64, thread: u32, place: *const Place) {
    let Some(mut entry) = TOLD.reserve::<Told>(0) else {
        maps::lose(LossCause::ProbeRingFull, 1, 0);
        return;
    };
    let told = entry.as_mut_ptr();
    let here = Here(context.regs);
    // SAFETY: an entry of the ring that is ours until it is submitted, and a
    // live map value.
    unsafe {
        (*told).image = image;
        (*told).time = now();
        (*told).thread = thread;
        (*told).probe = (*place).probe;
        let known = &raw mut (*told).known;
        known.write_volatile(0);
        for index in 0..MAX_ARGUMENTS {
            let mut value = 0;
            let is_known = (*place).operands[index].evaluate_into(&here, &mut value);
            (*told).arguments[index] = value;
            // Read anew each time: the verifier follows one set, not all.
            known.write_volatile(known.read_volatile() | u16::from(is_known) << index);
        }
        for index in 0..MAX_TEXTS {
            let text = (*place).texts[index];
            let length = argument(told, text.length);
            let address = argument(told, text.address);
            read_text(&raw mut (*told).texts[index], address, length);
        }
    }
    entry.submit(0);
}

/// An argument by its number; 0 if there is none.
///
/// # Safety
/// `told` is an entry of the ring whose arguments are written.
#[inline(always)]
unsafe fn argument(told: *const Told, number: u8) -> u64 {
    let number = opaque(number as usize);
    if number >= MAX_ARGUMENTS {
        return 0;
    }
    // SAFETY: within the array.
    unsafe { (*told).arguments[number] }
}

/// Reads a string.
///
/// # Safety
/// `text` is in an entry of the ring.
#[inline(always)]
unsafe fn read_text(text: *mut Text, address: u64, length: u64) {
    // SAFETY: the caller's entry.
    unsafe {
        (*text).length = length as u32;
        let is_read = read::user_bytes(&raw mut (*text).bytes, address, length);
        (*text).is_known = u32::from(address != 0 && is_read);
    }
}
