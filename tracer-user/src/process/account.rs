//! The kernel's account of a process's memory (proc_pid_status(5),
//! proc_pid_smaps(5)).

use std::io::{self, Read};

use super::handle::ProcessHandle;
use super::pagemap::PAGE;

/// Neither file has as much.
const MAX_TEXT: u64 = 64 << 10;
/// `smaps_rollup` is exact, but looks at every page, and can hold up those who map
/// memory meanwhile; of a process with more than this in memory (20 to 40 ms) `status`
/// does, whose counters may be off by some pages for each processor or thread, bytes.
const MAX_EXACT: u64 = 1 << 30;
/// One that shares less than this part of what it shared has lost its relatives: who copied what
/// is not told.
const STILL_SHARED: u64 = 20;

/// What a process has in memory, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// In memory: the sum of the next three.
    pub resident: u64,
    /// Its own.
    pub anonymous: u64,
    /// Of files.
    pub file: u64,
    /// Shared memory.
    pub shared: u64,
    /// In swap space.
    pub swap: u64,
    /// Page tables.
    pub page_tables: u64,
    /// What it alone has, and has with others, of what was written to; none of a process so large
    /// that this was not counted.
    pub written: Option<Written>,
}

/// Pages that were written to, as far as they are in memory, bytes. What a process has anonymous
/// and with others it shares since a fork, until one of them writes to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Mapped by this process alone.
    pub alone: u64,
    /// Mapped by others, too.
    pub with_others: u64,
    /// What page faults that needed no disk brought in or copied so far, at most.
    pub faulted: u64,
}

impl Account {
    /// Reads it, exactly if that does not take long.
    ///
    /// # Errors
    /// Fails if the process is gone, or has no memory of its own any more.
    pub fn read(process: &ProcessHandle) -> io::Result<Self> {
        let status = text(process, "status")?;
        let coarse = Self::of_status(&status).ok_or_else(gone)?;
        if coarse.resident > MAX_EXACT {
            return Ok(coarse);
        }
        let faulted = text(process, "stat").ok().and_then(|stat| faulted(&stat));
        match text(process, "smaps_rollup") {
            Ok(rollup) => Ok(Self {
                written: written(&rollup, faulted),
                ..coarse.refined(&rollup)
            }),
            Err(_) => Ok(coarse),
        }
    }

    /// Reads it without looking at pages.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn glance(process: &ProcessHandle) -> io::Result<Self> {
        Self::of_status(&text(process, "status")?).ok_or_else(gone)
    }

    /// From the text of `status`; none if the process has no memory of its own.
    pub fn of_status(status: &str) -> Option<Self> {
        let [anonymous, file, shared] =
            ["RssAnon:", "RssFile:", "RssShmem:"].map(|key| kib(status, key));
        let (anonymous, file, shared) = (anonymous?, file?, shared?);
        Some(Self {
            resident: anonymous + file + shared,
            anonymous,
            file,
            shared,
            swap: kib(status, "VmSwap:").unwrap_or(0),
            page_tables: kib(status, "VmPTE:").unwrap_or(0),
            written: None,
        })
    }

    /// With what `smaps_rollup` says, which does not tell shared memory from files.
    fn refined(self, rollup: &str) -> Self {
        let (Some(resident), Some(anonymous)) = (kib(rollup, "Rss:"), kib(rollup, "Anonymous:"))
        else {
            return self;
        };
        let anonymous = anonymous.min(resident);
        let shared = self.shared.min(resident - anonymous);
        Self {
            resident,
            anonymous,
            file: resident - anonymous - shared,
            shared,
            swap: kib(rollup, "Swap:").unwrap_or(self.swap),
            page_tables: self.page_tables,
            written: self.written,
        }
    }

    /// How much of what it shared with relatives since a fork, and still shares in part, it has
    /// copied by now by writing to it: more of the machine's memory, and no more of its
    /// resident set. `None` if that was not counted.
    ///
    /// What a relative writes to, or leaves behind when it ends, becomes this process's alone
    /// without a page fault of its own, and what it gets anew is anonymous and no copy.
    pub fn copied_since(&self, before: &Self) -> Option<u64> {
        let (then, now) = (before.written?, self.written?);
        if now.with_others < then.with_others / STILL_SHARED {
            return Some(0);
        }
        let new = self.anonymous.saturating_sub(before.anonymous);
        let alone = now.alone.saturating_sub(then.alone).saturating_sub(new);
        let shared = then.with_others.saturating_sub(now.with_others);
        let resident = self.resident.saturating_sub(before.resident);
        let faulted = now.faulted.saturating_sub(then.faulted);
        Some(alone.min(shared).min(faulted.saturating_sub(resident)))
    }
}

