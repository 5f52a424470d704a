//! A name in a folder that was opened once, and what it stands for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, StatxAttributes, StatxFlags,
    fstat, fstatfs, openat, readlinkat, statx,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::replace::replace;
use super::write_into;
use crate::privilege::caller::Caller;
use crate::privilege::capability::{WRITE, with};

/// Only to look at, not to read or write.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// Mode bits: anyone may write; only owners may rename and remove.
const WORLD_WRITABLE: u32 = 0o002;
pub(super) const STICKY: u32 = 0o1000;

/// A name in a folder.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: Folder,
    pub(super) name: OsString,
    /// What the name stood for when the folder was opened.
    pub(super) found: Found,
}

/// A folder, whatever its path leads to by now.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) handle: OwnedFd,
    /// Its path then, for messages.
    pub(super) path: PathBuf,
    /// Whether its entries are descriptors of this process, `/dev/fd` for
    /// example. Regular files among them cannot be replaced.
    has_descriptors: bool,
}

/// What a name stands for, as far as it can be written.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing, a regular file, or a link to one of these: a new file takes
    /// its place. A file that is a mount point of its own can only be filled.
    Replaceable { mounted: Option<Node> },
    /// A pipe or a device, or a descriptor of ours.
    Open(Node),
}

/// What is kept hold of, so that it cannot become something else.
#[derive(Debug)]
pub(super) struct Node {
    handle: OwnedFd,
    stat: Stat,
}

/// The folder of a path.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

impl Place {
    /// Opens the folder, and looks what the name stands for.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"))
            .context("it names a folder")?;
        let folder = Folder::open(folder(path))?;
        let found = folder.look(name)?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            found,
        })
    }

    /// Proves that it can be written, without changing anything.
    pub(super) fn prove(&self) -> Result<()> {
        match &self.found {
            Found::Replaceable { .. } => super::replace::prove(self),
            // Opening a pipe and closing it again would end its reader's input.
            Found::Open(node) => {
                if node.kind() == FileType::CharacterDevice {
                    node.open(OFlags::NONBLOCK)?;
                }
                Ok(())
            }
        }
    }

    /// Writes what `render` writes.
    ///
    /// # Errors
    /// Fails if something else has the name by now.
    pub(super) fn write(&self, render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let now = self.folder.look(&self.name)?;
        match (&self.found, &now) {
            (Found::Replaceable { .. }, Found::Replaceable { .. }) => replace(self, render),
            (Found::Open(node), Found::Open(other)) if node.is(other) => {
                write_into(node.open_from_start()?, render)
            }
            _ => bail!(
                "it is {} now, and was {} when it was checked: somebody put it there meanwhile",
                now.describe(),
                self.found.describe()
            ),
        }
    }
}

