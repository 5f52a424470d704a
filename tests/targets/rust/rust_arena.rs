//! A Rust program whose global allocator is its own, and rests on nothing that
//! has a name. (Optimized, it would be a part of whoever calls it.)

#[path = "common/handshake.rs"]
mod handshake;

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

struct Bump;

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

#[global_allocator]
static GLOBAL: Bump = Bump;

/// 11 that stay, 5 that do not; one of them grows.
#[inline(never)]
fn leak_vectors() {
    for index in 0..16 {
        let mut block = std::hint::black_box(Vec::<u8>::with_capacity(433));
        if index == 0 {
            block.reserve_exact(20023);
        }
        if index < 11 {
            block.leak();
        }
    }
}

fn main() {
    handshake::serve(leak_vectors, [17, 26951, 6, 2598]);
}
