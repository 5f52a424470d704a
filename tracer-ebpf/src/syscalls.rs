//! System calls that change a process's mappings, and those that start threads,
//! seen in the kernel: whatever door a program calls them by, and with their real
//! outcome. Programs at the kernel's own functions cost only those who call them.
//!
//! What they do to ranges is sent to user space, which keeps the ledger: one call
//! can touch many mappings. Calls within a probed call of an allocator are the
//! allocator's: of these is sent what they mapped, for nobody's account.

use core::mem::offset_of;

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_task;
#[cfg(feature = "find_vma")]
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::PAGE;
use tracer_ebpf::event::{
    Event, EventKind, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE,
    PROT_EXEC,
};
#[cfg(feature = "find_vma")]
use tracer_ebpf::limits::MAX_FRAMES;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE, SiteKind};
#[cfg(feature = "find_vma")]
use tracer_ebpf::stack::StackEnd;
use tracer_ebpf::stack::Walk;
use tracer_ebpf::step::Registers;
use tracer_ebpf::thread::{Cloning, Thread};

use crate::code;
use crate::inflight::{self, full_or_busy, now};
use crate::maps::{self, RESERVERS};
use crate::read::{kernel, kernel_or_zero, user_word};
use crate::unwind::{self, Place};

/// The largest error that the kernel returns, negated (`MAX_ERRNO`).
const LARGEST_ERROR: u64 = 4095;
/// clone's flag for another thread of the process.
const CLONE_THREAD: u64 = 0x1_0000;
/// clone's flag to write 0 when the thread ends.
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
/// Of `struct clone_args` (`linux/sched.h`): flags, where the id is cleared, and
/// the stack with its size; offsets in bytes.
const CLONE_ARGS: [u64; 4] = [0, 16, 40, 48];

/// The registers of the caller of a system call, which the kernel has saved: an
/// address in the kernel.
pub(crate) struct UserRegisters(pub(crate) u64);

impl UserRegisters {
    /// Those of the system call that the current thread is in, where the kernel does not
    /// hand them to the program (Linux 5.15).
    #[cfg(feature = "find_vma")]
    #[inline(always)]
    pub(crate) fn of_current() -> Self {
        // SAFETY: the helpers have no preconditions but a task, which the first returns.
        Self(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) }.cast_unsigned())
    }

    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> u64 {
        kernel_or_zero::<u64>(self.0 + offset as u64)
    }

    /// An argument, by the convention of system calls.
    #[inline(always)]
    pub(crate) fn argument(&self, index: usize) -> u64 {
        self.at(match index {
            0 => offset_of!(pt_regs, rdi),
            1 => offset_of!(pt_regs, rsi),
            2 => offset_of!(pt_regs, rdx),
            3 => offset_of!(pt_regs, r10),
            4 => offset_of!(pt_regs, r8),
            _ => offset_of!(pt_regs, r9),
        })
    }

    #[inline(always)]
    fn stack(&self) -> u64 {
        self.at(offset_of!(pt_regs, rsp))
    }

    /// What a system call that is about to return will return.
    #[cfg(feature = "find_vma")]
    #[inline(always)]
    pub(crate) fn result(&self) -> u64 {
        self.at(offset_of!(pt_regs, rax))
    }

    /// The system call's number. Those of x32 differ from the others by a bit.
    #[inline(always)]
    pub(crate) fn number(&self) -> u64 {
        self.at(offset_of!(pt_regs, orig_rax)) & !number::X32
    }

    /// What a walk starts with.
    #[inline(always)]
    fn registers(&self) -> Registers {
        Registers {
            ip: self.at(offset_of!(pt_regs, rip)),
            sp: self.stack(),
            bp: self.at(offset_of!(pt_regs, rbp)),
            bx: self.at(offset_of!(pt_regs, rbx)),
        }
    }
}

/// The record of the current thread, if its call is not an allocator's.
#[inline(always)]
fn outermost(call: &UserRegisters) -> Option<*mut Thread> {
    let thread = inflight::thread()?;
    (!is_allocators(call, thread)).then_some(thread)
}

/// Whether a call is made within a probed call of an allocator.
#[inline(always)]
fn is_allocators(call: &UserRegisters, thread: *mut Thread) -> bool {
    // SAFETY: the current thread's record.
    let in_flight = unsafe { &(*thread).call };
    if in_flight.function == 0 || call.stack() > in_flight.slot {
        return false;
    }
    // A call that was left by longjmp is not believed.
    user_word(in_flight.slot).is_some_and(|word| in_flight.is_active_with(word))
}

