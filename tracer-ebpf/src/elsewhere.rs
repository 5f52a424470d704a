//! Calls that are made from elsewhere than `--module` and `--only` say: see
//! [`tracer_ebpf::origin`].
//!
//! All of it hangs on a setting that the verifier knows: where calls are followed
//! whoever makes them, it takes this out of the programs.

use tracer_ebpf::call::{Function, is_trampoline};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::origin::{self, Caller, IS_NOTED, MAX_DOORS};
use tracer_ebpf::thread::{Thread, Unheard};

use crate::maps::{self, ELSEWHERE, ORIGINS, ORIGINS_OF};
use crate::read::user_word;
use crate::unwind::original_return;

/// A call of code that was asked for.
const ASKED: u64 = 0;
/// A call of which nobody can tell: user space has not said yet what code there is.
const UNKNOWN: u64 = 1;
/// A call from elsewhere, where its return address cannot be read. Others are that
/// address.
const UNREADABLE: u64 = 2;

/// Whether it matters where calls are made from.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    maps::setting!(origins) != 0
}

/// The list of an image's code, as a thread's record has it.
#[inline(always)]
pub(crate) fn list_of(image: u64) -> u64 {
    match is_on() {
        // SAFETY: a live map value.
        true => ORIGINS_OF.get_ptr(image).map_or(0, |list| unsafe { *list }),
        false => 0,
    }
}

/// What is to be done about a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is followed.
    Follow,
    /// It is made from elsewhere, and gets no site.
    Note,
    /// The same, and nobody need know that it was made.
    LeaveOut,
}

/// What is to be done about a call of a function that was entered with its return
/// address at `slot`, and asks for `size` bytes. `old` is the block that it was given, or
/// 0; no other probed function runs within it if it is `last`.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn judge(
    thread: *mut Thread,
    function: Function,
    (slot, frame): (u64, u64),
    (size, old): (u64, u64),
    is_last: bool,
) -> Verdict {
    if !is_on() || function == Function::ArenaMake || function == Function::Munmap {
        return Verdict::Follow;
    }
    // SAFETY: the caller's record.
    let list = unsafe { (*thread).origins };
    let back = call_from(list, slot, frame);
    if back == ASKED {
        return Verdict::Follow;
    }
    if function.changes_mappings() {
        return Verdict::Note;
    }
    // SAFETY: the caller's record.
    let goes_on = unsafe { (*thread).unheard.goes_on_as(function, slot, back) };
    let goes_on = goes_on && back != UNKNOWN;
    match back {
        _ if goes_on => {}
        UNKNOWN => maps::lose(LossCause::OriginUnknown, 1, size),
        _ => count(),
    }
    // What it was given may be followed; and it may map that anew.
    if old != 0 || (list & IS_NOTED != 0 && !is_last) {
        return Verdict::Note;
    }
    let back = match back {
        UNKNOWN => user_word(slot).unwrap_or(0),
        back => back,
    };
    // SAFETY: the caller's record.
    unsafe {
        (*thread).unheard = Unheard {
            slot,
            back,
            function: function as u32,
            padding: 0,
        };
    }
    Verdict::LeaveOut
}

#[inline(always)]
fn count() {
    if let Some(count) = ELSEWHERE.get_ptr_mut(0) {
        // SAFETY: a live map value. Another thread's program may come in between.
        unsafe { maps::add(count, 1) };
    }
}

/// Where a call returns to whose return address is at `slot`, if it is made from
/// elsewhere; or [`ASKED`], [`UNKNOWN`] or [`UNREADABLE`]. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn call_from(list: u64, slot: u64, frame: u64) -> u64 {
    let Some(origins) = ORIGINS.get_ptr(list as u32) else {
        return UNKNOWN;
    };
    if list == 0 {
        return UNKNOWN;
    }
    let first = return_at(slot);
    let (mut back, mut slot, mut frame) = (first, slot, frame);
    let mut turn = 0;
    while turn < MAX_DOORS {
        // SAFETY: a live map value. User space changes it only when no image has it.
        match unsafe { origin::caller(origins, back, slot, frame) } {
            Caller::Asked => return ASKED,
            Caller::Elsewhere => break,
            Caller::Door(door) => {
                slot = door.slot;
                back = return_at(slot);
                if door.saved != 0 {
                    frame = user_word(door.saved).unwrap_or(0);
                }
            }
        }
        turn += 1;
    }
    first
}

/// The return address at a place of the stack, also if a return probe has replaced it.
#[inline(always)]
fn return_at(slot: u64) -> u64 {
    match user_word(slot) {
        None | Some(0..=UNREADABLE) => UNREADABLE,
        Some(word) if is_trampoline(word) => match original_return(slot) {
            0 => word,
            original => original,
        },
        Some(word) => word,
    }
}
