//! Processes and threads that come and go.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::kinship::{Ancestor, MAX_ANCESTORS, descend};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::thread::{Process, image_id, image_pid};

use crate::code::replaced_of;
use crate::cost;
use crate::elsewhere;
use crate::inflight::{self, ENOENT, full_or_busy, now};
use crate::maps::{
    self, CODE_OF, FORKS, HAS_SAMPLER, ORIGINS_OF, PROCESS_CHANGES, PROCESSES, REPLACED, THREADS,
};
use crate::read::{kernel, kernel_or_zero};
use crate::recall;
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
    let Some(child) = kernel::<u32>(task + u64::from(maps::setting!(task_tgid))) else {
        return;
    };
    // The id may have been that of a traced process that is gone.
    forget(child);
    let Some(parent) = maps::process(current_pid()) else {
        return;
    };
    let shares_heap = clone_flags & CLONE_VM != 0;
    if !shares_heap && maps::setting!(follow) == 0 {
        maps::count(&FORKS);
        return;
    }
    let time = now();
    let image = if shares_heap {
        parent.image
    } else {
        image_id(child, time)
    };
    let ancestors = if shares_heap {
        parent.ancestors
    } else {
        descend(parent.image, time, &parent.ancestors)
    };
    let process = Process {
        image,
        // It runs the same program until it calls `exec`.
        group: inflight::group_of(parent.image),
        shares_heap: u32::from(shares_heap),
        from_start: parent.from_start,
        last_fork: if shares_heap { parent.last_fork } else { 0 },
        ancestors,
    };
    debug!(
        context,
        "child {} of {}, shares heap: {}",
        child,
        current_pid(),
        process.shares_heap
    );
    if let Err(error) = PROCESSES.insert(child, process, 0) {
        maps::lose(full_or_busy(error, LossCause::ProcessesFull), 1, 0);
        return;
    }
    if !shares_heap {
        hand_down_sampler(parent.image, image);
        hand_down_origins(parent.image, image);
        note_fork(image_pid(parent.image), parent.image, time);
    }
    maps::count(&PROCESS_CHANGES);
    if !shares_heap {
        hand_down_code(parent.image, image);
        announce(EventKind::Fork, current_thread(), parent.image, image, time);
    }
}

/// A child has its parent's code, and so its sampler.
#[inline(always)]
fn hand_down_sampler(parent: u64, child: u64) {
    if HAS_SAMPLER.get_ptr(parent).is_some()
        && let Err(error) = HAS_SAMPLER.insert(child, 1, 0)
    {
        maps::lose(full_or_busy(error, LossCause::ProcessesFull), 1, 0);
    }
}

/// A child has its parent's code, and so what of it was asked for.
#[inline(always)]
fn hand_down_origins(parent: u64, child: u64) {
    let list = elsewhere::list_of(parent);
    if list != 0
        && let Err(error) = ORIGINS_OF.insert(child, list, 0)
    {
        maps::lose(full_or_busy(error, LossCause::ProcessesFull), 1, 0);
    }
}

/// From now on a process remembers what it frees, for its children.
#[inline(always)]
fn note_fork(pid: u32, image: u64, time: u64) {
    if let Some(process) = PROCESSES.get_ptr_mut(pid) {
        // SAFETY: a live map value.
        unsafe {
            if (*process).image == image {
                (*process).last_fork = time;
            }
        }
    }
}

/// A child's memory is its parent's, until one of them changes. If there is no
/// room to say so, the child's stacks end with that reason until user space has
/// looked at it.
#[inline(always)]
fn hand_down_code(parent: u64, child: u64) {
    let Some(code) = CODE_OF.get_ptr(parent) else {
        return;
    };
    // Without what was replaced of it, code would be believed that is gone.
    if REPLACED.insert(child, replaced_of(parent), 0).is_ok() {
        // SAFETY: a live map value.
        let _ = CODE_OF.insert(child, unsafe { *code }, 0);
    }
}

/// Ends the tracing of a process, if it is traced.
#[inline(always)]
fn forget(pid: u32) {
    match PROCESSES.remove(pid) {
        Err(ENOENT) => return,
        Ok(()) => {}
        // What has no image is not traced either.
        Err(_) => {
            if let Some(process) = PROCESSES.get_ptr_mut(pid) {
                // SAFETY: a live map value.
                unsafe { (*process).image = 0 };
            }
        }
    }
    maps::count(&PROCESS_CHANGES);
}