/// Where the thread's last call returns to that was too small to be followed, if a
/// system call may come from within it, or else 0. Such calls give nothing back but
/// what they have just mapped, of which user space has not been told. There are no
/// session links where the kernel has no `bpf_find_vma`.
#[inline(always)]
fn unheard(call: &UserRegisters, thread: *mut Thread) -> u64 {
    if cfg!(not(feature = "find_vma")) {
        return 0;
    }
    // SAFETY: the current thread's record.
    let unheard = unsafe { (*thread).unheard };
    match unheard.may_run(call.stack(), || user_word(unheard.slot)) {
        true => unheard.back,
        false => 0,
    }
}

/// Whether the call whose stack was just walked came from within the one that returns
/// to `back`: that address is among its frames then, since the call before it runs. A
/// stack that is cut does not show that; then the word at the call's slot is believed.
#[cfg(feature = "find_vma")]
#[inline(always)]
fn leads_back(walk: &Walk, back: u64, thread: *mut Thread) -> bool {
    if walk.end != StackEnd::Start {
        return true;
    }
    let word = unwind::word_of(thread, back);
    let mut index = 0;
    while index < MAX_FRAMES {
        if index >= walk.depth as usize {
            return false;
        }
        // SAFETY: the index is within the frames of the current thread's record.
        let frame = unsafe {
            (&raw const (*thread).frames)
                .cast::<u64>()
                .add(index)
                .read_volatile()
        };
        if frame == word {
            return true;
        }
        index += 1;
    }
    false
}

/// There are no such calls. If it were never so, the compiler would leave out the
/// argument that says so, which the verifier wants.
#[cfg(not(feature = "find_vma"))]
#[inline(always)]
fn leads_back(_walk: &Walk, _back: u64, _thread: *mut Thread) -> bool {
    true
}

/// The image of the current thread, if its call is not an allocator's.
#[inline(always)]
fn outermost_image(call: &UserRegisters) -> Option<u64> {
    // SAFETY: the current thread's record.
    outermost(call).map(|thread| unsafe { (*thread).image })
}

/// A table tells how the caller's frame looks at the call.
pub(crate) const INSIDE: u32 = 0;
/// There is none for the C libraries' functions that make threads, since what follows
/// the call runs on two stacks: they push nothing before it.
const AT_ENTRY: u32 = 1;
/// It is no call, but an instruction that touched a page: anywhere, in Java code too.
pub(crate) const TOUCH: u32 = 2;
/// The kernel touched a page within the call.
pub(crate) const TOUCH_WITHIN: u32 = 4;
/// It has no site. The stack is walked for what else it tells.
const NOWHERE: u32 = 3;

/// In place of a site: the call came from within one that was too small to be followed.
const UNHEARD: u64 = u64::MAX;

/// The site of a call of `length` bytes, in the thread whose record was just believed;
/// `None` if it came from within the call that returns to `back`.
#[inline(always)]
fn site(call: &UserRegisters, length: u64, has_site: bool, back: u64) -> Option<u32> {
    let has_site = has_site && length >= maps::setting!(min_size);
    let place = if has_site { INSIDE } else { NOWHERE };
    if !has_site && back == 0 {
        return Some(NO_SITE);
    }
    match walked(call, length, place, back) {
        UNHEARD => None,
        site => Some(site as u32),
    }
}

/// The same, however much it takes.
#[inline(always)]
pub(crate) fn any_site(call: &UserRegisters, length: u64, place: u32) -> u32 {
    walked(call, length, place, 0) as u32
}

#[inline(always)]
fn walked(call: &UserRegisters, length: u64, place: u32, back: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return u64::from(NO_SITE);
    };
    // SAFETY: the current thread's record.
    unsafe { (&raw mut (*thread).caller).write_volatile(call.0) };
    site_of_call(length, place, back)
}

