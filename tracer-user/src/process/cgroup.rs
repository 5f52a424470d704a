//! The account of the control group that a process is in (cgroups(7)): of version 2,
//! or of version 1 where that has the memory controller.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::handle::ProcessHandle;
use crate::model::MemoryLimit;

/// Where the hierarchies are mounted.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const MEMORY: &str = "/sys/fs/cgroup/memory";
/// None of the files is larger, but for the list of processes.
const MAX_TEXT: u64 = 256 << 10;
/// Processes that are asked what they have in memory, at most.
const MAX_PROCESSES: usize = 4096;

/// A control group with the memory controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path below the root.
    pub path: String,
    folder: PathBuf,
    is_unified: bool,
}

/// What is charged to a group at one moment, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charged {
    /// All.
    pub all: u64,
    /// tmpfs, memfd and other shared memory.
    pub shared: u64,
    /// Files in the page cache.
    pub page_cache: u64,
    /// The kernel's own.
    pub kernel: u64,
    /// What its processes have in anonymous memory, by the account of each.
    pub processes: u64,
}

impl Cgroup {
    /// That of a process; none if it is the root, or outside of what we see.
    pub fn of(process: &ProcessHandle) -> Option<Self> {
        let text = read(process.open_proc("cgroup").ok()?)?;
        let mut lines = text.lines();
        let unified = lines.find_map(|line| line.strip_prefix("0::"));
        let mut candidates = Vec::new();
        for root in UNIFIED {
            candidates.extend(unified.map(|path| (root, path, true)));
        }
        let of_memory = |line: &&str| {
            let mut parts = line.splitn(3, ':');
            let controllers = parts.nth(1).unwrap_or_default();
            controllers
                .split(',')
                .any(|controller| controller == "memory")
        };
        let old = text.lines().find(of_memory);
        let old = old.and_then(|line| line.splitn(3, ':').nth(2));
        candidates.extend(old.map(|path| (MEMORY, path, false)));
        candidates
            .into_iter()
            .find_map(|(root, path, is_unified)| Self::at(Path::new(root), path, is_unified))
    }

    fn at(root: &Path, path: &str, is_unified: bool) -> Option<Self> {
        let below = path.strip_prefix('/')?;
        if below.is_empty() || below.split('/').any(|part| part == "..") {
            return None;
        }
        let group = Self {
            path: path.to_owned(),
            folder: root.join(below),
            is_unified,
        };
        group.charged_to_it().is_some().then_some(group)
    }

    /// What is charged to it now; none if it is gone.
    pub fn charged(&self) -> Option<Charged> {
        let processes = self.pids().into_iter().filter_map(|pid| {
            let process = ProcessHandle::open(pid).ok()?;
            Some(Account::glance(&process).ok()?.anonymous)
        });
        Some(Charged {
            processes: processes.sum(),
            ..self.charged_to_it()?
        })
    }

    /// The limit of this group, or of one that it is in, of which least is left. What the
    /// kernel gives back at once, pages of files that nobody uses, counts as left.
    pub fn limit(&self) -> Option<MemoryLimit> {
        let groups = self.folder.ancestors().map(|folder| Self {
            path: self.path.clone(),
            folder: folder.to_owned(),
            is_unified: self.is_unified,
        });
        let known = groups.take_while(|group| group.folder.join("memory.stat").exists());
        known
            .filter_map(|group| group.own_limit())
            .min_by_key(|limit| limit.left)
    }

    fn own_limit(&self) -> Option<MemoryLimit> {
        let file = |name: &str| read(fs::File::open(self.folder.join(name)).ok()?);
        let [limit, used] = match self.is_unified {
            true => ["memory.max", "memory.current"],
            false => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
        };
        let bytes: u64 = file(limit)?.trim().parse().ok()?;
        let used: u64 = file(used)?.trim().parse().ok()?;
        let idle = value(&file("memory.stat")?, "inactive_file").unwrap_or(0);
        // The first version says "none" by the largest number of pages.
        (bytes < u64::MAX / 2).then(|| MemoryLimit {
            name: format!("cgroup {}", self.path),
            bytes,
            left: bytes.saturating_sub(used.saturating_sub(idle)),
        })
    }

