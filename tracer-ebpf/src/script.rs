//! Functions of JavaScript on the stack of the current thread: see [`tracer_ebpf::v8`].

use tracer_ebpf::frame;
use tracer_ebpf::java::WINDOW_WORDS;
use tracer_ebpf::thread::Thread;
use tracer_ebpf::v8::{Key, Met};

use crate::hotspot::User;
use crate::inflight;
use crate::maps::{self, SCRIPTS, SPACES, V8S};

/// The word of the JavaScript function that the frame runs which the walk in the current
/// thread's record is at; of other code of V8 the word of its place, `met`. Verified once, on
/// its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn script_frame(met: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return met;
    };
    // SAFETY: only this thread touches its record.
    let thread = unsafe { &mut *thread };
    let at = thread.walk.at();
    // What a signal interrupted may not have its frame yet.
    if thread.walk.is_exact() {
        return met;
    }
    let Some(layout) = V8S.get_ptr(file(thread, met)) else {
        return met;
    };
    // SAFETY: a live map value, which user space does not change.
    let layout = unsafe { &*layout };
    if !layout.is_known() {
        return met;
    }
    let Some(function) = layout.function(at.registers.bp, &mut User) else {
        return met;
    };
    let word = function.identity.word(maps::setting!(hash_seed));
    // SAFETY: as many bytes as there are, and whole words.
    let met = unsafe { &mut *(&raw mut thread.scratch).cast::<Met>() };
    met.function = function;
    met.key = Key {
        image: thread.image,
        word,
    };
    keep(met);
    word
}

const _: () = assert!(
    size_of::<Met>() <= 8 * WINDOW_WORDS,
    "it is kept in the thread's record, since there is little room on the kernel's stack"
);

/// The number of the file that has the V8 of a place.
#[inline(always)]
fn file(thread: &Thread, met: u64) -> u32 {
    match frame::place_in_file(met) {
        Some((file, _)) => file,
        None => SPACES
            .get(thread.space.get() as u32)
            .map_or(0, |space| space.v8),
    }
}

/// Notes where the function that was met is now.
#[inline(always)]
fn keep(met: &Met) {
    if let Some(known) = SCRIPTS.get_ptr_mut(met.key) {
        // SAFETY: a live map value; a word is written whole.
        unsafe { (&raw mut (*known).shared).write_volatile(met.function.shared) };
        return;
    }
    // Without room the least used gives way.
    let _ = SCRIPTS.insert(met.key, met.function, 0);
}
