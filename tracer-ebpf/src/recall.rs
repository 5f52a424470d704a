//! What is remembered of the current thread's stacks: see [`tracer_ebpf::memo`].

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::memo::{self, Compared, MEMO_THREADS, MEMOS, Memo, UNREAD, Walker};
use tracer_ebpf::site::{LOST_SITE, NO_SITE, SiteKind};
use tracer_ebpf::stack::{StackEnd, Walk};
use tracer_ebpf::step::Registers;
use tracer_ebpf::thread::Thread;

use crate::inflight;
use crate::maps::{self, FREE_MEMOS, MEMO, NOTES};
use crate::read;
use crate::unwind;

/// Whether anything is remembered: where the kernel has loops of its own (5.17). Before,
/// the verifier would go through each word, in each program.
pub(crate) const EXISTS: bool = cfg!(feature = "find_vma");

/// Parts of the stack that are read for a memo at most: 8 KiB at least.
const MAX_WINDOWS: u32 = 4;

/// Gives a new record memos, if there are any left.
///
/// # Safety
/// `thread` points to a record that no other thread uses.
#[inline(always)]
pub(crate) unsafe fn equip(thread: *mut Thread) {
    if EXISTS && let Ok(Some(set)) = FREE_MEMOS.pop() {
        // SAFETY: the caller's record.
        unsafe { (*thread).recall.set = u64::from(set) + 1 };
    }
}

/// Gives back the memos of a record that is gone. If the kernel refuses them, one
/// thread less can have some.
#[inline(always)]
pub(crate) fn give_back(set: u64) {
    if set != 0 {
        let _ = FREE_MEMOS.push(set as u32 - 1, 0);
    }
}

/// Chooses the notes that the next walk of a thread takes.
///
/// # Safety
/// `thread` points to the current thread's record.
#[inline(always)]
pub(crate) unsafe fn choose_notes(thread: *mut Thread) {
    if !EXISTS {
        return;
    }
    // SAFETY: the helper has no preconditions, and the caller's record.
    unsafe {
        let unread = MEMO_THREADS + (bpf_get_smp_processor_id() & (UNREAD - 1));
        // One less than the set's number and 1, if it has one.
        let set = ((*thread).recall.set as u32).wrapping_sub(1);
        let notes = if set < MEMO_THREADS { set } else { unread };
        (*thread).recall.notes.set(u64::from(notes));
    }
}

/// The site of the current thread's stack at the entry of a function, whose call is in
/// flight, by the registers at its first instruction; see [`inflight::site_of`].
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn site(thread: *mut Thread, at: Registers) -> u32 {
    // SAFETY: the caller's record.
    let thread = unsafe { &mut *thread };
    // In the record, since the stacks of all functions that lead on to the walk's last
    // have 512 bytes together.
    thread.recall.ip.set(at.ip);
    thread.recall.sp.set(at.sp);
    thread.recall.bp.set(at.bp);
    thread.recall.bx.set(at.bx);
    thread.window_length.set(0);
    let known = match EXISTS {
        true => recalled(thread),
        false => NO_SITE,
    };
    if known != NO_SITE {
        return known;
    }
    // One after the other, and not one in the other, for the same reason.
    match walk() {
        0 => NO_SITE,
        _ => settle(thread),
    }
}

/// The registers that are in the record.
#[inline(always)]
fn registers(thread: &Thread) -> Registers {
    let recall = &thread.recall;
    Registers {
        ip: recall.ip.get(),
        sp: recall.sp.get(),
        bp: recall.bp.get(),
        bx: recall.bx.get(),
    }
}

/// Walks the stack from the registers in the current thread's record. Verified once, on its
/// own: the verifier would go through the walk for each way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk() -> u32 {
    let Some(thread) = inflight::record() else {
        return 0;
    };
    // SAFETY: the current thread's record.
    unsafe {
        let place = unwind::Place::Entry(Arguments::AT_ENTRY);
        let at = registers(&*thread);
        (*thread).recall.walk = unwind::capture_at(at, place, 0, thread);
    }
    1
}

/// The site of the stack that was walked, which is remembered.
#[inline(never)]
fn settle(thread: &mut Thread) -> u32 {
    let walk = thread.recall.walk;
    let (time, size) = (thread.call.time, thread.call.size);
    // SAFETY: the current thread's record.
    unsafe {
        let site = inflight::site_of(&walk, SiteKind::Memory, thread, time, size);
        remember(thread, &walk, site);
        site
    }
}