    fn charged_to_it(&self) -> Option<Charged> {
        let file = |name: &str| read(fs::File::open(self.folder.join(name)).ok()?);
        let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
        let stat = file("memory.stat")?;
        let of = |key: &str| value(&stat, key);
        let shared = of("shmem").unwrap_or(0);
        if !self.is_unified {
            return Some(Charged {
                all: number("memory.usage_in_bytes")?,
                shared,
                page_cache: of("cache")?.saturating_sub(shared),
                kernel: number("memory.kmem.usage_in_bytes").unwrap_or(0),
                processes: 0,
            });
        }
        // Before Linux 5.18 there is no sum.
        const PARTS: [&str; 5] = ["kernel_stack", "pagetables", "percpu", "slab", "vmalloc"];
        let parts = || PARTS.iter().filter_map(|part| of(part)).sum();
        Some(Charged {
            all: number("memory.current")?,
            shared,
            page_cache: of("file")?.saturating_sub(shared),
            kernel: of("kernel").unwrap_or_else(parts) + of("sock").unwrap_or(0),
            processes: 0,
        })
    }

    /// Its processes; of very many not all.
    pub fn pids(&self) -> Vec<u32> {
        let text = fs::File::open(self.folder.join("cgroup.procs"));
        let text = text.ok().and_then(read).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse().ok());
        pids.take(MAX_PROCESSES).collect()
    }
}

fn read(file: fs::File) -> Option<String> {
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The number in the line `KEY NUMBER`.
fn value(stat: &str, key: &str) -> Option<u64> {
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)], is_unified: bool) -> (tempfile::TempDir, Option<Cgroup>) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let group = Cgroup::at(root.path(), "/a/b", is_unified);
        (root, group)
    }

    #[test]
    fn what_is_charged_is_told_by_kind() {
        let own = std::process::id().to_string();
        let stat = "anon 100\nfile 5000\nkernel 70\nsock 8\nshmem 4000\nfile_mapped 1\n";
        let files = [
            ("memory.current", "9000\n"),
            ("memory.stat", stat),
            ("cgroup.procs", &own),
        ];
        let (_root, group) = group(&files, true);
        let charged = group.unwrap().charged().unwrap();
        let kinds = [charged.all, charged.shared, charged.page_cache];
        assert_eq!(kinds, [9000, 4000, 1000]);
        assert_eq!(charged.kernel, 78);
        assert!(charged.processes > 100 << 10);
    }

    #[test]
    fn the_first_version_is_understood() {
        let files = [
            ("memory.usage_in_bytes", "9000\n"),
            ("memory.stat", "cache 5000\nrss 100\nshmem 4000\n"),
        ];
        let (_root, group) = group(&files, false);
        let charged = group.unwrap().charged().unwrap();
        assert_eq!((charged.all, charged.page_cache), (9000, 1000));
        assert_eq!((charged.shared, charged.kernel), (4000, 0));
    }

    #[test]
    fn the_limit_is_the_one_of_which_least_is_left() {
        let files = [
            ("memory.current", "9000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "file 5\ninactive_file 100\n"),
            ("../memory.current", "9500\n"),
            ("../memory.max", "12000\n"),
            ("../memory.stat", "inactive_file 500\n"),
        ];
        let (root, group) = group(&files, true);
        let group = group.unwrap();
        let limit = group.limit().unwrap();
        assert_eq!((limit.bytes, limit.left), (12_000, 3000));
        assert_eq!(limit.name, "cgroup /a/b");
        fs::write(root.path().join("a/b/memory.max"), "9100\n").unwrap();
        assert_eq!(group.limit().unwrap().left, 200);
    }

    #[test]
    fn the_root_and_what_is_outside_have_no_account() {
        let root = tempfile::tempdir().unwrap();
        for path in ["/", "/../a", "a", "/a/../b", "/none"] {
            assert_eq!(Cgroup::at(root.path(), path, true), None, "{path}");
        }
    }
}
