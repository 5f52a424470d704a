//! The capture of a stack: rules from the tables, words from the thread's
//! memory.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_user};
use tracer_ebpf::frame;
use tracer_ebpf::limits::{MAX_RETURN_PROBES, WINDOW_BYTES};
use tracer_ebpf::rule::Rule;
use tracer_ebpf::stack::{Found, MAX_PARTS, StackEnd, Target, Walk};
use tracer_ebpf::step::{Memory, Registers};
use tracer_ebpf::table::cached;
use tracer_ebpf::thread::Thread;
use tracer_ebpf::volatile::opaque;

use crate::code::replaced_of;
use crate::hotspot;
use crate::inflight;
use crate::lookup::{failed, find_rule, reason_of, vm_of};
use crate::maps::{self, CACHE, CODE_OF, RULES, SPACES};
use crate::read::kernel;

/// Where in a function a probe is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its first instruction.
    Entry,
    /// Anywhere: a table tells how its frame looks there.
    Inside,
}

/// Walks the current thread's stack into its record. `first` is the word of
/// the probed function.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn capture(
    regs: *const pt_regs,
    place: Place,
    first: u64,
    thread: *mut Thread,
) -> Walk {
    // SAFETY: regs is the program's context.
    let registers = unsafe {
        Registers {
            ip: (*regs).rip,
            sp: (*regs).rsp,
            bp: (*regs).rbp,
            bx: (*regs).rbx,
        }
    };
    // SAFETY: the caller's record.
    let image = unsafe { (*thread).image };
    // SAFETY: a live map value.
    let code = CODE_OF.get_ptr(image).map(|code| unsafe { *code });
    let code = code.unwrap_or_default();
    let replaced = replaced_of(image);
    let seed = maps::setting!(hash_seed).wrapping_add(replaced.count);
    let seed = seed.wrapping_add(u64::from(inflight::told_apart()) << 32);
    let space = code.valid(replaced, |number| {
        SPACES.get(number).map_or(0, |space| space.spare)
    });
    // SAFETY: only this thread touches the record, and these are different
    // fields of it.
    let (frames, state) = unsafe { (&mut (*thread).frames, &mut (*thread).walk) };
    // SAFETY: the caller's record.
    unsafe {
        (*thread).space.set(u64::from(space));
        (*thread).window_length.set(0);
        (*thread).vm.length.set(0);
    }
    let rule = match place {
        Place::Entry => Ok(Rule::ENTRY),
        Place::Inside => rule_inside(space, registers.ip),
    };
    let start = (registers, rule.unwrap_or(Rule::ENTRY));
    state.begin(start, first, (seed, image), frames);
    if let Err(reason) = rule {
        return state.finish(reason);
    }
    let mut end = StackEnd::TooDeep;
    let mut part = 0;
    while part < MAX_PARTS {
        if let Some(reason) = reason_of(walk_part()) {
            end = reason;
            break;
        }
        part += 1;
    }
    state.finish(end)
}

/// The rule of the instruction at which a probe is.
#[inline(always)]
fn rule_inside(space: u32, address: u64) -> Result<Rule, StackEnd> {
    let number = find_rule(space, address, 1);
    match vm_of(number) {
        // USDT probes are in files.
        Some(_) => Err(StackEnd::Unsupported),
        None => Ok(named(number, address, 1)?.rule),
    }
}

/// Walks the current thread's stack one part further; see [`reason_of`] for
/// the result. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_part() -> u64 {
    let Some(thread) = inflight::record() else {
        return failed(StackEnd::Unreadable);
    };
    // SAFETY: only this thread touches the record, and these are different
    // fields of it.
    let (frames, state) = unsafe { (&mut (*thread).frames, &mut (*thread).walk) };
    match state.part(&mut Current { thread }, frames) {
        Some(end) => failed(end),
        None => 0,
    }
}

/// The current thread: its record has the part of its stack that was read
/// last.
pub(crate) struct Current {
    pub(crate) thread: *mut Thread,
}

