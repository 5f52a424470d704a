//! Whether a process has ended, by a descriptor that never means another process
//! (pidfd_open(2)): a fiftieth of what it takes to read `/proc/PID/stat`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The life of a process, which goes on until the last of its threads has ended.
#[derive(Debug, Clone)]
pub struct Life(Arc<OwnedFd>);

impl Life {
    /// That of the process which has this id now.
    ///
    /// # Errors
    /// Fails with `ESRCH` if there is none, with `EINVAL` if it is a thread's id, and if we have
    /// no more descriptors.
    pub fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(rustix::io::Errno::SRCH)?;
        let life = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self(Arc::new(life)))
    }

    /// Whether it has ended. Its parent may not have asked for it yet.
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Waits for its end, but not longer than this.
    pub fn ends_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
        let time = Timespec::try_from(time).ok();
        matches!(poll(&mut fds, time.as_ref()), Ok(1..))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Fails with `ESRCH` if it has ended, and if we may not.
    pub fn signal(&self, signal: Signal) -> Result<(), rustix::io::Errno> {
        pidfd_send_signal(&*self.0, signal)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_has_ended_before_anybody_asks_for_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let life = Life::of(child.id()).unwrap();
        assert!(!life.has_ended());
        life.signal(Signal::KILL).unwrap();
        assert!(life.ends_within(Duration::from_secs(60)));
        assert!(life.has_ended());
        // It is a zombie until now.
        child.wait().unwrap();
        assert!(life.has_ended());
        assert_eq!(life.signal(Signal::KILL), Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn who_is_not_there_has_no_life() {
        for pid in [0, u32::MAX] {
            assert!(Life::of(pid).is_err());
        }
    }
}
