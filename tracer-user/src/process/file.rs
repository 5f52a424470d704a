//! The files behind mapped code, kept open while their process lives, so
//! that deleted and replaced files, other mount namespaces and processes that
//! have exited can still be symbolized.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, major, minor, openat};
use tracer_ebpf::limits;

use super::handle::ProcessHandle;
use super::maps::{Device, FileId, MappedRange, read_executable};
use super::room::Room;
use crate::privilege::capability::{READ, with};

/// More files than have a number are not kept open.
pub const MAX_FILES: usize = limits::MAX_FILES as usize - 1;

/// What is remembered of all processes' mappings takes at most so many bytes: 10
/// KB a process, as a rule.
const MAX_CODE: u64 = 192 << 20;

/// A regular file, open for reading.
#[derive(Debug)]
pub struct RegularFile {
    file: File,
    id: FileId,
    size: u64,
    modified: (i64, u64),
    safe_from_others: bool,
    owner: u32,
}

impl RegularFile {
    /// Opens for reading what was located (`O_PATH`) before, if it is a
    /// regular file. Nothing else is ever opened: opening a device or a fifo
    /// can block or act.
    ///
    /// # Errors
    /// Fails if it is not a regular file or may not be read.
    pub fn open(located: &OwnedFd) -> io::Result<Self> {
        let stat = fstat(located)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let path = format!("/proc/self/fd/{}", located.as_raw_fd());
        let file = File::from(with(READ, || openat(CWD, path, flags, Mode::empty()))?);
        let others_may_write = stat.st_mode & 0o022 != 0;
        Ok(RegularFile {
            file,
            id: id_of(&stat),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(&stat),
            safe_from_others: stat.st_uid == 0 && !others_may_write,
            owner: stat.st_uid,
        })
    }

    /// The open file. Its position is shared: read at offsets only.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The device and inode that `fstat` tells.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Length in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hands on all that it had when it was opened, piece by piece.
    ///
    /// # Errors
    /// It had more than `most` bytes, cannot be read, or `take` fails.
    pub fn each_piece(
        &self,
        most: u64,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.size > most {
            return Err(io::Error::other("too large"));
        }
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < self.size {
            let count = self.file.read_at(&mut buffer, offset)?;
            if count == 0 {
                break;
            }
            take(&buffer[..count])?;
            offset += count as u64;
        }
        Ok(())
    }

    /// Stands for its content when it was opened: its size, and when it was written to last. Not
    /// 0.
    fn version(&self) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        hasher.hash_one((self.size, self.modified)) | 1
    }

    /// The user who owns it.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether root alone may change the file. One that another user can
    /// truncate must not be mapped into memory.
    pub fn safe_from_others(&self) -> bool {
        self.safe_from_others
    }

    /// Whether the content changed since the file was opened.
    pub fn changed(&self) -> bool {
        fstat(self.file.as_fd()).is_ok_and(|stat| {
            modified(&stat) != self.modified || u64::try_from(stat.st_size) != Ok(self.size)
        })
    }
}

fn id_of(stat: &Stat) -> FileId {
    let device = Device {
        major: major(stat.st_dev),
        minor: minor(stat.st_dev),
    };
    FileId::new(device, stat.st_ino)
}

fn modified(stat: &Stat) -> (i64, u64) {
    (stat.st_mtime, stat.st_mtime_nsec)
}

/// A file with mapped code, under the identity that the mapping has.
#[derive(Debug)]
pub struct ModuleFile {
    /// The mapping's device and inode, with what stands for its content. On file systems
    /// such as btrfs and overlayfs the former differ from what `fstat` tells.
    pub mapped: FileId,
    /// The file.
    pub content: RegularFile,
}

impl ModuleFile {
    /// A path that is the open file itself, so that no link or rename can lead
    /// elsewhere.
    pub fn descriptor_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.content.file().as_raw_fd()))
    }
}

/// Every file with mapped code that was opened, once each; once more if it was written anew in
/// its place, as `cp` does.
#[derive(Debug)]
pub struct ModuleFiles {
    /// By what the kernel tells: with what is in them now.
    files: HashMap<FileId, Arc<ModuleFile>>,
    /// How many were opened.
    opened: usize,
    room: Room,
}

impl Default for ModuleFiles {
    fn default() -> Self {
        ModuleFiles {
            files: HashMap::new(),
            opened: 0,
            room: Room::of(MAX_CODE),
        }
    }
}

impl ModuleFiles {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many were opened. They are kept, mapped or not.
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// The room for what is remembered of the mappings of all processes.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// A file that is not mapped yet, by its path in our own root; known
    /// afterwards under the identity that `fstat` tells.
    ///
    /// # Errors
    /// Fails if it is not a regular file or may not be read.
    pub fn open_path(&mut self, path: &Path) -> io::Result<Arc<ModuleFile>> {
        let located = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let content = RegularFile::open(&located)?;
        Ok(self.enter(content.id(), content))
    }