/// Forgets the record of a thread that is over. If the kernel refuses that,
/// nothing is in flight in it, and it is looked at anew before it is believed.
#[inline(always)]
fn forget_thread(id: u64) {
    if let Some(thread) = THREADS.get_ptr_mut(id) {
        // SAFETY: its thread has left user space for good.
        unsafe {
            inflight::forget_calls(thread);
            cost::hand_over(thread);
            let set = (*thread).recall.set;
            if THREADS.remove(id).is_ok() {
                recall::give_back(set);
            }
        }
    }
}

/// `sched_process_exec(task, old_pid, bprm)`, in the process itself.
#[inline(always)]
pub(crate) fn exec(context: &RawTracePointContext) {
    let pid = current_pid();
    let Some(process) = PROCESSES.get_ptr_mut(pid) else {
        return;
    };
    // SAFETY: a live map value.
    let old = unsafe { *process };
    if old.image == 0 {
        return;
    }
    let id = u64::from(pid) << 32;
    forget_thread(id | u64::from(pid));
    // A thread that was not the first took over the process' id.
    let caller = context.arg::<u64>(1) as u32;
    forget_thread(id | u64::from(caller));
    if old.shares_heap != 0 && maps::setting!(follow) == 0 {
        forget(pid);
        return;
    }
    debug!(context, "process {} called exec", pid);
    let time = now();
    let image = image_id(pid, time);
    // SAFETY: a live map value; the process has one thread. Written in place,
    // which the kernel cannot refuse.
    unsafe {
        (*process).image = image;
        (*process).group = 0;
        (*process).from_start = 1;
        (*process).shares_heap = 0;
        (*process).last_fork = 0;
        (*process).ancestors = [Ancestor::default(); MAX_ANCESTORS];
    }
    maps::count(&PROCESS_CHANGES);
    announce(EventKind::Exec, caller, old.image, image, time);
}

/// `sched_process_exit(task)`, in the thread itself.
#[inline(always)]
pub(crate) fn exit() {
    let id = bpf_get_current_pid_tgid();
    if let Some(thread) = inflight::record() {
        // Within a realloc: what it was given counts as live.
        // SAFETY: the current thread's record.
        unsafe { inflight::abandon(thread) };
    }
    forget_thread(id);
    tell_end(id);
    let pid = (id >> 32) as u32;
    if pid == id as u32 && maps::process(pid).is_some_and(|process| process.shares_heap != 0) {
        forget(pid);
    }
}

/// Tells how a traced process ends, if the current thread is its last.
///
/// It is the last if no other has yet to begin its end. The status is what
/// `wait` will tell (`wait_task_zombie` in the kernel's `exit.c`): that of the
/// whole process if its threads end together, and else its first thread's.
#[inline(always)]
fn tell_end(id: u64) {
    let Some(process) = maps::process((id >> 32) as u32) else {
        return;
    };
    if process.shares_heap != 0 {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let word = |base: u64, offset: u32| kernel::<u32>(base + u64::from(offset));
    let pointer = |offset: u32| kernel_or_zero::<u64>(task + u64::from(offset));
    let signal = pointer(maps::setting!(task_signal));
    if word(signal, maps::setting!(signal_live)) != Some(0) {
        return;
    }
    let together = word(signal, maps::setting!(signal_flags)).unwrap_or(0) & GROUP_EXIT != 0;
    let status = if together {
        word(signal, maps::setting!(signal_exit_code))
    } else {
        word(
            pointer(maps::setting!(task_leader)),
            maps::setting!(task_exit_code),
        )
    };
    let Some(status) = status else {
        return;
    };
    maps::send(&Event {
        flags: u64::from(status),
        ..Event::new(EventKind::Exit, id as u32, process.image, now())
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
    let process = maps::process((id >> 32) as u32);
    let shares_heap = process.is_some_and(|process| process.shares_heap != 0);
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
    let is_null = |offset: u32| kernel(task + u64::from(offset)) == Some(0u64);
    is_null(maps::setting!(task_mm)) || !is_null(maps::setting!(task_utask))
}

/// Tells which group of processes an image belongs to.
#[inline(always)]
pub(crate) fn tell_group(image: u64, group: u64) {
    announce(EventKind::Group, current_thread(), image, group, now());
}

fn announce(kind: EventKind, thread: u32, image: u64, other: u64, time: u64) {
    maps::send(&Event {
        other,
        ..Event::new(kind, thread, image, time)
    });
}

fn current_thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

fn current_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
