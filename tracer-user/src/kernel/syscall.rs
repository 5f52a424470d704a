//! The `bpf` system call, for the commands that aya does not offer.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Calls `bpf(command, attributes)`; returns the number that it returns.
///
/// # Safety
/// The attributes are the start of the kernel's `union bpf_attr` for this
/// command (`linux/bpf.h`), without padding, and what they point to is valid
/// for the call.
///
/// # Errors
/// The kernel's error.
pub unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller's attributes, with their size.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(status).map_err(io::Error::other)
}

/// Calls `bpf` with a command that makes something.
///
/// # Safety
/// As for [`bpf`]; and the command returns a new descriptor.
///
/// # Errors
/// The kernel's error.
pub unsafe fn make<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { bpf(command, attributes) }?;
    // SAFETY: a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
