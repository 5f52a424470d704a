//! What a process has in memory and how often it had to wait for a page, from what the
//! kernel counts anyway (proc_pid_stat(5), proc_pid_statm(5)).

use std::fs;

use super::pagemap::PAGE;

/// Page faults of a process until now: by its own accesses, by what the kernel did for it,
/// and pages that it asked for ahead. `None` if it is gone.
pub fn page_faults(pid: u32) -> Option<u64> {
    faults_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Bytes of a process in memory, by the kernel's quick account: it may be off by some pages
/// for each processor or thread. `None` if it is gone.
pub fn resident(pid: u32) -> Option<u64> {
    resident_of(&fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)
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
    fn ours_are_known() {
        let own = std::process::id();
        assert!(page_faults(own).unwrap() > 100);
        assert!(resident(own).unwrap() > 1 << 20);
        assert_eq!((page_faults(u32::MAX), resident(u32::MAX)), (None, None));
    }
}
