//! The probes: an instruction that does nothing, where a tracer may put a breakpoint, and
//! a note of the file that says where it is, what it is called, and where its arguments
//! are ("UserSpaceProbeImplementation" in systemtap's wiki). A semaphore says how many
//! watch: the kernel counts it.

use core::arch::asm;
use core::sync::atomic::{AtomicU16, Ordering};

/// How many want to be told of samples.
#[used]
#[unsafe(link_section = ".probes")]
pub static ALLOC_WATCHED: AtomicU16 = AtomicU16::new(0);

/// How many want to be told of their ends.
#[used]
#[unsafe(link_section = ".probes")]
static FREE_WATCHED: AtomicU16 = AtomicU16::new(0);

/// A probe with its note. The second word of the note's is what tells by how much the
/// file was moved after it was linked.
macro_rules! probe {
    ($name:literal, $semaphore:ident, $arguments:literal, $($operand:tt)*) => {
        asm!(
            "990: nop",
            ".pushsection .note.stapsdt, \"?\", @note",
            ".balign 4",
            ".4byte 992f - 991f, 994f - 993f, 3",
            "991: .asciz \"stapsdt\"",
            "992: .balign 4",
            "993: .8byte 990b, _.stapsdt.base, {semaphore}",
            ".asciz \"otel_memory\"",
            concat!(".asciz \"", $name, "\""),
            concat!(".asciz \"", $arguments, "\""),
            "994: .balign 4",
            ".popsection",
            ".ifndef _.stapsdt.base",
            ".pushsection .stapsdt.base, \"aG\", @progbits, .stapsdt.base, comdat",
            ".weak _.stapsdt.base",
            ".hidden _.stapsdt.base",
            "_.stapsdt.base: .space 1",
            ".size _.stapsdt.base, 1",
            ".popsection",
            ".endif",
            semaphore = sym $semaphore,
            $($operand)*
            options(nostack, preserves_flags),
        )
    };
}

/// Whether anybody watches.
#[inline(always)]
pub fn are_watched() -> bool {
    ALLOC_WATCHED.load(Ordering::Relaxed) != 0
}

/// Tells of a sample. Without a block it is one that there was no room to follow.
#[inline(never)]
pub fn alloc(block: usize, size: usize, weighted_bytes: usize) {
    // SAFETY: an instruction that does nothing.
    unsafe {
        probe!("alloc", ALLOC_WATCHED, "8@%rdi 8@%rsi 8@%rdx",
            in("rdi") block, in("rsi") size, in("rdx") weighted_bytes,);
    }
}

/// Tells that a sample is freed.
#[inline(never)]
pub fn free(block: usize) {
    // SAFETY: as above.
    unsafe {
        probe!("free", FREE_WATCHED, "8@%rdi", in("rdi") block,);
    }
}
