//! A Rust program whose global allocator is its own, and rests on nothing that
//! has a name. (Optimized, it would be a part of whoever calls it.)

#[path = "common/handshake.rs"]
mod handshake;

#[path = "common/arena.rs"]
mod arena;

#[global_allocator]
static GLOBAL: arena::Bump = arena::Bump;

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
