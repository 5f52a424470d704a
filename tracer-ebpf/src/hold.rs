//! Stopping a thread that we hold by ptrace(2): its loader has just mapped
//! libraries, or it is about to call ptrace itself.
//!
//! The signal is one that is ignored unless the program asks for it. A held
//! thread stops before it gets any signal, and user space takes this one away.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_send_signal_thread};
use tracer_ebpf::held::{SIGNAL, place_of, told};

use crate::maps::{self, HELD, HOLDER};
use crate::read::{kernel, kernel_or_zero};

/// Stops the current thread if it is held; `why` is for user space.
#[inline(always)]
pub(crate) fn stop(why: u32) {
    let Some(holder) = HOLDER.get(0).copied().filter(|holder| *holder != 0) else {
        return;
    };
    let thread = bpf_get_current_pid_tgid() as u32;
    let Some(place) = HELD.get_ptr_mut(place_of(thread)) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        // Another thread's place at just this moment: then it does not stop.
        if !is_held_by(holder) || place.read_volatile() != 0 {
            return;
        }
        place.write_volatile(told(thread, why));
        if bpf_send_signal_thread(SIGNAL) != 0 {
            place.write_volatile(0);
        }
    }
}

/// Whether the current thread is traced by that process, and a signal would
/// stop it now.
#[inline(always)]
fn is_held_by(holder: u32) -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let ptrace = kernel::<u32>(task + u64::from(maps::setting!(task_ptrace)));
    if ptrace.unwrap_or(0) == 0 {
        return false;
    }
    let parent = kernel_or_zero::<u64>(task + u64::from(maps::setting!(task_parent)));
    let tracer = kernel::<u32>(parent + u64::from(maps::setting!(task_tgid)));
    let blocked = kernel::<u64>(task + u64::from(maps::setting!(task_blocked)));
    let is_blocked = blocked.is_none_or(|blocked| blocked >> (SIGNAL - 1) & 1 != 0);
    tracer == Some(holder) && !is_blocked
}