    /// The file of a mapping as the kernel tells of it, opened now unless it is open already
    /// with what is in it now.
    ///
    /// # Errors
    /// The reason why there is no file, for people to read. Not an error of
    /// the run: the frames of this mapping have no names.
    pub fn open(
        &mut self,
        process: &ProcessHandle,
        range: &MappedRange,
    ) -> Result<Arc<ModuleFile>, String> {
        let known = self.files.get(&range.file.with_version(0));
        if let Some(file) = known.filter(|file| !file.content.changed()) {
            return Ok(Arc::clone(file));
        }
        if self.opened >= MAX_FILES {
            return Err(format!(
                "more than {MAX_FILES} files are mapped; this one was not opened"
            ));
        }
        let content = find(process, range)?;
        Ok(self.enter(range.file, content))
    }

    fn enter(&mut self, id: FileId, content: RegularFile) -> Arc<ModuleFile> {
        let file = Arc::new(ModuleFile {
            mapped: id.with_version(content.version()),
            content,
        });
        self.opened += 1;
        self.files.insert(id.with_version(0), Arc::clone(&file));
        file
    }
}

/// Tries the mapping itself, then its path in the process's root, then its
/// path in ours (where an exited process's root is not known).
fn find(process: &ProcessHandle, range: &MappedRange) -> Result<RegularFile, String> {
    let entry = format!("map_files/{:x}-{:x}", range.start.0, range.end.0);
    let mapped = process.locate_proc(&entry);
    let mut cause = match open_if(mapped, |id| is_mapped(id, process, range)) {
        Ok(file) => return Ok(file),
        Err(cause) => cause,
    };
    let Some(path) = range.name.path() else {
        return Err("no file is mapped".into());
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let places = [
        process.locate_in_root(path, OFlags::empty()),
        openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from),
    ];
    for place in places {
        match open_if(place, |id| same_file(id, range.file)) {
            Ok(file) => return Ok(file),
            Err(other) => cause = other,
        }
    }
    Err(format!("cannot open {}: {cause}", path.display()))
}

fn open_if(
    located: io::Result<OwnedFd>,
    accept: impl Fn(FileId) -> bool,
) -> Result<RegularFile, String> {
    let file = located.and_then(|located| RegularFile::open(&located));
    let file = file.map_err(|error| error.to_string())?;
    if accept(file.id()) {
        return Ok(file);
    }
    Err("another file has this name now".into())
}

/// Whether the entry in `map_files` is the mapping in question: by its
/// identity, or because the maps file says so now in the same words.
fn is_mapped(id: FileId, process: &ProcessHandle, range: &MappedRange) -> bool {
    same_file(id, range.file)
        || process
            .open_proc("maps")
            .and_then(read_executable)
            .is_ok_and(|ranges| ranges.contains(range))
}

/// Whether `fstat` and a mapping speak of the same file. A device with major
/// number 0 is one subvolume or layer of several, and the two may name
/// different ones.
pub fn same_file(found: FileId, mapped: FileId) -> bool {
    let unnamed = found.device.major == 0 || mapped.device.major == 0;
    found.inode == mapped.inode && (found.device == mapped.device || unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::{MappingName, parse_executable};
    use std::path::PathBuf;

    fn own_range(holding: u64) -> (ProcessHandle, MappedRange) {
        let process = ProcessHandle::open(std::process::id()).unwrap();
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let ranges = parse_executable(&maps);
        let range = ranges
            .into_iter()
            .find(|r| r.start.0 <= holding && holding < r.end.0);
        (process, range.unwrap())
    }

    #[test]
    fn a_file_is_opened_once() {
        let (process, range) = own_range(a_file_is_opened_once as *const () as u64);
        let mut files = ModuleFiles::new();
        let first = files.open(&process, &range).unwrap();
        let second = files.open(&process, &range).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(first.mapped.is_version_of(&range.file));
        assert!(first.content.size() > 0);
        assert!(!first.content.changed());
    }

    /// As `cp` does: the number of the file stays.
    #[test]
    fn a_file_that_is_written_anew_in_its_place_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library");
        let mut files = ModuleFiles::new();
        std::fs::write(&path, "first").unwrap();
        let first = files.open_path(&path).unwrap();
        std::fs::write(&path, "the second").unwrap();
        let second = files.open_path(&path).unwrap();
        assert_ne!(first.mapped, second.mapped);
        assert!(first.mapped.is_version_of(&second.mapped));
        assert!(first.content.changed() && !second.content.changed());
    }

    #[test]
    fn a_path_that_leads_to_another_file_is_refused() {
        let (process, mut range) = own_range(a_file_is_opened_once as *const () as u64);
        range.name = MappingName::File(PathBuf::from("/etc/passwd"));
        range.start.0 += 1;
        let reason = ModuleFiles::new().open(&process, &range).unwrap_err();
        assert_eq!(
            reason,
            "cannot open /etc/passwd: another file has this name now"
        );
    }

    #[test]
    fn only_regular_files_are_opened() {
        for path in ["/dev/null", "/", "/dev"] {
            let located = openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap();
            assert_eq!(
                RegularFile::open(&located).unwrap_err().to_string(),
                "not a regular file"
            );
        }
    }

    #[test]
    fn devices_must_agree_unless_one_is_unnamed() {
        let file = |major, minor, inode| FileId::new(Device { major, minor }, inode);
        assert!(same_file(file(8, 1, 5), file(8, 1, 5)));
        assert!(same_file(file(0, 45, 5), file(8, 1, 5)));
        assert!(!same_file(file(8, 2, 5), file(8, 1, 5)));
        assert!(!same_file(file(8, 1, 6), file(8, 1, 5)));
    }
}
