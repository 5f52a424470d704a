//! Names of just-in-time compiled code, from `/tmp/perf-PID.map`.
//!
//! The format is `tools/perf/Documentation/jit-interface.txt` of the kernel's
//! source: a line for each function, `START SIZE NAME`, numbers in
//! hexadecimal. Some writers (HotSpot) put `0x` in front.
//!
//! Any user can write such a file, so it is read piece by piece within a budget
//! in bytes: what a function takes does not depend on its name's length, which
//! is kept once, however many pieces later lines leave of it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::process::address::CodeAddress;
use crate::process::file::RegularFile;
use crate::process::handle::ProcessHandle;

/// More of a perf map than this is not read. HotSpot's with 50,000 methods has
/// 6 MiB.
pub const MAX_READ: u64 = 64 << 20;

/// What is kept of one takes at most so many bytes.
pub const MAX_KEPT: usize = 48 << 20;

/// A longer name is cut, bytes.
const MAX_NAME: usize = 4 << 10;

/// What a function takes besides its name, bytes.
const FUNCTION: usize = 48;

/// The two numbers of a line, with prefixes and spaces.
const MAX_NUMBERS: usize = 40;

/// Read at once, bytes.
const PIECE: usize = 64 << 10;

/// The functions in a perf map. Where entries overlap, the later one in the
/// file counts: code memory is used again.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// By start; ranges do not overlap.
    functions: BTreeMap<u64, Function>,
    /// All names, one after the other.
    names: Vec<u8>,
    is_cut: bool,
}

/// A piece of a function.
#[derive(Debug, Clone, Copy)]
struct Function {
    end: u64,
    /// Where in the names its name begins, and how long it is, bytes.
    name: u32,
    length: u32,
}

/// A perf map and the file it was read from.
#[derive(Debug)]
pub struct PerfMapFile {
    /// What it says.
    pub map: PerfMap,
    /// Bytes that were read of it.
    pub read: u64,
}

impl PerfMapFile {
    /// Reads a process's perf map, at most `limit` bytes of it, and as much as
    /// it has now: it may grow meanwhile. The file lies where anyone may write,
    /// so it must be a regular file and belong to the process's user or root.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn read(process: &ProcessHandle, limit: u64) -> Result<Self, String> {
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
        let size = file.size();
        let read = size.min(limit).min(MAX_READ);
        let mut map = PerfMap::read(file.file().take(read), MAX_KEPT)
            .map_err(|error| format!("cannot read perf map {}: {error}", path.display()))?;
        map.is_cut |= read < size;
        Ok(PerfMapFile { map, read })
    }
}

impl PerfMap {
    /// Parses the text of a perf map. Lines that are cut off or of another
    /// form are left out.
    pub fn parse(text: &[u8]) -> Self {
        // Reading from memory does not fail.
        Self::read(text, MAX_KEPT).unwrap_or_default()
    }

    /// Reads a perf map, and keeps at most about `budget` bytes.
    ///
    /// # Errors
    /// Those of the source.
    pub fn read(mut source: impl Read, budget: usize) -> io::Result<Self> {
        let mut map = PerfMap::default();
        let mut lines = Lines::default();
        let mut piece = vec![0; PIECE];
        loop {
            let count = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let whole = lines.feed(&piece[..count], |line| map.add_line(line, budget));
            if !whole {
                map.is_cut = true;
                break;
            }
        }
        Ok(map)
    }

    /// Whether the file has more than was kept.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What is kept takes about so many bytes.
    pub fn bytes(&self) -> usize {
        self.names.capacity() + self.functions.len() * FUNCTION
    }

    /// All functions, each with the addresses that it covers.
    pub fn functions(&self) -> impl Iterator<Item = (Range<u64>, String)> {
        let functions = self.functions.iter();
        functions.map(|(start, function)| (*start..function.end, self.name(function)))
    }

    /// The function that covers an address.
    pub fn find(&self, address: CodeAddress) -> Option<String> {
        let (_, function) = self.functions.range(..=address.0).next_back()?;
        (address.0 < function.end).then(|| self.name(function))
    }

    fn name(&self, function: &Function) -> String {
        let start = function.name as usize;
        let name = self.names.get(start..start + function.length as usize);
        String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
    }

    /// Adds the function of a line, if it is one. Returns whether there was
    /// room for it.
    fn add_line(&mut self, line: &[u8], budget: usize) -> bool {
        let Some((place, name)) = parse_line(line) else {
            return true;
        };
        // A line adds a function, and another when it cuts one in two.
        let needed = name.len() + 2 * FUNCTION;
        if self.kept() + needed > budget {
            self.drop_unused_names();
            if self.kept() + needed > budget {
                return false;
            }
        }
        // The budget is far below 4 GiB.
        let Ok(at) = u32::try_from(self.names.len()) else {
            return false;
        };
        self.names.extend_from_slice(name);
        self.replace(
            place.start,
            Function {
                end: place.end,
                name: at,
                // Names are cut.
                length: u32::try_from(name.len()).unwrap_or(0),
            },
        );
        true
    }

    fn kept(&self) -> usize {
        self.names.len() + self.functions.len() * FUNCTION
    }

    /// Makes room: names of functions that later lines have covered. It is
    /// worth the work only if that is much.
    fn drop_unused_names(&mut self) {
        let mut used: Vec<(u32, u32)> = self
            .functions
            .values()
            .map(|function| (function.name, function.length))
            .collect();
        used.sort_unstable();
        used.dedup();
        let bytes: usize = used.iter().map(|(_, length)| *length as usize).sum();
        if bytes > self.names.len() / 2 {
            return;
        }
        let mut names = Vec::with_capacity(bytes);
        let mut moved = Vec::with_capacity(used.len());
        for (at, length) in &used {
            let at = *at as usize;
            // The new names are not longer than the old.
            moved.push(u32::try_from(names.len()).unwrap_or(0));
            names.extend_from_slice(&self.names[at..at + *length as usize]);
        }
        for function in self.functions.values_mut() {
            let known = used.binary_search(&(function.name, function.length));
            function.name = known.map_or(0, |index| moved[index]);
        }
        self.names = names;
    }

