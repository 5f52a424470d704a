//! Processes and threads that come and go.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::NO_SITE;
use tracer_ebpf::thread::{Process, image_id};

use crate::code::replaced_of;
use crate::inflight::now;
use crate::maps::{self, CODE_OF, FORKS, PROCESSES, REPLACED, THREADS};
use crate::read::kernel;
use crate::started::{self, GROUP_EXIT};

const CLONE_VM: u64 = 0x100;
const CLONE_THREAD: u64 = 0x1_0000;

/// `task_newtask(task, clone_flags)`, in the parent before the child runs.
#[inline(always)]
pub(crate) fn new_task(context: &RawTracePointContext) {
    let clone_flags: u64 = context.arg(1);
    let task: u64 = context.arg(0);
    if clone_flags & CLONE_THREAD != 0 {
        started::born(task);
        return;
    }
    let settings = maps::settings();
    let Some(child) = kernel::<u32>(task + u64::from(settings.task_tgid)) else {
        return;
    };
    // The id may have been that of a traced process that is gone.
    let _ = PROCESSES.remove(child);
    let Some(parent) = PROCESSES.get_ptr(current_pid()) else {
        return;
    };
    // SAFETY: a live map value.
    let parent = unsafe { *parent };
    let shares_heap = clone_flags & CLONE_VM != 0;
    if !shares_heap && settings.follow == 0 {
        maps::count(&FORKS);
        return;
    }
    let time = now();
    let image = if shares_heap {
        parent.image
    } else {
        image_id(child, time)
    };
    let process = Process {
        image,
        shares_heap: u32::from(shares_heap),
        padding: 0,
    };
    debug!(
        context,
        "child {} of {}, shares heap: {}",
        child,
        current_pid(),
        process.shares_heap
    );
    if PROCESSES.insert(child, process, 0).is_err() {
        maps::lose(LossCause::ProcessesFull, 1, 0);
    } else if !shares_heap {
        // The child's memory is its parent's, until one of them changes.
        if let Some(code) = CODE_OF.get_ptr(parent.image) {
            // SAFETY: a live map value.
            let _ = CODE_OF.insert(image, unsafe { *code }, 0);
            let _ = REPLACED.insert(image, replaced_of(parent.image), 0);
        }
        announce(EventKind::Fork, current_thread(), parent.image, image, time);
    }
}

/// `sched_process_exec(task, old_pid, bprm)`, in the process itself.
#[inline(always)]
pub(crate) fn exec(context: &RawTracePointContext) {
    let pid = current_pid();
    let Some(process) = PROCESSES.get_ptr(pid) else {
        return;
    };
    // SAFETY: a live map value.
    let old = unsafe { *process };
    let id = u64::from(pid) << 32;
    let _ = THREADS.remove(id | u64::from(pid));
    // A thread that was not the first took over the process' id.
    let caller = context.arg::<u64>(1) as u32;
    let _ = THREADS.remove(id | u64::from(caller));
    if old.shares_heap != 0 && maps::settings().follow == 0 {
        let _ = PROCESSES.remove(pid);
        return;
    }
    debug!(context, "process {} called exec", pid);
    let time = now();
    let image = image_id(pid, time);
    let _ = PROCESSES.insert(
        pid,
        Process {
            image,
            shares_heap: 0,
            padding: 0,
        },
        0,
    );
    announce(EventKind::Exec, caller, old.image, image, time);
}

/// `sched_process_exit(task)`, in the thread itself.
#[inline(always)]
pub(crate) fn exit() {
    started::ended();
    let id = bpf_get_current_pid_tgid();
    let _ = THREADS.remove(id);
    tell_end(id);
    let pid = (id >> 32) as u32;
    if pid != id as u32 {
        return;
    }
    if let Some(process) = PROCESSES.get_ptr(pid) {
        // SAFETY: a live map value.
        if unsafe { (*process).shares_heap } != 0 {
            let _ = PROCESSES.remove(pid);
        }
    }
}

/// Tells how a traced process ends, if the current thread is its last.
///
/// It is the last if no other has yet to begin its end. The status is what
/// `wait` will tell (`wait_task_zombie` in the kernel's `exit.c`): that of the
/// whole process if its threads end together, and else its first thread's.
#[inline(always)]
fn tell_end(id: u64) {
    let Some(process) = PROCESSES.get_ptr((id >> 32) as u32) else {
        return;
    };
    // SAFETY: a live map value.
    let process = unsafe { *process };
    if process.shares_heap != 0 {
        return;
    }
    let settings = maps::settings();
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let word = |base: u64, offset: u32| kernel::<u32>(base + u64::from(offset));
    let pointer = |offset: u32| kernel::<u64>(task + u64::from(offset)).unwrap_or(0);
    let signal = pointer(settings.task_signal);
    if word(signal, settings.signal_live) != Some(0) {
        return;
    }
    let together = word(signal, settings.signal_flags).unwrap_or(0) & GROUP_EXIT != 0;
    let status = if together {
        word(signal, settings.signal_exit_code)
    } else {
        word(pointer(settings.task_leader), settings.task_exit_code)
    };
    let Some(status) = status else {
        return;
    };
    maps::send(&Event {
        kind: EventKind::Exit as u32,
        thread: id as u32,
        image: process.image,
        time: now(),
        address: 0,
        length: 0,
        flags: u64::from(status),
        other: 0,
        site: NO_SITE,
        padding: 0,
    });
}

/// A thread is about to leave its memory, by `exec` or by its end.
///
/// The probes of a `uprobe_multi` link to one process do not fire in a `vfork`
/// child, although it works on its parent's heap (kernel 6.12). That the child
/// ran into probes shows all the same: `utask` is made at a thread's first.
#[inline(always)]
pub(crate) fn leave_memory() {
    let id = bpf_get_current_pid_tgid();
    let shares_heap = match PROCESSES.get_ptr((id >> 32) as u32) {
        // SAFETY: a live map value.
        Some(process) => unsafe { (*process).shares_heap != 0 },
        None => false,
    };
    // A thread that has a record was seen.
    if shares_heap && maps::is_active() && THREADS.get_ptr(id).is_none() && met_probes() {
        maps::lose(LossCause::UnseenChild, 1, 0);
    }
}

/// Whether the current thread ran into a probe of anyone's since it was born.
/// It may have if the kernel has given up its memory, and `utask` with that,
/// before it told us (an exit, before kernel 6.16).
#[inline(always)]
fn met_probes() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let settings = maps::settings();
    let is_null = |offset: u32| kernel(task + u64::from(offset)) == Some(0u64);
    is_null(settings.task_mm) || !is_null(settings.task_utask)
}

fn announce(kind: EventKind, thread: u32, image: u64, other: u64, time: u64) {
    maps::send(&Event {
        kind: kind as u32,
        thread,
        image,
        time,
        address: 0,
        length: 0,
        flags: 0,
        other,
        site: NO_SITE,
        padding: 0,
    });
}

fn current_thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

fn current_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
