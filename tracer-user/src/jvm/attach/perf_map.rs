//! A perf map that a JVM writes when it is asked to (`Compiler.perfmap`).
//!
//! It writes to a file of its own `/tmp`, where everybody may: nothing that is
//! there already is overwritten or believed, and what it wrote is read and
//! removed as the JVM's user, who may do that with nobody else's files.

use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::{AttachError, Listener};
use crate::process::file::RegularFile;

/// More of a perf map is not read; one of 50,000 methods has 6 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// The kernel's time of files is that of its last tick.
const TICK: Duration = Duration::from_millis(20);

impl Listener {
    /// Has the JVM write a perf map, and returns what it wrote.
    ///
    /// # Errors
    /// The JVM has no such command, or gives no answer within `limit`; or there
    /// is a file in the way, or what is there afterwards is not its own.
    pub fn perf_map(&self, limit: Duration) -> Result<Vec<u8>, AttachError> {
        let help = self.command("help Compiler.perfmap", limit)?;
        if !help.contains("Syntax") {
            return Err(AttachError::NoPerfMap);
        }
        let status = super::Status::read(&self.process)?;
        // From JDK 22 on, the file may have any name.
        let (name, command) = match help.contains("filename") {
            true => {
                let name = format!(".unfreed-{:016x}.map", unpredictable());
                let command = format!("Compiler.perfmap /tmp/{name}");
                (name, command)
            }
            false => {
                let name = format!("perf-{}.map", status.inner_pid);
                (name, "Compiler.perfmap".to_owned())
            }
        };
        match statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(foreign(&name, "there already")),
            Err(error) => return Err(AttachError::PerfMap(error.into())),
        }
        let asked = SystemTime::now() - TICK;
        let answer = self.command(&command, limit);
        let text = status
            .identity()
            .act(|| take(&self.folder, &name, status.user, asked))
            .unwrap_or_else(|error| Err(AttachError::Credentials(error)));
        answer.and(text)
    }
}

/// Reads and removes a file that a user wrote after `asked`.
fn take(
    folder: &OwnedFd,
    name: &str,
    user: u32,
    asked: SystemTime,
) -> Result<Vec<u8>, AttachError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let located = openat(folder, name, flags, Mode::empty())
        .map_err(|error| AttachError::PerfMap(error.into()))?;
    let stat = fstat(&located).map_err(|error| AttachError::PerfMap(error.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_uid == user => {}
        FileType::RegularFile => return Err(foreign(name, "a file of another user")),
        FileType::Symlink => return Err(foreign(name, "a link")),
        _ => return Err(foreign(name, "no plain file")),
    }
    let text = read(&located, asked);
    let there = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)) {
        // Whoever was faster has done the same.
        let _gone_already = unlinkat(folder, name, AtFlags::empty());
    }
    text.map_err(AttachError::PerfMap)
}

fn read(located: &OwnedFd, asked: SystemTime) -> io::Result<Vec<u8>> {
    let file = RegularFile::open(located)?;
    if file.file().metadata()?.modified()? < asked {
        return Err(io::Error::other("it is older than our question"));
    }
    let mut text = Vec::new();
    file.file().take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

fn foreign(name: &str, what: &'static str) -> AttachError {
    AttachError::Foreign {
        path: Path::new("/tmp").join(PathBuf::from(name)),
        what,
    }
}

/// A number that nobody can prepare a file for: the hash of nothing under
/// std's random keys.
pub(super) fn unpredictable() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::attach::status::ours::{open, status};

    fn taken(folder: &tempfile::TempDir, asked: SystemTime) -> Result<Vec<u8>, String> {
        let taken = take(&open(folder), "a.map", status().user, asked);
        taken.map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_jvm_wrote_is_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.map");
        let asked = SystemTime::now() - TICK;
        std::fs::write(&path, "1 2 x\n").unwrap();
        assert_eq!(taken(&folder, asked).unwrap(), b"1 2 x\n");
        assert!(!path.exists());
        assert!(taken(&folder, asked).is_err());
    }

    #[test]
    fn what_is_old_or_of_others_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.map");
        std::fs::write(&path, "1 2 x\n").unwrap();
        let later = SystemTime::now() + Duration::from_secs(9);
        assert!(taken(&folder, later).unwrap_err().contains("older"));
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "1 2 x\n").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(
            taken(&folder, SystemTime::UNIX_EPOCH)
                .unwrap_err()
                .contains("a link")
        );
        assert!(victim.exists() && path.symlink_metadata().is_ok());
        let stranger = take(
            &open(&folder),
            "victim",
            status().user + 1,
            SystemTime::UNIX_EPOCH,
        );
        assert!(stranger.unwrap_err().to_string().contains("another user"));
    }
}
