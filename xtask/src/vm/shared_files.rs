//! The host's files, as one VM sees them: virtiofsd.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use anyhow::{Context, Result};

use crate::cpu;
use crate::shell::{as_root, cannot_run, echo, is_root};

/// The daemon that shares the host's files with one VM. It ends when its first
/// client does.
#[derive(Debug)]
pub(super) struct SharedFiles {
    daemon: Child,
    /// Where it waits for QEMU.
    pub(super) socket: PathBuf,
}

impl SharedFiles {
    /// Starts the daemon.
    ///
    /// # Errors
    /// It does not start, or there is no place for its socket.
    pub(super) fn start(virtiofsd: &Path) -> Result<Self> {
        // Short, for the address of a socket has 108 bytes.
        let socket = std::env::temp_dir().join(format!(
            "unfreed-vm-{}-{:?}",
            std::process::id(),
            thread::current().id()
        ));
        let _left_over = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        let mut command = as_root(virtiofsd);
        command
            .args(["-f", "--fd=0", "-o", "source=/", "-o", "sandbox=chroot"])
            .args(["-o", "cache=always", "-o", "log_level=err"])
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            // It complains when a VM ends.
            .stderr(Stdio::null());
        echo(&command);
        let daemon = command.spawn().with_context(|| cannot_run(&command))?;
        Ok(Self { daemon, socket })
    }

    /// Removes the socket's file, which nobody needs once QEMU has called.
    pub(super) fn forget_socket(&self) {
        let _removed_before = fs::remove_file(&self.socket);
    }
}

impl Drop for SharedFiles {
    fn drop(&mut self) {
        // In case that QEMU never called: a client that leaves at once.
        let _answered_before = UnixStream::connect(&self.socket);
        self.forget_socket();
        if is_root() {
            let _ended_before = self.daemon.kill();
        }
        let _reaped_before = cpu::wait(&mut self.daemon);
    }
}
