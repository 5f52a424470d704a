//! Finds the file that a module's debug information was moved to, the way
//! GDB does ("Debugging Information in Separate Files"): by build id, then
//! by `.gnu_debuglink`; in our root and in the process's.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::elf::{DebugLink, ElfImage};
use crate::privilege::capability::{READ, with};
use crate::process::file::RegularFile;
use crate::process::handle::ProcessHandle;

/// Where distributions put debug files.
const DEBUG_ROOT: &str = "/usr/lib/debug";

/// The checksum of a file larger than this is not computed.
const MAX_CHECKED: u64 = 2 << 30;

/// A debug file that belongs to a module.
#[derive(Debug)]
pub struct DebugFile {
    /// The file.
    pub file: RegularFile,
    /// What it holds.
    pub image: ElfImage,
}

/// Finds the debug file of a module. `path` is the module's as the process
/// sees it.
pub fn find(
    process: &ProcessHandle,
    path: Option<&Path>,
    module: &RegularFile,
    image: &ElfImage,
) -> Option<DebugFile> {
    let by_id = image.build_id.as_ref().and_then(|id| id.debug_path());
    let by_id = by_id.map(|name| Path::new(DEBUG_ROOT).join(name));
    let by_link = image
        .debug_link
        .as_ref()
        .zip(path)
        .map(|(link, path)| link_paths(link, path));
    by_id
        .into_iter()
        .chain(by_link.into_iter().flatten())
        .flat_map(|path| {
            [
                locate_here(&path),
                process.locate_in_root(&path, OFlags::empty()),
            ]
        })
        .filter_map(|located| RegularFile::open(&located.ok()?).ok())
        .filter(|file| file.id() != module.id())
        .find_map(|file| {
            let found = ElfImage::read(file.file()).ok()?;
            belongs(image, &found, &file).then_some(DebugFile { file, image: found })
        })
}

fn locate_here(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(with(READ, || openat(CWD, path, flags, Mode::empty()))?)
}

/// Beside the module, in `.debug` beside it, and in the same folder below the
/// debug root. A link names a file without folders.
fn link_paths(link: &DebugLink, module: &Path) -> Vec<PathBuf> {
    let Some(folder) = module.parent().filter(|_| module.is_absolute()) else {
        return Vec::new();
    };
    let name = OsStr::from_bytes(&link.name);
    if Path::new(name).file_name() != Some(name) {
        return Vec::new();
    }
    let below_root = folder.strip_prefix("/").unwrap_or(folder);
    vec![
        folder.join(name),
        folder.join(".debug").join(name),
        Path::new(DEBUG_ROOT).join(below_root).join(name),
    ]
}

/// Whether a debug file is that of the module: they have the same build id,
/// or, where one has none, the checksum in the link is right.
fn belongs(module: &ElfImage, found: &ElfImage, file: &RegularFile) -> bool {
    match (&module.build_id, &found.build_id, &module.debug_link) {
        (Some(id), Some(other), _) => id == other,
        (_, _, Some(link)) => checksum(file).is_ok_and(|crc| crc == link.crc),
        _ => false,
    }
}

fn checksum(file: &RegularFile) -> io::Result<u32> {
    if file.size() > MAX_CHECKED {
        return Err(io::Error::other("too large"));
    }
    let mut hash = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < file.size() {
        let count = file.file().read_at(&mut buffer, offset)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(name: &str, module: &str) -> Vec<PathBuf> {
        link_paths(
            &DebugLink {
                name: name.into(),
                crc: 0,
            },
            Path::new(module),
        )
    }

    #[test]
    fn links_are_looked_for_in_three_places() {
        let expected = [
            "/opt/a/x.debug",
            "/opt/a/.debug/x.debug",
            "/usr/lib/debug/opt/a/x.debug",
        ];
        assert_eq!(paths("x.debug", "/opt/a/prog"), expected.map(PathBuf::from));
    }

    #[test]
    fn links_cannot_lead_elsewhere() {
        for name in ["", ".", "..", "/etc/passwd", "../x", "a/b", "x/"] {
            assert_eq!(paths(name, "/opt/a/prog"), [] as [PathBuf; 0], "{name:?}");
        }
        assert_eq!(paths("x.debug", "prog"), [] as [PathBuf; 0]);
    }
}
