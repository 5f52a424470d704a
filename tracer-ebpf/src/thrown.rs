//! Exceptions that are made within a call of `operator new`: the call has failed, and the
//! object of the exception is a block of its own.

use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::call::is_trampoline;
use tracer_ebpf::frame;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::NO_SITE;
use tracer_ebpf::thread::{Thread, Unheard};

use crate::code::replaced_of;
use crate::inflight::{record, restore_old};
use crate::maps::{self, CODE_OF, FILE_TABLES, LIVE, SPACES};
use crate::read::user_word;
use crate::unwind::{self, original_return};

/// 1 if a function that was entered at stack pointer `slot` was called by the one that
/// allocates exceptions. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn makes_exception(slot: u64) -> u64 {
    let Some(thread) = record() else {
        return 0;
    };
    let mut back = user_word(slot).unwrap_or(0);
    if is_trampoline(back) {
        back = original_return(slot);
    }
    // SAFETY: the current thread's record.
    let image = unsafe { (*thread).image };
    // SAFETY: a live map value.
    let code = CODE_OF.get_ptr(image).map(|code| unsafe { *code });
    let space = code
        .unwrap_or_default()
        .valid(replaced_of(image), |number| {
            SPACES.get(number).map_or(0, |space| space.spare)
        });
    // SAFETY: as above.
    unsafe { (*thread).space.set(u64::from(space)) };
    let word = unwind::word_of(thread, back);
    let Some((file, offset)) = frame::place_in_file(word) else {
        return 0;
    };
    let table = FILE_TABLES.get(file);
    u64::from(table.is_some_and(|table| table.makes_exception(offset)))
}

/// The call in flight has failed: an exception is made, which will end it.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn give_up(thread: *mut Thread) {
    // SAFETY: the caller's record.
    unsafe {
        let call = &mut (*thread).call;
        (*thread).thrown = Unheard {
            slot: call.slot,
            back: call.back,
            function: call.function,
            padding: 0,
        };
        if call.inner > 0 {
            maps::lose(LossCause::MissedReturn, call.inner, 0);
        }
        restore_old(thread);
        (*thread).call.function = 0;
    }
}

/// A call ends at stack pointer `stack` with this result, and is not in flight. If it was
/// given up, the exception was caught within it, and what it allocated is in no number,
/// unless it has that from a function below, which was counted.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn ends(thread: *mut Thread, stack: u64, address: u64) {
    // SAFETY: the caller's record.
    let (thrown, image) = unsafe { (&mut (*thread).thrown, (*thread).image) };
    if thrown.slot != stack || user_word(stack) != Some(thrown.back) {
        return;
    }
    thrown.slot = 0;
    // SAFETY: a live map value.
    let is_live = |block: *mut Block| unsafe { (*block).site } != NO_SITE;
    let is_counted = LIVE
        .get_ptr_mut(BlockKey { address, image })
        .is_some_and(is_live);
    if address != 0 && !is_counted {
        maps::lose(LossCause::MissedReturn, 1, 0);
    }
}
