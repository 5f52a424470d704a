//! Perf counters of somebody else: on the returns of functions, where the kernel replaces
//! the return address of each call by its trampoline's, and on trace events.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What identifies the kind of event, for `perf_event_open(2)`.
const UPROBE_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";
/// `config`: at the return instead of the entry (the kernel's `format/retprobe`).
const AT_RETURN: u64 = 1;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: u64 = 1 << 3;
/// `PERF_TYPE_TRACEPOINT`.
const TRACEPOINT_TYPE: u64 = 2;
/// Of `linux/mount.h`.
const FSOPEN_CLOEXEC: libc::c_long = 1;
const FSCONFIG_CMD_CREATE: libc::c_long = 6;
const FSMOUNT_CLOEXEC: libc::c_long = 1;
/// Words of `struct perf_event_attr`, version 5.
const ATTRIBUTE_WORDS: usize = 14;

/// A return probe on one function in one process, while this value lives.
#[derive(Debug)]
pub struct ReturnProbe(OwnedFd);

impl ReturnProbe {
    /// Places it. The function's name is as `nm` prints it. Files are linked
    /// so that the addresses of code are its offsets.
    ///
    /// # Errors
    /// There is no such function, or the kernel refuses.
    pub fn place(pid: u32, file: &Path, function: &str) -> Result<Self> {
        let kind: u64 = fs::read_to_string(UPROBE_TYPE)
            .context(UPROBE_TYPE)?
            .trim()
            .parse()?;
        let path = CString::new(file.display().to_string())?;
        let mut attributes = [0_u64; ATTRIBUTE_WORDS];
        attributes[0] = kind | (size_of_val(&attributes) as u64) << 32;
        attributes[1] = AT_RETURN;
        attributes[7] = path.as_ptr() as u64;
        attributes[8] = offset(file, function)?;
        // SAFETY: the path that they point to outlives the call.
        let counter = unsafe { open(&attributes, pid) };
        let counter = counter
            .with_context(|| format!("a return probe on {function} of {}", file.display()))?;
        Ok(Self(counter))
    }

    /// How often the function returned in the thread that the process began
    /// with.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn count(&self) -> Result<u64> {
        read(&self.0)
    }
}

/// Counts a trace event in one process, while this value lives.
#[derive(Debug)]
pub struct EventCounter(OwnedFd);

impl EventCounter {
    /// Begins to count an event, `group/name`.
    ///
    /// # Errors
    /// There is no such event, or the kernel refuses.
    pub fn begin(pid: u32, event: &str) -> Result<Self> {
        let mut attributes = [0_u64; ATTRIBUTE_WORDS];
        attributes[0] = TRACEPOINT_TYPE | (size_of_val(&attributes) as u64) << 32;
        attributes[1] = number(event).with_context(|| event.to_owned())?;
        // SAFETY: they point to nothing.
        Ok(Self(unsafe { open(&attributes, pid) }?))
    }

    /// How often it happened in the thread that the process began with.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn count(&self) -> Result<u64> {
        read(&self.0)
    }
}

/// Opens a perf event in one process.
///
/// # Safety
/// What the attributes point to is valid.
unsafe fn open(attributes: &[u64; ATTRIBUTE_WORDS], pid: u32) -> Result<OwnedFd> {
    // SAFETY: the attributes are as large as they say, and the caller's promise.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            i32::try_from(pid)?,
            -1,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    new_descriptor(descriptor)
}

/// What a system call has opened.
fn new_descriptor(result: libc::c_long) -> Result<OwnedFd> {
    ensure!(result >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(result)?) })
}

fn read(counter: &OwnedFd) -> Result<u64> {
    let mut count = 0_u64;
    // SAFETY: the kernel writes 8 bytes into `count`, which has 8.
    let length = unsafe { libc::read(counter.as_raw_fd(), (&raw mut count).cast(), 8) };
    ensure!(length == 8, "{}", io::Error::last_os_error());
    Ok(count)
}

/// The number of a trace event, in a tracefs that is mounted nowhere.
fn number(event: &str) -> Result<u64> {
    // SAFETY: strings that end with 0, and numbers.
    let root = unsafe {
        let context = libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC);
        let context = new_descriptor(context)?;
        let made = libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            0,
            0,
            0,
        );
        ensure!(made == 0, "{}", io::Error::last_os_error());
        let root = libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0);
        new_descriptor(root)?
    };
    let path = format!("/proc/self/fd/{}/events/{event}/id", root.as_raw_fd());
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// The address of a function, without its version.
fn offset(file: &Path, function: &str) -> Result<u64> {
    for table in [&[][..], &["-D"][..]] {
        let output = Command::new("nm").args(table).arg(file).output()?;
        let text = String::from_utf8(output.stdout)?;
        let address = text.lines().find_map(|line| {
            let [address, _, name] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            let name = name.split('@').next().unwrap_or(name);
            (name == function).then_some(address)
        });
        if let Some(address) = address {
            return Ok(u64::from_str_radix(address, 16)?);
        }
    }
    anyhow::bail!("no {function} in {}", file.display())
}
