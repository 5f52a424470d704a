//! The entry of a probed function: what it was asked for, and from where.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::{self, Arguments};
use tracer_ebpf::call::Function;
use tracer_ebpf::event::{MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE};
use tracer_ebpf::hits::Kind;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::phase::Choice;
use tracer_ebpf::thread::{Thread, Unheard};

use crate::elsewhere::{self, Verdict};
use crate::inflight::{self, now};
use crate::read::user_word;
use crate::unwind::{self, Place};
use crate::{allocation, burst, chosen, cost, mapping, maps, read, recall};

/// What a function was asked for.
pub(crate) struct Request {
    /// Bytes. A product that overflows makes the call fail; it must not pass
    /// for zero, which makes realloc free.
    pub(crate) size: u64,
    /// The block or mapping that there is already; 0 if none.
    pub(crate) address: u64,
    /// mremap's size of it.
    pub(crate) old_size: u64,
    /// See [`tracer_ebpf::call::Call::argument`].
    pub(crate) argument: u64,
    /// Whether it may allocate.
    allocates: bool,
}

impl Request {
    /// `None` for one that changes nothing.
    #[inline(always)]
    fn of(function: Function, context: &ProbeContext, arguments: Arguments) -> Option<Self> {
        let argument = |index| argument(context, arguments, index);
        let mut request = Self {
            size: 0,
            address: 0,
            old_size: 0,
            argument: 0,
            allocates: true,
        };
        match function {
            Function::Calloc | Function::NewCount => {
                request.size = argument(0)?.wrapping_mul(argument(1)?);
            }
            Function::HeapCalloc => request.size = argument(1)?.wrapping_mul(argument(2)?),
            Function::Realloc | Function::NewRealloc | Function::Reallocf | Function::Xallocx => {
                request.address = argument(0)?;
                request.size = argument(1)?;
            }
            Function::HeapRealloc => {
                request.address = argument(1)?;
                request.size = argument(2)?;
            }
            Function::RustRealloc => {
                request.address = argument(0)?;
                request.size = argument(3)?;
            }
            Function::Reallocarray => {
                request.address = argument(0)?;
                request.size = product(argument(1)?, argument(2)?);
            }
            Function::HeapReallocarray => {
                request.address = argument(1)?;
                request.size = product(argument(2)?, argument(3)?);
            }
            Function::PosixMemalign => {
                request.argument = argument(0)?;
                request.size = argument(2)?;
            }
            Function::AlignedAlloc | Function::Memalign => request.size = argument(1)?,
            Function::ArenaAlloc => {
                request.argument = argument(0)?;
                request.size = argument(1)?;
            }
            Function::ArenaString => request.argument = argument(0)?,
            Function::ArenaMake => {
                request.argument = argument(0)?;
                request.allocates = false;
            }
            Function::CarrierAlloc => request.size = argument(2)?,
            Function::CarrierRealloc => {
                request.address = argument(2)?;
                request.size = argument(3)?;
            }
            Function::Mmap => {
                request.address = argument(0)?;
                request.size = argument(1)?;
                request.argument = mapping_flags(argument(2)?, argument(3)?);
                // Only at an address of its choice can it replace code
                // without our knowledge.
                if request.argument & (MAP_ANONYMOUS | MAP_FIXED) == 0 && request.address == 0 {
                    return None;
                }
                request.allocates = request.argument & MAP_ANONYMOUS != 0;
            }
            Function::Munmap => {
                request.address = argument(0)?;
                request.size = argument(1)?;
                request.allocates = false;
            }
            Function::Mremap => {
                request.address = argument(0)?;
                request.old_size = argument(1)?;
                request.size = argument(2)?;
                request.argument = argument(3)? & 0xffff_ffff;
            }
            Function::Malloc | Function::Valloc | Function::Pvalloc | Function::New => {
                request.size = argument(0)?;
            }
        }
        Some(request)
    }
}

/// An argument of the call whose entry is probed. One that cannot be read is a
/// loss.
#[inline(always)]
pub(crate) fn argument(context: &ProbeContext, arguments: Arguments, index: usize) -> Option<u64> {
    if let arguments::Place::Own = arguments.place(index) {
        return context.arg(index);
    }
    let mut value = 0;
    in_place(context.regs, arguments, index, &mut value).then_some(value)
}

/// Reads an argument that is not in its own register.
#[inline(never)]
fn in_place(regs: *const pt_regs, arguments: Arguments, index: usize, argument: &mut u64) -> bool {
    let value = match arguments.place(index) {
        // Nobody asks for it here.
        arguments::Place::Own => None,
        arguments::Place::Register(register) => read::register(regs, register),
        arguments::Place::Stack(bytes) => {
            // SAFETY: the context's registers.
            user_word(unsafe { (*regs).rsp }.wrapping_add_signed(bytes))
        }
    };
    let Some(value) = value else {
        if inflight::thread().is_some() {
            maps::lose(LossCause::ResultUnreadable, 1, 0);
        }
        return false;
    };
    *argument = value;
    true
}