/// The site of the call whose registers the thread's record tells of, or [`UNHEARD`].
/// Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_of_call(length: u64, place: u32, back: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return u64::from(NO_SITE);
    };
    // SAFETY: the current thread's record.
    let call = UserRegisters(unsafe { (&raw const (*thread).caller).read_volatile() });
    let from = match place {
        AT_ENTRY => Place::Entry(Arguments::AT_ENTRY),
        TOUCH => Place::Touch,
        TOUCH_WITHIN => Place::TouchWithin,
        _ => Place::Inside,
    };
    // SAFETY: the current thread's record.
    let walk = unsafe {
        (*thread).window_length.set(0);
        unwind::capture_at(call.registers(), from, 0, thread)
    };
    if back != 0 && leads_back(&walk, back, thread) {
        return UNHEARD;
    }
    if cfg!(feature = "find_vma") && place == NOWHERE {
        return u64::from(NO_SITE);
    }
    // SAFETY: the current thread's record.
    let site = unsafe { inflight::site_of(&walk, kind(place), thread, now(), length) };
    if site == LOST_SITE {
        maps::lose(LossCause::SitesFull, 1, length);
        return u64::from(NO_SITE);
    }
    u64::from(site)
}

/// What sites are made of: pages where one was touched, and else memory.
#[inline(always)]
fn kind(place: u32) -> SiteKind {
    match place {
        TOUCH | TOUCH_WITHIN => SiteKind::Page,
        _ => SiteKind::Memory,
    }
}

const fn failed(result: u64) -> bool {
    result > u64::MAX - LARGEST_ERROR
}

/// Numbers of system calls (`asm/unistd_64.h`).
pub(crate) mod number {
    pub(crate) const MMAP: u64 = 9;
    pub(crate) const MPROTECT: u64 = 10;
    pub(crate) const MUNMAP: u64 = 11;
    pub(crate) const BRK: u64 = 12;
    pub(crate) const MREMAP: u64 = 25;
    pub(crate) const SHMAT: u64 = 30;
    pub(crate) const CLONE: u64 = 56;
    pub(crate) const SHMDT: u64 = 67;
    pub(crate) const PKEY_MPROTECT: u64 = 329;
    pub(crate) const CLONE3: u64 = 435;
    /// `__X32_SYSCALL_BIT`.
    pub(crate) const X32: u64 = 1 << 30;
}

/// What a program at a system call leaves to another: the site of the call is to be
/// found. Then the walk need not be verified with each of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Nothing,
    /// The rest: [`rest_at_entry`], [`rest_at_return`] or [`rest`].
    Rest,
}

/// A system call was entered, any, where programs cannot be at the kernel's own
/// functions.
#[inline(always)]
pub(crate) fn entered(call: &UserRegisters, number: u64) -> Next {
    match number {
        number::MUNMAP => munmap_entered(call),
        number::MREMAP => mremap_entered(call),
        number::BRK => brk_entered(call),
        number::SHMDT => shmdt_entered(call),
        number::CLONE | number::CLONE3 => return made(),
        _ => {}
    }
    Next::Nothing
}

/// A system call returned, any.
#[inline(always)]
pub(crate) fn returned(call: &UserRegisters, result: u64) -> Next {
    match call.number() {
        number::MUNMAP | number::SHMDT => munmap_returned(call, result),
        number::MPROTECT | number::PKEY_MPROTECT => return mprotect_returned(call, result),
        number::MMAP | number::BRK | number::MREMAP | number::SHMAT => return made(),
        _ => {}
    }
    Next::Nothing
}

/// A call may start a thread, or has made a mapping.
#[inline(always)]
pub(crate) fn made() -> Next {
    match inflight::thread() {
        Some(_) => Next::Rest,
        None => Next::Nothing,
    }
}

/// `mprotect` returned, or `pkey_mprotect`, whose first arguments are the same. Where
/// nothing was reserved, it makes no memory.
#[inline(always)]
pub(crate) fn mprotect_returned(call: &UserRegisters, result: u64) -> Next {
    if result != 0 || call.argument(2) & 7 == 0 {
        return Next::Nothing;
    }
    let Some(image) = outermost_image(call) else {
        return Next::Nothing;
    };
    match RESERVERS.get_ptr(image) {
        Some(_) => Next::Rest,
        None => Next::Nothing,
    }
}

/// What is left to do of a system call that was entered.
#[inline(always)]
pub(crate) fn rest_at_entry(call: &UserRegisters) {
    match call.number() {
        number::CLONE3 => clone3_entered(call),
        _ => clone_entered(call),
    }
}

/// What is left to do of one that returned.
#[inline(always)]
pub(crate) fn rest_at_return(call: &UserRegisters, result: u64) {
    match call.number() {
        number::MMAP => mmap_returned(call, result),
        number::MREMAP => mremap_returned(call, result),
        number::BRK => brk_returned(call, result),
        number::SHMAT => shmat_returned(call, result),
        _ => made_accessible(call),
    }
}

