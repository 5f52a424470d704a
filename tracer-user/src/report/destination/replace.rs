//! Putting a whole new file in another's place.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use tempfile::{NamedTempFile, PersistError};

use super::place::{Folder, Found, Place, STICKY};
use super::write_into;
use crate::privilege::capability::{WRITE, with};

/// Mode of a new file, before the umask.
const MODE: u32 = 0o644;

/// Proves that a file can be made there, and put in the place of what has the
/// name.
pub(super) fn prove(place: &Place) -> Result<()> {
    let folder = &place.folder;
    let me = with(WRITE, || {
        let made = temporary(folder)?;
        anyhow::Ok(made.as_file().metadata()?.uid())
    })?;
    let existing = match statat(&folder.handle, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(existing) => existing,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let holder = fstat(&folder.handle).map_err(io::Error::from)?;
    let kept =
        holder.st_mode & STICKY != 0 && me != 0 && me != holder.st_uid && me != existing.st_uid;
    ensure!(
        !kept,
        "it belongs to another user, and its folder is sticky; choose another name or folder"
    );
    Ok(())
}

/// Writes a new file and renames it.
pub(super) fn replace(
    place: &Place,
    render: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let file = with(WRITE, || temporary(&place.folder))?;
    let written = write_into(file.as_file(), render).and_then(|()| Ok(sync(file.as_file())?));
    // A file that is not whole is removed here.
    with(WRITE, || written.and_then(|()| put(file, place)))?;
    // The content is safe by now; a folder that cannot be synced loses at
    // most the rename in a power cut.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let _not_synced = openat(&place.folder.handle, ".", flags, Mode::empty())
        .map(|folder| File::from(folder).sync_all());
    Ok(())
}

/// A new file under a fresh name, removed when dropped.
fn temporary(folder: &Folder) -> Result<NamedTempFile> {
    let create = |path: &Path| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
    };
    let mut cause = None;
    let file = tempfile::Builder::new()
        .prefix(".unfreed-")
        .make_in(folder.descriptor_path(), |path| {
            create(path).inspect_err(|error| cause = error.raw_os_error())
        });
    // The cause alone: the fresh name would only confuse.
    file.map_err(|error| cause.map_or(error, io::Error::from_raw_os_error))
        .with_context(|| format!("cannot create a file in {}", folder.path.display()))
}

/// Renames a file over the name. A mount point (a single file that is mounted
/// into a container) cannot be renamed over and takes the content instead.
fn put(file: NamedTempFile, place: &Place) -> Result<()> {
    let (error, mut file) = match file.persist(place.folder.join(&place.name)) {
        Ok(_) => return Ok(()),
        Err(PersistError { error, file }) => (error, file),
    };
    if error.kind() != io::ErrorKind::ResourceBusy {
        return Err(error.into());
    }
    let Found::Replaceable {
        mounted: Some(mounted),
    } = &place.found
    else {
        bail!("it is a mount point now, and was none when it was checked");
    };
    file.as_file_mut().rewind()?;
    let mut target = mounted.open_from_start()?;
    io::copy(file.as_file_mut(), &mut target)?;
    Ok(sync(&target)?)
}

/// Waits until the content is on the disk, where the file system can tell.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOSYS | libc::ENOTSUP)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}
