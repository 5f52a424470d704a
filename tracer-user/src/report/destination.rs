//! Where an output goes, and how it gets there whole.
//!
//! The tracer runs as root and may write where others can. A regular file is
//! therefore never opened for writing: its replacement is written beside it
//! under a fresh name and renamed over it, which follows no link.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::{NamedTempFile, PersistError};

/// Names of standard output besides `-`.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// Mode of a new file, before the umask.
const MODE: u32 = 0o644;
/// Mode bits: anyone may write; only owners may rename and remove.
const WORLD_WRITABLE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// How a file is written.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// By a new file in this folder, renamed over it.
    Replace(PathBuf),
    /// By opening it: a pipe or a device.
    Direct,
}

impl Destination {
    /// The destination that a path names.
    pub fn new(path: &Path) -> Self {
        if STDOUT.iter().any(|name| path == Path::new(name)) {
            Self::Stdout
        } else {
            Self::File(path.to_path_buf())
        }
    }

    /// Whether both name one file, as far as their folders exist.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => location(one) == location(other),
            _ => self == other,
        }
    }

    /// Proves that the destination can be written, without changing it.
    ///
    /// # Errors
    /// Names the destination and why it cannot be written.
    pub fn check(&self) -> Result<()> {
        let Self::File(path) = self else {
            return Ok(());
        };
        self.named(way(path).and_then(|way| match way {
            Way::Replace(folder) => check_replace(&folder, path),
            Way::Direct => check_direct(path),
        }))
    }

    /// Writes what `render` writes. Standard output closed by its reader is
    /// not an error. A failure leaves a regular file as it was.
    ///
    /// # Errors
    /// Names the destination and why it cannot be written.
    pub fn write(&self, render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let Self::File(path) = self else {
            return self.named(write_stdout(render));
        };
        self.named(way(path).and_then(|way| match way {
            Way::Replace(folder) => replace(&folder, path, render),
            Way::Direct => write_into(open_direct(path)?, render),
        }))
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("cannot write {self}"))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => write!(f, "standard output"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The path with its folder resolved, if that exists.
fn location(path: &Path) -> PathBuf {
    match (fs::canonicalize(folder(path)), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn way(path: &Path) -> Result<Way> {
    ensure!(
        path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().ends_with(b"/"),
        "it names a folder"
    );
    let folder = folder(path);
    let replace = Way::Replace(folder.to_path_buf());
    let Some(entry) = absent(fs::symlink_metadata(path))? else {
        return Ok(replace);
    };
    let Some(target) = absent(fs::metadata(path))? else {
        return Ok(replace);
    };
    let kind = target.file_type();
    ensure!(!kind.is_dir(), "it is a folder");
    ensure!(!kind.is_block_device(), "it is a block device");
    ensure!(!kind.is_socket(), "it is a socket");
    // Descriptors of this process look like files of a folder that takes no
    // files: `-o /dev/fd/3`.
    let descriptor = fs::canonicalize(folder).is_ok_and(|folder| folder.starts_with("/proc"));
    if kind.is_file() && !descriptor {
        return Ok(replace);
    }
    if entry.is_symlink() && !descriptor {
        let open_to_all = fs::metadata(folder)?.mode() & WORLD_WRITABLE != 0;
        ensure!(
            !open_to_all || entry.uid() == 0,
            "it is a link in a folder that anyone can write to"
        );
    }
    Ok(Way::Direct)
}

fn absent<T>(result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_replace(folder: &Path, path: &Path) -> Result<()> {
    let me = temporary(folder)?.as_file().metadata()?.uid();
    let Some(existing) = absent(fs::symlink_metadata(path))? else {
        return Ok(());
    };
    let holder = fs::metadata(folder)?;
    let kept = holder.mode() & STICKY != 0 && me != 0 && me != holder.uid() && me != existing.uid();
    ensure!(
        !kept,
        "it belongs to another user, and its folder is sticky; choose another name or folder"
    );
    Ok(())
}

fn check_direct(path: &Path) -> Result<()> {
    // Opening a pipe and closing it again would end its reader's input.
    if fs::metadata(path)?.file_type().is_char_device() {
        open(path, libc::O_NONBLOCK)?;
    }
    Ok(())
}

fn open_direct(path: &Path) -> Result<File> {
    let file = open(path, 0)?;
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY | flags)
        .open(path)
}

/// A new file under a fresh name, removed when dropped.
fn temporary(folder: &Path) -> Result<NamedTempFile> {
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
        .make_in(folder, |path| {
            create(path).inspect_err(|error| cause = error.raw_os_error())
        });
    // The cause alone: the fresh name would only confuse.
    file.map_err(|error| cause.map_or(error, io::Error::from_raw_os_error))
        .with_context(|| format!("cannot create a file in {}", folder.display()))
}

fn replace(
    folder: &Path,
    path: &Path,
    render: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let file = temporary(folder)?;
    write_into(file.as_file(), render)?;
    sync(file.as_file())?;
    put(file, path)?;
    // The content is safe by now; a folder that cannot be synced loses at
    // most the rename in a power cut.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Renames a file over `path`. A mount point (a single file that is mounted
/// into a container) cannot be renamed over and takes the content instead.
fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let (error, mut file) = match file.persist(path) {
        Ok(_) => return Ok(()),
        Err(PersistError { error, file }) => (error, file),
    };
    if error.kind() != io::ErrorKind::ResourceBusy {
        return Err(error);
    }
    file.as_file_mut().rewind()?;
    let mut target = open(path, libc::O_NOFOLLOW)?;
    target.set_len(0)?;
    io::copy(file.as_file_mut(), &mut target)?;
    sync(&target)
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

fn write_into(file: impl Write, render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::new(file);
    let result = render(&mut writer).and_then(|()| Ok(writer.flush()?));
    // What is left in the buffer of a failed writer must not be tried again.
    let _ = writer.into_parts();
    result
}

fn write_stdout(render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match write_into(io::stdout().lock(), render) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use anyhow::bail;

    use super::*;

    fn write(path: &Path, text: &str) -> Result<()> {
        Destination::new(path).write(|writer| Ok(writer.write_all(text.as_bytes())?))
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_check_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&old, "content").unwrap();
        Destination::new(&new).check().unwrap();
        Destination::new(&old).check().unwrap();
        assert_eq!(entries(folder.path()), 1);
        assert_eq!(fs::read_to_string(&old).unwrap(), "content");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "old").unwrap();
        let error = Destination::new(&path)
            .write(|writer| {
                writer.write_all(b"half")?;
                bail!("no more")
            })
            .unwrap_err();
        assert!(format!("{error:#}").ends_with("a.json: no more"));
        assert_eq!(
            (
                fs::read_to_string(&path).unwrap().as_str(),
                entries(folder.path())
            ),
            ("old", 1)
        );
        write(&path, "new").unwrap();
        assert_eq!(
            (
                fs::read_to_string(&path).unwrap().as_str(),
                entries(folder.path())
            ),
            ("new", 1)
        );
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("precious"), folder.path().join("a.json"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        write(&link, "report").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_is_found_by_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: PathBuf| format!("{:#}", Destination::new(&path).check().unwrap_err());
        assert!(error(folder.path().to_path_buf()).contains("it is a folder"));
        let missing = folder.path().join("none");
        let expected = format!(
            "cannot write {0}/a.svg: cannot create a file in {0}: No such file or directory (os error 2)",
            missing.display()
        );
        assert_eq!(error(missing.join("a.svg")), expected);
        assert!(error(folder.path().join("x".repeat(300))).contains("File name too long"));
        assert!(error("/proc/a.svg".into()).contains("cannot create a file in /proc"));
        assert!(error("a/".into()).contains("it names a folder"));
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let full = Path::new("/dev/full");
        Destination::new(full).check().unwrap();
        let error = format!("{:#}", write(full, "x").unwrap_err());
        assert_eq!(
            error,
            "cannot write /dev/full: No space left on device (os error 28)"
        );
        write(Path::new("/dev/null"), "x").unwrap();
        assert!(
            fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
    }

    #[test]
    fn a_planted_link_to_a_device_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        let link = folder.path().join("a.json");
        symlink("/dev/null", &link).unwrap();
        let owner = fs::symlink_metadata(&link).unwrap().uid();
        let root_owned = Destination::new(&link).check();
        assert_eq!(root_owned.is_ok(), owner == 0);
        if owner == 0 && std::os::unix::fs::lchown(&link, Some(65_534), None).is_ok() {
            let error = format!("{:#}", Destination::new(&link).check().unwrap_err());
            assert!(
                error.contains("a folder that anyone can write to"),
                "{error}"
            );
        }
    }
}
