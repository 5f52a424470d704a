//! A process held by its `/proc` folder and its root folder, so that neither
//! a reused pid nor an exit leads to another process's files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::privilege::capability::{READ, with};

/// `/proc/PID/status` is about 1.5 KiB.
const MAX_STATUS: u64 = 64 << 10;

/// A process: alive, or remembered.
///
/// The root folder stays open after the exit, and keeps its mount busy as
/// long as this value lives.
#[derive(Debug, Clone)]
pub struct ProcessHandle {
    pid: u32,
    /// `/proc/PID`; lookups below it fail once the process is gone, even if
    /// the pid is in use again.
    folder: Option<Arc<OwnedFd>>,
    /// The process's `/`; none if it was never seen alive.
    root: Option<Arc<OwnedFd>>,
    /// The pid that the process has for itself.
    inner_pid: Option<u32>,
    /// Real, effective, saved and file system user, in our user namespace.
    users: Vec<u32>,
}

impl ProcessHandle {
    /// Opens the folders of a living process.
    ///
    /// # Errors
    /// Fails if there is no such process or its folders may not be opened.
    pub fn open(pid: u32) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())
            .with_context(|| format!("cannot open /proc/{pid}: no process {pid} is visible"))?;
        let root = openat(&folder, "root", flags, Mode::empty()).with_context(|| {
            format!("cannot open /proc/{pid}/root: run as root or as the process's user")
        })?;
        let mut handle = ProcessHandle {
            pid,
            folder: Some(Arc::new(folder)),
            root: Some(Arc::new(root)),
            inner_pid: None,
            users: Vec::new(),
        };
        handle.read_status()?;
        Ok(handle)
    }

    /// A child just forked, or the same process after `exec`: opened anew,
    /// or as the parent was if the process is gone already.
    pub fn successor(&self, pid: u32) -> Self {
        ProcessHandle::open(pid).unwrap_or_else(|_| ProcessHandle {
            pid,
            folder: None,
            root: self.root.clone(),
            inner_pid: if pid == self.pid {
                self.inner_pid
            } else {
                None
            },
            users: self.users.clone(),
        })
    }

    /// The process id in our namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process id in the process's own namespace.
    pub fn inner_pid(&self) -> Option<u32> {
        self.inner_pid
    }

    /// Whether `user` is one of the process's users or root.
    pub fn trusts(&self, user: u32) -> bool {
        user == 0 || self.users.contains(&user)
    }

    /// Closes what is of no use once the process is gone.
    pub fn release(&mut self) {
        self.folder = None;
    }

    /// Opens a file of `/proc/PID` for reading, `maps` for example.
    ///
    /// # Errors
    /// Fails with `ESRCH` once the process is gone.
    pub fn open_proc(&self, name: &str) -> io::Result<File> {
        self.open_at(name, OFlags::RDONLY | OFlags::CLOEXEC)
            .map(File::from)
    }

    /// Opens what an entry of `/proc/PID` stands for (`exe`,
    /// `map_files/…`), only to look at and to open again.
    ///
    /// # Errors
    /// Fails with `ESRCH` once the process is gone.
    pub fn locate_proc(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_at(name, OFlags::PATH | OFlags::CLOEXEC)
    }

    /// The ids of its threads.
    ///
    /// # Errors
    /// Fails with `ESRCH` once the process is gone.
    pub fn tasks(&self) -> io::Result<Vec<u32>> {
        let folder = self.open_at("task", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        let entries = rustix::fs::Dir::read_from(folder)?;
        let id = |entry: rustix::fs::DirEntry| entry.file_name().to_str().ok()?.parse().ok();
        Ok(entries.filter_map(|entry| id(entry.ok()?)).collect())
    }

    /// The id that a thread has in the process's own namespace; `None` if it is gone.
    pub fn inner_task(&self, task: u32) -> Option<u32> {
        let mut status = String::new();
        let file = self.open_proc(&format!("task/{task}/status")).ok()?;
        file.take(MAX_STATUS).read_to_string(&mut status).ok()?;
        status_numbers(&status, "NSpid:").last().copied()
    }

    /// What the symbolic link `/proc/PID/NAME` says.
    ///
    /// # Errors
    /// Fails with `ESRCH` once the process is gone.
    pub fn read_link(&self, name: &str) -> io::Result<Vec<u8>> {
        let folder = self.folder.as_ref().ok_or_else(gone)?;
        Ok(rustix::fs::readlinkat(&**folder, name, Vec::new())?.into_bytes())
    }

    /// Finds a file by its path within the process's root, only to look at
    /// and to open again. Symbolic links stay within that root.
    ///
    /// # Errors
    /// Fails as `openat2` does.
    pub fn locate_in_root(&self, path: &Path, extra: OFlags) -> io::Result<OwnedFd> {
        let root = self.root.as_ref().ok_or_else(gone)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let located = with(READ, || {
            openat2(&**root, path, flags, Mode::empty(), resolve)
        });
        Ok(located?)
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let folder = self.folder.as_ref().ok_or_else(gone)?;
        Ok(openat(&**folder, name, flags, Mode::empty())?)
    }

    fn read_status(&mut self) -> Result<()> {
        let mut status = String::new();
        self.open_proc("status")
            .and_then(|file| file.take(MAX_STATUS).read_to_string(&mut status))
            .with_context(|| format!("cannot read /proc/{}/status", self.pid))?;
        self.users = status_numbers(&status, "Uid:");
        self.inner_pid = status_numbers(&status, "NSpid:").last().copied();
        Ok(())
    }
}

fn gone() -> io::Error {
    rustix::io::Errno::SRCH.into()
}

/// The numbers in the line of `/proc/PID/status` that begins with `key`.
fn status_numbers(status: &str, key: &str) -> Vec<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_default();
    line.split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn status_lines_are_found_by_their_key() {
        let status = "Name:\tNSpid:\nUid:\t1\t2\t3\t4\nNSpid:\t4026\t17\n";
        assert_eq!(status_numbers(status, "Uid:"), [1, 2, 3, 4]);
        assert_eq!(status_numbers(status, "NSpid:").last(), Some(&17));
        assert!(status_numbers(status, "Absent:").is_empty());
    }

    #[test]
    fn own_process_is_described() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        assert_eq!(own.inner_pid(), Some(std::process::id()));
        assert_eq!(own.inner_task(std::process::id()), own.inner_pid());
        assert!(own.trusts(0));
        assert!(!own.trusts(54321));
        assert!(own.open_proc("maps").is_ok());
        assert!(
            own.locate_in_root(Path::new("/proc"), OFlags::empty())
                .is_ok()
        );
    }

    #[test]
    fn links_do_not_leave_the_root() {
        let folder = std::env::temp_dir().join(format!("unfreed-root-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let _ = std::fs::remove_file(folder.join("link"));
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
        let mut own = ProcessHandle::open(std::process::id()).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        own.root = Some(Arc::new(
            openat(CWD, &folder, flags, Mode::empty()).unwrap(),
        ));
        assert!(
            own.locate_in_root(Path::new("/link"), OFlags::empty())
                .is_err()
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_process_that_is_gone_is_not_mistaken() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let handle = ProcessHandle::open(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(handle.open_proc("maps").is_err());
        assert!(handle.locate_proc("exe").is_err());
        assert!(ProcessHandle::open(child.id()).is_err());
        let successor = handle.successor(child.id());
        assert_eq!(successor.inner_pid(), handle.inner_pid());
        assert!(
            successor
                .locate_in_root(Path::new("/etc"), OFlags::empty())
                .is_ok()
        );
    }
}
