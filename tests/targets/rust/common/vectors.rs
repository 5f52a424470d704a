//! What a Rust program asks of its global allocator, by each way that there is.

use std::hint::black_box;

#[repr(align(256))]
struct Aligned([u8; 512]);

/// 11 that stay and 5 that do not, 7 zeroed, 3 aligned, 5
/// that grow.
#[inline(never)]
pub fn leak_vectors() {
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

/// What `leak_vectors` allocates and frees: blocks and bytes of each.
pub fn truth() -> [u32; 4] {
    let allocated = [16 * 431, 7 * 619, 3 * 512, 5 * 101, 5 * 1009];
    let freed = [5 * 431, 5 * 101];
    [36, allocated.iter().sum(), 10, freed.iter().sum()]
}
