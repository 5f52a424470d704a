//! The capture of a stack: rules from the tables, words from the thread's
//! memory.

use core::ptr::null_mut;

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_user};
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::PAGE;
use tracer_ebpf::frame;
use tracer_ebpf::limits::{MAX_RETURN_PROBES, WINDOW_BYTES};
use tracer_ebpf::notes::Notes;
use tracer_ebpf::rule::Rule;
use tracer_ebpf::stack::{Found, StackEnd, Target, Walk};
use tracer_ebpf::step::{Memory, Registers};
use tracer_ebpf::table::{RangeKind, cached};
use tracer_ebpf::thread::Thread;
use tracer_ebpf::volatile::opaque;

use crate::code::replaced_of;
use crate::cpython::python_frame;
use crate::hotspot;
use crate::inflight;
use crate::lookup::{failed, find_range, find_rule, found, range_in, reason_of, rule_in, vm_of};
use crate::mapped::{self, find_mapped, mapped_word};
use crate::maps::{self, CACHE, CODE_OF, NOTES, RANGES, RULES, SPACES};
use crate::read::kernel_or_zero;
use crate::recall;
use crate::script::script_frame;

/// Where in a function a probe is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where nothing of its frame matters yet but how far the stack pointer was
    /// moved.
    Entry(Arguments),
    /// Anywhere: a table tells how its frame looks there.
    Inside,
    /// The same, of any code: it is no probe of ours, but an instruction that touched
    /// memory.
    Touch,
    /// As `Inside`: the kernel touched memory within the system call.
    TouchWithin,
}

impl Place {
    /// A page and memory have different sites, also where they have the same stack.
    const fn seed(self) -> u64 {
        match self {
            Self::Entry(_) | Self::Inside => 0,
            Self::Touch | Self::TouchWithin => 1,
        }
    }
}

/// Walks the current thread's stack into its record. `first` is the word of
/// the probed function, or 0 for that of the probed instruction (at an entry,
/// of the function's first).
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
    // SAFETY: regs is the program's context, and the caller's record.
    unsafe {
        (*thread).window_length.set(0);
        capture_at(registers(regs, place), place, first, thread)
    }
}

/// The registers that a walk begins with: at an entry those before the function's first
/// instruction.
///
/// # Safety
/// `regs` is the program's context.
#[inline(always)]
pub(crate) unsafe fn registers(regs: *const pt_regs, place: Place) -> Registers {
    let (code, stack) = match place {
        Place::Entry(arguments) => (arguments.code(), arguments.stack()),
        Place::Inside | Place::Touch | Place::TouchWithin => (0, 0),
    };
    // SAFETY: the caller's context.
    unsafe {
        Registers {
            ip: (*regs).rip.wrapping_sub(code),
            sp: (*regs).rsp.wrapping_add(stack),
            bp: (*regs).rbp,
            bx: (*regs).rbx,
        }
    }
}

/// The same by registers that were read. What the walk goes by `is_noted` for a memo, or
/// not.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn capture_at(
    registers: Registers,
    place: Place,
    first: u64,
    thread: *mut Thread,
) -> Walk {
    // SAFETY: the caller's record.
    let (image, group) = unsafe { ((*thread).image, (*thread).group) };
    // SAFETY: a live map value.
    let code = CODE_OF.get_ptr(image).map(|code| unsafe { *code });
    let code = code.unwrap_or_default();
    let replaced = replaced_of(image);
    let seed = maps::setting!(hash_seed)
        .wrapping_add(u64::from(inflight::told_apart()) << 32)
        .wrapping_add(place.seed());
    let space = code.valid(replaced, |number| {
        SPACES.get(number).map_or(0, |space| space.spare)
    });
    // SAFETY: only this thread touches the record, and these are different
    // fields of it.
    let (frames, state) = unsafe { (&mut (*thread).frames, &mut (*thread).walk) };
    // SAFETY: the caller's record.
    unsafe {
        (*thread).space.set(u64::from(space));
        (*thread).vm.length.set(0);
        (*thread).mapping.length.set(0);
        (*thread).python.begin();
        recall::choose_notes(thread);
    }
    let Some(mut current) = Current::of(thread) else {
        return Walk::NONE;
    };
    if recall::EXISTS {
        current.notes().begin(registers.sp);
    }
    let (rule, own) = match place {
        Place::Entry(_) => (Ok(Rule::ENTRY), 0),
        Place::Inside | Place::TouchWithin => {
            let found = current.known(registers.ip, 1);
            (found.map(|found| current.innermost(registers, found)), 0)
        }
        Place::Touch => match current.find(registers, 1) {
            Ok(found) => (Ok(current.innermost(registers, found)), found.word),
            Err(reason) => (Err(reason), 0),
        },
    };
    let first = match first | own {
        0 => current.probed(registers.ip),
        word => word,
    };
    let start = (registers, rule.unwrap_or(Rule::ENTRY));
    state.begin(start, first, (seed, group), frames);
    let identity = (image, replaced.count);
    if let Err(reason) = rule {
        return state.finish(reason, identity);
    }
    state.finish(parts::to_the_end(thread), identity)
}

