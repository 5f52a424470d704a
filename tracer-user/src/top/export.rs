//! Writes what is shown into files of the current folder.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;

use crate::model::Report;
use crate::report::output;

/// Letters of a name that a file's name has at most.
const LONGEST: usize = 40;

/// Writes the report as JSON and as a flamegraph, as `-o` does; what the files are called.
///
/// # Errors
/// One cannot be written.
pub fn export(report: &Report, source: &str, now: SystemTime) -> Result<String> {
    let name = file_name(source, now);
    let paths = ["json", "svg"].map(|ending| PathBuf::from(format!("{name}.{ending}")));
    let outputs = output::resolve(&paths, None)?;
    output::check(&outputs)?;
    output::write(&outputs, report)?;
    Ok(format!("{name}.json and .svg"))
}

/// A name that no other moment has, and that is nothing but a name.
fn file_name(source: &str, now: SystemTime) -> String {
    let plain = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter,
        false => '-',
    };
    let source: String = source.chars().map(plain).take(LONGEST).collect();
    let source = source.trim_matches('-');
    let time = humantime::format_rfc3339_seconds(now).to_string();
    let time = time.replace(['-', ':'], "");
    format!("unfreed-{source}-{time}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_target_cannot_choose_where_it_is_written() {
        let time = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        let name = |source: &str| file_name(source, time);
        assert_eq!(name("redis (7)"), "unfreed-redis--7-20251124T160000Z");
        for evil in ["../../etc/passwd", "/", "", "a\0b", &"x".repeat(1000)] {
            let name = name(evil);
            assert!(name.starts_with("unfreed-") && name.len() < 80, "{name}");
            assert!(!name.contains(['/', '.', '\0']), "{name}");
        }
    }
}