/// Where the return address of the call is whose entry is probed.
#[inline(always)]
pub(crate) fn slot(context: &ProbeContext, arguments: Arguments) -> u64 {
    // SAFETY: the context's registers.
    unsafe { (*context.regs).rsp }.wrapping_add(arguments.stack())
}

/// mmap's flags. Addresses that are only reserved, and not even counted by the
/// kernel, are no memory: as if they were not anonymous.
#[inline(always)]
fn mapping_flags(protection: u64, flags: u64) -> u64 {
    let flags = flags & 0xffff_ffff;
    if protection & 7 == 0 && flags & MAP_NORESERVE != 0 {
        return flags & !MAP_ANONYMOUS;
    }
    flags
}

/// The product of two sizes. One that overflows is wrong, but never zero.
#[inline(always)]
fn product(count: u64, size: u64) -> u64 {
    let product = count.wrapping_mul(size);
    if product == 0 && count != 0 && size != 0 {
        return u64::MAX;
    }
    product
}

/// A probed function other than `free` was entered, where the kernel has cookies:
/// what `cookie` says.
#[inline(always)]
pub(crate) fn by_cookie(context: &ProbeContext, cookie: u64) {
    let Some(function) = Arguments::function(cookie) else {
        return;
    };
    if maps::sessions_tell() && !function.may_throw() {
        return;
    }
    follow::<false>(context, cookie, function);
}

/// The same of a session link. Whether its return is to be told.
#[inline(always)]
pub(crate) fn in_session(context: &ProbeContext, cookie: u64) -> bool {
    match Arguments::function(cookie) {
        Some(function) if maps::sessions_tell() => follow::<true>(context, cookie, function),
        _ => false,
    }
}

/// The record of the current thread, if calls of a function count in it.
#[inline(always)]
fn calling_thread(function: Function) -> Option<*mut Thread> {
    match function {
        Function::Mmap | Function::Munmap | Function::Mremap => inflight::thread(),
        _ => inflight::calling_thread(),
    }
}

/// Follows a call to its end, if it is one that counts, and says so.
///
/// A call that is not chosen leaves nothing behind if it is `last`: no other probed
/// function runs within it. The others are noted, so that what runs within them has
/// no choice of its own. (If a chosen call was left by `longjmp`, and one that is not
/// chosen then returns to the same place, that result counts as the chosen one's.)
#[inline(always)]
fn follow<const IN_SESSION: bool>(context: &ProbeContext, cookie: u64, function: Function) -> bool {
    let arguments = Arguments::of_cookie(cookie);
    let choice = burst::choice();
    if choice == Choice::Pause as u64 && !function.changes_mappings() {
        cost::hit_in_passing(Kind::Entry, Arguments::is_stepped(cookie));
        return false;
    }
    let is_chosen = is_chosen(context, function, arguments, choice);
    let Some(is_chosen) = is_chosen.filter(|it| *it || !Arguments::is_last(cookie)) else {
        cost::hit_in_passing(Kind::Entry, Arguments::is_stepped(cookie));
        return false;
    };
    let Some(thread) = calling_thread(function) else {
        return false;
    };
    // SAFETY: the thread's own record.
    unsafe {
        cost::hit_at_entry(thread, Kind::Entry, Arguments::is_stepped(cookie));
        // Read anew after the request: the verifier would follow the rest for each function.
        (*thread).entered.set(function as u64);
        let again = || Function::from_number((*thread).entered.get());
        let chosen = (is_chosen, choice);
        let at = (arguments, Arguments::is_last(cookie));
        let entered = enter::<IN_SESSION>(context, thread, (function, again), at, chosen);
        if matches!(entered, Entered::AtSite) {
            find_site(context, thread, arguments);
        }
        cost::done(thread);
        !matches!(entered, Entered::LeftOut)
    }
}

/// The same where a program is for one function. It goes on with [`last`] if the
/// call's site is to be found.
#[inline(always)]
pub(crate) fn by_program(context: &ProbeContext, function: Function) {
    let choice = burst::choice();
    if choice == Choice::Pause as u64 && !function.changes_mappings() {
        cost::hit_in_passing(Kind::Entry, 0);
        return;
    }
    let Some(is_chosen) = is_chosen(context, function, Arguments::AT_ENTRY, choice) else {
        cost::hit_in_passing(Kind::Entry, 0);
        return;
    };
    let Some(thread) = calling_thread(function) else {
        return;
    };
    // SAFETY: the thread's own record.
    unsafe {
        cost::hit(thread, Kind::Entry);
        let again = || Some(function);
        let (at, chosen) = ((Arguments::AT_ENTRY, false), (is_chosen, choice));
        let entered = enter::<false>(context, thread, (function, again), at, chosen);
        if matches!(entered, Entered::AtSite) {
            go_on(context);
        }
        cost::done(thread);
    }
}

