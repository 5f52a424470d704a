// jemalloc: _rjem_
// flags: -O -C link-arg=target/targets/libjemalloc__rjem_.a -C link-arg=-lstdc++ -C link-arg=-lm
//! A Rust program with jemalloc as its global allocator, with the names that
//! its crate gives it.

#[path = "common/handshake.rs"]
mod handshake;

use std::alloc::{GlobalAlloc, Layout};

unsafe extern "C" {
    fn _rjem_malloc(size: usize) -> *mut u8;
    fn _rjem_mallocx(size: usize, flags: i32) -> *mut u8;
    fn _rjem_calloc(count: usize, size: usize) -> *mut u8;
    fn _rjem_realloc(old: *mut u8, size: usize) -> *mut u8;
    fn _rjem_sdallocx(block: *mut u8, size: usize, flags: i32);
}

struct Jemalloc;

// SAFETY: jemalloc keeps what GlobalAlloc asks for.
unsafe impl GlobalAlloc for Jemalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.align() <= 16 {
            true => unsafe { _rjem_malloc(layout.size()) },
            // MALLOCX_LG_ALIGN
            false => unsafe { _rjem_mallocx(layout.size(), layout.align().trailing_zeros() as i32) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { _rjem_calloc(1, layout.size()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { _rjem_sdallocx(block, layout.size(), 0) }
    }

    unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        unsafe { _rjem_realloc(block, size) }
    }
}

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

/// 11 that stay, 5 that do not.
#[inline(never)]
fn leak_vectors() {
    for index in 0..16 {
        let block = std::hint::black_box(Vec::<u8>::with_capacity(431));
        if index < 11 {
            block.leak();
        }
    }
}

fn main() {
    handshake::serve(leak_vectors, [16, 6896, 5, 2155]);
}