impl Folder {
    fn open(path: &Path) -> Result<Self> {
        let opened = with(WRITE, || {
            openat(CWD, path, LOOK | OFlags::DIRECTORY, Mode::empty())
        });
        let handle = opened
            .map_err(io::Error::from)
            .with_context(|| format!("cannot create a file in {}", path.display()))?;
        Ok(Self {
            has_descriptors: fstatfs(&handle).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC),
            handle,
            path: path.to_path_buf(),
        })
    }

    /// A path to a name in this folder that leads through nothing else.
    pub(super) fn join(&self, name: &OsStr) -> PathBuf {
        self.descriptor_path().join(name)
    }

    /// A path of the folder itself, however it is called by now.
    pub(super) fn descriptor_path(&self) -> PathBuf {
        descriptor_path(&self.handle)
    }

    /// What a name in it stands for.
    fn look(&self, name: &OsStr) -> Result<Found> {
        with(WRITE, || self.look_as_writer(name))
    }

    fn look_as_writer(&self, name: &OsStr) -> Result<Found> {
        let nothing = Found::Replaceable { mounted: None };
        let Some(entry) = self.node(name, OFlags::NOFOLLOW)? else {
            return Ok(nothing);
        };
        let is_link = entry.kind() == FileType::Symlink;
        let mut is_descriptor = self.has_descriptors;
        let target = match (is_link, self.has_descriptors) {
            (false, _) => Some(Node::of(entry.handle.try_clone()?)?),
            (true, true) => self.node(name, OFlags::empty())?,
            // The link that was looked at, whatever has its name by now.
            (true, false) => {
                let text = readlinkat(&entry.handle, "", Vec::new())?;
                // `/dev/stderr`, for example.
                is_descriptor = text.to_bytes().starts_with(b"/proc/");
                self.node(OsStr::from_bytes(text.to_bytes()), OFlags::empty())?
            }
        };
        let Some(target) = target else {
            return Ok(nothing);
        };
        match target.kind() {
            FileType::Directory => bail!("it is a folder"),
            FileType::BlockDevice => bail!("it is a block device"),
            FileType::Socket => bail!("it is a socket"),
            FileType::RegularFile if !is_descriptor => {
                let mounted = (!is_link && target.is_mount_point()).then_some(target);
                return Ok(Found::Replaceable { mounted });
            }
            _ => {}
        }
        if !self.has_descriptors {
            self.trust(&entry, is_link)?;
        }
        Ok(Found::Open(target))
    }

    /// Refuses what another user has laid out to be written into.
    fn trust(&self, entry: &Node, is_link: bool) -> Result<()> {
        let owner = entry.stat.st_uid;
        if is_trusted(owner) {
            return Ok(());
        }
        ensure!(!is_link, "it is a link of another user (uid {owner})");
        let folder = fstat(&self.handle)?;
        let is_shared = folder.st_mode & (WORLD_WRITABLE | STICKY) == WORLD_WRITABLE | STICKY;
        ensure!(
            !is_shared || owner == folder.st_uid,
            "it is a pipe of another user (uid {owner}) in a folder that anyone can write to"
        );
        Ok(())
    }

    /// What is there, if anything is.
    fn node(&self, name: &OsStr, flags: OFlags) -> Result<Option<Node>> {
        match openat(&self.handle, name, LOOK | flags, Mode::empty()) {
            Ok(handle) => Node::of(handle).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

/// Whether a user may lay out links for us: root, ourselves, and who had us
/// started as root.
fn is_trusted(owner: u32) -> bool {
    let called_us =
        || Caller::find().is_ok_and(|caller| caller.is_some_and(|one| one.user == owner));
    owner == 0 || owner == geteuid().as_raw() || called_us()
}

impl Found {
    fn describe(&self) -> &'static str {
        match self {
            Self::Replaceable { .. } => "a regular file, or nothing",
            Self::Open(node) => match node.kind() {
                FileType::Fifo => "a pipe",
                FileType::CharacterDevice => "a device",
                _ => "a descriptor of this process",
            },
        }
    }
}

impl Node {
    fn of(handle: OwnedFd) -> Result<Self> {
        let stat = fstat(&handle).map_err(io::Error::from)?;
        Ok(Self { handle, stat })
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Whether both are one file.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    fn is_mount_point(&self) -> bool {
        let stat = statx(
            self.handle.as_fd(),
            "",
            AtFlags::EMPTY_PATH,
            StatxFlags::BASIC_STATS,
        );
        stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    /// Opens for writing what was looked at, and nothing else.
    fn open(&self, flags: OFlags) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC | flags;
        let path = descriptor_path(&self.handle);
        let opened = with(WRITE, || openat(CWD, path, flags, Mode::empty()));
        Ok(File::from(opened?))
    }

    /// The same, emptied if it has a beginning.
    pub(super) fn open_from_start(&self) -> io::Result<File> {
        let file = self.open(OFlags::empty())?;
        if self.kind() == FileType::RegularFile {
            file.set_len(0)?;
        }
        Ok(file)
    }
}

fn descriptor_path(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}
