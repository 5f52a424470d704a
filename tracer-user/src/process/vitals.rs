//! What a process has in memory and how often it had to wait for a page, from what the
//! kernel counts anyway (proc_pid_stat(5), proc_pid_statm(5)).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use super::pagemap::PAGE;

/// Both files are shorter: numbers, and a name of 64 bytes at most.
const MAX: usize = 2048;

/// The counts of one process, whose files stay open: to open one takes the kernel most of the
/// time of a look. They never mean another process.
#[derive(Debug)]
pub struct Vitals {
    stat: File,
    statm: File,
}

impl Vitals {
    /// Opens the files of the process that has this id now.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}"));
        Ok(Self {
            stat: open("stat")?,
            statm: open("statm")?,
        })
    }

    /// Page faults until now: by its own accesses, by what the kernel did for it, and pages
    /// that it asked for ahead. `None` if it is gone.
    pub fn page_faults(&self) -> Option<u64> {
        read(&self.stat, faults_of)
    }

    /// Bytes in memory, by the kernel's quick account: it may be off by some pages for each
    /// processor or thread. `None` if it is gone.
    pub fn resident(&self) -> Option<u64> {
        read(&self.statm, resident_of)
    }
}

/// The same of a process that is looked at once.
pub fn resident(pid: u32) -> Option<u64> {
    resident_of(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)
}

/// The kernel writes such a file anew whenever it is read from its start. A name is of any bytes.
fn read(file: &File, value: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let mut bytes = [0; MAX];
    let length = file.read_at(&mut bytes, 0).ok()?;
    value(&String::from_utf8_lossy(bytes.get(..length)?))
}

/// The name before may have anything in it.
fn faults_of(stat: &str) -> Option<u64> {
    /// Places behind the name of `minflt` and `majflt`.
    const FAULTS: [usize; 2] = [7, 9];
    let (_, behind) = stat.rsplit_once(')')?;
    let words: Vec<&str> = behind.split_ascii_whitespace().collect();
    let [minor, major] = FAULTS.map(|place| words.get(place)?.parse::<u64>().ok());
    minor?.checked_add(major?)
}

fn resident_of(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_with_brackets_are_no_numbers() {
        let stat = "7 (a) 1 2 (b)) S 1 7 7 0 -1 4194560 1234 5 20 6 0 0";
        assert_eq!(faults_of(stat), Some(1254));
        assert_eq!(faults_of("7 (a"), None);
        assert_eq!(faults_of("7 (a) S 1"), None);
        assert_eq!(resident_of("100 20 3"), Some(20 * 4096));
        assert_eq!(resident_of(""), None);
    }

    #[test]
    fn ours_are_known_and_change() {
        let own = std::process::id();
        let vitals = Vitals::of(own).unwrap();
        let before = vitals.page_faults().unwrap();
        assert!(before > 100);
        let pages = vec![1u8; 64 << 20];
        assert!(vitals.page_faults().unwrap() > before);
        assert!(vitals.resident().unwrap() > 64 << 20);
        assert!(resident(own).unwrap() > 64 << 20);
        drop(pages);
        assert!(Vitals::of(u32::MAX).is_err());
        assert_eq!(resident(u32::MAX), None);
    }

    #[test]
    fn who_is_gone_has_no_counts() {
        let mut child = Command::new("true").spawn().unwrap();
        let vitals = Vitals::of(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!((vitals.page_faults(), vitals.resident()), (None, None));
    }
}