/// What `smaps_rollup` says of pages that were written to.
fn written(rollup: &str, faulted: Option<u64>) -> Option<Written> {
    Some(Written {
        alone: kib(rollup, "Private_Dirty:")?,
        with_others: kib(rollup, "Shared_Dirty:")?,
        faulted: faulted?,
    })
}

/// What page faults without a disk's help have brought in, at most, of the text of `stat`: a page
/// each. A command may have any letters in it, so it is read from the last bracket on.
fn faulted(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let faults: u64 = fields.split_whitespace().nth(7)?.parse().ok()?;
    faults.checked_mul(PAGE)
}

fn gone() -> io::Error {
    rustix::io::Errno::SRCH.into()
}

fn text(process: &ProcessHandle, name: &str) -> io::Result<String> {
    let mut text = String::new();
    let file = process.open_proc(name)?;
    file.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

/// The number of KiB in the line that begins with `key`, as bytes.
pub(super) fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nVmRSS:\t  30 kB\nRssAnon:\t  20 kB\nRssFile:\t  8 kB\nRssShmem:\t  2 kB\nVmPTE:\t  44 kB\nVmSwap:\t  5 kB\n";

    #[test]
    fn kinds_add_up_to_the_resident_set() {
        let coarse = Account::of_status(STATUS).unwrap();
        assert_eq!(coarse.resident, 30 << 10);
        let exact = coarse.refined(
            "1000-2000 ---p 00000000 00:00 0 [rollup]\nRss:   40 kB\nPss:  1 kB\nAnonymous:   32 kB\nSwap: 6 kB\n",
        );
        let kinds = [exact.anonymous, exact.file, exact.shared, exact.swap];
        assert_eq!(kinds, [32 << 10, 6 << 10, 2 << 10, 6 << 10]);
        assert_eq!(exact.resident, 40 << 10);
        assert_eq!(coarse.refined("nothing"), coarse);
        assert_eq!(Account::of_status("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn what_it_writes_to_since_a_fork_is_copied() {
        let of = |anonymous: u64, alone: u64, with_others: u64, faulted: u64| Account {
            resident: anonymous,
            anonymous,
            written: Some(Written {
                alone,
                with_others,
                faulted,
            }),
            ..Account::default()
        };
        let before = of(600, 0, 600, 10);
        let copied = |after: &Account| after.copied_since(&before);
        assert_eq!(copied(&of(600, 200, 400, 210)), Some(200));
        assert_eq!(copied(&of(650, 250, 400, 260)), Some(200), "50 are new");
        assert_eq!(copied(&of(600, 200, 400, 10)), Some(0), "a relative wrote");
        assert_eq!(copied(&of(600, 600, 0, 210)), Some(0), "all are gone");
        assert_eq!(copied(&of(600, 0, 600, 210)), Some(0), "it wrote to files");
        assert_eq!(copied(&of(400, 0, 400, 210)), Some(0), "it was given back");
        assert_eq!(copied(&Account::default()), None);
    }

    #[test]
    fn written_pages_and_faults_are_read() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 100 0 2 0 9 9";
        assert_eq!(faulted(stat), Some(100 * PAGE));
        let rollup = "Shared_Clean: 1 kB\nShared_Dirty: 2 kB\nPrivate_Dirty: 3 kB\n";
        let found = written(rollup, Some(5)).unwrap();
        assert_eq!((found.alone, found.with_others), (3 << 10, 2 << 10));
        assert_eq!(written(rollup, None), None);
    }

    #[test]
    fn ours_is_known() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let account = Account::read(&own).unwrap();
        assert!(account.anonymous > 100 << 10 && account.file > 100 << 10);
        assert!(account.written.unwrap().alone > 100 << 10);
        assert!(Account::glance(&own).unwrap().page_tables > 0);
    }
}
