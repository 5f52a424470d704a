//! Frames in HotSpot's code cache.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::Record;
use tracer_ebpf::frame;
use tracer_ebpf::java::{Anywhere, Code, WINDOW_WORDS, cached};
use tracer_ebpf::rule::Rule;
use tracer_ebpf::stack::{Found, StackEnd};
use tracer_ebpf::step::{Memory, Registers};
use tracer_ebpf::thread::{Process, VmCode};

use crate::code_told;
use crate::lookup::{failed, reason_of};
use crate::maps::{self, FREED, JAVA_CACHE, VM_OF, VMS};
use crate::read;
use crate::unwind::Current;

/// Nothing that is cached may be believed.
const UNKNOWN: u64 = u64::MAX;

/// Bytes from an interpreted frame's rbp down to the word with its method.
const METHOD_BELOW: u64 = 24;

/// A walk comes into a JVM's code cache.
#[inline(never)]
pub(crate) fn enter(code: &mut VmCode, number: u32) {
    let (Some(vm), Some(freed)) = (VMS.get_ptr(number), FREED.get_ptr(number)) else {
        return;
    };
    // SAFETY: live map values. User space does not change that of a JVM that
    // lives, but for what says until when to believe the cache.
    unsafe {
        let freed = freed.read_volatile();
        let since = freed.wrapping_sub((&raw const (*vm).emptied).read_volatile());
        code.number.set(u64::from(number));
        code.start.set((*vm).start);
        code.length.set((*vm).end.wrapping_sub((*vm).start));
        code.interpreter_start.set((*vm).interpreter_start);
        let interpreter = (*vm).interpreter_end.wrapping_sub((*vm).interpreter_start);
        code.interpreter_length.set(interpreter);
        code.bytecode_below.set(u64::from((*vm).bytecode_below));
        let believed = (*vm).may_cache != 0 && since < cached::EMPTY_AFTER;
        code.freed.set(if believed { freed } else { UNKNOWN });
    }
}

/// What is known of a frame in the code cache that was entered last.
#[inline(always)]
pub(crate) fn find(at: Registers, current: &mut Current) -> Result<Found, StackEnd> {
    // SAFETY: only this thread touches its record.
    let vm = unsafe { &(*current.thread).vm };
    let interpreter = vm.interpreter_start.get();
    if at.ip.wrapping_sub(interpreter) < vm.interpreter_length.get() {
        return interpreted(at, vm, current);
    }
    let number = vm.number.get() as u32;
    let offset = at.ip.wrapping_sub(vm.start.get());
    let code = code_at(number, at.ip, offset, vm.freed.get())?;
    let pc = match code.original() {
        None => at.ip,
        Some(original) => word(at.sp.wrapping_add(original), current)?,
    };
    Ok(Found {
        rule: code.rule(),
        word: frame::compiled(pc, code.id()),
    })
}

#[inline(always)]
fn interpreted(at: Registers, vm: &VmCode, current: &mut Current) -> Result<Found, StackEnd> {
    // The lower one first, for the window.
    let bytecode = word(at.bp.wrapping_sub(vm.bytecode_below.get()), current)?;
    let method = word(at.bp.wrapping_sub(METHOD_BELOW), current)?;
    let is_code = bytecode.wrapping_sub(vm.start.get()) < vm.length.get();
    Ok(Found {
        rule: Rule::INTERPRETED,
        word: match is_code {
            true => frame::interpreted_somewhere(method),
            false => frame::interpreted(method, bytecode),
        },
    })
}

#[inline(always)]
fn word(address: u64, current: &mut Current) -> Result<u64, StackEnd> {
    if address & 7 != 0 {
        return Err(StackEnd::JavaCode);
    }
    current.word(address).ok_or(StackEnd::Unreadable)
}

/// The code at an address, from the cache or from the JVM's own data.
#[inline(always)]
fn code_at(number: u32, address: u64, offset: u64, freed: u64) -> Result<Code, StackEnd> {
    let tag = cached::tag(number, offset, freed);
    let entry = JAVA_CACHE.get_ptr_mut(cached::index(number, offset));
    let Some(entry) = entry else {
        return Err(StackEnd::JavaCode);
    };
    if freed != UNKNOWN {
        // SAFETY: a live map value; entries are whole words.
        if let Some(code) = cached::code(unsafe { entry.read_volatile() }, tag) {
            return Ok(code);
        }
    }
    let found = find_code(number, address);
    if let Some(reason) = reason_of(found) {
        return Err(reason);
    }
    let code = Code(found);
    if freed != UNKNOWN
        && let Some(new) = cached::entry(tag, code)
    {
        // SAFETY: as above.
        unsafe { entry.write_volatile(new) };
    }
    Ok(code)
}

/// The code at an address of a JVM's code cache, or why there is none; see
/// [`reason_of`]. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_code(number: u32, address: u64) -> u64 {
    let Some(vm) = VMS.get(number) else {
        return failed(StackEnd::JavaLayout);
    };
    match vm.code(address, &mut User) {
        Ok(Code(code)) => code,
        Err(end) => failed(end),
    }
}

/// The current process's memory.
pub(crate) struct User;

impl User {
    #[inline(always)]
    fn read<T: Record + Default>(address: u64) -> Option<T> {
        let mut value = T::default();
        let size = size_of::<T>() as u32;
        // SAFETY: as many bytes as the local has; a fault is an error code.
        let status =
            unsafe { bpf_probe_read_user((&raw mut value).cast(), size, address as *const _) };
        (status == 0).then_some(value)
    }
}

impl Anywhere for User {
    #[inline(always)]
    fn byte(&mut self, address: u64) -> Option<u8> {
        Self::read(address)
    }

    #[inline(always)]
    fn int(&mut self, address: u64) -> Option<u32> {
        Self::read(address)
    }

    #[inline(always)]
    fn long(&mut self, address: u64) -> Option<u64> {
        Self::read(address)
    }

    #[inline(always)]
    fn fill(&mut self, window: &mut [u64; WINDOW_WORDS], address: u64, length: u64) -> bool {
        let window = (&raw mut *window).cast::<[u8; 8 * WINDOW_WORDS]>();
        // SAFETY: it is in the thread's record.
        unsafe { read::user_bytes(window, address, length) }
    }
}

/// `CodeCache::free(blob)`: the current process frees code, and nothing that is
/// cached of it holds.
#[inline(always)]
pub(crate) fn code_freed(context: &ProbeContext) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(Process { image, .. }) = maps::process(pid) else {
        return;
    };
    let Some(number) = VM_OF.get_ptr(image) else {
        return;
    };
    // SAFETY: a live map value.
    let number = unsafe { *number };
    if let Some(freed) = FREED.get_ptr_mut(number) {
        // SAFETY: a live map value, which is aligned.
        unsafe { maps::add(freed, 1) };
    }
    if maps::is_active()
        && let (Some(vm), Some(blob)) = (VMS.get_ptr(number), context.arg::<u64>(0))
    {
        // SAFETY: a live map value.
        unsafe { code_told::freed(image, vm, blob) };
    }
}
