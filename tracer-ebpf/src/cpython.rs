//! Python's frames on the stack of the current thread: see [`tracer_ebpf::python`].

use aya_ebpf::helpers::generated::bpf_get_current_task;

use crate::hotspot::User;
use crate::inflight;
use crate::maps::{self, PYTHONS};
use crate::read::kernel_or_zero;

/// The word of the next Python frame of the walk in the current thread's record, or the one
/// that stands for C's frame if that runs none; 0 if there are no more before the next of
/// C's. The C frame that the walk is at is the interpreter's if it was just `met`, by this word
/// of its place; 0 otherwise. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn python_frame(met: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return 0;
    };
    // SAFETY: the current thread's record, and these are different fields of it.
    let (walk, window, at) = unsafe {
        let thread = &mut *thread;
        (&mut thread.python, &mut thread.scratch, thread.walk.at())
    };
    if met != 0 {
        walk.enter(at.registers, at.rule, met);
    }
    let Some(layout) = PYTHONS.get_ptr(walk.file.get() as u32) else {
        walk.is_pending.set(0);
        return walk.take_own();
    };
    // SAFETY: a live map value, which user space does not change; the helper has no
    // preconditions.
    let (layout, task) = unsafe { (&*layout, bpf_get_current_task()) };
    if layout.thread_id == 0 {
        walk.is_pending.set(0);
        return walk.take_own();
    }
    let own = || kernel_or_zero(task + u64::from(maps::setting!(task_fs)));
    walk.next(layout, own, window, &mut User)
}
