//! The functions that we stand before: those that the program would call without us.
//!
//! They are looked for when the first of them is called. What the loader itself wants to
//! allocate meanwhile it gets from a small piece of memory of ours.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_void};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::{config, exec, functions, operators, table, thread};

/// The next object's, in the order in which symbols are looked for (`dlfcn.h`).
const RTLD_NEXT: *mut c_void = core::ptr::without_provenance_mut(usize::MAX);

/// What `dladdr` says of an address (`Dl_info` in `dlfcn.h`).
#[repr(C)]
struct Place {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, place: *mut Place) -> i32;
}

/// A function of C that we stand before: what is called next, which is one of ours until
/// it is known.
pub struct Next {
    name: &'static CStr,
    function: AtomicPtr<c_void>,
    /// What is called where there is none.
    otherwise: *const c_void,
}

// SAFETY: the pointer is a function's.
unsafe impl Sync for Next {}

impl Next {
    /// One that is not known yet; see [`Next`].
    pub const fn new(name: &'static CStr, first: *const c_void, otherwise: *const c_void) -> Self {
        Self {
            name,
            function: AtomicPtr::new(first.cast_mut()),
            otherwise,
        }
    }

    /// The function.
    #[inline(always)]
    pub fn get(&self) -> *mut c_void {
        self.function.load(Ordering::Relaxed)
    }

    fn resolve(&self) {
        let function = match find(self.name) {
            0 => self.otherwise,
            address => core::ptr::without_provenance(address),
        };
        self.function.store(function.cast_mut(), Ordering::Release);
    }
}

/// Whether all are known.
static DONE: AtomicBool = AtomicBool::new(false);

/// Looks for all functions, once; more than one thread may. Whether they are known: they
/// are not where the loader allocates while this thread looks.
#[cold]
#[inline(never)]
pub fn find_all() -> bool {
    // SAFETY: the current thread's own.
    let thread = unsafe { &mut *thread::current() };
    if DONE.load(Ordering::Acquire) {
        return true;
    }
    if thread.is_resolving != 0 || !config::is_there() {
        return false;
    }
    thread.is_resolving = 1;
    operators::find_all(base(find(c"malloc")));
    exec::ALL.iter().for_each(|next| next.resolve());
    functions::ALL.iter().for_each(|next| next.resolve());
    thread.is_resolving = 0;
    DONE.store(true, Ordering::Release);
    true
}

/// The next function of a name; 0 if there is none.
pub fn find(name: &CStr) -> usize {
    // SAFETY: a name with its end.
    unsafe { dlsym(RTLD_NEXT, name.as_ptr()) }.addr()
}

/// Where the file is mapped that has an address; 0 if none has.
pub fn base(address: usize) -> usize {
    let mut place = Place {
        file: core::ptr::null(),
        base: core::ptr::null_mut(),
        symbol: core::ptr::null(),
        address: core::ptr::null_mut(),
    };
    let address = core::ptr::without_provenance(address);
    // SAFETY: it looks the address up, and writes to the local.
    match unsafe { dladdr(address, &raw mut place) } {
        0 => 0,
        _ => place.base.addr(),
    }
}

/// Memory for those who allocate while we look.
const ROOM: usize = 64 << 10;

#[repr(C, align(4096))]
struct Room(UnsafeCell<[u8; ROOM]>);

// SAFETY: each part of it is given to one caller only.
unsafe impl Sync for Room {}

static FIRST: Room = Room(UnsafeCell::new([0; ROOM]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// A piece of that memory, of zeros, which is never given back; null if there is no more.
#[cold]
pub fn piece(size: usize, alignment: usize) -> *mut c_void {
    let start = FIRST.0.get();
    let size = size.saturating_add(alignment).saturating_add(31) & !15;
    let used = USED.fetch_add(size.min(ROOM + 1), Ordering::Relaxed);
    if used.saturating_add(size) > ROOM {
        return core::ptr::null_mut();
    }
    let alignment = alignment.max(16);
    let at = (start.addr() + used).next_multiple_of(alignment);
    // So that a free of it comes to where that is looked at.
    table::suspect(at);
    start.cast::<c_void>().with_addr(at)
}

/// How many bytes there are from a block of that memory on; `None` of another.
pub fn rest_of_piece(block: usize) -> Option<usize> {
    let start = FIRST.0.get().addr();
    (start..start + ROOM)
        .contains(&block)
        .then(|| start + ROOM - block)
}
