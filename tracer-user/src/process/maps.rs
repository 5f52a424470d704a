//! Executable mappings as `/proc/PID/maps` tells them (proc_pid_maps(5)).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::address::{CodeAddress, FileOffset};

/// More of a maps file than this is not read: the kernel's default limit is
/// 65,530 mappings, and only a process with very long paths gets near.
const MAX_BYTES: u64 = 64 << 20;

/// The mark that the kernel appends to the path of a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// A device number, in the parts that the kernel prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// The driver; 0 for file systems without a device of their own.
    pub major: u32,
    /// The device.
    pub minor: u32,
}

/// A file, as the kernel identifies it. Valid while the file is open or
/// mapped: a deleted file's inode number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The file system.
    pub device: Device,
    /// The file in it.
    pub inode: u64,
    /// What stands for its content: a file that is written anew in its place is another. 0 as
    /// long as nobody has looked: the kernel does not tell with a mapping.
    pub version: u64,
}

impl FileId {
    /// A file as the kernel tells of it.
    pub const fn new(device: Device, inode: u64) -> Self {
        Self {
            device,
            inode,
            version: 0,
        }
    }

    /// Whether it is the same file, whatever was in it.
    pub fn is_version_of(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The same with such a content.
    #[must_use]
    pub const fn with_version(self, version: u64) -> Self {
        Self { version, ..self }
    }
}

/// What is mapped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MappingName {
    /// Memory without a file: where just-in-time compilers put code.
    Anonymous,
    /// One of the kernel's names, brackets included: `[vdso]`.
    Special(String),
    /// A file, by its path as the kernel tells it. A file that was deleted or
    /// never had a name (memfd) ends in ` (deleted)`.
    File(PathBuf),
}

impl MappingName {
    /// Bytes of its text.
    pub fn length(&self) -> usize {
        match self {
            MappingName::Anonymous => 0,
            MappingName::Special(name) => name.len(),
            MappingName::File(path) => path.as_os_str().len(),
        }
    }

    /// The name that the kernel printed, without its escapes.
    pub fn from_kernel(name: &[u8], inode: u64) -> Self {
        match name.first() {
            None => MappingName::Anonymous,
            // perf's name for anonymous memory, and its two failures.
            Some(b'/') if name.starts_with(b"//") && inode == 0 => MappingName::Anonymous,
            Some(b'/') => MappingName::File(PathBuf::from(OsStr::from_bytes(name))),
            Some(_) => MappingName::Special(String::from_utf8_lossy(name).into_owned()),
        }
    }

    /// The path without the ` (deleted)` mark, if a file is mapped.
    pub fn path(&self) -> Option<&Path> {
        match self {
            MappingName::File(path) => {
                let bytes = path.as_os_str().as_bytes();
                let plain = bytes.strip_suffix(DELETED).unwrap_or(bytes);
                Some(Path::new(OsStr::from_bytes(plain)))
            }
            _ => None,
        }
    }
}

/// One executable mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedRange {
    /// The first address.
    pub start: CodeAddress,
    /// The first address after it.
    pub end: CodeAddress,
    /// Where `start` is in the file.
    pub file_offset: FileOffset,
    /// The file; device and inode are 0 if there is none.
    pub file: FileId,
    /// The file's path, or what else is mapped.
    pub name: MappingName,
}

/// Reads the executable mappings from an open maps file.
///
/// # Errors
/// Fails as reading does: with `ESRCH` when the process has exited.
pub fn read_executable(maps: File) -> io::Result<Vec<MappedRange>> {
    Ok(parse_executable(&text(maps)?))
}

/// The text of an open maps file, as far as it is read.
///
/// # Errors
/// See [`read_executable`].
pub(super) fn text(maps: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    maps.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The executable mappings in an open maps file, each with whether it can be
/// written to as well.
///
/// # Errors
/// See [`read_executable`].
pub fn read_with_writable(maps: File) -> io::Result<Vec<(MappedRange, bool)>> {
    let all = read_all(maps)?.into_iter();
    Ok(all
        .filter(|mapping| mapping.is_executable)
        .map(|mapping| (mapping.range, mapping.is_writable))
        .collect())
}

/// A mapping, and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyMapping {
    /// What is mapped where.
    pub range: MappedRange,
    /// Whether it can be written to.
    pub is_writable: bool,
    /// Whether it can be executed.
    pub is_executable: bool,
}

/// Reads all mappings from an open maps file.
///
/// # Errors
/// See [`read_executable`].
pub fn read_all(maps: File) -> io::Result<Vec<AnyMapping>> {
    Ok(parse_all(&text(maps)?))
}

/// All mappings in the text of a maps file, in order. Lines that are not of the
/// kernel's form are left out.
pub fn parse_all(maps: &[u8]) -> Vec<AnyMapping> {
    let any = |line| {
        let line = Line::of(line)?;
        Some(AnyMapping {
            is_writable: line.permissions.get(1) == Some(&b'w'),
            is_executable: line.is_executable(),
            range: line.mapped()?,
        })
    };
    maps.split(|&byte| byte == b'\n').filter_map(any).collect()
}

/// The executable mappings in the text of a maps file. Lines that are cut off
/// or are not of the kernel's form are left out.
pub fn parse_executable(maps: &[u8]) -> Vec<MappedRange> {
    maps.split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// The words of a line, as the kernel prints them:
/// `START-END PERM OFFSET MAJOR:MINOR INODE          NAME`
pub(super) struct Line<'a> {
    range: &'a [u8],
    pub(super) permissions: &'a [u8],
    offset: &'a [u8],
    device: &'a [u8],
    pub(super) inode: &'a [u8],
    /// With the kernel's escapes.
    pub(super) name: &'a [u8],
}

