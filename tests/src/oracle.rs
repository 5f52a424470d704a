//! What valgrind says about a program's heap.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// valgrind's summary of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapUse {
    /// Bytes in use at exit.
    pub live_bytes: u64,
    /// Blocks in use at exit.
    pub live_count: u64,
    /// Successful allocations.
    pub allocated_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Frees.
    pub freed_count: u64,
}

/// Runs a command under valgrind. `adapt` sets its environment and folder.
///
/// What libstdc++ keeps for exceptions (72,704 bytes) valgrind would free at
/// the end, too: `--run-cxx-freeres=no` is the C++ side of
/// `--run-libc-freeres=no`.
///
/// # Errors
/// valgrind is missing, or its summary is.
pub fn valgrind(command: &[String], adapt: impl FnOnce(&mut Command)) -> Result<HeapUse> {
    let mut valgrind = Command::new("valgrind");
    let log = tempfile::NamedTempFile::new()?;
    valgrind
        .args([
            "--leak-check=no",
            "--run-libc-freeres=no",
            "--run-cxx-freeres=no",
        ])
        .arg(format!("--log-file={}", log.path().display()))
        .args(command)
        .stdin(Stdio::null());
    adapt(&mut valgrind);
    let output = valgrind
        .output()
        .context("starting valgrind (package valgrind)")?;
    ensure!(
        output.status.success(),
        "valgrind {command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(log.path())?;
    summary(&text).with_context(|| format!("no heap summary of {command:?} in:\n{text}"))
}

/// Blocks and bytes that valgrind calls definitely or indirectly lost.
///
/// # Errors
/// valgrind is missing, or its summary is.
pub fn valgrind_lost(command: &[String]) -> Result<(u64, u64)> {
    let log = tempfile::NamedTempFile::new()?;
    let status = Command::new("valgrind")
        .args(["--leak-check=summary", "--run-libc-freeres=no"])
        .arg("--run-cxx-freeres=no")
        .arg(format!("--log-file={}", log.path().display()))
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("starting valgrind (package valgrind)")?;
    ensure!(status.success(), "valgrind {command:?} ended with {status}");
    let text = std::fs::read_to_string(log.path())?;
    lost(&text).with_context(|| format!("no leak summary of {command:?} in:\n{text}"))
}

/// Reads `definitely lost: 1,234 bytes in 5 blocks` and the same of indirectly.
fn lost(text: &str) -> Option<(u64, u64)> {
    let mut sum = (0, 0);
    for marker in ["definitely lost:", "indirectly lost:"] {
        let (_, rest) = text.lines().find_map(|line| line.split_once(marker))?;
        let words = rest.split_whitespace();
        let mut numbers = words.filter_map(|word| word.replace(',', "").parse::<u64>().ok());
        sum.1 += numbers.next()?;
        sum.0 += numbers.next()?;
    }
    Some(sum)
}

/// Reads the two lines of valgrind's heap summary:
/// `in use at exit: 1,009 bytes in 1 blocks` and
/// `total heap usage: 3 allocs, 2 frees, 5,033 bytes allocated`.
fn summary(text: &str) -> Option<HeapUse> {
    let numbers = |marker: &str| -> Option<Vec<u64>> {
        let (_, rest) = text.lines().find_map(|line| line.split_once(marker))?;
        rest.split_whitespace()
            .filter(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .map(|word| word.replace(',', "").parse().ok())
            .collect()
    };
    let &[live_bytes, live_count] = numbers("in use at exit:")?.as_slice() else {
        return None;
    };
    let &[allocated_count, freed_count, allocated_bytes] = numbers("total heap usage:")?.as_slice()
    else {
        return None;
    };
    Some(HeapUse {
        live_bytes,
        live_count,
        allocated_count,
        allocated_bytes,
        freed_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_summary() {
        let text = "\
==7== Memcheck, a memory error detector
==7== HEAP SUMMARY:
==7==     in use at exit: 1,234,567 bytes in 89 blocks
==7==   total heap usage: 1,002 allocs, 913 frees, 7,654,321 bytes allocated
==7== ";
        let expected = HeapUse {
            live_bytes: 1_234_567,
            live_count: 89,
            allocated_count: 1002,
            allocated_bytes: 7_654_321,
            freed_count: 913,
        };
        assert_eq!(summary(text), Some(expected));
        assert_eq!(summary("==7== no summary"), None);
    }

    #[test]
    fn reads_what_is_lost() {
        let text = "\
==7== LEAK SUMMARY:
==7==    definitely lost: 78,464 bytes in 65 blocks
==7==    indirectly lost: 1,009 bytes in 1 blocks
==7==      possibly lost: 7 bytes in 7 blocks
";
        assert_eq!(lost(text), Some((66, 79_473)));
        assert_eq!(lost("==7==    definitely lost: 1 bytes in 1 blocks"), None);
    }
}