/// The site of a stack that was walked before and is the same; otherwise [`NO_SITE`], and
/// what the walk goes by is to be noted, until [`remember`].
#[inline(never)]
fn recalled(thread: &mut Thread) -> u32 {
    let at = registers(thread);
    // Before anything that a walk goes by is looked at.
    let epoch = maps::epoch();
    thread.recall.epoch.set(epoch);
    thread.recall.at.set(0);
    let set = thread.recall.set;
    if set == 0 {
        return NO_SITE;
    }
    // As much as walks went by until now, which is cheaper than all that there is room for.
    unwind::read_first(thread, at.sp, thread.recall.reach.get());
    if thread.window_length.get() == 0 {
        return NO_SITE;
    }
    let place = memo::place(at.sp, thread.window[0]);
    let number = (set as u32).wrapping_sub(1).wrapping_mul(MEMOS) + place;
    let Some(memo) = MEMO.get_ptr_mut(number) else {
        return NO_SITE;
    };
    // SAFETY: a live map value, which is this thread's alone.
    let memo = unsafe { &mut *memo };
    let walker = Walker {
        image: thread.image,
        group: thread.group,
        thread: u64::from(inflight::told_apart()),
    };
    if memo.is_of(walker, at, epoch) {
        let is_same = match memo.reach() <= thread.window_length.get() {
            true => memo.is_same(&thread.window),
            false => is_same_far(number) != 0,
        };
        if is_same {
            return memo.site();
        }
    }
    memo.begin(walker, at);
    thread.recall.at.set(u64::from(number) + 1);
    NO_SITE
}

/// Whether the words of the stack are what they were in the memo of this number, where they
/// lie farther up than was read: 1 or 0. Verified once, on its own. How far it is stands in
/// the record, of which the verifier knows nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_same_far(number: u32) -> u32 {
    let (Some(thread), Some(memo)) = (inflight::record(), MEMO.get_ptr(number)) else {
        return 0;
    };
    let mut both = Both { thread, memo };
    // SAFETY: the current thread's record, and a memo of its own.
    unsafe {
        (*thread).recall.compared.set(0);
        far::compare(&mut both);
        u32::from((*thread).recall.compared.get() == (*memo).count())
    }
}

/// A thread, and one of its memos.
struct Both {
    thread: *mut Thread,
    memo: *const Memo,
}

/// Compares the next word. Whether there is another.
#[inline(always)]
fn compare_next(both: &Both) -> bool {
    // SAFETY: the current thread's record, and a memo of its own.
    let (thread, memo) = unsafe { (&mut *both.thread, &*both.memo) };
    let index = thread.recall.compared.get();
    let window = (thread.window_start.get(), thread.window_length.get());
    match memo.compare(index, window, &thread.window) {
        Compared::Same => thread.recall.compared.set(index + 1),
        Compared::Elsewhere => unwind::refill(thread, memo.address(index)),
        Compared::Differs => {
            thread.recall.compared.set(u64::MAX);
            return false;
        }
        Compared::All => return false,
    }
    true
}

/// One word after the other, by a loop of the kernel's: its verifier goes through one
/// round.
#[cfg(feature = "find_vma")]
mod far {
    use core::ffi::c_void;

    use aya_ebpf::helpers::generated::bpf_loop;
    use tracer_ebpf::notes::WORDS;

    use super::{Both, MAX_WINDOWS, compare_next};

    #[inline(always)]
    pub(super) fn compare(both: &mut Both) {
        let rounds = WORDS as u32 + MAX_WINDOWS;
        // SAFETY: a function that the helper calls before it returns, and a local.
        unsafe {
            bpf_loop(rounds, round as *mut c_void, (&raw mut *both).cast(), 0);
        }
    }

    #[inline(never)]
    extern "C" fn round(_index: u32, both: *mut Both) -> u64 {
        // SAFETY: the local of the function that asked.
        u64::from(!compare_next(unsafe { &*both }))
    }
}

/// Nothing is remembered where kernels have no loop of their own.
#[cfg(not(feature = "find_vma"))]
mod far {
    use super::{Both, compare_next};

    pub(super) fn compare(both: &mut Both) {
        compare_next(both);
    }
}

/// A walk has led to a site.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn remember(thread: *mut Thread, walk: &Walk, site: u32) {
    if !EXISTS {
        return;
    }
    // SAFETY: the caller's record.
    let thread = unsafe { &mut *thread };
    let at = thread.recall.at.get() as u32;
    thread.recall.at.set(0);
    if at != 0
        && let Some(memo) = MEMO.get_ptr_mut(at - 1)
        && let Some(notes) = NOTES.get_ptr_mut(thread.recall.notes.get() as u32)
        && walk.end == StackEnd::Start
        && !walk.is_local
        && site != NO_SITE
        && site != LOST_SITE
    {
        // SAFETY: live map values, which are this thread's alone.
        let (memo, notes) = unsafe { (&mut *memo, &mut *notes) };
        if !notes.is_whole() {
            return;
        }
        notes.fill(memo::STRIDE);
        // SAFETY: as above.
        if !unsafe { read::copy(memo.words_mut(), notes.words()) } {
            return;
        }
        memo.finish(notes, thread.recall.epoch.get(), site);
        if memo.reach() > thread.recall.reach.get() {
            thread.recall.reach.set(memo.reach());
        }
    }
}
