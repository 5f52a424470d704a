//! Threads: who starts them, and that they end.
//!
//! `JVM_StartThread` makes the native thread within itself, so the next thread
//! that is born to its caller is the one.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::block::{self, BlockKey};
use tracer_ebpf::site::SiteKind;

use crate::elsewhere;
use crate::handle;
use crate::inflight;
use crate::maps;
use crate::read::{kernel, kernel_or_zero};
use crate::syscalls;

/// `SIGNAL_GROUP_EXIT` of the kernel's `signal_struct`: the whole process ends.
pub(crate) const GROUP_EXIT: u32 = 4;

/// `JVM_StartThread(environment, thread)` was entered.
#[inline(always)]
pub(crate) fn enter(context: &ProbeContext) {
    if elsewhere::is_on() {
        return;
    }
    if let Some(thread) = inflight::thread() {
        // SAFETY: the context's registers and the thread's own record.
        unsafe { (*thread).start = handle::begin(context, SiteKind::Thread, thread) };
    }
}

/// It returned to above its slot at `stack`, whether it started a thread or
/// failed.
#[inline(always)]
pub(crate) fn leave(stack: u64) {
    if let Some(thread) = inflight::known_thread() {
        // SAFETY: the thread's own record.
        unsafe {
            if (*thread).start.ends(stack) {
                (*thread).start.slot = 0;
            }
        }
    }
}

/// A thread was born to the current one, in which it has not run yet.
#[inline(always)]
pub(crate) fn born(task: u64) {
    let Some(thread) = inflight::known_thread() else {
        return;
    };
    // SAFETY: the thread's own record.
    let (start, clone, image) = unsafe {
        let (start, clone) = ((*thread).start, (*thread).clone);
        (*thread).start.slot = 0;
        (*thread).clone.stack = 0;
        (start, clone, (*thread).image)
    };
    if start.slot == 0 && clone.stack == 0 {
        return;
    }
    let Some(id) = kernel::<u32>(task + u64::from(maps::setting!(task_pid))) else {
        return;
    };
    if clone.stack != 0 {
        syscalls::thread_born(&clone, id, image);
    }
    if start.slot != 0 {
        let address = block::thread(id);
        handle::made_at(&start, BlockKey { address, image });
    }
}

/// The current thread ends. One that ends with its process was alive until
/// then.
#[inline(always)]
pub(crate) fn ended() {
    let id = bpf_get_current_pid_tgid();
    let Some(process) = maps::process((id >> 32) as u32) else {
        return;
    };
    if !maps::is_active() || process_ends() {
        return;
    }
    inflight::count_gone(BlockKey {
        address: block::thread(id as u32),
        image: process.image,
    });
    syscalls::thread_ended(id as u32, process.image);
}

#[inline(always)]
fn process_ends() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let signal = kernel_or_zero::<u64>(task + u64::from(maps::setting!(task_signal)));
    let flags = kernel_or_zero::<u32>(signal + u64::from(maps::setting!(signal_flags)));
    flags & GROUP_EXIT != 0
}