/// One frame after the other, by a loop of the kernel's: its verifier goes through
/// the step once, and not for each frame.
#[cfg(feature = "find_vma")]
mod parts {
    use core::ffi::c_void;

    use aya_ebpf::helpers::generated::bpf_loop;
    use tracer_ebpf::limits::MAX_FRAMES;
    use tracer_ebpf::stack::StackEnd;
    use tracer_ebpf::thread::Thread;

    use super::Current;

    /// Walks to the stack's end, and says why there. The reason is in the record, of
    /// which the verifier knows nothing: it would follow what comes next for each.
    #[inline(always)]
    pub(super) fn to_the_end(mut thread: *mut Thread) -> StackEnd {
        let rounds = MAX_FRAMES as u32;
        let round = round as *mut c_void;
        // SAFETY: a function that the helper calls before it returns, and a local.
        unsafe {
            bpf_loop(rounds, round, (&raw mut thread).cast(), 0);
        }
        // SAFETY: only this thread touches its record.
        unsafe { (*thread).walk.end() }
    }

    /// Whether to stop.
    #[inline(never)]
    extern "C" fn round(_index: u32, thread: *mut *mut Thread) -> u64 {
        // SAFETY: the local of the function that asked, and a record that only this
        // thread touches; these are different fields of it.
        let (thread, frames, state) = unsafe {
            let thread = *thread;
            (thread, &mut (*thread).frames, &mut (*thread).walk)
        };
        let Some(mut current) = Current::of(thread) else {
            return 1;
        };
        match state.python(&mut current, frames) {
            Some(Ok(())) => return 0,
            Some(Err(end)) => {
                state.end_with(end);
                return 1;
            }
            None => {}
        }
        let mut at = state.at();
        match state.round(&mut at, &mut current, frames) {
            Some(end) => {
                state.end_with(end);
                1
            }
            None => {
                state.go_on(at);
                0
            }
        }
    }
}

/// The same in parts, where kernels have no loop of their own.
#[cfg(not(feature = "find_vma"))]
mod parts {
    use tracer_ebpf::stack::{MAX_PARTS, StackEnd};
    use tracer_ebpf::thread::Thread;

    use super::Current;
    use crate::inflight;
    use crate::lookup::{failed, reason_of};

    #[inline(always)]
    pub(super) fn to_the_end(_thread: *mut Thread) -> StackEnd {
        let mut part = 0;
        while part < MAX_PARTS {
            if let Some(reason) = reason_of(walk_part()) {
                return reason;
            }
            part += 1;
        }
        StackEnd::TooDeep
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
        let Some(mut current) = Current::of(thread) else {
            return failed(StackEnd::Unreadable);
        };
        match state.part(&mut current, frames) {
            Some(end) => failed(end),
            None => 0,
        }
    }
}

/// The word of the frame that returns to `address`, in the stack that was walked last.
#[inline(always)]
pub(crate) fn word_of(thread: *mut Thread, address: u64) -> u64 {
    Current::of(thread).map_or(0, |mut current| current.place(address, 0))
}

/// The current thread: its record has the part of its stack that was read
/// last.
pub(crate) struct Current {
    pub(crate) thread: *mut Thread,
    /// Its record of what a walk goes by; null where that is not noted.
    notes: *mut Notes,
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

    #[inline(always)]
    fn thread_pointer(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task() };
        kernel_or_zero(task + u64::from(maps::setting!(task_fs)))
    }
}

impl Target for Current {
    #[inline(always)]
    fn find(&mut self, frame: Registers, exact: u64) -> Result<Found, StackEnd> {
        // SAFETY: only this thread touches its record.
        let vm = unsafe { &mut (*self.thread).vm };
        if frame.ip.wrapping_sub(vm.start.get()) >= vm.length.get() {
            if exact == 0
                && let Some(found) = self.nearby(frame.ip)
            {
                return Ok(found);
            }
            let number = self.number(frame.ip, exact);
            if let Some(number) = vm_of(number) {
                hotspot::enter(vm, number);
            } else {
                return self.found(number, frame.ip, exact);
            }
        }
        self.give_up();
        hotspot::find(frame, self)
    }

