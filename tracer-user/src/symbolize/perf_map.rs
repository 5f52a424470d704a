//! Names of just-in-time compiled code, from `/tmp/perf-PID.map`.
//!
//! The format is `tools/perf/Documentation/jit-interface.txt` of the kernel's
//! source: a line for each function, `START SIZE NAME`, numbers in
//! hexadecimal. Some writers (HotSpot) put `0x` in front.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::process::address::CodeAddress;
use crate::process::file::RegularFile;
use crate::process::handle::ProcessHandle;

/// More of a perf map than this is not read.
const MAX_BYTES: u64 = 64 << 20;

/// The functions in a perf map. Where entries overlap, the later one in the
/// file counts: code memory is used again.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// Start to end and name; ranges do not overlap.
    functions: BTreeMap<u64, (u64, String)>,
}

/// A perf map and the file it was read from.
#[derive(Debug)]
pub struct PerfMapFile {
    file: RegularFile,
    /// What it says.
    pub map: PerfMap,
}

impl PerfMapFile {
    /// Reads a process's perf map. The file lies where anyone may write, so
    /// it must be a regular file and belong to the process's user or root.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn read(process: &ProcessHandle) -> Result<Self, String> {
        let pid = process
            .inner_pid()
            .ok_or("the process's own pid is not known")?;
        let path = PathBuf::from(format!("/tmp/perf-{pid}.map"));
        let file = process
            .locate_in_root(&path, OFlags::NOFOLLOW)
            .and_then(|located| RegularFile::open(&located))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => "no perf map".to_owned(),
                _ => format!("no perf map {}: {error}", path.display()),
            })?;
        if !process.trusts(file.owner()) {
            let owner = file.owner();
            return Err(format!(
                "perf map {} belongs to another user ({owner})",
                path.display()
            ));
        }
        let mut bytes = Vec::new();
        file.file()
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("cannot read perf map {}: {error}", path.display()))?;
        Ok(PerfMapFile {
            file,
            map: PerfMap::parse(&bytes),
        })
    }

    /// Whether the file changed since it was read.
    pub fn changed(&self) -> bool {
        self.file.changed()
    }
}

impl PerfMap {
    /// Parses the text of a perf map. Lines that are cut off or of another
    /// form are left out.
    pub fn parse(text: &[u8]) -> Self {
        let mut map = PerfMap::default();
        let whole = text.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
        for line in text[..whole].split(|&byte| byte == b'\n') {
            if let Some((start, end, name)) = parse_line(line) {
                map.replace(start, end, name);
            }
        }
        map
    }

    /// All functions, each with the addresses that it covers.
    pub fn functions(&self) -> impl Iterator<Item = (Range<u64>, &str)> {
        let functions = self.functions.iter();
        functions.map(|(start, (end, name))| (*start..*end, name.as_str()))
    }

    /// The function that covers an address.
    pub fn find(&self, address: CodeAddress) -> Option<&str> {
        let (_, (end, name)) = self.functions.range(..=address.0).next_back()?;
        (address.0 < *end).then_some(name)
    }

    /// Adds a function and cuts away what was there.
    fn replace(&mut self, start: u64, end: u64, name: String) {
        if let Some((_, (before_end, before))) = self.functions.range_mut(..start).next_back()
            && *before_end > start
        {
            let tail = (*before_end > end).then(|| (*before_end, before.clone()));
            *before_end = start;
            if let Some(tail) = tail {
                self.functions.insert(end, tail);
            }
        }
        while let Some((&from, _)) = self.functions.range(start..end).next() {
            if let Some((old_end, old)) = self.functions.remove(&from)
                && old_end > end
            {
                self.functions.insert(end, (old_end, old));
            }
        }
        self.functions.insert(start, (end, name));
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, u64, String)> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    let (start, size) = (hex(words.next()?)?, hex(words.next()?)?);
    let name = words.next()?.trim();
    let end = start.checked_add(size).filter(|&end| end > start)?;
    (!name.is_empty()).then(|| (start, end, name.into()))
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(map: &PerfMap, addresses: &[u64]) -> Vec<Option<String>> {
        addresses
            .iter()
            .map(|&a| map.find(CodeAddress(a)).map(Into::into))
            .collect()
    }

    #[test]
    fn both_forms_of_numbers_are_read() {
        let map = PerfMap::parse(b"7f00 10 first one\n0x7f20 0x8 LFoo;::bar(I)V\n");
        assert_eq!(map.find(CodeAddress(0x7f0f)), Some("first one"));
        assert_eq!(map.find(CodeAddress(0x7f10)), None);
        assert_eq!(map.find(CodeAddress(0x7f27)), Some("LFoo;::bar(I)V"));
        assert_eq!(map.find(CodeAddress(0)), None);
    }

    #[test]
    fn the_later_entry_counts_where_two_overlap() {
        let map = PerfMap::parse(b"100 100 old\n140 20 new\n1f0 20 over\n90 20 under\n");
        let found = names(
            &map,
            &[0x8f, 0xa0, 0x100, 0x13f, 0x140, 0x15f, 0x160, 0x1ef, 0x1f0],
        );
        let expected = [
            "", "under", "old", "old", "new", "new", "old", "old", "over",
        ];
        let found: Vec<_> = found
            .iter()
            .map(|name| name.as_deref().unwrap_or(""))
            .collect();
        assert_eq!(found, expected);
        let whole = PerfMap::parse(b"100 10 a\n120 10 b\n100 40 c\n");
        assert_eq!(
            names(&whole, &[0x100, 0x110, 0x120, 0x13f]),
            vec![Some("c".into()); 4]
        );
    }

    #[test]
    fn broken_lines_are_left_out() {
        let text = b"\nzz 10 a\n10 zz a\n10 0 a\n10 10\n10 10  \nffffffffffffffff 10 a\n10 10 cut";
        assert!(PerfMap::parse(text).functions.is_empty());
    }
}
