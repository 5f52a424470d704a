//! A Rust program with snmalloc as its global allocator, by its crate. The C++ of it is compiled
//! with the tests, so it is no target among the others.

#[expect(clippy::expect_used, reason = "a target that cannot speak is to fail")]
#[path = "../../targets/rust/common/handshake.rs"]
mod handshake;
#[path = "../../targets/rust/common/vectors.rs"]
mod vectors;

#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() {
    handshake::serve(vectors::leak_vectors, vectors::truth());
}