/// Whether a call counts; `None` for one that changes nothing, or whose arguments cannot
/// be read (which is a loss, once). Without sampling all do, and nothing is looked at.
#[inline(always)]
fn is_chosen(
    context: &ProbeContext,
    function: Function,
    arguments: Arguments,
    choice: u64,
) -> Option<bool> {
    if !chosen::is_on() {
        return Some(true);
    }
    let request = Request::of(function, context, arguments)?;
    Some(chosen::is_chosen(function, request.size, choice))
}

/// Finds the site of the call in flight, in a program of its own.
#[inline(always)]
pub(crate) fn last(context: &ProbeContext) {
    if let Some(thread) = inflight::record() {
        // SAFETY: the thread's own record.
        unsafe {
            find_site(context, thread, Arguments::AT_ENTRY);
            cost::done(thread);
        }
    }
}

/// What becomes of a call that was entered.
enum Entered {
    /// Nothing: nobody needs to know when it returns.
    LeftOut,
    /// It is in flight.
    Followed,
    /// It is in flight, and its site is to be found ([`find_site`]).
    AtSite,
}

/// What a function was called for.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn enter<const IN_SESSION: bool>(
    context: &ProbeContext,
    thread: *mut Thread,
    (function, again): (Function, impl FnOnce() -> Option<Function>),
    (arguments, is_last): (Arguments, bool),
    (is_chosen, choice): (bool, u64),
) -> Entered {
    let Some(request) = Request::of(function, context, arguments) else {
        return Entered::LeftOut;
    };
    let Some(function) = again() else {
        return Entered::LeftOut;
    };
    // How large a string is shows when it is there.
    let is_large = function == Function::ArenaString || request.size >= maps::setting!(min_size);
    let slot = slot(context, arguments);
    // SAFETY: the context's registers and the caller's record.
    let verdict = unsafe {
        let at = (slot, (*context.regs).rbp);
        elsewhere::judge(
            thread,
            function,
            at,
            (request.size, request.address),
            is_last,
        )
    };
    if verdict == Verdict::LeaveOut {
        return Entered::LeftOut;
    }
    let is_asked = verdict == Verdict::Follow;
    let has_site = is_chosen && is_asked && is_large && request.allocates;
    // SAFETY: the context's registers and the caller's record.
    unsafe {
        let start = (*context.regs).rip.wrapping_sub(arguments.code()) as u32;
        if !inflight::is_outermost(thread, (function, start), slot) {
            return Entered::LeftOut;
        }
        (*thread).freed.address = 0;
        if slot >= (*thread).thrown.slot {
            (*thread).thrown.slot = 0;
        }
        // What is too small is no matter to anybody; within what was not chosen nothing
        // may have a choice of its own.
        let is_unheard = is_chosen && !is_large && request.address == 0;
        if IN_SESSION && is_unheard && function.may_go_unheard() {
            let back = user_word(slot).unwrap_or(0);
            if back != 0 {
                (*thread).unheard = Unheard {
                    slot,
                    back,
                    function: function as u32,
                    padding: 0,
                };
                return Entered::LeftOut;
            }
        }
        let call = &mut (*thread).call;
        let is_left_alone = function.may_throw() || maps::returns_are_left_alone();
        let back = if is_left_alone {
            user_word(slot).unwrap_or(0)
        } else {
            0
        };
        call.begin((function, start), slot, back, now());
        call.size = request.size;
        call.argument = request.argument;
        call.certain = chosen::is_certain(choice);
        match function {
            Function::Mmap | Function::Munmap | Function::Mremap => {
                mapping::entered(thread, function, &request);
            }
            _ if request.address != 0 => allocation::take_old(thread, request.address),
            _ => {}
        }
        if has_site {
            Entered::AtSite
        } else {
            Entered::Followed
        }
    }
}

/// Goes on with the program that finds the call's site.
#[inline(always)]
fn go_on(context: &ProbeContext) {
    // SAFETY: a program of the same type, which takes the same context.
    unsafe { maps::NEXT.tail_call(context, 0) };
    // Only if there is no such program: its call is in no number.
    maps::lose(LossCause::MapBusy, 1, 0);
}

/// Finds the site of the call in flight.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn find_site(context: &ProbeContext, thread: *mut Thread, arguments: Arguments) {
    // SAFETY: the context's registers and the caller's record.
    unsafe {
        let at = unwind::registers(context.regs, Place::Entry(arguments));
        (*thread).call.site = recall::site(thread, at);
    }
}