impl Memory for Current {
    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        // SAFETY: only this thread touches its record.
        let thread = unsafe { &mut *self.thread };
        let offset = address.wrapping_sub(thread.window_start.get());
        if offset >= thread.window_length.get() {
            refill(thread, address);
        }
        self.near(address)
    }

    #[inline(always)]
    fn near(&self, address: u64) -> Option<u64> {
        // SAFETY: only this thread touches its record.
        let thread = unsafe { &*self.thread };
        let offset = address.wrapping_sub(thread.window_start.get());
        if offset >= thread.window_length.get() {
            return None;
        }
        let index = opaque(offset as usize / 8) & (WINDOW_BYTES / 8 - 1);
        Some(thread.window[index])
    }
}

impl Target for Current {
    #[inline(always)]
    fn find(&mut self, frame: Registers, exact: u64) -> Result<Found, StackEnd> {
        // SAFETY: only this thread touches its record.
        let vm = unsafe { &mut (*self.thread).vm };
        if frame.ip.wrapping_sub(vm.start.get()) >= vm.length.get() {
            let number = self.number(frame.ip, exact);
            if let Some(number) = vm_of(number) {
                hotspot::enter(vm, number);
            } else {
                return named(number, frame.ip, exact);
            }
        }
        hotspot::find(frame, self)
    }

    #[inline(always)]
    fn original(&mut self, slot: u64) -> Option<u64> {
        match original_return(slot) {
            0 => None,
            address => Some(address),
        }
    }
}

/// The rule of a number that was found for an address.
#[inline(always)]
fn named(number: u64, address: u64, exact: u64) -> Result<Found, StackEnd> {
    if let Some(reason) = reason_of(number) {
        return Err(reason);
    }
    let rule = RULES
        .get(number as u32)
        .copied()
        .ok_or(StackEnd::Unsupported)?;
    let word = frame::native(address, exact);
    Ok(Found { rule, word })
}

impl Current {
    /// What is found for an address; see [`find_rule`].
    #[inline(always)]
    fn number(&mut self, address: u64, exact: u64) -> u64 {
        // SAFETY: only this thread touches its record.
        let space = unsafe { (*self.thread).space.get() as u32 };
        if exact != 0 {
            find_rule(space, address, 1)
        } else {
            let tag = cached::tag(space, address);
            let Some(entry) = CACHE.get_ptr_mut(cached::index(space, address)) else {
                return failed(StackEnd::NoRowYet);
            };
            // SAFETY: a live map value; entries are whole words.
            match cached::rule(unsafe { entry.read_volatile() }, tag) {
                Some(number) => u64::from(number),
                None => {
                    let number = find_rule(space, address, 0);
                    if number < u64::from(cached::RULES) {
                        // SAFETY: as above.
                        unsafe { entry.write_volatile(tag | number) };
                    }
                    number
                }
            }
        }
    }
}

/// Reads a window of the stack from `address` on. What is above has been in
/// use, so all of it can be read, but for the stack's last page: a read that
/// fails is tried again to the end of the page, since it fails as a whole.
#[inline(never)]
fn refill(thread: &mut Thread, address: u64) {
    let mut length = WINDOW_BYTES as u64;
    if !read(thread, address, length) {
        let to_page_end = 4096 - (address & 4095);
        length = to_page_end.min(WINDOW_BYTES as u64);
        if !read(thread, address, length) {
            length = 0;
        }
    }
    thread.window_start.set(address);
    thread.window_length.set(length);
}

/// Reads at most a window.
#[inline(always)]
fn read(thread: &mut Thread, address: u64, length: u64) -> bool {
    // SAFETY: the window has room for `length` bytes; a fault in the target's
    // memory is an error code.
    let status = unsafe {
        bpf_probe_read_user(
            (&raw mut thread.window).cast(),
            length as u32,
            address as *const _,
        )
    };
    status == 0
}

/// The return address that stood in the word at `slot` before a return probe,
/// anybody's, replaced it; 0 if none did. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn original_return(slot: u64) -> u64 {
    let hijack = maps::setting!(hijack);
    if hijack.original == 0 {
        return 0;
    }
    let pointer = |base: u64, offset: u32| kernel::<u64>(base + u64::from(offset)).unwrap_or(0);
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let utask = pointer(task, maps::setting!(task_utask));
    if utask == 0 {
        return 0;
    }
    let mut instance = pointer(utask, hijack.instances);
    let mut round = 0;
    while round < MAX_RETURN_PROBES && instance != 0 {
        if pointer(instance, hijack.stack) == slot {
            return pointer(instance, hijack.original);
        }
        instance = pointer(instance, hijack.next);
        round += 1;
    }
    0
}
