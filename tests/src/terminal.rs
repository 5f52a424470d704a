//! The tracer on a terminal of a given width.

use std::fs::File;
use std::io::{Error, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use crate::binary;
use anyhow::{Result, ensure};

/// What `unfreed ARGUMENTS` shows on a terminal of `width` columns.
///
/// # Errors
/// It failed, or there are no terminals.
pub fn show(arguments: &[&str], width: u16, environment: &[(&str, &str)]) -> Result<String> {
    let (mut ours, theirs) = open(width)?;
    let mut command = Command::new(binary()?);
    command
        .args(arguments)
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR");
    command
        .env_remove("COLUMNS")
        .envs(environment.iter().copied());
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(theirs);
    let mut child = command.spawn()?;
    drop(command); // closes our copy of their end
    let mut shown = Vec::new();
    // The last reader of a terminal is told of its end by EIO.
    let _end = ours.read_to_end(&mut shown);
    ensure!(
        child.wait()?.success(),
        "{}",
        String::from_utf8_lossy(&shown)
    );
    Ok(String::from_utf8(shown)?.replace("\r\n", "\n"))
}

/// The text without escape sequences.
pub fn plain(shown: &str) -> String {
    let mut parts = shown.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|last: char| last.is_ascii_alphabetic());
        plain.push_str(end.map_or("", |end| &part[end + 1..]));
    }
    plain
}

/// Both ends of a new terminal. No other child of this process gets them.
fn open(width: u16) -> Result<(File, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes a number, returns a descriptor that is nobody else's.
    let ours = unsafe { libc::posix_openpt(flags) };
    ensure!(ours >= 0, "posix_openpt: {}", Error::last_os_error());
    // SAFETY: see above.
    let owned = unsafe { File::from_raw_fd(ours) };
    // SAFETY: all three take our descriptor; the last returns a new one.
    let theirs = unsafe {
        libc::grantpt(ours);
        libc::unlockpt(ours);
        libc::ioctl(ours, libc::TIOCGPTPEER, flags)
    };
    ensure!(theirs >= 0, "TIOCGPTPEER: {}", Error::last_os_error());
    let size = libc::winsize {
        ws_row: 50,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor was just made and is nobody else's.
    let peer = unsafe { OwnedFd::from_raw_fd(theirs) };
    // SAFETY: TIOCSWINSZ reads a `winsize`, which `size` is.
    let result = unsafe { libc::ioctl(theirs, libc::TIOCSWINSZ, &raw const size) };
    ensure!(result == 0, "TIOCSWINSZ: {}", Error::last_os_error());
    Ok((owned, peer))
}
