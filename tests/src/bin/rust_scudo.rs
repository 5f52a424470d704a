//! A Rust program with scudo as its global allocator, by its crate, whose C++ is compiled with the
//! tests.

#[expect(clippy::expect_used, reason = "a target that cannot speak is to fail")]
#[path = "../../targets/rust/common/handshake.rs"]
mod handshake;
#[path = "../../targets/rust/common/vectors.rs"]
mod vectors;

#[global_allocator]
static GLOBAL: scudo::GlobalScudoAllocator = scudo::GlobalScudoAllocator;

fn main() {
    handshake::serve(vectors::leak_vectors, vectors::truth());
}
