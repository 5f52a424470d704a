//! Acting on files as another user, on a thread that then ends.
//!
//! The kernel then asks what it would ask of that user: whether he may write
//! into the folder, who owns what he makes, how much he may have, whose links
//! he may follow. These ids are a thread's own (the C library's functions, but
//! for two, would change all threads).

use std::io;
use std::thread;

use rustix::process::{Gid, geteuid};
use rustix::thread::set_thread_groups;

use super::capability::{IMPERSONATE, Phase, with};

/// No id: asks for the present one.
const ASK: u32 = u32::MAX;

/// A user and his groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileIdentity {
    /// User id.
    pub user: u32,
    /// The group of what he makes.
    pub group: u32,
    /// All his groups.
    pub groups: Vec<u32>,
}

impl FileIdentity {
    /// Does something as this user. If that is ourselves, nothing changes.
    ///
    /// # Errors
    /// Fails if we may not be that user, or there can be no thread.
    pub fn act<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.user == geteuid().as_raw() {
            return Ok(act());
        }
        thread::scope(|scope| {
            let as_user = || self.take().map(|()| act());
            let acting = thread::Builder::new().spawn_scoped(scope, as_user)?;
            let acted = acting.join();
            acted.unwrap_or_else(|_| Err(io::Error::other("the thread failed")))
        })
    }

    /// Becomes the user for files, and keeps no capability.
    fn take(&self) -> io::Result<()> {
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        with(IMPERSONATE, || {
            set_thread_groups(&groups)?;
            set(libc::SYS_setfsgid, self.group)?;
            set(libc::SYS_setfsuid, self.user)
        })?;
        Phase::Parsing.enter()
    }
}

/// Sets an id. The call returns the one before, also when it is refused.
fn set(call: libc::c_long, id: u32) -> io::Result<()> {
    // SAFETY: setfsuid and setfsgid take a number, and no memory.
    let now = unsafe {
        libc::syscall(call, libc::c_long::from(id));
        libc::syscall(call, libc::c_long::from(ASK))
    };
    if now == libc::c_long::from(id) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    const OTHER: u32 = 65_534;

    fn other() -> FileIdentity {
        FileIdentity {
            user: OTHER,
            group: OTHER,
            groups: vec![OTHER],
        }
    }

    #[test]
    fn nothing_changes_for_ourselves() {
        let own = FileIdentity {
            user: geteuid().as_raw(),
            ..other()
        };
        let here = thread::current().id();
        assert_eq!(own.act(|| thread::current().id()).unwrap(), here);
    }

    /// Needs root; others are refused.
    #[test]
    fn another_users_folder_is_his() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let made = other().act(|| fs::write(&path, ""));
        if !geteuid().is_root() {
            assert!(made.is_err());
            return;
        }
        let refused = made.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        chown(folder.path(), Some(OTHER), Some(OTHER)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        other().act(|| fs::write(&path, "")).unwrap().unwrap();
        let made = path.metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), (OTHER, OTHER));
        // This thread is as before.
        fs::write(folder.path().join("ours"), "").unwrap();
        assert_eq!(folder.path().join("ours").metadata().unwrap().uid(), 0);
    }
}
