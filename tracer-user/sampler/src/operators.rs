//! C++'s operators. Those of the C++ library call `malloc` and `free`, and are samples
//! there. Allocators that bring their own do not, so ours stand before these.
//!
//! An operator may throw, and nothing of Rust's may stand in the way of that. So they are
//! written in the machine's own language, with what unwinding needs.

use core::arch::naked_asm;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::probes::ALLOC_WATCHED;
use crate::table::FILTER;
use crate::{functions, next, sample};

/// Whether the next operators are their allocator's own.
static ARE_OWN: AtomicU8 = AtomicU8::new(0);

/// Defines an operator `new`, whose first argument is the size.
macro_rules! news {
    ($function:ident, $next:ident) => {
        static $next: AtomicUsize = AtomicUsize::new(0);

        /// One of C++'s operators `new`.
        ///
        /// # Safety
        /// As of the C++ library's.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $function(size: usize, how: usize, other: usize) -> *mut c_void {
            naked_asm!(
                ".cfi_startproc",
                "cmp qword ptr [rip + {next}], 0",
                "je 4f",
                "2:",
                "cmp byte ptr [rip + {own}], 0",
                "je 3f",
                "cmp word ptr [rip + {watched}], 0",
                "je 3f",
                "mov rax, qword ptr [rip + unfreed_sampler_thread@GOTTPOFF]",
                "sub qword ptr fs:[rax], rdi",
                "jle 5f",
                "3:",
                "jmp qword ptr [rip + {next}]",
                // The first call of all.
                "4:",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdx",
                ".cfi_adjust_cfa_offset 8",
                "call {find}",
                "pop rdx",
                ".cfi_adjust_cfa_offset -8",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "jmp 2b",
                // A sample.
                "5:",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "call qword ptr [rip + {next}]",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "push rax",
                ".cfi_adjust_cfa_offset 8",
                "mov rdi, rax",
                "call {begin}",
                "pop rax",
                ".cfi_adjust_cfa_offset -8",
                "ret",
                ".cfi_endproc",
                next = sym $next,
                own = sym ARE_OWN,
                watched = sym ALLOC_WATCHED,
                find = sym find,
                begin = sym begin,
            )
        }
    };
}

/// Defines an operator `delete`, whose first argument is the block.
macro_rules! deletes {
    ($function:ident, $next:ident) => {
        static $next: AtomicUsize = AtomicUsize::new(0);

        /// One of C++'s operators `delete`.
        ///
        /// # Safety
        /// As of the C++ library's.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $function(block: *mut c_void, how: usize, other: usize) {
            naked_asm!(
                ".cfi_startproc",
                "mov eax, edi",
                "shr eax, 4",
                "mov rcx, rdi",
                "shr rcx, 20",
                "xor eax, ecx",
                "movzx eax, ax",
                "lea rcx, [rip + {filter}]",
                "cmp byte ptr [rcx + rax], 0",
                "jne 3f",
                "cmp qword ptr [rip + {next}], 0",
                "je 3f",
                "2:",
                "jmp qword ptr [rip + {next}]",
                "3:",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdx",
                ".cfi_adjust_cfa_offset 8",
                "call {end}",
                "pop rdx",
                ".cfi_adjust_cfa_offset -8",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "jmp 2b",
                ".cfi_endproc",
                filter = sym FILTER,
                next = sym $next,
                end = sym end,
            )
        }
    };
}

/// Defines all, and the table of them.
macro_rules! operators {
    ({ $($new:ident $next_new:ident,)* } { $($delete:ident $next_delete:ident,)* }) => {
        /// The operators.
        #[cfg_attr(not(preload), expect(non_snake_case, reason = "C++'s names"))]
        pub mod names {
            use super::*;
            $(news!($new, $next_new);)*
            $(deletes!($delete, $next_delete);)*

            /// Each with where the next one is noted.
            pub static NEWS: &[(&str, &AtomicUsize)] =
                &[$((concat!(stringify!($new), "\0"), &$next_new)),*];
            /// The same.
            pub static DELETES: &[(&str, &AtomicUsize)] =
                &[$((concat!(stringify!($delete), "\0"), &$next_delete)),*];
        }
    };
}

operators! {
    {
    _Znwm NEW,
    _Znam NEW_ARRAY,
    _ZnwmRKSt9nothrow_t NEW_NOTHROW,
    _ZnamRKSt9nothrow_t NEW_ARRAY_NOTHROW,
    _ZnwmSt11align_val_t NEW_ALIGNED,
    _ZnamSt11align_val_t NEW_ARRAY_ALIGNED,
    _ZnwmSt11align_val_tRKSt9nothrow_t NEW_ALIGNED_NOTHROW,
    _ZnamSt11align_val_tRKSt9nothrow_t NEW_ARRAY_ALIGNED_NOTHROW,
    } {
    _ZdlPv DELETE,
    _ZdaPv DELETE_ARRAY,
    _ZdlPvm DELETE_SIZED,
    _ZdaPvm DELETE_ARRAY_SIZED,
    _ZdlPvRKSt9nothrow_t DELETE_NOTHROW,
    _ZdaPvRKSt9nothrow_t DELETE_ARRAY_NOTHROW,
    _ZdlPvSt11align_val_t DELETE_ALIGNED,
    _ZdaPvSt11align_val_t DELETE_ARRAY_ALIGNED,
    _ZdlPvmSt11align_val_t DELETE_ALIGNED_SIZED,
    _ZdaPvmSt11align_val_t DELETE_ARRAY_ALIGNED_SIZED,
    _ZdlPvSt11align_val_tRKSt9nothrow_t DELETE_ALIGNED_NOTHROW,
    _ZdaPvSt11align_val_tRKSt9nothrow_t DELETE_ARRAY_ALIGNED_NOTHROW,
    }
}

/// Looks for the next operators. `allocator` is where the file is mapped that has the
/// next `malloc`.
pub fn find_all(allocator: usize) {
    for (name, next) in names::DELETES {
        note(next, name, functions::free as *const c_void);
    }
    for (name, next) in names::NEWS {
        note(next, name, plain_new as *const c_void);
    }
    let new = next::find(c"_Znwm");
    let are_own = new != 0 && next::base(new) == allocator;
    ARE_OWN.store(u8::from(are_own), Ordering::Release);
}

fn note(next: &AtomicUsize, name: &'static str, otherwise: *const c_void) {
    let found = CStr::from_bytes_with_nul(name.as_bytes()).map_or(0, next::find);
    let address = match found {
        0 => otherwise.addr(),
        address => address,
    };
    next.store(address, Ordering::Release);
}

/// Where there is no C++ library that others have: what it would do, but to throw.
unsafe extern "C" fn plain_new(size: usize) -> *mut c_void {
    // SAFETY: C's own function.
    unsafe { functions::malloc(size.max(1)) }
}

extern "C" fn find() {
    next::find_all();
}

extern "C" fn begin(block: usize, size: usize) {
    sample::begin(block, size);
}

extern "C" fn end(block: usize) {
    // Their own is known then, too.
    next::find_all();
    sample::end(block);
}
