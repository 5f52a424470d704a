//! The connection to a JVM's socket, made as the JVM's own user.
//!
//! A JVM asks the kernel who its peer was when it connected. From 11 on it
//! trusts root beside its own user and group; but our root is nobody in a
//! container with users of its own, and older JVMs trust only themselves. So
//! the connection is always made with the JVM's effective user and group, on
//! a thread that then ends: the system calls change one thread alone (libc's
//! functions would change all).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

use super::AttachError;
use super::status::Status;
use crate::privilege::capability::{IMPERSONATE, Phase, with};

/// "Leave this id as it is", for `setresuid(2)`.
const UNCHANGED: libc::c_long = -1;

/// Connects to the socket in the JVM's `/tmp`; none if there is no such file.
pub fn to(
    folder: &OwnedFd,
    status: &Status,
    limit: Duration,
) -> Result<Option<Socket>, AttachError> {
    let name = format!(".java_pid{}", status.inner_pid);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(folder, &name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(AttachError::Connect(error.into())),
    };
    check(&file, &name, status)?;
    // The very file that was checked, whatever has its name by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let connect = || {
        with(IMPERSONATE, || become_user(status))
            .and_then(|()| Phase::Parsing.enter())
            .map_err(AttachError::Credentials)?;
        connect(&path, limit).map_err(AttachError::Connect)
    };
    let connected = std::thread::scope(|scope| scope.spawn(connect).join());
    connected
        .unwrap_or_else(|_| Err(AttachError::Connect(io::Error::other("the thread failed"))))
        .map(Some)
}

/// Whether this is a socket of the JVM's user.
fn check(file: &OwnedFd, name: &str, status: &Status) -> Result<(), AttachError> {
    let stat = fstat(file).map_err(|error| AttachError::Connect(error.into()))?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket if stat.st_uid == status.user => return Ok(()),
        FileType::Socket => "a socket of another user",
        FileType::Symlink => "a link",
        _ => "no socket",
    };
    Err(AttachError::Foreign {
        path: PathBuf::from("/tmp").join(name),
        what,
    })
}

/// Takes the JVM's effective user and group, for this thread alone. The group
/// comes first: without our own user it could not be changed any more.
fn become_user(status: &Status) -> io::Result<()> {
    if getegid().as_raw() != status.group {
        set_effective(libc::SYS_setresgid, status.group)?;
    }
    if geteuid().as_raw() != status.user {
        set_effective(libc::SYS_setresuid, status.user)?;
    }
    Ok(())
}

fn set_effective(call: libc::c_long, id: u32) -> io::Result<()> {
    // SAFETY: setresuid and setresgid take three numbers, and no memory.
    let result = unsafe { libc::syscall(call, UNCHANGED, libc::c_long::from(id), UNCHANGED) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn connect(path: &str, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Also bounds the wait for room in the queue of a JVM that hangs.
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::attach::status::ours::{open, status};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_is_connected_to_and_its_absence_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(5);
        assert!(to(&open(&folder), &status(), limit).unwrap().is_none());
        let listener = UnixListener::bind(folder.path().join(".java_pid7")).unwrap();
        assert!(to(&open(&folder), &status(), limit).unwrap().is_some());
        drop(listener);
        assert!(matches!(
            to(&open(&folder), &status(), limit),
            Err(AttachError::Connect(error)) if error.kind() == io::ErrorKind::ConnectionRefused
        ));
    }

    #[test]
    fn links_and_files_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(5);
        let path = folder.path().join(".java_pid7");
        let other = folder.path().join("other");
        let _listener = UnixListener::bind(&other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let refused = |status: &Status| match to(&open(&folder), status, limit) {
            Err(AttachError::Foreign { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&status()), "a link");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(refused(&status()), "no socket");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&other, &path).unwrap();
        let stranger = Status {
            user: status().user + 1,
            ..status()
        };
        assert_eq!(refused(&stranger), "a socket of another user");
    }
}
