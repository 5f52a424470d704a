//! Session links (Linux 6.13): one program at the entry of a function and, unless it
//! says at the entry that nobody needs that, at its return. A call that is left out so
//! pays for no return, and its return address is not replaced.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::bpf_get_func_ip;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::call::Function;

use crate::{cookie, entry, returned};

/// What tells the kernel that the return is of no interest.
const IGNORE: u32 = 1;
const FOLLOW: u32 = 0;

/// An entry or a return.
#[inline(always)]
pub(crate) fn hit(context: &ProbeContext) -> u32 {
    let cookie = cookie(context);
    // SAFETY: the helper reads the context of the running program.
    let probed = unsafe { bpf_get_func_ip(context.as_ptr()) };
    // At a return the program counter is where the function returns to, which is no
    // probed instruction: no call stands between a function's first instruction and its
    // probe.
    // SAFETY: the context's registers.
    if unsafe { (*context.regs).rip } == probed {
        if entry::in_session(context, cookie) {
            return FOLLOW;
        }
        return IGNORE;
    }
    if let Some(function) = Arguments::function(cookie) {
        leave(context.regs, function);
    }
    FOLLOW
}

/// A return, with a stack of its own: that of the entry has to leave room for the walk's
/// (512 bytes for all functions that call one another).
#[inline(never)]
fn leave(regs: *const pt_regs, function: Function) {
    returned::at_probe(regs, function);
}