    /// Adds a function and cuts away what was there.
    fn replace(&mut self, start: u64, new: Function) {
        let end = new.end;
        if let Some((_, before)) = self.functions.range_mut(..start).next_back()
            && before.end > start
        {
            let tail = (before.end > end).then_some(*before);
            before.end = start;
            if let Some(tail) = tail {
                self.functions.insert(end, tail);
            }
        }
        while let Some((&from, _)) = self.functions.range(start..end).next() {
            if let Some(old) = self.functions.remove(&from)
                && old.end > end
            {
                self.functions.insert(end, old);
            }
        }
        self.functions.insert(start, new);
    }
}

/// Makes lines of pieces of a text.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet, as far as a line is
    /// looked at.
    begun: Vec<u8>,
}

impl Lines {
    /// Hands on all lines that are whole now, until one is refused. Returns
    /// whether none was.
    fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> bool {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (rest, next) = piece.split_at(end);
            piece = &next[1..];
            let taken = match self.begun.is_empty() {
                true => take(rest),
                false => {
                    self.keep(rest);
                    take(&self.begun)
                }
            };
            self.begun.clear();
            if !taken {
                return false;
            }
        }
        self.keep(piece);
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = (MAX_NUMBERS + MAX_NAME).saturating_sub(self.begun.len());
        self.begun
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// The place of a line's function, and its name.
fn parse_line(line: &[u8]) -> Option<(Range<u64>, &[u8])> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (start, size) = (hex(words.next()?)?, hex(words.next()?)?);
    let name = words.next()?.trim_ascii();
    let end = start.checked_add(size).filter(|&end| end > start)?;
    (!name.is_empty()).then(|| (start..end, &name[..name.len().min(MAX_NAME)]))
}

fn hex(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(map: &PerfMap, addresses: &[u64]) -> Vec<Option<String>> {
        addresses
            .iter()
            .map(|&a| map.find(CodeAddress(a)))
            .collect()
    }

    #[test]
    fn both_forms_of_numbers_are_read() {
        let map = PerfMap::parse(b"7f00 10 first one\n0x7f20 0x8 LFoo;::bar(I)V\n");
        assert_eq!(map.find(CodeAddress(0x7f0f)).as_deref(), Some("first one"));
        assert_eq!(map.find(CodeAddress(0x7f10)), None);
        let found = map.find(CodeAddress(0x7f27));
        assert_eq!(found.as_deref(), Some("LFoo;::bar(I)V"));
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

    /// Each small line cuts the first function in two once more. Its name was
    /// copied each time: a file of 1.4 MB took 7.5 GB.
    #[test]
    fn a_name_is_kept_once_however_often_its_function_is_cut() {
        let mut text = format!("0 ffffffff {}\n", "x".repeat(1 << 20)).into_bytes();
        for at in 1..20_000 {
            text.extend_from_slice(format!("{:x} 1 y\n", at * 16).as_bytes());
        }
        let map = PerfMap::parse(&text);
        assert_eq!(map.functions.len(), 2 * 19_999 + 1);
        assert!(map.bytes() < 3 << 20, "{}", map.bytes());
        let found = map.find(CodeAddress(17)).unwrap();
        assert_eq!(found, "x".repeat(MAX_NAME));
        assert_eq!(map.find(CodeAddress(16)).as_deref(), Some("y"));
    }

    #[test]
    fn the_budget_is_in_bytes_and_kept_by_lines_of_any_length() {
        for length in [1, 100, 10_000] {
            let name = "n".repeat(length);
            let line = |at: u64| format!("{:x} 8 {name}\n", at * 16);
            let text: String = (0..4_000_000 / (length as u64 + 10)).map(line).collect();
            let map = PerfMap::read(text.as_bytes(), 1 << 20).unwrap();
            assert!(map.kept() <= 1 << 20 && map.is_cut(), "{}", map.kept());
            assert!(map.functions.len() > 100, "{}", map.functions.len());
            assert!(map.find(CodeAddress(7)).is_some());
        }
    }

    /// A runtime that makes code at the same places again and again.
    #[test]
    fn names_that_later_lines_covered_make_room() {
        let line = |at: u64| format!("{:x} 10 method_number_{at}\n", at % 64 * 16);
        let text: String = (0..200_000).map(line).collect();
        let map = PerfMap::read(text.as_bytes(), 64 << 10).unwrap();
        assert!(!map.is_cut() && map.functions.len() == 64);
        let last = map.find(CodeAddress(63 * 16)).unwrap();
        assert_eq!(last, "method_number_199999");
    }

    /// A reader that gives one byte at a time, and never ends by itself.
    struct Endless(&'static [u8], usize);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer[0] = self.0[self.1 % self.0.len()];
            self.1 += 1;
            Ok(1)
        }
    }

    #[test]
    fn lines_in_pieces_are_lines_and_a_source_without_end_ends() {
        let source = Endless(b"10 10 a_name\n", 0);
        let map = PerfMap::read(source.take(1 << 20), MAX_KEPT).unwrap();
        assert_eq!(map.find(CodeAddress(0x1f)).as_deref(), Some("a_name"));
        assert!(map.functions.len() == 1 && map.bytes() < 2 << 20);
        let long = Endless(b"x", 0);
        let map = PerfMap::read(long.take(1 << 20), MAX_KEPT).unwrap();
        assert!(map.functions.is_empty());
    }
}
