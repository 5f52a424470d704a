//! Finds the file that a module's debug information was moved to, the way
//! GDB does ("Debugging Information in Separate Files"): by build id, then
//! by `.gnu_debuglink`; in our root and in the process's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::elf::ElfImage;
use crate::privilege::capability::{READ, with};
use crate::process::debug_file::{DEBUG_ROOT, checksum, link_paths};
use crate::process::file::RegularFile;
use crate::process::handle::ProcessHandle;

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
        .map(|(link, path)| link_paths(&link.name, path));
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
            let found = ElfImage::read(&file).ok()?;
            belongs(image, &found, &file).then_some(DebugFile { file, image: found })
        })
}

fn locate_here(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(with(READ, || openat(CWD, path, flags, Mode::empty()))?)
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