/// The same of any, in one program for both moments: no call has something left at
/// both.
#[inline(always)]
pub(crate) fn rest(call: &UserRegisters, result: u64) {
    match call.number() {
        number::CLONE | number::CLONE3 => rest_at_entry(call),
        _ => rest_at_return(call, result),
    }
}

/// `mmap` returned.
#[inline(always)]
fn mmap_returned(call: &UserRegisters, result: u64) {
    if failed(result) {
        return;
    }
    let (wanted, length) = (call.argument(0), call.argument(1));
    let (protection, flags) = (call.argument(2), call.argument(3) & 0xffff_ffff);
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the current thread's record.
    let image = unsafe { (*thread).image };
    // Elsewhere the kernel told that it chose the place.
    if wanted != 0 || flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
        code::replaced(image, result, length);
    }
    let is_anonymous = flags & MAP_ANONYMOUS != 0;
    if is_allocators(call, thread) {
        if is_anonymous {
            send(EventKind::AllocatorMap, image, (result, length, 0), NO_SITE);
        }
        return;
    }
    // Code of a file is the loader's business; what it replaces is ours.
    let is_code = !is_anonymous && protection & PROT_EXEC != 0;
    if is_code && flags & MAP_FIXED == 0 {
        return;
    }
    let is_reserved = is_anonymous && protection & 7 == 0 && flags & MAP_NORESERVE != 0;
    let has_site = !is_code && !is_reserved;
    let Some(site) = site(call, length, has_site, unheard(call, thread)) else {
        if is_anonymous {
            send(EventKind::AllocatorMap, image, (result, length, 0), NO_SITE);
        }
        return;
    };
    let kind = match is_reserved {
        true => EventKind::Reserve,
        false => EventKind::Map,
    };
    if is_reserved {
        note_reserver(image);
    }
    send(kind, image, (result, length, flags), site);
}

#[inline(always)]
fn note_reserver(image: u64) {
    if RESERVERS.get_ptr(image).is_none()
        && let Err(error) = RESERVERS.insert(image, 1, 0)
    {
        maps::lose(full_or_busy(error, LossCause::ProcessesFull), 1, 0);
    }
}

/// `munmap` was entered.
#[inline(always)]
pub(crate) fn munmap_entered(call: &UserRegisters) {
    if let Some(image) = outermost_image(call) {
        let range = (call.argument(0), call.argument(1), 0);
        send(EventKind::UnmapEnter, image, range, NO_SITE);
    }
}

/// `munmap` returned, or `shmdt`.
#[inline(always)]
pub(crate) fn munmap_returned(call: &UserRegisters, result: u64) {
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the current thread's record.
    let image = unsafe { (*thread).image };
    let status = result & 0xffff_ffff;
    if !is_allocators(call, thread) {
        send(EventKind::UnmapReturn, image, (status, 0, 0), NO_SITE);
    } else if status == 0 {
        let range = (call.argument(0), call.argument(1), 0);
        send(EventKind::AllocatorUnmap, image, range, NO_SITE);
    }
}

/// `mremap` was entered.
#[inline(always)]
pub(crate) fn mremap_entered(call: &UserRegisters) {
    if let Some(image) = outermost_image(call) {
        let range = (call.argument(0), call.argument(1), call.argument(3));
        send(EventKind::RemapEnter, image, range, NO_SITE);
    }
}

/// `mremap` returned.
#[inline(always)]
fn mremap_returned(call: &UserRegisters, result: u64) {
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the current thread's record.
    let image = unsafe { (*thread).image };
    let (length, flags) = (call.argument(2), call.argument(3) & 0xffff_ffff);
    if is_allocators(call, thread) {
        if !failed(result) {
            let old = (call.argument(0), call.argument(1), 0);
            send(EventKind::AllocatorUnmap, image, old, NO_SITE);
            send(EventKind::AllocatorMap, image, (result, length, 0), NO_SITE);
        }
        return;
    }
    if failed(result) {
        let range = (MAP_FAILED, length, flags);
        send(EventKind::RemapReturn, image, range, NO_SITE);
        return;
    }
    code::replaced(image, result, length);
    let site = site(call, length, true, 0).unwrap_or(NO_SITE);
    send(EventKind::RemapReturn, image, (result, length, flags), site);
}

