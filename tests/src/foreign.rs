//! Return probes of somebody else: perf counters on the returns of functions.
//! The kernel replaces the return address of each call by its trampoline's.

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
        // SAFETY: the attributes are as large as they say, and the path they
        // point to outlives the call.
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
        ensure!(
            descriptor >= 0,
            "a return probe on {function} of {}: {}",
            file.display(),
            io::Error::last_os_error()
        );
        // SAFETY: a new descriptor that nobody else has.
        Ok(Self(unsafe {
            OwnedFd::from_raw_fd(i32::try_from(descriptor)?)
        }))
    }

    /// How often the function returned in the thread that the process began
    /// with.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn count(&self) -> Result<u64> {
        let mut count = 0_u64;
        // SAFETY: the kernel writes 8 bytes into `count`, which has 8.
        let length = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        ensure!(length == 8, "{}", io::Error::last_os_error());
        Ok(count)
    }
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