impl<'a> Line<'a> {
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        let (range, rest) = word(line)?;
        let (permissions, rest) = word(rest)?;
        let (offset, rest) = word(rest)?;
        let (device, rest) = word(rest)?;
        let (inode, rest) = word(rest)?;
        Some(Self {
            range,
            permissions,
            offset,
            device,
            inode,
            name: rest.trim_ascii_start(),
        })
    }

    /// Its addresses, unless there are none.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        let (start, end) = pair(self.range, '-')?;
        (start < end).then_some(start..end)
    }

    fn is_executable(&self) -> bool {
        self.permissions.get(2) == Some(&b'x')
    }

    /// What is mapped, by the kernel's numbers.
    pub(super) fn file(&self) -> Option<FileId> {
        let (major, minor) = pair(self.device, ':')?;
        let device = Device {
            major: u32::try_from(major).ok()?,
            minor: u32::try_from(minor).ok()?,
        };
        let inode = std::str::from_utf8(self.inode).ok()?.parse().ok()?;
        Some(FileId::new(device, inode))
    }

    fn mapped(&self) -> Option<MappedRange> {
        let range = self.range()?;
        let file = self.file()?;
        let name = unescape(self.name);
        Some(MappedRange {
            start: CodeAddress(range.start),
            end: CodeAddress(range.end),
            file_offset: FileOffset(hex(std::str::from_utf8(self.offset).ok()?)?),
            name: MappingName::from_kernel(&name, file.inode),
            file,
        })
    }
}

fn parse_line(line: &[u8]) -> Option<MappedRange> {
    let line = Line::of(line)?;
    line.is_executable().then(|| line.mapped())?
}

/// The first word and what follows the space after it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text
        .iter()
        .position(|&byte| byte == b' ')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (!word.is_empty()).then_some((word, rest.get(1..).unwrap_or_default()))
}

fn pair(text: &[u8], separator: char) -> Option<(u64, u64)> {
    let (first, second) = std::str::from_utf8(text).ok()?.split_once(separator)?;
    Some((hex(first)?, hex(second)?))
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// Undoes the kernel's only escape here: a newline is printed as `\012`.
pub(super) fn unescape(name: &[u8]) -> Vec<u8> {
    const ESCAPE: &[u8] = b"\\012";
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(ESCAPE) {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0001000 r--p 00000000 fd:01 1234       /usr/bin/my prog
55d0c0001000-55d0c0003000 r-xp 00001000 fd:01 1234       /usr/bin/my prog
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f0000002000-7f0000003000 r-xs 00002000 00:01 77         /memfd:jit (deleted)
7f0000004000-7f0000005000 r-xp 00000000 00:2a 18446744073709551615 /a\\012b/lib.so (deleted)
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]
";

    #[test]
    fn executable_mappings_are_kept() {
        let maps = parse_executable(MAPS.as_bytes());
        assert_eq!(maps.len(), 6);
        assert_eq!(maps[0].start, CodeAddress(0x55d0_c000_1000));
        assert_eq!(maps[0].end, CodeAddress(0x55d0_c000_3000));
        assert_eq!(maps[0].file_offset, FileOffset(0x1000));
        let device = Device {
            major: 0xfd,
            minor: 1,
        };
        assert_eq!(maps[0].file, FileId::new(device, 1234));
        assert_eq!(maps[0].name.path(), Some(Path::new("/usr/bin/my prog")));
        assert_eq!(maps[1].name, MappingName::Anonymous);
        assert_eq!(maps[2].name.path(), Some(Path::new("/memfd:jit")));
        assert_eq!(maps[3].file.inode, u64::MAX);
        assert_eq!(maps[3].name.path(), Some(Path::new("/a\nb/lib.so")));
        assert_eq!(maps[4].name, MappingName::Special("[vdso]".into()));
        assert_eq!(maps[5].start, CodeAddress(0xffff_ffff_ff60_0000));
    }

    #[test]
    fn broken_lines_are_left_out() {
        let broken: [&[u8]; 8] = [
            b"",
            b"\n\n",
            b"7f00-",
            b"7f00-7f01 r-xp 0 00:00",
            b"zz-7f01 r-xp 0 00:00 0 ",
            b"7f01-7f00 r-xp 0 00:00 0 ",
            b"7f00-7f01 r-xp 0 0:0 18446744073709551616 /x",
            b"\xff\xfe-1 r-xp 0 00:00 0 /x",
        ];
        for text in broken {
            assert_eq!(
                parse_executable(text),
                [],
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn every_prefix_is_safe_to_parse() {
        for length in 0..MAPS.len() {
            parse_executable(&MAPS.as_bytes()[..length]);
        }
    }

    #[test]
    fn the_names_that_perf_gives_are_understood() {
        assert_eq!(
            MappingName::from_kernel(b"//anon", 0),
            MappingName::Anonymous
        );
        assert_eq!(MappingName::from_kernel(b"", 0), MappingName::Anonymous);
        let special = MappingName::Special("[vdso]".into());
        assert_eq!(MappingName::from_kernel(b"[vdso]", 0), special);
        assert_eq!(special.path(), None);
    }

    #[test]
    fn own_mappings_hold_this_function() {
        let here = own_mappings_hold_this_function as *const () as u64;
        let maps = read_executable(File::open("/proc/self/maps").unwrap()).unwrap();
        let mine = maps
            .iter()
            .find(|map| map.start.0 <= here && here < map.end.0)
            .unwrap();
        assert_eq!(mine.name.path().unwrap(), std::env::current_exe().unwrap());
    }
}