/// `brk` was entered.
#[inline(always)]
pub(crate) fn brk_entered(call: &UserRegisters) {
    if let Some(thread) = outermost(call) {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task() };
        let memory = kernel_or_zero::<u64>(task + u64::from(maps::setting!(task_mm)));
        let end = kernel(memory + u64::from(maps::setting!(mm_brk)));
        // SAFETY: the current thread's record.
        unsafe { (*thread).brk = end.unwrap_or(0) };
    }
}

/// `brk` returned where the heap ends now.
#[inline(always)]
fn brk_returned(call: &UserRegisters, result: u64) {
    let Some(thread) = outermost(call) else {
        return;
    };
    // SAFETY: the current thread's record.
    let (image, before) = unsafe { ((*thread).image, (*thread).brk) };
    let up = |address: u64| address.wrapping_add(PAGE - 1) & !(PAGE - 1);
    let (old, new) = (up(before), up(result));
    if before == 0 || old == new {
        return;
    }
    let length = new.abs_diff(old);
    let Some(site) = site(call, length, new > old, unheard(call, thread)) else {
        return;
    };
    if new < old {
        send(EventKind::UnmapEnter, image, (new, length, 0), NO_SITE);
        send(EventKind::UnmapReturn, image, (0, 0, 0), NO_SITE);
        return;
    }
    send(EventKind::Map, image, (old, length, MAP_ANONYMOUS), site);
}

/// `mprotect` made accessible what may have been reserved.
#[inline(always)]
fn made_accessible(call: &UserRegisters) {
    let Some(thread) = outermost(call) else {
        return;
    };
    let (address, length) = (call.argument(0), call.argument(1));
    if let Some(site) = site(call, length, true, unheard(call, thread)) {
        // SAFETY: the current thread's record.
        let image = unsafe { (*thread).image };
        send(EventKind::Commit, image, (address, length, 0), site);
    }
}

/// `shmat` returned.
#[inline(always)]
fn shmat_returned(call: &UserRegisters, result: u64) {
    if failed(result) {
        return;
    }
    if let Some(image) = outermost_image(call) {
        let site = any_site(call, 0, INSIDE);
        send(EventKind::Attach, image, (result, 0, 0), site);
    }
}

/// `shmdt` was entered.
#[inline(always)]
pub(crate) fn shmdt_entered(call: &UserRegisters) {
    if let Some(image) = outermost_image(call) {
        let range = (call.argument(0), 0, 0);
        send(EventKind::DetachEnter, image, range, NO_SITE);
    }
}

/// `clone` was entered.
#[inline(always)]
fn clone_entered(call: &UserRegisters) {
    let (flags, stack) = (call.argument(0), call.argument(1));
    note_clone(call, flags, stack, call.argument(3));
}

/// `clone3` was entered.
#[inline(always)]
fn clone3_entered(call: &UserRegisters) {
    let given = call.argument(0);
    let word = |index: usize| user_word(given.wrapping_add(CLONE_ARGS[index])).unwrap_or(0);
    let stack = word(2).wrapping_add(word(3));
    note_clone(call, word(0), stack, word(1));
}

/// Notes who is about to start a thread.
#[inline(always)]
fn note_clone(call: &UserRegisters, flags: u64, stack: u64, cleared: u64) {
    if flags & CLONE_THREAD == 0 || stack == 0 {
        return;
    }
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the current thread's record.
    unsafe {
        let site = any_site(call, 0, AT_ENTRY);
        (*thread).clone = Cloning {
            stack,
            cleared: match flags & CLONE_CHILD_CLEARTID {
                0 => 0,
                _ => cleared,
            },
            site,
            padding: 0,
        };
    }
}

/// A thread was born, in which nothing has run yet.
#[inline(always)]
pub(crate) fn thread_born(clone: &Cloning, id: u32, image: u64) {
    maps::send(&Event {
        address: clone.stack,
        other: clone.cleared,
        site: clone.site,
        ..Event::new(EventKind::ThreadBorn, id, image, now())
    });
}

/// A thread ends.
#[inline(always)]
pub(crate) fn thread_ended(id: u32, image: u64) {
    maps::send(&Event::new(EventKind::ThreadEnded, id, image, now()));
}

#[inline(always)]
fn send(kind: EventKind, image: u64, (address, length, flags): (u64, u64, u64), site: u32) {
    let thread = bpf_get_current_pid_tgid() as u32;
    maps::send(&Event {
        address,
        length,
        flags,
        site,
        ..Event::new(kind, thread, image, now())
    });
}
