// jemalloc: _rjem_
// flags: -C link-arg=target/targets/libjemalloc__rjem_.a -C link-arg=-lstdc++ -C link-arg=-lm
//! A Rust program whose global allocator is its own, beside a library in the same file that
//! has jemalloc: what Rust code allocates does not go there.

#[path = "common/handshake.rs"]
mod handshake;
#[path = "common/arena.rs"]
mod arena;

use std::hint::black_box;

unsafe extern "C" {
    fn _rjem_malloc(size: usize) -> *mut u8;
    fn _rjem_free(block: *mut u8);
}

#[global_allocator]
static GLOBAL: arena::Bump = arena::Bump;

/// 11 that stay, 5 that do not, and 2 of 3 of the library's.
#[inline(never)]
fn leak_vectors() {
    for index in 0..16 {
        let block = black_box(Vec::<u8>::with_capacity(433));
        if index < 11 {
            block.leak();
        }
    }
    for index in 0..3 {
        let block = black_box(unsafe { _rjem_malloc(877) });
        if index == 0 {
            unsafe { _rjem_free(block) };
        }
    }
}

fn main() {
    handshake::serve(leak_vectors, [19, 16 * 433 + 3 * 877, 6, 5 * 433 + 877]);
}
