//! The numbers of the kernel's trace events, which tracefs has. It may be mounted nowhere;
//! then a mount of our own that nobody sees leads to it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, fstatfs, open, openat};
use rustix::mount::MountAttrFlags;

use super::detached;

const KIND: &str = "tracefs";
/// `TRACEFS_MAGIC` (`linux/magic.h`).
const MAGIC: i64 = 0x7472_6163;

/// Whose mounts are looked through. A second mount has the kernel forget the options of the
/// first one, so it is the last resort.
const WHOSE: [&str; 2] = ["/proc/self", "/proc/1"];

/// The root of tracefs.
pub(super) struct TraceFs(OwnedFd);

impl TraceFs {
    /// Opens it.
    ///
    /// # Errors
    /// Fails if it is mounted nowhere and the kernel refuses a mount.
    pub(super) fn open() -> Result<Self> {
        if let Some(mounted) = WHOSE.into_iter().find_map(mounted) {
            return Ok(Self(mounted));
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self(detached::mount(KIND, attributes)?))
    }

    /// The number of an event, by which `perf_event_open` knows it.
    ///
    /// # Errors
    /// Fails if there is none of that name.
    pub(super) fn event(&self, group: &str, name: &str) -> Result<u64> {
        let path = format!("events/{group}/{name}/id");
        let read = || -> Result<u64> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let mut file = File::from(openat(&self.0, &path, flags, Mode::empty())?);
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text.trim().parse()?)
        };
        read().with_context(|| format!("cannot read {path} in {KIND}"))
    }
}

/// The first of a process's mounts of tracefs that is one.
fn mounted(process: &str) -> Option<OwnedFd> {
    let process = Path::new(process);
    let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    places(&mounts).find_map(|place| {
        let path = process.join("root").join(place);
        let root = open(path, flags, Mode::empty()).ok()?;
        (fstatfs(&root).ok()?.f_type == MAGIC).then_some(root)
    })
}

/// Where a table of mounts (`proc_pid_mountinfo(5)`) has a whole tracefs: paths below the
/// root. Those with spaces and the like, which the table writes as numbers, are left out.
fn places(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        let is_whole = kind.split(' ').next() == Some(KIND) && root == "/";
        (is_whole && !place.contains('\\')).then(|| place.trim_start_matches('/').into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_tracefs_is_taken() {
        let mounts = "\
22 1 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
25 22 0:7 / /sys/kernel/debug rw shared:16 - debugfs debugfs rw
29 22 0:12 / /sys/kernel/tracing rw,nosuid shared:17 master:2 - tracefs tracefs rw,gid=5
30 25 0:12 /instances/mine /mine rw - tracefs none rw
31 25 0:12 / /with\\040space rw - tracefs none rw
32 25 0:12 / /run/tracefs/here rw - tracefs none rw
cut off
";
        let found: Vec<_> = places(mounts).collect();
        let expected = ["sys/kernel/tracing", "run/tracefs/here"];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
