//! The kernel's account of a process's memory (proc_pid_status(5),
//! proc_pid_smaps(5)).

use std::io::{self, Read};

use super::handle::ProcessHandle;

/// Neither file has as much.
const MAX_TEXT: u64 = 64 << 10;
/// `smaps_rollup` is exact, but looks at every page, and can hold up those who map
/// memory meanwhile; of a process with more than this in memory (20 to 40 ms) `status`
/// does, whose counters may be off by some pages for each processor or thread, bytes.
const MAX_EXACT: u64 = 1 << 30;

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
        match text(process, "smaps_rollup") {
            Ok(rollup) => Ok(coarse.refined(&rollup)),
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
        }
    }
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
    fn ours_is_known() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let account = Account::read(&own).unwrap();
        assert!(account.anonymous > 100 << 10 && account.file > 100 << 10);
        assert!(Account::glance(&own).unwrap().page_tables > 0);
    }
}
