//! An allocator of one's own, that rests on nothing that has a name.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

const BYTES: usize = 8 << 20;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; BYTES]>);

// SAFETY: each byte is given away once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; BYTES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

pub struct Bump;

// SAFETY: blocks are aligned, and none is given away twice.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let room = layout.size().next_multiple_of(64) + layout.align().max(64);
        let start = NEXT.fetch_add(room, Ordering::Relaxed);
        if start + room > BYTES {
            return std::ptr::null_mut();
        }
        unsafe { ARENA.0.get().cast::<u8>().add(start.next_multiple_of(layout.align().max(64))) }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        unsafe { block.write_volatile(0) };
    }
}
