//! A folder for what a JVM is to read and to write: in its own `/tmp`, made as its user, whom it
//! belongs to alone. Its name cannot be foreseen, and it is removed with all that we know to be in it.
//!
//! A JVM that is too late finds no folder any more, and writes nothing.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError, TryLockError};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, openat, statat, unlinkat};

use super::perf_map::unpredictable;
use super::status::Status;
use super::{AttachError, Listener};
use crate::privilege::file_identity::FileIdentity;
use crate::process::file::RegularFile;

/// How long we wait at exit for a thread that makes or removes one, and how often. Better a folder
/// left than no exit.
const PAUSE: Duration = Duration::from_millis(5);
const WAITS: u32 = 400;

/// The folders that are there now.
static PRESENT: Mutex<Vec<Arc<Placed>>> = Mutex::new(Vec::new());

/// The folder, as long as this value lives.
#[derive(Debug)]
pub struct Folder(Arc<Placed>);

#[derive(Debug)]
struct Placed {
    /// The JVM's `/tmp`.
    within: OwnedFd,
    name: String,
    folder: OwnedFd,
    owner: FileIdentity,
    /// Device and inode: what else may have its name is not removed.
    identity: (u64, u64),
    files: &'static [&'static str],
}

impl Folder {
    /// Makes it. It will have these files at most, which are removed with it.
    ///
    /// # Errors
    /// Its user may make none there, or we may not be that user.
    pub fn make(listener: &Listener, files: &'static [&'static str]) -> io::Result<Self> {
        let status = Status::read(&listener.process).map_err(io::Error::other)?;
        Self::make_in(listener.folder.try_clone()?, &status, files)
    }

    fn make_in(
        within: OwnedFd,
        status: &Status,
        files: &'static [&'static str],
    ) -> io::Result<Self> {
        remove_at_exit();
        let name = format!(".unfreed-{:016x}", unpredictable());
        let owner = status.identity();
        // Who leaves meanwhile waits until it is known.
        let mut present = present();
        let made = owner.act(|| {
            mkdirat(&within, &name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = openat(&within, &name, flags, Mode::empty())?;
            let stat = fstat(&folder)?;
            io::Result::Ok((folder, stat))
        })?;
        let (folder, stat) = made?;
        if stat.st_uid != status.user {
            return Err(io::Error::other("it is another user's"));
        }
        let placed = Arc::new(Placed {
            within,
            name,
            folder,
            identity: (stat.st_dev, stat.st_ino),
            owner,
            files,
        });
        present.push(Arc::clone(&placed));
        Ok(Self(placed))
    }

    /// A file's path, as the JVM sees it.
    pub fn path(&self, file: &str) -> String {
        format!("/tmp/{}/{file}", self.0.name)
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// It is there already, or cannot be written.
    pub fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.0.owner.act(|| {
            let file = openat(&self.0.folder, file, flags, Mode::RUSR | Mode::WUSR)?;
            std::fs::File::from(file).write_all(content)
        })?
    }

    /// What the JVM wrote into a file.
    ///
    /// # Errors
    /// It is no plain file of the JVM's user, has more than `most` bytes, or cannot be read.
    pub fn read(&self, file: &str, most: u64) -> io::Result<Vec<u8>> {
        self.0.owner.act(|| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let located = openat(&self.0.folder, file, flags, Mode::empty())?;
            let stat = fstat(&located)?;
            let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !is_plain || stat.st_uid != self.0.owner.user {
                return Err(io::Error::other("it is no plain file of the JVM's user"));
            }
            let file = RegularFile::open(&located)?;
            let mut content = Vec::new();
            file.file().take(most + 1).read_to_end(&mut content)?;
            match content.len() as u64 > most {
                true => Err(io::Error::other(format!("it has more than {most} bytes"))),
                false => Ok(content),
            }
        })?
    }
}

