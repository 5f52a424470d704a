//! Where a file's debug information is when it was moved to another file (GDB's manual,
//! "Debugging Information in Separate Files").

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::file::RegularFile;

/// Where distributions put debug files.
pub const DEBUG_ROOT: &str = "/usr/lib/debug";

/// The checksum of a file larger than this is not computed.
const MAX_CHECKED: u64 = 2 << 30;

/// Beside the module, in `.debug` beside it, and in the same folder below the
/// debug root. A link names a file without folders.
pub fn link_paths(name: &[u8], module: &Path) -> Vec<PathBuf> {
    let Some(folder) = module.parent().filter(|_| module.is_absolute()) else {
        return Vec::new();
    };
    let name = OsStr::from_bytes(name);
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

/// The CRC-32 of a whole file, as a link has it.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn checksum(file: &RegularFile) -> io::Result<u32> {
    let mut hash = crc32fast::Hasher::new();
    file.each_piece(MAX_CHECKED, |piece| {
        hash.update(piece);
        Ok(())
    })?;
    Ok(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(name: &str, module: &str) -> Vec<PathBuf> {
        link_paths(name.as_bytes(), Path::new(module))
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
