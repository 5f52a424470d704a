//! Links that hold a program to a perf event (Linux 5.15).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::syscall;

const BPF_LINK_CREATE: libc::c_long = 28;
/// The attach type of a link at a perf event (`linux/bpf.h`).
const BPF_PERF_EVENT: u32 = 41;

/// Has a loaded program run at an event, and be told of a cookie. The link holds the
/// event.
///
/// # Errors
/// The kernel's error.
pub(super) fn make(
    program: BorrowedFd<'_>,
    event: BorrowedFd<'_>,
    cookie: u64,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        target: event.as_raw_fd().cast_unsigned(),
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the layout is the kernel's, and points nowhere.
    unsafe { syscall::make(BPF_LINK_CREATE, &mut attributes) }
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` uses for a perf event.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

const _: () = assert!(
    size_of::<LinkAttributes>() == 24,
    "this is the kernel's layout, without padding"
);
