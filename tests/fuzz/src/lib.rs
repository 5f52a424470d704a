//! The modules of `tracer-user` that read what others made, and nothing else of
//! it: they are the same files, so what is fuzzed is what runs, and the rest
//! (and the BPF programs) need not be built.

#![expect(dead_code, reason = "each module is there as a whole")]

pub mod allocator;
pub mod attach;
#[path = "../../../tracer-user/src/jvm/flight/reader/mod.rs"]
pub mod flight;
pub mod holders;
pub mod kernel;
pub mod privilege;
pub mod process;
pub mod symbolize;
#[path = "../../../tracer-user/src/unwind/tests/tiny.rs"]
pub mod tiny;
#[path = "../../../tracer-user/src/unwind/mod.rs"]
pub mod unwind;
#[path = "../../../tracer-user/src/usdt/mod.rs"]
pub mod usdt;
