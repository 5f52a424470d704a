//! The times of tests, as Rust's test harness tells them.
//!
//! libtest measures each test, and tells on nightly alone, or when it finds
//! `RUSTC_BOOTSTRAP=1` in its environment as it runs: so there is nothing to be
//! built for it. nextest tells times too, but starts a process for each test, and
//! there are test programs whose tests share a target and a tracer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The variable by which stable's harness takes [`OPTIONS`].
pub(crate) const VARIABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");
/// The options.
pub(crate) const OPTIONS: [&str; 2] = ["-Zunstable-options", "--report-time"];

/// Whether a test program knows the options: they are not stable, and may be
/// called otherwise some day. Tests are run without them then.
pub(crate) fn tells_times(program: &Path) -> bool {
    let (name, value) = VARIABLE;
    Command::new(program)
        .env(name, value)
        .args(OPTIONS)
        .args(["--list", "--format=terse"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The test's name and its time in a line such as `test NAME ... ok <1.234s>`.
pub(crate) fn timed(line: &str) -> Option<(&str, Duration)> {
    let (name, said) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let (_, time) = said.rsplit_once(" <")?;
    let seconds = time.strip_suffix("s>")?.parse().ok()?;
    Some((name, Duration::try_from_secs_f64(seconds).ok()?))
}

/// The test's name in a line such as `test NAME ... FAILED <1.234s>`.
pub(crate) fn failed(line: &str) -> Option<String> {
    let (name, said) = untimed(line).strip_prefix("test ")?.split_once(" ... ")?;
    (said == "FAILED").then(|| name.to_owned())
}

/// A line without the time in it.
pub(crate) fn untimed(line: &str) -> &str {
    match timed(line) {
        Some(_) => line.rsplit_once(" <").map_or(line, |(rest, _)| rest),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_lines_of_tests() {
        assert_eq!(
            timed("test a::b ... ok <0.012s>"),
            Some(("a::b", Duration::from_millis(12)))
        );
        assert_eq!(
            timed("test slow - should panic ... FAILED <61.500s>"),
            Some(("slow - should panic", Duration::from_millis(61_500)))
        );
        for line in [
            "test a::b ... ok",
            "test a ... ignored, on <Sundays>",
            "test result: ok. 1 passed",
            "test a ... ok <xs>",
            "running 4 tests",
        ] {
            assert_eq!(timed(line), None, "{line}");
            assert_eq!(untimed(line), line);
        }
        assert_eq!(untimed("test a ... ok <0.012s>"), "test a ... ok");
    }

    /// The harness that this very test runs under is asked.
    #[test]
    fn this_harness_tells_times() {
        let own = std::env::current_exe().unwrap();
        assert!(tells_times(&own));
        let (name, value) = VARIABLE;
        let output = Command::new(own)
            .env(name, value)
            .args(OPTIONS)
            .args(["--exact", "tally::tests::libtest", "--test-threads=2"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = text
            .lines()
            .filter_map(timed)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["tally::tests::libtest"], "{text}");
        assert!(!tells_times(Path::new("/bin/false")));
    }
}
