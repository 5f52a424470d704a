//! C's functions, as the program calls them.
//!
//! The usual way through each is a comparison, a subtraction and a jump to the next
//! function of the name; all else is in functions of their own ([`sampled`], [`first`]),
//! so that nothing has to be saved before.

use core::ffi::c_void;
use core::mem::transmute;

use crate::next::{Next, find_all, piece, rest_of_piece};
use crate::{probes, sample, table, thread};

type Block = *mut c_void;

/// Whether the choice falls on a block of this size.
#[inline(always)]
fn is_chosen(size: usize) -> bool {
    probes::are_watched() && thread::take(size)
}

/// Defines functions that allocate: the arguments, of these how large the block is to be,
/// and its alignment. Each in three forms: as the program calls it, for a sample, and for
/// a call before the next function is known.
macro_rules! allocates {
    ($($(#[$doc:meta])* $name:literal $function:ident($($argument:ident),*), $size:expr, $alignment:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As of the C library's.
            #[cfg_attr(preload, unsafe(no_mangle))]
            pub unsafe extern "C" fn $function($($argument: usize),*) -> Block {
                if is_chosen($size) {
                    // SAFETY: the caller's arguments.
                    return unsafe { sampled::$function($($argument),*) };
                }
                // SAFETY: the caller's arguments.
                unsafe { next::$function($($argument),*) }
            }
        )*

        mod next {
            use super::*;

            $(
                #[inline(always)]
                pub unsafe fn $function($($argument: usize),*) -> Block {
                    let function = nexts::$function.get();
                    // SAFETY: the C library's function of this name, or that of an
                    // allocator that takes its place, or ours; and the caller's arguments.
                    unsafe {
                        transmute::<Block, unsafe extern "C" fn($(allocates!(@word $argument)),*) -> Block>(function)(
                            $($argument),*
                        )
                    }
                }
            )*
        }

        mod sampled {
            use super::*;

            $(
                #[cold]
                #[inline(never)]
                pub unsafe extern "C" fn $function($($argument: usize),*) -> Block {
                    // SAFETY: the caller's arguments.
                    let block = unsafe { super::next::$function($($argument),*) };
                    sample::begin(block.addr(), $size);
                    block
                }
            )*
        }

        mod first {
            use super::*;

            $(
                #[cold]
                #[inline(never)]
                pub unsafe extern "C" fn $function($($argument: usize),*) -> Block {
                    match find_all() {
                        // SAFETY: the caller's arguments.
                        true => unsafe { super::next::$function($($argument),*) },
                        false => piece($size, $alignment),
                    }
                }
            )*
        }

        #[expect(non_upper_case_globals, reason = "the functions' names")]
        mod nexts {
            use super::*;

            $(
                pub static $function: Next = Next::new(
                    $name,
                    first::$function as *const c_void,
                    missing as *const c_void,
                );
            )*
        }
    };
    (@word $argument:ident) => { usize };
}

allocates! {
    /// `malloc`.
    c"malloc" malloc(size), size, 16;
    /// `calloc`. A product that is too large fails.
    c"calloc" calloc(count, size), count.wrapping_mul(size), 16;
    /// `aligned_alloc`.
    c"aligned_alloc" aligned_alloc(alignment, size), size, alignment;
    /// `memalign`.
    c"memalign" memalign(alignment, size), size, alignment;
    /// `valloc`.
    c"valloc" valloc(size), size, 4096;
    /// `pvalloc`.
    c"pvalloc" pvalloc(size), size, 4096;
}

/// In the place of a function that the C library does not have.
extern "C" fn missing() -> Block {
    core::ptr::null_mut()
}

static POSIX_MEMALIGN: Next = Next::new(
    c"posix_memalign",
    first_posix_memalign as *const c_void,
    not_there as *const c_void,
);
static REALLOC: Next = Next::new(
    c"realloc",
    first_realloc as *const c_void,
    missing as *const c_void,
);
static REALLOCARRAY: Next = Next::new(
    c"reallocarray",
    plain_reallocarray as *const c_void,
    plain_reallocarray as *const c_void,
);
static FREE: Next = Next::new(
    c"free",
    first_free as *const c_void,
    missing as *const c_void,
);
static FREE_SIZED: Next = Next::new(c"free_sized", free as *const c_void, free as *const c_void);
static FREE_ALIGNED_SIZED: Next = Next::new(
    c"free_aligned_sized",
    free as *const c_void,
    free as *const c_void,
);

/// All functions that we stand before, but for C++'s operators.
pub static ALL: [&Next; 12] = [
    &nexts::malloc,
    &nexts::calloc,
    &nexts::aligned_alloc,
    &nexts::memalign,
    &nexts::valloc,
    &nexts::pvalloc,
    &POSIX_MEMALIGN,
    &REALLOC,
    &REALLOCARRAY,
    &FREE,
    &FREE_SIZED,
    &FREE_ALIGNED_SIZED,
];

/// The next function of these arguments.
macro_rules! call {
    ($next:ident($($argument:expr),*) $(: $kind:ty)* => $result:ty) => {{
        let function = $next.get();
        // SAFETY: as above.
        unsafe {
            transmute::<Block, unsafe extern "C" fn($($kind),*) -> $result>(function)(
                $($argument),*
            )
        }
    }};
}

/// `posix_memalign`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn posix_memalign(result: *mut Block, alignment: usize, size: usize) -> i32 {
    let status = call!(POSIX_MEMALIGN(result, alignment, size) : *mut Block : usize : usize => i32);
    if is_chosen(size) {
        let block = match status {
            // SAFETY: it has succeeded, and written there.
            0 => unsafe { *result }.addr(),
            _ => 0,
        };
        sample::begin(block, size);
    }
    status
}

