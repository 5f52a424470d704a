//! What must be known of a process before it is sent a signal.

use std::io::{self, Read};

use super::AttachError;
use crate::privilege::file_identity::FileIdentity;
use crate::process::handle::ProcessHandle;

/// `/proc/PID/status` is about 1.5 KiB.
const MAX_STATUS: u64 = 64 << 10;
/// SIGQUIT's bit in a signal mask.
const QUIT: u64 = 1 << (libc::SIGQUIT - 1);

/// The parts of `/proc/PID/status` that count (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The pid that the process has for itself.
    pub inner_pid: u32,
    /// Its effective user, in our namespace.
    pub user: u32,
    /// Its effective group, in our namespace.
    pub group: u32,
    /// Its other groups, in our namespace.
    pub groups: Vec<u32>,
    /// Whether it has a handler for SIGQUIT.
    pub catches_quit: bool,
    /// Whether a signal or a debugger stopped it.
    pub stopped: bool,
}

impl Status {
    /// Reads it.
    pub fn read(process: &ProcessHandle) -> Result<Self, AttachError> {
        let mut text = Vec::new();
        process
            .open_proc("status")
            .and_then(|file| file.take(MAX_STATUS).read_to_end(&mut text))
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ESRCH | libc::ENOENT) => AttachError::Ended,
                _ => AttachError::Status(error),
            })?;
        Self::parse(&String::from_utf8_lossy(&text), process.pid())
            .ok_or_else(|| AttachError::Status(io::Error::other("of an unknown form")))
    }

    /// As whom to act on the process's files.
    pub fn identity(&self) -> FileIdentity {
        FileIdentity {
            user: self.user,
            group: self.group,
            groups: self.groups.clone(),
        }
    }

    /// `pid` stands in on kernels that do not tell the inner one.
    fn parse(text: &str, pid: u32) -> Option<Self> {
        let values = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.split_whitespace())
        };
        let inner_pid = values("NSpid:").map_or(Some(pid), |mut pids| {
            pids.next_back().and_then(|pid| pid.parse().ok())
        })?;
        let caught = values("SigCgt:")?.next()?;
        let ignored = values("SigIgn:")?.next()?;
        let has_quit = |mask| Some(u64::from_str_radix(mask, 16).ok()? & QUIT != 0);
        Some(Self {
            inner_pid,
            user: values("Uid:")?.nth(1)?.parse().ok()?,
            group: values("Gid:")?.nth(1)?.parse().ok()?,
            groups: values("Groups:")?
                .map(|group| group.parse().ok())
                .collect::<Option<_>>()?,
            catches_quit: has_quit(caught)? && !has_quit(ignored)?,
            stopped: matches!(values("State:")?.next()?, "T" | "t"),
        })
    }
}

/// What tests of neighbours need: a status of our own user, and a folder.
#[cfg(test)]
pub mod ours {
    use std::os::fd::OwnedFd;

    use rustix::fs::{CWD, Mode, OFlags, openat};
    use rustix::process::{getegid, geteuid};

    use super::Status;

    /// The status of a JVM of ours whose own id is 7.
    pub fn status() -> Status {
        Status {
            inner_pid: 7,
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
            groups: Vec::new(),
            catches_quit: true,
            stopped: false,
        }
    }

    /// A folder as a process's is given.
    pub fn open(folder: &tempfile::TempDir) -> OwnedFd {
        openat(CWD, folder.path(), OFlags::PATH, Mode::empty()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\tSigCgt: java\nState:\tS (sleeping)\nUid:\t0\t33\t0\t33\nGid:\t0\t44\t0\t44\nGroups:\t44 7 \nNSpid:\t4711\t7\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000004\n";

    #[test]
    fn the_effective_user_and_the_inner_pid_count() {
        let status = Status::parse(TEXT, 4711).unwrap();
        let expected = Status {
            inner_pid: 7,
            user: 33,
            group: 44,
            groups: vec![44, 7],
            catches_quit: true,
            stopped: false,
        };
        assert_eq!(status, expected);
        let old = TEXT.replace("NSpid:\t4711\t7\n", "");
        assert_eq!(Status::parse(&old, 4711).unwrap().inner_pid, 4711);
    }

    #[test]
    fn only_a_handler_makes_the_signal_safe() {
        for (from, to) in [
            ("SigCgt:\t0000000000000004", "SigCgt:\t00000000fffffffb"),
            ("SigIgn:\t0000000000000000", "SigIgn:\t0000000000000004"),
        ] {
            let text = TEXT.replace(from, to);
            assert!(!Status::parse(&text, 1).unwrap().catches_quit, "{to}");
        }
        let stopped = TEXT.replace("S (sleeping)", "T (stopped)");
        assert!(Status::parse(&stopped, 1).unwrap().stopped);
    }

    #[test]
    fn what_is_missing_is_not_guessed() {
        for key in ["State:", "Uid:", "Gid:", "Groups:", "SigIgn:", "SigCgt:"] {
            let text: String = TEXT
                .lines()
                .filter(|line| !line.starts_with(key))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(Status::parse(&text, 1), None, "{key}");
        }
        assert_eq!(Status::parse("", 1), None);
    }
}
