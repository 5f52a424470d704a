//! Programs at trace events of the kernel, by perf events.
//!
//! When a perf event goes the kernel waits for all processors, some 0.07 s for each event
//! and for one after the other. Our exit, and our being killed, would wait for all that. So
//! the links have names in a BPF file system that hangs on a descriptor: when it goes, the
//! kernel takes the links away by itself, and lets nobody wait.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use perf_event::Builder;
use perf_event::events::Tracepoint;
use rustix::mount::MountAttrFlags;

use super::{detached, perf_link, syscall};
use crate::privilege::capability::{EVENT, with};

const BPF_OBJ_PIN: libc::c_long = 6;
/// The name is below a descriptor (`linux/bpf.h`; Linux 6.5).
const BPF_F_PATH_FD: u32 = 1 << 14;

/// Programs that are in place. Dropping it takes them away, a moment later.
pub(super) struct Tracepoints {
    /// What holds the links.
    links: OwnedFd,
    count: u32,
}

impl Tracepoints {
    /// None yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses the file system.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            links: detached::mount("bpf", MountAttrFlags::empty())?,
            count: 0,
        })
    }

    /// Attaches a loaded program to an event, which tracefs has a number of, on all
    /// processors. The perf event itself is never enabled: it counts nothing.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub(super) fn attach(&mut self, program: BorrowedFd<'_>, number: u64) -> Result<()> {
        let link = || -> Result<OwnedFd> {
            let counter = Builder::new(Tracepoint::with_id(number))
                .any_pid()
                .one_cpu(0)
                .build()?;
            // SAFETY: it is open until the link has it.
            let event = unsafe { BorrowedFd::borrow_raw(counter.as_raw_fd()) };
            Ok(perf_link::make(program, event, 0)?)
        };
        let link = with(EVENT, link).context("the kernel refused the program there")?;
        self.keep(&link).context("cannot keep the link there")
    }

    /// Gives a link a name, by which it stays.
    fn keep(&mut self, link: &OwnedFd) -> Result<()> {
        let name = CString::new(self.count.to_string())?;
        self.count += 1;
        let mut attributes = PinAttributes {
            path: name.as_ptr() as u64,
            object: link.as_raw_fd().cast_unsigned(),
            flags: BPF_F_PATH_FD,
            folder: self.links.as_fd().as_raw_fd(),
            unused: 0,
        };
        // SAFETY: the layout is the kernel's, and the name outlives the call.
        unsafe { syscall::bpf(BPF_OBJ_PIN, &mut attributes) }?;
        Ok(())
    }
}

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` uses.
#[repr(C)]
struct PinAttributes {
    path: u64,
    object: u32,
    flags: u32,
    folder: i32,
    unused: u32,
}

const _: () = assert!(
    size_of::<PinAttributes>() == 24,
    "this is the kernel's layout, without padding"
);
