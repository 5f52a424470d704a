//! The file that makes SIGQUIT mean "listen".
//!
//! It is there for some milliseconds, and removed in every outcome: when the
//! value is dropped, and when the program exits. It is made and removed as the
//! JVM's user, who thus owns it from the first moment, and only where that user
//! may do so. If we are killed in between, an empty file of the JVM's user stays. All that it can do is to make the
//! next SIGQUIT of this JVM open the socket instead of printing a thread dump.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::AttachError;
use super::status::Status;
use crate::privilege::file_identity::FileIdentity;
use crate::process::handle::ProcessHandle;

/// The files that are there now.
static PRESENT: Mutex<Vec<Arc<Placed>>> = Mutex::new(Vec::new());

/// The file, as long as this value lives.
#[derive(Debug)]
pub struct Trigger {
    /// None if another attach's file is there, which serves as well.
    placed: Option<Arc<Placed>>,
}

/// A file of ours.
#[derive(Debug)]
struct Placed {
    folder: OwnedFd,
    name: String,
    owner: FileIdentity,
    /// Device and inode: what else may have its name is not removed.
    identity: (u64, u64),
}

impl Trigger {
    /// Makes the file in the JVM's working folder, or in its `/tmp` (`folder`)
    /// if that is not possible.
    ///
    /// # Errors
    /// It can be made in neither, or something else is in its place.
    pub fn create(
        process: &ProcessHandle,
        folder: &OwnedFd,
        status: &Status,
    ) -> Result<Self, AttachError> {
        remove_at_exit();
        let working = process
            .locate_proc("cwd")
            .map_err(AttachError::NoTrigger)
            .and_then(|working| place(working, status));
        match working {
            Err(AttachError::NoTrigger(_)) => {
                let folder = folder.try_clone().map_err(AttachError::NoTrigger)?;
                place(folder, status)
            }
            other => other,
        }
    }
}

/// Makes the file as the JVM's user.
fn place(folder: OwnedFd, status: &Status) -> Result<Trigger, AttachError> {
    let made = status.identity().act(|| place_as_user(folder, status));
    made.unwrap_or_else(|error| Err(AttachError::Credentials(error)))
}

fn place_as_user(folder: OwnedFd, status: &Status) -> Result<Trigger, AttachError> {
    let name = format!(".attach_pid{}", status.inner_pid);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(Errno::EXIST) => return adopt(&folder, name, status),
        Err(error) => return Err(AttachError::NoTrigger(error.into())),
    };
    let stat = fstat(&file).map_err(|error| AttachError::NoTrigger(error.into()))?;
    let trigger = Trigger {
        placed: Some(Arc::new(Placed {
            folder,
            name,
            owner: status.identity(),
            identity: (stat.st_dev, stat.st_ino),
        })),
    };
    present().extend(trigger.placed.clone());
    Ok(trigger)
}

/// What is there already serves if it is a plain file of the JVM's user.
fn adopt(folder: &OwnedFd, name: String, status: &Status) -> Result<Trigger, AttachError> {
    let stat = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| AttachError::NoTrigger(error.into()))?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_uid == status.user => {
            return Ok(Trigger { placed: None });
        }
        FileType::RegularFile => "a file of another user",
        FileType::Symlink => "a link",
        _ => "no plain file",
    };
    Err(AttachError::Foreign {
        path: PathBuf::from(name),
        what,
    })
}

impl Drop for Trigger {
    fn drop(&mut self) {
        if let Some(placed) = self.placed.take() {
            present().retain(|other| !Arc::ptr_eq(other, &placed));
            placed.remove();
        }
    }
}

impl Placed {
    /// Removes it, as its owner.
    fn remove(&self) {
        // Without a thread, or the right to be that user, it stays: it is
        // empty, and its owner's.
        let _cannot = self.owner.act(|| self.remove_as_user());
    }

    fn remove_as_user(&self) {
        let there = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            // Whoever was faster has done the same.
            let _gone_already = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

fn present() -> std::sync::MutexGuard<'static, Vec<Arc<Placed>>> {
    PRESENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A second Ctrl-C leaves by `exit`, which drops nothing.
fn remove_at_exit() {
    extern "C" fn remove_all() {
        // A thread that is in there now does not come back: better a file
        // left than no exit.
        if let Ok(present) = PRESENT.try_lock() {
            present.iter().for_each(|placed| placed.remove());
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

    #[test]
    fn the_file_lives_as_long_as_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".attach_pid7");
        let trigger = place(open(&folder), &status()).unwrap();
        assert!(path.exists());
        drop(trigger);
        assert!(!path.exists());
    }

    /// Root may be anybody; others are themselves alone.
    #[test]
    fn the_file_is_made_and_removed_as_the_jvms_user() {
        use std::os::unix::fs::{MetadataExt, chown};
        let other = Status {
            user: 65_534,
            group: 65_534,
            ..status()
        };
        let folder = tempfile::tempdir().unwrap();
        let refused = place(open(&folder), &other).unwrap_err();
        if status().user != 0 {
            assert!(matches!(refused, AttachError::Credentials(_)), "{refused}");
            return;
        }
        // Where that user may not write, nothing is made for him.
        assert!(matches!(refused, AttachError::NoTrigger(_)), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        chown(folder.path(), Some(other.user), None).unwrap();
        let path = folder.path().join(".attach_pid7");
        let trigger = place(open(&folder), &other).unwrap();
        let made = path.metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), (other.user, other.group));
        // Nor is anything removed that he may not remove.
        chown(folder.path(), Some(0), None).unwrap();
        trigger.placed.as_ref().unwrap().remove();
        assert!(path.exists());
        chown(folder.path(), Some(other.user), None).unwrap();
        drop(trigger);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_another_attach_serves_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".attach_pid7");
        std::fs::write(&path, "").unwrap();
        drop(place(open(&folder), &status()).unwrap());
        assert!(path.exists());
        let stranger = Status {
            user: status().user + 1,
            ..status()
        };
        assert!(matches!(
            adopt(&open(&folder), ".attach_pid7".to_owned(), &stranger),
            Err(AttachError::Foreign { .. })
        ));
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, folder.path().join(".attach_pid7")).unwrap();
        let error = place(open(&folder), &status()).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        assert!(!victim.exists());
    }

    #[test]
    fn what_took_its_name_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".attach_pid7");
        let trigger = place(open(&folder), &status()).unwrap();
        // The old file keeps its inode number in use.
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop(trigger);
        assert!(path.exists());
    }
}
