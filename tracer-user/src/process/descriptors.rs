//! What a process has open, and which files without a disk that keeps in memory: none of
//! it is in a resident set.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, fstat, statat};

use super::handle::ProcessHandle;

/// Descriptors that are looked at one by one, at most: each takes some 2 us. The others
/// are counted.
const MAX_LOOKED_AT: u64 = 16_384;
/// `mountinfo` and `limits` are not read further.
const MAX_TEXT: u64 = 256 << 10;
/// The files of these live in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
const MEMFD: &str = "/memfd:";
/// What the kernel adds to the name of a file that has none any more.
const DELETED: &str = " (deleted)";
/// `st_blocks` counts in these.
const BLOCK: u64 = 512;

/// What was open at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// How many.
    pub open: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Files in memory, by device and inode.
    pub files: HashMap<(u64, u64), MemoryFile>,
}

/// A file of tmpfs, or one without a place (`memfd_create`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryFile {
    /// Its path as the kernel tells it.
    pub name: String,
    /// Bytes that it has in memory.
    pub bytes: u64,
}

impl Descriptors {
    /// Those of a process now.
    ///
    /// # Errors
    /// Fails if the process is gone, or may not be read.
    pub fn of(process: &ProcessHandle) -> io::Result<Self> {
        let folder = process.open_proc("fd")?;
        let places = places_in_memory(&text(process, "mountinfo").unwrap_or_default());
        let mut found = Self::default();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if entry.file_name().to_bytes().first() == Some(&b'.') {
                continue;
            }
            found.open += 1;
            if found.open <= MAX_LOOKED_AT {
                found.enter(&folder, entry.file_name(), &places);
            }
        }
        Ok(found)
    }

    /// Whether all were looked at.
    pub fn is_whole(&self) -> bool {
        self.open <= MAX_LOOKED_AT
    }

    /// Bytes of all its files in memory.
    pub fn file_bytes(&self) -> u64 {
        let bytes = self.files.values().map(|file| file.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    fn enter(&mut self, folder: impl AsFd, name: &CStr, places: &[String]) {
        // It may be closed meanwhile.
        let Ok(link) = rustix::fs::readlinkat(&folder, name, Vec::new()) else {
            return;
        };
        let link = String::from_utf8_lossy(link.as_bytes()).into_owned();
        let is_in_memory = is_in_memory(&link, places);
        let kind = kind(&link, is_in_memory);
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        // Of other file systems nothing is asked: their server may not answer.
        if is_in_memory && let Ok(stat) = statat(&folder, name, AtFlags::empty()) {
            let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
            let file = MemoryFile { name: link, bytes };
            self.files.insert((stat.st_dev, stat.st_ino), file);
        }
    }
}

/// How many descriptors a process has open; none if it is gone. Before Linux 6.2 each takes a
/// look.
pub fn count(process: &ProcessHandle) -> Option<u64> {
    let folder = process.open_proc("fd").ok()?;
    match u64::try_from(fstat(&folder).ok()?.st_size) {
        Ok(count @ 1..) => Some(count),
        _ => one_by_one(folder),
    }
}

fn one_by_one(folder: impl AsFd) -> Option<u64> {
    let entries = Dir::read_from(folder).ok()?;
    let open = entries.filter_map(Result::ok);
    let open = open.filter(|entry| entry.file_name().to_bytes().first() != Some(&b'.'));
    u64::try_from(open.count()).ok()
}

/// How many it may have open.
pub fn limit(process: &ProcessHandle) -> Option<u64> {
    limit_in(&text(process, "limits")?)
}

fn limit_in(limits: &str) -> Option<u64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn text(process: &ProcessHandle, name: &str) -> Option<String> {
    let mut text = Vec::new();
    let file = process.open_proc(name).ok()?;
    file.take(MAX_TEXT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// What people call it.
fn kind(link: &str, is_in_memory: bool) -> &str {
    match link.split_once(":[") {
        Some(("anon_inode", kind)) => kind.trim_end_matches(']'),
        Some((kind, _)) if !kind.starts_with('/') => kind,
        _ if link.starts_with(MEMFD) => "memfd",
        _ if is_in_memory => "file in memory",
        _ if link.starts_with('/') => "file",
        _ => link.strip_prefix("anon_inode:").unwrap_or("other"),
    }
}

fn is_in_memory(link: &str, places: &[String]) -> bool {
    if link.starts_with(MEMFD) {
        return true;
    }
    let path = link.strip_suffix(DELETED).unwrap_or(link);
    let covers = |place: &&String| {
        let below = path.strip_prefix(place.trim_start_matches('!'));
        below.is_some_and(|below| below.starts_with('/') || place.ends_with('/'))
    };
    // The deepest mount decides; of two at one place the later.
    let deepest = places
        .iter()
        .filter(covers)
        .max_by_key(|place| place.trim_start_matches('!').len());
    deepest.is_some_and(|place| !place.starts_with('!'))
}

/// Where file systems are mounted (`proc_pid_mountinfo(5)`), with a `!` before those that do
/// not keep their files in memory.
fn places_in_memory(mounts: &str) -> Vec<String> {
    let place = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let place = mount.split(' ').nth(4)?;
        let is_in_memory = IN_MEMORY.contains(&kind.split(' ').next()?);
        Some(match is_in_memory {
            true => place.to_owned(),
            false => format!("!{place}"),
        })
    };
    mounts.lines().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    const MOUNTS: &str = "\
22 1 0:21 / / rw - ext4 /dev/sda rw
23 22 0:22 / /dev rw - devtmpfs dev rw
24 23 0:23 / /dev/shm rw shared:2 - tmpfs tmpfs rw
25 24 0:24 / /dev/shm/disk rw - nfs server:/x rw
cut off
";

    #[test]
    fn the_deepest_mount_says_whether_a_file_is_in_memory() {
        let places = places_in_memory(MOUNTS);
        for (link, expected) in [
            ("/dev/shm/a", true),
            ("/dev/shm/a (deleted)", true),
            ("/memfd:frame (deleted)", true),
            ("/dev/shm/disk/a", false),
            ("/dev/shmem", false),
            ("/home/a", false),
            ("socket:[1]", false),
        ] {
            assert_eq!(is_in_memory(link, &places), expected, "{link}");
        }
    }

    #[test]
    fn kinds_are_called_as_people_do() {
        for (link, expected) in [
            ("socket:[71]", "socket"),
            ("pipe:[71]", "pipe"),
            ("anon_inode:[eventpoll]", "eventpoll"),
            ("anon_inode:inotify", "inotify"),
            ("/memfd:a:[b]", "memfd"),
            ("/etc/passwd", "file"),
        ] {
            assert_eq!(kind(link, false), expected, "{link}");
        }
        assert_eq!(kind("/dev/shm/a", true), "file in memory");
    }

    #[test]
    fn the_soft_limit_is_the_one_that_counts() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(limit_in(limits), Some(1024));
        assert_eq!(limit_in("Max open files  unlimited unlimited files"), None);
    }

    #[test]
    fn our_own_are_found_with_the_bytes_of_files_in_memory() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let before = Descriptors::of(&own).unwrap();
        let mut file = std::fs::File::from(memfd_create("frame", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(&vec![1; 5 * 4096]).unwrap();
        let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
        let after = Descriptors::of(&own).unwrap();
        // Other tests open some of their own.
        assert!(after.open >= 101 && after.is_whole());
        assert!(after.kinds["socket"] >= 100);
        let id = fstat(&file).map(|it| (it.st_dev, it.st_ino)).unwrap();
        assert_eq!(before.files.get(&id), None);
        assert_eq!(after.files[&id].bytes, 5 * 4096);
        assert_eq!(after.files[&id].name, "/memfd:frame (deleted)");
        for counted in [count(&own), one_by_one(own.open_proc("fd").unwrap())] {
            assert!(counted.unwrap().abs_diff(after.open) < 50, "{counted:?}");
        }
        drop(pairs);
    }
}
