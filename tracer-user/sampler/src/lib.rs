//! A sampler of allocations that is preloaded into a program: it chooses one in so many
//! bytes, and tells of each chosen block, and of its end, by the USDT probes
//! `otel_memory:alloc(ptr, size, weighted_bytes)` and `otel_memory:free(ptr)`.
//!
//! It stands before the program's allocator, which does all the work. What it adds to a
//! call is a subtraction from a number of the thread's (`thread`), and to a free a look
//! at a byte (`table`); all else happens once in so many bytes. While nobody watches the
//! probes it adds next to nothing. It never allocates, takes no lock, has no destructor,
//! and needs no library but the C library that is there.

#![cfg_attr(not(test), no_std)]

mod config;
pub mod exec;
pub mod functions;
mod math;
mod next;
pub mod operators;
mod probes;
mod sample;
mod system;
mod table;
mod thread;

#[cfg(preload)]
mod personality {
    //! The core library's tables for unwinding name this function, which nothing calls. It
    //! is hidden: others have one of this name that is in use.
    core::arch::global_asm!(
        ".pushsection .text.rust_eh_personality, \"ax\", @progbits",
        ".globl rust_eh_personality",
        ".hidden rust_eh_personality",
        "rust_eh_personality: ud2",
        ".popsection",
    );
}

/// Nothing here panics; if it did, the program must not go on as if nothing were.
#[cfg(preload)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    system::trap()
}
