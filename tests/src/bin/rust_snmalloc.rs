//! A Rust program with snmalloc as its global allocator, by its crate. The C++ of it is compiled
//! with the tests, so it is no target among the others.

#[expect(clippy::expect_used, reason = "a target that cannot speak is to fail")]
#[path = "../../targets/rust/common/handshake.rs"]
mod handshake;

use std::hint::black_box;

#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

#[repr(align(256))]
struct Aligned([u8; 512]);

/// By each way that a global allocator has: 11 that stay and 5 that do not, 7 zeroed, 3 aligned, 5
/// that grow.
#[inline(never)]
fn leak_vectors() {
    for index in 0..16 {
        let block = black_box(Vec::<u8>::with_capacity(431));
        if index < 11 {
            block.leak();
        }
    }
    for _ in 0..7 {
        black_box(vec![0_u8; 619]).leak();
    }
    for _ in 0..3 {
        let block = Box::leak(black_box(Box::new(Aligned([1; 512]))));
        black_box(block.0);
    }
    for _ in 0..5 {
        let mut block = black_box(Vec::<u8>::with_capacity(101));
        block.reserve_exact(1009);
        black_box(block).leak();
    }
}

fn main() {
    let allocated = [16 * 431, 7 * 619, 3 * 512, 5 * 101, 5 * 1009];
    let freed = [5 * 431, 5 * 101];
    handshake::serve(
        leak_vectors,
        [36, allocated.iter().sum(), 10, freed.iter().sum()],
    );
}
