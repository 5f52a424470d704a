//! Functions of JavaScript on the stack of the current thread: see [`tracer_ebpf::v8`].

use tracer_ebpf::frame;
use tracer_ebpf::java::{Anywhere, WINDOW_WORDS};
use tracer_ebpf::thread::Thread;
use tracer_ebpf::v8::{Key, MAX_TYPES, Met, Objects, types_key};

use crate::hotspot::User;
use crate::inflight;
use crate::maps::{self, SCRIPTS, SPACES, V8_TYPES, V8S};

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
    // What a signal interrupted may not have its frame yet.
    if thread.walk.is_exact() {
        return met;
    }
    let bp = thread.walk.at().registers.bp;
    let Some(layout) = V8S.get_ptr(file(thread, met)) else {
        return met;
    };
    // SAFETY: a live map value, which user space does not change.
    let layout = unsafe { &*layout };
    if !layout.is_known() {
        return met;
    }
    let image = thread.image;
    let Some(function) = layout.function(bp, &mut thread.scratch, &mut Known(image)) else {
        return met;
    };
    let word = function.identity.word(maps::setting!(hash_seed));
    // SAFETY: as many bytes as there are, and whole words.
    let met = unsafe { &mut *(&raw mut thread.scratch).cast::<Met>() };
    met.function = function;
    met.key = Key { image, word };
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
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what is passed by value is copied to the kernel's stack, which has no room for it"
)]
fn keep(met: &Met) {
    if let Some(known) = SCRIPTS.get_ptr_mut(&met.key) {
        // SAFETY: a live map value; a word is written whole.
        unsafe { (&raw mut (*known).shared).write_volatile(met.function.shared) };
        return;
    }
    // Without room the least used gives way.
    let _ = SCRIPTS.insert(&met.key, &met.function, 0);
}

/// The current process's memory, and what is known of it; by its image.
struct Known(u64);

impl Anywhere for Known {
    #[inline(always)]
    fn byte(&mut self, address: u64) -> Option<u8> {
        User.byte(address)
    }

    #[inline(always)]
    fn int(&mut self, address: u64) -> Option<u32> {
        User.int(address)
    }

    #[inline(always)]
    fn long(&mut self, address: u64) -> Option<u64> {
        User.long(address)
    }

    #[inline(always)]
    fn fill(&mut self, window: &mut [u64; WINDOW_WORDS], address: u64, length: u64) -> bool {
        User.fill(window, address, length)
    }
}

impl Objects for Known {
    #[inline(always)]
    fn has_types(&mut self, maps: [u64; 2], look: impl FnOnce(&mut Self) -> bool) -> bool {
        let key = types_key(self.0, maps);
        let Some(entry) = V8_TYPES.get_ptr_mut(key as u32 % MAX_TYPES) else {
            return false;
        };
        // SAFETY: a live map value, a word that is read and written whole.
        unsafe {
            if entry.read_volatile() == key {
                return true;
            }
            let has = look(self);
            if has {
                entry.write_volatile(key);
            }
            has
        }
    }
}
