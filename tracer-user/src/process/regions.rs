//! The mappings of files in a process, as `/proc/PID/maps` tells them
//! (proc_pid_maps(5)).

use std::fs::File;
use std::io;
use std::ops::Range;

use super::maps::{self, Line, unescape};

/// A range in which a file is mapped, or shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its addresses.
    pub range: Range<u64>,
    /// The file's path as the process sees it; one that was deleted or never had a
    /// name ends in ` (deleted)`.
    pub name: String,
}

/// Reads those of an open maps file, by address, and how many mappings there are in
/// all.
///
/// # Errors
/// Fails as reading does: with `ESRCH` when the process has exited.
pub fn read(maps: File) -> io::Result<(Vec<Region>, u64)> {
    let bytes = maps::text(maps)?;
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let count = lines.clone().count() as u64;
    Ok((lines.filter_map(parse).collect(), count))
}

fn parse(line: &[u8]) -> Option<Region> {
    let line = Line::of(line)?;
    line.name.starts_with(b"/").then_some(Region {
        range: line.range()?,
        name: String::from_utf8_lossy(&unescape(line.name)).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_and_other_memory_is_not() {
        let line = |text: &str| parse(text.as_bytes());
        let found = line("7f00-7f02 rw-s 00002000 00:01 77         /memfd:a b (deleted)");
        let expected = Region {
            range: 0x7f00..0x7f02,
            name: "/memfd:a b (deleted)".to_owned(),
        };
        assert_eq!(found, Some(expected));
        assert_eq!(line("7f00-7f02 rw-p 00000000 00:00 0 "), None);
        assert_eq!(line("7f00-7f02 rw-p 00000000 00:00 0    [heap]"), None);
        assert_eq!(line("7f00-7f02 rw-p"), None);
        assert_eq!(line("zz-7f02 rw-p 0 0:0 7 /x"), None);
    }

    #[test]
    fn own_program_is_found() {
        let (regions, count) = read(File::open("/proc/self/maps").unwrap()).unwrap();
        let program = std::env::current_exe().unwrap();
        let mut names = regions.iter().map(|region| region.name.as_str());
        assert!(names.any(|name| name == program.to_string_lossy()));
        assert!(count > regions.len() as u64);
    }
}
