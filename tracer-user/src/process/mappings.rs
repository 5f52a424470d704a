//! All mappings of a process (proc_pid_maps(5)), with what kind of memory each is.

use std::io;
use std::ops::Range;

use super::handle::ProcessHandle;
use super::maps::{self, FileId, Line};

/// Mappings that are kept.
const MAX_MAPPINGS: usize = 256 << 10;
/// Bytes of a name that are kept.
const MAX_NAME: usize = 256;

/// What kind of memory a mapping is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingKind {
    /// What `brk` grows.
    Heap,
    /// The main thread's stack.
    Stack,
    /// A file's.
    File,
    /// Shared memory.
    Shared,
    /// Private memory without a file.
    Anonymous,
    /// The kernel's own, which is in no resident set: `[vdso]`.
    Kernel,
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: Range<u64>,
    /// What it is.
    pub kind: MappingKind,
    /// Whether it can be read and written.
    pub is_writable: bool,
    /// The kernel's name, or a file's path, cut if it is long; may be empty.
    pub name: String,
    /// The file; device and inode are 0 if there is none.
    pub file: FileId,
}

/// Reads them, in order.
///
/// # Errors
/// Fails if the process is gone.
pub fn read(process: &ProcessHandle) -> io::Result<Vec<Mapping>> {
    let text = maps::text(process.open_proc("maps")?)?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse).take(MAX_MAPPINGS).collect())
}

fn parse(line: &[u8]) -> Option<Mapping> {
    let line = Line::of(line)?;
    let name = line.name.get(..MAX_NAME).unwrap_or(line.name);
    let name = String::from_utf8_lossy(name).into_owned();
    Some(Mapping {
        kind: kind(&name, line.permissions.ends_with(b"s"), line.inode == b"0"),
        is_writable: line.permissions.starts_with(b"rw"),
        range: line.range()?,
        file: line.file()?,
        name,
    })
}

fn kind(name: &str, is_shared: bool, inode_is_none: bool) -> MappingKind {
    const SHARED: [&str; 4] = ["/dev/zero", "/SYSV", "/memfd:", "/dev/shm/"];
    match name {
        "[heap]" => MappingKind::Heap,
        "[stack]" => MappingKind::Stack,
        _ if SHARED.iter().any(|shared| name.starts_with(shared)) => MappingKind::Shared,
        _ if name.starts_with("[anon_shmem:") => MappingKind::Shared,
        _ if name.starts_with("[anon:") => MappingKind::Anonymous,
        _ if name.starts_with('[') => MappingKind::Kernel,
        _ if !inode_is_none => MappingKind::File,
        _ if is_shared => MappingKind::Shared,
        _ => MappingKind::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0001000 r--p 00000000 fd:01 1234       /usr/bin/my prog
55d0c0001000-55d0c0003000 rw-p 00001000 fd:01 1234       /usr/bin/my prog
55d0c1000000-55d0c1003000 rw-p 00000000 00:00 0          [heap]
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 
7f0000001000-7f0000002000 ---p 00000000 00:00 0          [anon:arena]
7f0000002000-7f0000003000 rw-s 00002000 00:01 77         /memfd:x (deleted)
7f0000003000-7f0000004000 rw-s 00002000 00:01 78         /dev/zero (deleted)
7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0          [stack]
7ffd00001000-7ffd00002000 r-xp 00000000 00:00 0          [vdso]
";

    #[test]
    fn kinds_are_told_apart() {
        let lines = MAPS.split('\n').map(str::as_bytes);
        let mappings: Vec<_> = lines.filter_map(parse).collect();
        let kinds: Vec<_> = mappings.iter().map(|mapping| mapping.kind).collect();
        use MappingKind::{Anonymous, File, Heap, Kernel, Shared, Stack};
        let expected = [
            File, File, Heap, Anonymous, Anonymous, Shared, Shared, Stack, Kernel,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(mappings[1].name, "/usr/bin/my prog");
        assert!(mappings[1].is_writable && !mappings[0].is_writable);
        assert!(!mappings[4].is_writable && mappings[3].name.is_empty());
    }

    #[test]
    fn every_prefix_is_safe_to_parse() {
        for length in 0..MAPS.len() {
            for line in MAPS.as_bytes()[..length].split(|byte| *byte == b'\n') {
                let _none = parse(line);
            }
        }
    }
}
