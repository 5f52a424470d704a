//! The JVM's own counters, which it keeps in a file that it maps:
//! `/tmp/hsperfdata_USER/PID`. Reading it does not involve the JVM. There is
//! none with `-XX:-UsePerfData` or `-XX:+PerfDisableSharedMem`.
//!
//! The form is version 2.0 of HotSpot's, the same from JDK 8 to 25: 32 bytes
//! of header, then entries that say where in them name and value are. All
//! numbers are in the machine's order.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};

/// More of the file is not read; by default it has 32 KiB.
const MAX_BYTES: usize = 4 << 20;
/// More entries than this are not read; JVMs have about 300.
const MAX_ENTRIES: usize = 20_000;
/// More of `/tmp` is not searched.
const MAX_FILES: usize = 100_000;
/// More of a string is not kept.
const MAX_STRING: usize = 100;
/// How the file begins, whatever the order of its numbers.
const MAGIC: [u8; 4] = [0xca, 0xfe, 0xc0, 0xc0];
/// The order of x86-64.
const LITTLE_ENDIAN: u8 = 1;
/// A value of 8 bytes.
const LONG: u8 = b'J';
/// A string, as an array of bytes.
const BYTE: u8 = b'B';

/// The open file.
#[derive(Debug)]
pub struct CounterFile(File);

impl CounterFile {
    /// Finds the file of the JVM that has this pid for itself, in the JVM's
    /// `/tmp`. Only folders and files of its `user` count, and no links.
    pub fn find(folder: &OwnedFd, inner_pid: u32, user: u32) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |folder: &OwnedFd, name: &CStr, extra: OFlags, kind: FileType| {
            let file = openat(folder, name, flags | extra, Mode::empty()).ok()?;
            let stat = fstat(&file).ok()?;
            let fits = FileType::from_raw_mode(stat.st_mode) == kind && stat.st_uid == user;
            fits.then_some(file)
        };
        let name = std::ffi::CString::new(inner_pid.to_string()).ok()?;
        let folders = openat(
            folder,
            c".",
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let folders = Dir::new(folders.ok()?).ok()?;
        folders
            .take(MAX_FILES)
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_bytes().starts_with(b"hsperfdata_"))
            .filter_map(|entry| {
                open(
                    folder,
                    entry.file_name(),
                    OFlags::DIRECTORY,
                    FileType::Directory,
                )
            })
            .find_map(|folder| open(&folder, &name, OFlags::NONBLOCK, FileType::RegularFile))
            .map(|file| Self(File::from(file)))
    }

    /// The counters now; none if the file is of an unknown form.
    pub fn read(&self) -> Option<Counters> {
        let size = usize::try_from(self.0.metadata().ok()?.len()).ok()?;
        let mut bytes = vec![0; size.min(MAX_BYTES)];
        let read = self.0.read_at(&mut bytes, 0).ok()?;
        Counters::parse(bytes.get(..read)?)
    }
}

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    numbers: HashMap<String, u64>,
    /// The beginnings of strings.
    strings: HashMap<String, Vec<u8>>,
}

impl Counters {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != MAGIC || *bytes.get(4)? != LITTLE_ENDIAN || *bytes.get(5)? != 2 {
            return None;
        }
        let mut counters = Self::default();
        let mut rest = bytes.get(number(bytes, 24)?..)?;
        for _ in 0..number(bytes, 28)?.min(MAX_ENTRIES) {
            // The JVM adds entries while we read.
            let Some((entry, next)) = number(rest, 0).and_then(|length| {
                (length >= 20).then_some(())?;
                rest.split_at_checked(length)
            }) else {
                break;
            };
            counters.add(entry);
            rest = next;
        }
        Some(counters)
    }

    /// Adds an entry; one that is of an unknown form is left out.
    fn add(&mut self, entry: &[u8]) -> Option<()> {
        let name = CStr::from_bytes_until_nul(entry.get(number(entry, 4)?..)?).ok()?;
        let name = name.to_str().ok()?.to_owned();
        let value = entry.get(number(entry, 16)?..)?;
        match (*entry.get(12)?, number(entry, 8)?) {
            (LONG, 0) => {
                let value = i64::from_le_bytes(value.first_chunk::<8>().copied()?);
                self.numbers.insert(name, u64::try_from(value).ok()?);
            }
            (BYTE, 1..) => {
                let end = value.iter().position(|&byte| byte == 0);
                let end = end.unwrap_or(value.len()).min(MAX_STRING);
                self.strings.insert(name, value[..end].to_vec());
            }
            _ => {}
        }
        Some(())
    }

    /// A counter by its name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    /// Collections of all kinds since the JVM's start; none where the
    /// collector does not count (ZGC before JDK 15).
    pub fn collections(&self) -> Option<u64> {
        let counts = self.numbers.iter().filter(|(name, _)| {
            name.starts_with("sun.gc.collector.") && name.ends_with(".invocations")
        });
        counts.map(|(_, count)| *count).reduce(u64::saturating_add)
    }

    /// Collections that look through the old generation, since the JVM's start. All
    /// collectors with generations count those of the young one first (0); what comes after
    /// that are full collections, and G1's stops for its cycles (from JDK 11 on).
    pub fn old_collections(&self) -> Option<u64> {
        let young = "sun.gc.collector.0.invocations";
        self.get(young)?;
        let counts = self.numbers.iter().filter(|(name, _)| {
            name.starts_with("sun.gc.collector.")
                && name.ends_with(".invocations")
                && *name != young
        });
        counts.map(|(_, count)| *count).reduce(u64::saturating_add)
    }

    /// How long the JVM has stopped all its Java threads since its start.
    pub fn stopped(&self) -> Option<Duration> {
        let ticks = self.get("sun.rt.safepointTime")?;
        let frequency = self
            .get("sun.os.hrt.frequency")
            .filter(|&hertz| hertz > 0)?;
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(frequency);
        Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
    }

    /// Whether the JVM was told not to listen (`DisableAttachMechanism`).
    pub fn forbids_attach(&self) -> bool {
        let capabilities = self.strings.get("sun.rt.jvmCapabilities");
        capabilities.is_some_and(|capabilities| capabilities.starts_with(b"0"))
    }

    /// Whether the collector walks the heap along references, so that no
    /// garbage is ever in a histogram: Shenandoah, and ZGC from 15 on (before,
    /// it has no name here).
    pub fn sees_only_reachable(&self) -> bool {
        let mut strings = self.strings.iter();
        strings.any(|(name, value)| {
            name.starts_with("sun.gc.collector.")
                && name.ends_with(".name")
                && [&b"Shenandoah"[..], b"ZGC ", b"Z "]
                    .iter()
                    .any(|start| value.starts_with(start))
        })
    }
}