    #[inline(always)]
    fn place(&mut self, address: u64, exact: u64) -> u64 {
        let number = self.range(address);
        if reason_of(number).is_none()
            && let Some(range) = RANGES.get(number as u32)
            && range.kind != RangeKind::Pending as u32
        {
            return range.word(address, exact);
        }
        self.give_up();
        match mapped_word(address, exact as u32) {
            0 => frame::native(address, exact),
            word => word,
        }
    }

    #[inline(always)]
    fn original(&mut self, slot: u64) -> Option<u64> {
        match original_return(slot) {
            0 => None,
            address => Some(address),
        }
    }

    #[inline(always)]
    fn enter_script(&mut self, met: u64) -> u64 {
        self.give_up();
        // SAFETY: only this thread touches its record.
        let at = unsafe { (*self.thread).walk.at() };
        // V8's code is walked by rbp, the interpreter of Python by its table.
        match at.rule.is_frame_pointer() {
            true => script_frame(met),
            false => python_frame(met),
        }
    }

    #[inline(always)]
    fn is_in_python(&mut self) -> bool {
        // SAFETY: only this thread touches its record.
        unsafe { (*self.thread).python.is_pending.get() != 0 }
    }

    #[inline(always)]
    fn python(&mut self) -> u64 {
        python_frame(0)
    }

    const NOTES: bool = recall::EXISTS;

    #[inline(always)]
    fn notes(&mut self) -> &mut Notes {
        // SAFETY: a live map value, where walks are noted; what others write to it too is
        // never read.
        unsafe { &mut *self.notes }
    }
}

impl Current {
    /// The thread of a record. There always is one: the notes' number is bounded.
    #[inline(always)]
    fn of(thread: *mut Thread) -> Option<Self> {
        if !recall::EXISTS {
            let notes = null_mut();
            return Some(Self { thread, notes });
        }
        // SAFETY: only this thread touches its record.
        let notes = NOTES.get_ptr_mut(unsafe { (*thread).recall.notes.get() } as u32)?;
        Some(Self { thread, notes })
    }

    /// The rule of the frame that a walk begins in.
    #[inline(always)]
    fn innermost(&mut self, at: Registers, found: Found) -> Rule {
        let rule = found.rule.anywhere();
        if found.rule.is_marked() {
            self.give_up();
            // SAFETY: only this thread touches its record.
            let python = unsafe { &mut (*self.thread).python };
            python.enter(at, rule, found.word);
            // Its word comes first on the path already.
            python.own.set(0);
        }
        rule
    }

    /// What is known of an address outside of code caches.
    #[inline(always)]
    fn known(&mut self, address: u64, exact: u64) -> Result<Found, StackEnd> {
        let number = self.number(address, exact);
        if vm_of(number).is_some() {
            return Err(StackEnd::Unsupported);
        }
        self.found(number, address, exact)
    }

    /// The word of a probed instruction: most often that of the thread's last
    /// call.
    #[inline(always)]
    fn probed(&mut self, address: u64) -> u64 {
        let space = u64::from(self.space());
        // SAFETY: only this thread touches its record.
        let known = unsafe { &(*self.thread).probed };
        if space != 0 && known.space.get() == space && known.address.get() == address {
            return known.word.get();
        }
        let word = self.place(address, 0);
        // SAFETY: as above.
        let known = unsafe { &mut (*self.thread).probed };
        known.space.set(space);
        known.address.set(address);
        known.word.set(word);
        word
    }

    /// What is known of a return address in the file that the frame before was in:
    /// most are.
    #[inline(always)]
    fn nearby(&self, address: u64) -> Option<Found> {
        // SAFETY: only this thread touches its record.
        let thread = unsafe { &*self.thread };
        if !mapped::is_in(thread, address) {
            return None;
        }
        let space = self.space();
        let entry = CACHE.get_ptr(cached::index(space, address))?;
        // SAFETY: a live map value, and its words are whole.
        let rule = unsafe { (&raw const (*entry).rule).read_volatile() };
        let number = cached::number(rule, cached::tag(space, address))?;
        Some(Found {
            rule: *RULES.get(number)?,
            word: mapped::word(thread, address, 0),
        })
    }