impl Listener {
    /// Removes a folder of the JVM's, as its user, if it is empty: by its path in the JVM's root,
    /// out of which no link leads.
    ///
    /// # Errors
    /// It is not empty, or its user may not do so.
    pub fn remove_folder(&self, path: &Path) -> Result<(), AttachError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let status = Status::read(&self.process)?;
        let parent = self
            .process
            .locate_in_root(parent, OFlags::DIRECTORY)
            .map_err(AttachError::NoFolder)?;
        let removed = status
            .identity()
            .act(|| unlinkat(&parent, name, AtFlags::REMOVEDIR));
        match removed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(AttachError::NoFolder(error.into())),
            Err(error) => Err(AttachError::Credentials(error)),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mut present = present();
        self.0.remove();
        present.retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}

impl Placed {
    /// Removes it, as its owner.
    fn remove(&self) {
        // Without a thread, or the right to be that user, it stays.
        let _cannot = self.owner.act(|| self.remove_as_user());
    }

    fn remove_as_user(&self) {
        for file in self.files {
            // It may not have been made.
            let _not_there = unlinkat(&self.folder, *file, AtFlags::empty());
        }
        let there = statat(&self.within, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            // What others have put there is theirs.
            let _not_empty = unlinkat(&self.within, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

fn present() -> std::sync::MutexGuard<'static, Vec<Arc<Placed>>> {
    PRESENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A second Ctrl-C leaves by `exit`, which drops nothing.
fn remove_at_exit() {
    extern "C" fn remove_all() {
        for _ in 0..WAITS {
            let present = match PRESENT.try_lock() {
                Ok(present) => present,
                Err(TryLockError::Poisoned(present)) => present.into_inner(),
                // Another thread makes or removes one.
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            present.iter().for_each(|placed| placed.remove());
            // Nobody makes another.
            std::mem::forget(present);
            return;
        }
    }
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the function takes nothing, never unwinds and lives as long
        // as the program.
        unsafe { libc::atexit(remove_all) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::attach::status::ours::{open, status};

    const FILES: &[&str] = &["in", "out"];

    #[test]
    fn it_lives_as_long_as_the_value_with_its_files() {
        let within = tempfile::tempdir().unwrap();
        let folder = Folder::make_in(open(&within), &status(), FILES).unwrap();
        let path = within.path().join(&folder.0.name);
        assert_eq!(folder.path("in"), format!("/tmp/{}/in", folder.0.name));
        folder.write("in", b"settings").unwrap();
        assert!(folder.write("in", b"").is_err(), "it is there already");
        assert_eq!(std::fs::read(path.join("in")).unwrap(), b"settings");
        std::fs::write(path.join("out"), b"12345").unwrap();
        assert_eq!(folder.read("out", 5).unwrap(), b"12345");
        assert!(
            folder
                .read("out", 4)
                .unwrap_err()
                .to_string()
                .contains("more than 4 bytes")
        );
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn links_are_not_followed_and_what_others_put_there_is_left() {
        let within = tempfile::tempdir().unwrap();
        let folder = Folder::make_in(open(&within), &status(), FILES).unwrap();
        let path = within.path().join(&folder.0.name);
        let victim = within.path().join("victim");
        std::fs::write(&victim, "secret").unwrap();
        std::os::unix::fs::symlink(&victim, path.join("out")).unwrap();
        assert!(folder.read("out", 99).is_err());
        std::fs::write(path.join("theirs"), "").unwrap();
        drop(folder);
        assert!(victim.exists() && path.join("theirs").exists());
        assert!(!path.join("out").is_symlink());
    }

    #[test]
    fn what_took_its_name_is_not_removed() {
        let within = tempfile::tempdir().unwrap();
        let folder = Folder::make_in(open(&within), &status(), FILES).unwrap();
        let path = within.path().join(&folder.0.name);
        std::fs::rename(&path, within.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        drop(folder);
        assert!(path.exists());
    }
}
