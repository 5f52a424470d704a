//! What happens to the entries of a folder, as the kernel tells it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};

/// Something that happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It was made.
    Made,
    /// Its owner, mode or times were changed.
    Changed,
    /// It was removed.
    Removed,
}

/// A folder that is watched (inotify(7)).
#[derive(Debug)]
pub struct Entries(File);

impl Entries {
    /// Begins to watch.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn of(folder: &Path) -> Result<Self> {
        // SAFETY: takes a number, returns a descriptor that is nobody else's.
        let descriptor = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        ensure!(descriptor >= 0, "inotify_init1: {}", Error::last_os_error());
        // SAFETY: see above.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let path = CString::new(folder.as_os_str().as_bytes())?;
        let mask = libc::IN_CREATE | libc::IN_ATTRIB | libc::IN_DELETE;
        // SAFETY: the descriptor is open, the path ends with a null.
        let watch = unsafe { libc::inotify_add_watch(descriptor, path.as_ptr(), mask) };
        ensure!(watch >= 0, "inotify_add_watch: {}", Error::last_os_error());
        Ok(Self(file))
    }

    /// What happened to an entry since the last call, in this order.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn happened(&mut self, name: &str) -> Result<Vec<Happened>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.0.read(&mut buffer) {
                Ok(length) => all.extend(parse(&buffer[..length], name)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Records of `struct inotify_event`: a watch, a mask, a cookie, the length of
/// the name, and the name with nulls behind it.
fn parse(mut records: &[u8], wanted: &str) -> Vec<Happened> {
    let mut found = Vec::new();
    while let Some((head, rest)) = records.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| head[at + byte]));
        let (mask, length) = (word(4), word(12) as usize);
        let (name, next) = rest.split_at(length.min(rest.len()));
        records = next;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name != wanted.as_bytes() {
            continue;
        }
        let kinds = [
            (libc::IN_CREATE, Happened::Made),
            (libc::IN_ATTRIB, Happened::Changed),
            (libc::IN_DELETE, Happened::Removed),
        ];
        found.extend(
            kinds
                .iter()
                .filter(|kind| mask & kind.0 != 0)
                .map(|kind| kind.1),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_happens_is_told_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut entries = Entries::of(folder.path()).unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "").unwrap();
        fs::write(folder.path().join("b"), "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        let expected = [Happened::Made, Happened::Changed, Happened::Removed];
        assert_eq!(entries.happened("a").unwrap(), expected);
        assert!(entries.happened("a").unwrap().is_empty());
    }
}