    /// What a number says that was found for an address. Where no range does,
    /// the kernel is asked what is mapped there.
    #[inline(always)]
    fn found(&mut self, number: u64, address: u64, exact: u64) -> Result<Found, StackEnd> {
        let (number, word) = match reason_of(number) {
            None => {
                let range = RANGES.get(range_in(number)).ok_or(StackEnd::NoMapping)?;
                // SAFETY: only this thread touches its record.
                mapped::remember(unsafe { &mut *self.thread }, range);
                (number, range.word(address, exact))
            }
            Some(known @ (StackEnd::NoMapping | StackEnd::NoRowYet)) => {
                self.give_up();
                let number = find_mapped(address, exact as u32);
                match reason_of(number) {
                    None => {}
                    // Nobody knows more.
                    Some(StackEnd::NoMapping) => return Err(known),
                    Some(reason) => return Err(reason),
                }
                // SAFETY: only this thread touches its record.
                (
                    number,
                    mapped::word(unsafe { &*self.thread }, address, exact),
                )
            }
            Some(reason) => return Err(reason),
        };
        let rule = RULES
            .get(rule_in(number))
            .copied()
            .ok_or(StackEnd::Unsupported)?;
        Ok(Found { rule, word })
    }

    /// What is found for an address; see [`find_rule`].
    #[inline(always)]
    fn number(&mut self, address: u64, exact: u64) -> u64 {
        let space = self.space();
        if exact != 0 {
            return find_rule(space, address, 1);
        }
        let tag = cached::tag(space, address);
        let Some(entry) = CACHE.get_ptr_mut(cached::index(space, address)) else {
            return failed(StackEnd::NoRowYet);
        };
        // SAFETY: a live map value, and its words are whole.
        let (rule, range) = unsafe {
            (
                (&raw const (*entry).rule).read_volatile(),
                (&raw const (*entry).range).read_volatile(),
            )
        };
        if let (Some(rule), Some(range)) = (cached::number(rule, tag), cached::number(range, tag)) {
            return found(u64::from(rule), range);
        }
        let number = find_rule(space, address, 0);
        if number < u64::from(cached::NUMBERS) << 20 {
            // SAFETY: as above.
            unsafe {
                (&raw mut (*entry).rule).write_volatile(tag | u64::from(rule_in(number)));
                (&raw mut (*entry).range).write_volatile(tag | u64::from(range_in(number)));
            }
        }
        number
    }

    /// The number of the range that an address lies in; see [`find_range`].
    #[inline(always)]
    fn range(&mut self, address: u64) -> u64 {
        let space = self.space();
        let tag = cached::tag(space, address);
        let Some(entry) = CACHE.get_ptr_mut(cached::index(space, address)) else {
            return failed(StackEnd::NoRowYet);
        };
        // SAFETY: a live map value, and its words are whole.
        let range = unsafe { (&raw const (*entry).range).read_volatile() };
        if let Some(range) = cached::number(range, tag) {
            return u64::from(range);
        }
        let number = find_range(space, address);
        if number < u64::from(cached::NUMBERS) {
            // SAFETY: as above.
            unsafe { (&raw mut (*entry).range).write_volatile(tag | number) };
        }
        number
    }

    /// The number of the address space that is walked in.
    #[inline(always)]
    fn space(&self) -> u32 {
        // SAFETY: only this thread touches its record.
        unsafe { (*self.thread).space.get() as u32 }
    }
}

/// Reads a window of the stack from `address` on. What is above has been in
/// use, so all of it can be read, but for the stack's last page: a read that
/// fails is tried again to the end of the page, since it fails as a whole. From the
/// same page that is tried at once.
#[inline(never)]
pub(crate) fn refill(thread: &mut Thread, address: u64) {
    let page = address / PAGE;
    let mut length = WINDOW_BYTES as u64;
    if page == thread.last_page.get() || !read(thread, address, length) {
        thread.last_page.set(page);
        length = (PAGE - address % PAGE).min(WINDOW_BYTES as u64);
        if !read(thread, address, length) {
            length = 0;
        }
    }
    thread.window_start.set(address);
    thread.window_length.set(length);
}

/// Reads the first `wanted` bytes of a window alone, if that is within a page, or as much
/// as there is.
#[inline(always)]
pub(crate) fn read_first(thread: &mut Thread, address: u64, wanted: u64) {
    let is_within = address % PAGE + wanted <= PAGE;
    let wants_some = wanted != 0;
    // Apart from the other bound: of both the compiler makes one comparison of what is one
    // less, which tells the verifier of 6.12 nothing of the length.
    let length = opaque(wanted as usize);
    if is_within && wants_some && length <= WINDOW_BYTES && read(thread, address, length as u64) {
        thread.window_start.set(address);
        thread.window_length.set(wanted);
    } else {
        refill(thread, address);
    }
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
pub(crate) extern "C" fn original_return(slot: u64) -> u64 {
    let hijack = maps::setting!(hijack);
    if hijack.original == 0 {
        return 0;
    }
    let pointer = |base: u64, offset: u32| kernel_or_zero::<u64>(base + u64::from(offset));
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
