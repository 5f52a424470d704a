//! HotSpot's attach protocol, as `jcmd` speaks it: no agent, no flag, and the
//! JVM is not stopped.
//!
//! A JVM that got SIGQUIT while a file `.attach_pidN` of its user is in its
//! working folder (or in `/tmp`) starts a thread that listens on the socket
//! `/tmp/.java_pidN`. `N` is the JVM's pid for itself, and `/tmp` that of its
//! own mount namespace. The socket then stays for the JVM's life.
//!
//! SIGQUIT kills a process that does not catch it, `/tmp` belongs to
//! everybody, and the JVM may be hung. So: no signal before the kernel says
//! that it is caught; files only through handles of their folders, never
//! through links; and a time limit on everything.

mod connect;
mod disabled;
mod error;
mod folder;
mod perf_map;
mod reply;
mod status;
mod trigger;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use socket2::Socket;

pub use self::error::AttachError;
pub use self::folder::Folder;
use self::status::Status;
use self::trigger::Trigger;
use super::counters::{CounterFile, Counters};
use crate::jvm::libjvm::NAME;
use crate::privilege::capability::{SIGNAL, with};
use crate::process::handle::ProcessHandle;
use crate::process::life::Life;
use crate::process::maps::read_executable;

/// How long a JVM may take to begin to listen: some milliseconds, unless it
/// is at a long safepoint.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked for the socket.
const LOOK: Duration = Duration::from_millis(5);

/// A JVM that can be asked: its part that listens.
#[derive(Debug)]
pub struct Listener {
    process: ProcessHandle,
    /// Says when the process has ended, and never means another.
    life: Life,
    /// The JVM's `/tmp`.
    folder: OwnedFd,
    counters: Option<CounterFile>,
}

/// Whether a process has the JVM's library mapped.
pub fn is_jvm(process: &ProcessHandle) -> bool {
    let is_library = |path: &Path| path.file_name().is_some_and(|name| name == NAME);
    process
        .open_proc("maps")
        .and_then(read_executable)
        .is_ok_and(|ranges| {
            ranges
                .iter()
                .any(|range| range.name.path().is_some_and(is_library))
        })
}

impl Listener {
    /// Finds a JVM. Nothing is sent to it yet.
    ///
    /// # Errors
    /// The process is gone, is no JVM, or may not be looked at.
    pub fn find(pid: u32) -> Result<Self, AttachError> {
        let life = Life::of(pid).map_err(|_| AttachError::Ended)?;
        let process = ProcessHandle::open(pid).map_err(|_| AttachError::Ended)?;
        if !is_jvm(&process) {
            return Err(AttachError::NotJava);
        }
        let folder = process
            .locate_in_root(Path::new("/tmp"), OFlags::DIRECTORY)
            .map_err(AttachError::NoFolder)?;
        let status = Status::read(&process)?;
        Ok(Self {
            counters: CounterFile::find(&folder, status.inner_pid, status.user),
            process,
            life,
            folder,
        })
    }

    /// Runs a diagnostic command, `GC.class_histogram -all` for example, and
    /// returns what it prints. The first call makes the JVM listen.
    ///
    /// # Errors
    /// Says why there is no answer within `limit`, and what mends it.
    pub fn command(&self, command: &str, limit: Duration) -> Result<String, AttachError> {
        let status = Status::read(&self.process)?;
        let mut socket = self.socket(&status)?;
        let end = Instant::now() + limit;
        socket
            .set_write_timeout(Some(limit))
            .and_then(|()| socket.write_all(&reply::request(command)))
            .map_err(|error| self.broken(error))?;
        let bytes = self.read(&mut socket, end, limit)?;
        reply::parse(&bytes).map_err(|error| match error {
            // It also closes the connection of a peer that it does not trust.
            AttachError::Refused if self.life.has_ended() => AttachError::Ended,
            other => other,
        })
    }

    /// The JVM's counters now, without asking it; none if it keeps none.
    pub fn counters(&self) -> Option<Counters> {
        self.counters.as_ref()?.read()
    }

    /// A connection: to the socket that is there, or to the one that the JVM
    /// makes when it is asked to.
    fn socket(&self, status: &Status) -> Result<Socket, AttachError> {
        if let Some(socket) = self.try_connect(status)? {
            return Ok(socket);
        }
        if !status.catches_quit {
            return Err(AttachError::QuitKills);
        }
        if self
            .counters()
            .is_some_and(|counters| counters.forbids_attach())
            || disabled::by_option(&self.process)
        {
            return Err(AttachError::Disabled);
        }
        let _trigger = Trigger::create(&self.process, &self.folder, status)?;
        // It may have called exec by now, which forgets all handlers.
        if !Status::read(&self.process)?.catches_quit {
            return Err(AttachError::QuitKills);
        }
        with(SIGNAL, || self.life.signal(Signal::QUIT)).map_err(|error| match error {
            rustix::io::Errno::SRCH => AttachError::Ended,
            other => AttachError::Signal(other.into()),
        })?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(socket) = self.try_connect(status)? {
                return Ok(socket);
            }
            if self.life.ends_within(LOOK) {
                return Err(AttachError::Ended);
            }
        }
        Err(AttachError::NoSocket {
            after: PATIENCE,
            stopped: Status::read(&self.process).is_ok_and(|status| status.stopped),
        })
    }

    /// A connection if the JVM listens. The socket of a JVM that is gone, or
    /// none, is no error.
    fn try_connect(&self, status: &Status) -> Result<Option<Socket>, AttachError> {
        match connect::to(&self.folder, status, PATIENCE) {
            Err(AttachError::Connect(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                Ok(None)
            }
            other => other,
        }
    }

    fn read(
        &self,
        socket: &mut Socket,
        end: Instant,
        limit: Duration,
    ) -> Result<Vec<u8>, AttachError> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AttachError::TimedOut(limit));
            }
            let read = socket
                .set_read_timeout(Some(left))
                .and_then(|()| socket.read(&mut buffer));
            match read {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken(error)),
            }
            if bytes.len() > reply::MAX_BYTES {
                return Err(AttachError::TooLong);
            }
        }
    }

    fn broken(&self, error: io::Error) -> AttachError {
        if self.life.has_ended() {
            AttachError::Ended
        } else {
            AttachError::Connect(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_jvm_is_not_touched() {
        let own = std::process::id();
        assert!(matches!(Listener::find(own), Err(AttachError::NotJava)));
        assert!(matches!(Listener::find(0), Err(AttachError::Ended)));
        assert!(matches!(Listener::find(4_194_305), Err(AttachError::Ended)));
    }
}
