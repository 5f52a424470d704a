//! Probes that the target has to know of: the kernel counts them in a word of the
//! target's, a USDT probe's semaphore, while they are in place (`ref_ctr_offset`). What
//! counts takes the count back itself when the probe goes, however its owner ended. By
//! perf events, for which aya 0.14 has no such offset.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::link::Link;
use super::perf_link;
use super::program::Counted;

/// `_IOW('$', 8, __u32)` and `_IO('$', 0)` of `linux/perf_event.h`.
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// The kernel's number for events of this kind.
const TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// Where the counter's offset in the file is in `config`: its upper half
/// (`/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset`).
const COUNTER_SHIFT: u32 = 32;

/// Attaches a loaded program to a place by a perf event, in one process or (with `None`)
/// in all that map the file. `has_cookies` says whether the kernel knows them.
///
/// # Errors
/// Fails when the kernel refuses the place.
pub fn attach(
    program: BorrowedFd<'_>,
    place: &Counted,
    file: &Path,
    pid: Option<u32>,
    has_cookies: bool,
) -> Result<Link> {
    let event = open(place, file, pid).with_context(|| {
        format!(
            "cannot place a probe at offset {:#x} of {}",
            place.offset,
            file.display()
        )
    })?;
    let link = match has_cookies {
        true => Some(perf_link::make(program, event.as_fd(), place.cookie)?),
        false => {
            control(&event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
            None
        }
    };
    control(&event, PERF_EVENT_IOC_ENABLE, 0)?;
    Ok(Link::Counted { event, link })
}

fn open(place: &Counted, file: &Path, pid: Option<u32>) -> Result<OwnedFd> {
    let kind = std::fs::read_to_string(TYPE).with_context(|| format!("cannot read {TYPE}"))?;
    let path = CString::new(file.as_os_str().as_bytes())?;
    let Ok(counter) = u32::try_from(place.counter) else {
        bail!("its counter is beyond the 4 GiB that a perf event can say");
    };
    let attributes = EventAttributes {
        kind: kind.trim().parse()?,
        bytes: u32::try_from(size_of::<EventAttributes>())?,
        config: u64::from(counter) << COUNTER_SHIFT,
        unused: [0; 3],
        // Disabled, until the program is there.
        flags: 1,
        wakeup: 0,
        breakpoint: 0,
        path: path.as_ptr() as u64,
        offset: place.offset,
    };
    let (pid, cpu) = match pid {
        Some(pid) => (i32::try_from(pid)?, -1),
        None => (-1, 0),
    };
    // SAFETY: the layout is the kernel's first (`PERF_ATTR_SIZE_VER1`), its size is in
    // it, and the path outlives the call.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            pid,
            cpu,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if event < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(event)?) })
}

fn control(event: &OwnedFd, request: libc::c_ulong, argument: i32) -> Result<()> {
    // SAFETY: requests that take a number.
    let status = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
    if status < 0 {
        return Err(io::Error::last_os_error()).context("the kernel refused a program at a probe");
    }
    Ok(())
}

/// The beginning of `struct perf_event_attr` (`linux/perf_event.h`).
#[repr(C)]
struct EventAttributes {
    kind: u32,
    bytes: u32,
    config: u64,
    unused: [u64; 3],
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    path: u64,
    offset: u64,
}

const _: () = assert!(
    size_of::<EventAttributes>() == 72,
    "this is the kernel's layout, without padding"
);
