//! Where calls end: at return probes, or at the return instructions
//! themselves, where no return address is replaced.

use aya_ebpf::bindings::pt_regs;
use tracer_ebpf::call::{self, Function};
use tracer_ebpf::hits::Kind;
use tracer_ebpf::thread::Thread;

use crate::read::user_word;
use crate::{allocation, arena, cost, inflight, mapping, thrown};

/// A return probe of `function` was hit.
#[inline(always)]
pub(crate) fn at_probe(regs: *const pt_regs, function: Function) {
    let Some(thread) = inflight::known_thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit(thread, Kind::Return);
        if call::ends(&(*thread).call, function, (*regs).rsp) {
            settle(thread, function, (*regs).rax);
        }
        cost::done(thread);
    }
}

/// An instruction is about to run at which a call may end, with this result.
/// It may be one that several functions share.
#[inline(always)]
pub(crate) fn at_instruction(regs: *const pt_regs, result: u64, kind: Kind) {
    let Some(thread) = inflight::known_thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit(thread, kind);
        let stack = (*regs).rsp;
        let in_flight = &(*thread).call;
        if call::ends_before(in_flight, stack, || user_word(stack))
            && let Some(function) = Function::from_number(u64::from(in_flight.function))
        {
            settle(thread, function, result);
        } else {
            thrown::ends(thread, stack, result);
        }
        cost::done(thread);
    }
}

/// The call in flight, of `function`, has ended.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn settle(thread: *mut Thread, function: Function, result: u64) {
    // SAFETY: the caller's record.
    unsafe {
        (*thread).call.function = 0;
        match function {
            Function::Mmap => mapping::mmap_returned(thread, result),
            Function::Munmap => mapping::munmap_returned(thread, result),
            Function::Mremap => mapping::mremap_returned(thread, result),
            Function::ArenaAlloc | Function::ArenaString => {
                arena::returned(thread, function, result);
            }
            Function::ArenaMake => arena::made(thread),
            _ => allocation::returned(thread, function, result),
        }
    }
}