/// The 4-byte number at an offset.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let chunk = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*chunk)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: u8, length: u32, value: &[u8]) -> Vec<u8> {
        let data = 20 + (name.len() + 1).next_multiple_of(8);
        let total = data + value.len().next_multiple_of(4);
        let mut bytes = Vec::new();
        for word in [total, 20, length as usize] {
            bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
        }
        bytes.extend([kind, 0, 0, 0]);
        bytes.extend(u32::try_from(data).unwrap().to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.resize(data, 0);
        bytes.extend(value);
        bytes.resize(total, 0);
        bytes
    }

    fn file() -> Vec<u8> {
        let entries = [
            entry(
                "sun.gc.collector.0.invocations",
                LONG,
                0,
                &39_i64.to_le_bytes(),
            ),
            entry("sun.gc.collector.0.name", BYTE, 4, b"Copy"),
            entry(
                "sun.gc.collector.1.invocations",
                LONG,
                0,
                &3_i64.to_le_bytes(),
            ),
            entry(
                "sun.os.hrt.frequency",
                LONG,
                0,
                &1_000_000_000_i64.to_le_bytes(),
            ),
            entry(
                "sun.rt.safepointTime",
                LONG,
                0,
                &64_988_696_i64.to_le_bytes(),
            ),
            entry("sun.rt.jvmCapabilities", BYTE, 2, b"01"),
        ];
        let mut bytes = MAGIC.to_vec();
        bytes.extend([LITTLE_ENDIAN, 2, 0, 1]);
        bytes.extend([0; 16]);
        bytes.extend(32_u32.to_le_bytes());
        bytes.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
        bytes.extend(entries.concat());
        bytes
    }

    #[test]
    fn numbers_and_strings_are_read() {
        let counters = Counters::parse(&file()).unwrap();
        assert_eq!(counters.collections(), Some(42));
        assert_eq!(counters.old_collections(), Some(3));
        assert_eq!(counters.stopped(), Some(Duration::from_nanos(64_988_696)));
        assert_eq!(counters.get("sun.gc.collector.0.name"), None);
        assert!(counters.forbids_attach());
        assert!(!counters.sees_only_reachable());
    }

    #[test]
    fn collectors_that_see_no_garbage_are_known_by_their_names() {
        let named = |name: &[u8]| {
            let length = u32::try_from(name.len()).unwrap();
            let mut counters = Counters::default();
            counters.add(&entry("sun.gc.collector.0.name", BYTE, length, name));
            counters.sees_only_reachable()
        };
        for name in [
            &b"Shenandoah partial"[..],
            b"Z concurrent cycle pauses\0",
            b"ZGC minor collection pauses",
        ] {
            assert!(named(name));
        }
        assert!(!named(b"G1 young collection pauses"));
    }

    #[test]
    fn what_is_not_counted_is_none() {
        let counters = Counters::default();
        assert_eq!((counters.collections(), counters.stopped()), (None, None));
        assert_eq!(counters.old_collections(), None);
        assert!(!counters.forbids_attach());
    }

    #[test]
    fn every_prefix_and_every_changed_byte_is_safe_to_read() {
        let file = file();
        for end in 0..file.len() {
            Counters::parse(&file[..end]);
        }
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] = value;
                Counters::parse(&changed);
            }
        }
        assert_eq!(Counters::parse(b"\xca\xfe\xc0\xc0\x00\x02\x00\x01"), None);
    }

    #[test]
    fn only_the_users_own_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let open = openat(rustix::fs::CWD, folder.path(), OFlags::PATH, Mode::empty()).unwrap();
        let own = folder.path().join("hsperfdata_me");
        std::fs::create_dir(&own).unwrap();
        assert!(CounterFile::find(&open, 7, user).is_none());
        std::os::unix::fs::symlink("/etc/passwd", own.join("7")).unwrap();
        assert!(CounterFile::find(&open, 7, user).is_none());
        std::fs::remove_file(own.join("7")).unwrap();
        std::fs::write(own.join("7"), file()).unwrap();
        let found = CounterFile::find(&open, 7, user).unwrap();
        assert_eq!(found.read().unwrap().collections(), Some(42));
        assert!(CounterFile::find(&open, 7, user + 1).is_none());
    }
}
