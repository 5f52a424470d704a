//! A small file system of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// A file system in memory; unmounted with this value.
#[derive(Debug)]
pub struct Disk(TempDir);

impl Disk {
    /// One of so many bytes.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn of(bytes: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={bytes}");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "unfreed-test"])
            .arg(folder.path())
            .status()?;
        ensure!(status.success(), "cannot mount a tmpfs: {status}");
        Ok(Self(folder))
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _still_busy = Command::new("umount").arg(self.path()).status();
    }
}