/// What it is not there for: `ENOMEM`.
extern "C" fn not_there() -> i32 {
    12
}

#[cold]
unsafe extern "C" fn first_posix_memalign(
    result: *mut Block,
    alignment: usize,
    size: usize,
) -> i32 {
    match find_all() {
        true => call!(POSIX_MEMALIGN(result, alignment, size) : *mut Block : usize : usize => i32),
        false => not_there(),
    }
}

/// `realloc`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn realloc(block: Block, size: usize) -> Block {
    if table::may_have(block.addr()) {
        return resized(block, size);
    }
    if is_chosen(size) {
        return sampled_realloc(block, size);
    }
    call!(REALLOC(block, size) : Block : usize => Block)
}

/// A block that is none becomes a sample.
#[cold]
#[inline(never)]
extern "C" fn sampled_realloc(block: Block, size: usize) -> Block {
    let block = call!(REALLOC(block, size) : Block : usize => Block);
    sample::begin(block.addr(), size);
    block
}

/// A block that may be a sample becomes another, which may be one.
///
/// The old one ends before the call, since its address may be another thread's before
/// the call ends. If the call fails after all, it is told once more.
#[cold]
#[inline(never)]
extern "C" fn resized(block: Block, size: usize) -> Block {
    if rest_of_piece(block.addr()).is_some() {
        return moved(block, size);
    }
    let old = sample::end(block.addr());
    let new = call!(REALLOC(block, size) : Block : usize => Block);
    if new.is_null() && size != 0 {
        if let Some(old) = old {
            sample::begin_again(block.addr(), old);
        }
    } else if is_chosen(size) {
        sample::begin(new.addr(), size);
    }
    new
}

/// A block of our own memory goes to where all others are.
fn moved(block: Block, size: usize) -> Block {
    // SAFETY: C's own function.
    let new = unsafe { malloc(size) };
    if let Some(rest) = rest_of_piece(block.addr())
        && !new.is_null()
    {
        // SAFETY: both have so many bytes, and do not overlap.
        unsafe { core::ptr::copy_nonoverlapping::<u8>(block.cast(), new.cast(), rest.min(size)) };
    }
    new
}

#[cold]
unsafe extern "C" fn first_realloc(block: Block, size: usize) -> Block {
    match find_all() {
        true => call!(REALLOC(block, size) : Block : usize => Block),
        false => moved(block, size),
    }
}

/// `reallocarray`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn reallocarray(block: Block, count: usize, size: usize) -> Block {
    let Some(bytes) = count.checked_mul(size) else {
        // It fails, and says why in its own way.
        return call!(REALLOCARRAY(block, count, size) : Block : usize : usize => Block);
    };
    // SAFETY: the caller's block.
    unsafe { realloc(block, bytes) }
}

/// What it does where the C library has none, for products that are too large.
extern "C" fn plain_reallocarray(_: Block, _: usize, _: usize) -> Block {
    core::ptr::null_mut()
}

/// `free`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn free(block: Block) {
    if table::may_have(block.addr()) {
        return freed(block);
    }
    call!(FREE(block) : Block => ());
}

/// Ends a block that may be a sample.
#[cold]
#[inline(never)]
extern "C" fn freed(block: Block) {
    // That of our own memory is never given back.
    if rest_of_piece(block.addr()).is_none() {
        sample::end(block.addr());
        call!(FREE(block) : Block => ());
    }
}

#[cold]
unsafe extern "C" fn first_free(block: Block) {
    if find_all() {
        call!(FREE(block) : Block => ());
    }
}

/// C23's `free` with the size.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn free_sized(block: Block, size: usize) {
    if table::may_have(block.addr()) {
        return freed(block);
    }
    call!(FREE_SIZED(block, size) : Block : usize => ());
}

/// The same with the alignment.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn free_aligned_sized(block: Block, alignment: usize, size: usize) {
    if table::may_have(block.addr()) {
        return freed(block);
    }
    call!(FREE_ALIGNED_SIZED(block, alignment, size) : Block : usize : usize => ());
}
