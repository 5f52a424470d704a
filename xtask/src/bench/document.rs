//! BENCHMARKS.md: prose by hand, and figures between marks.

use std::fs;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

/// Puts the figures of a part between its marks.
///
/// # Errors
/// Fails if a mark is missing, or the file cannot be read or written.
pub(super) fn update(name: &str, figures: &str) -> Result<()> {
    let file = workspace().join("BENCHMARKS.md");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = replace(&text, name, figures).with_context(|| file.display().to_string())?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Replaces what stands between a part's marks.
fn replace(text: &str, name: &str, figures: &str) -> Result<String> {
    let begin = format!("<!-- {name}: begin, written by `cargo xtask bench` -->");
    let end = format!("<!-- {name}: end -->");
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("no mark {begin}"))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("no mark {end}"))?;
    Ok(format!(
        "{before}{begin}\n\n{}\n\n{end}{after}",
        figures.trim_end()
    ))
}

/// What is measured on, and how busy it is.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpuinfo = read("/proc/cpuinfo");
    let load = read("/proc/loadavg");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "`cargo xtask bench` on Linux {}, {cores} cores of {}; load average {} before.",
        kernel.trim(),
        model.trim_start_matches(['\t', ':', ' ']),
        load.split(' ').next().unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_part_has_its_place() {
        let text = fs::read_to_string(workspace().join("BENCHMARKS.md")).unwrap();
        for part in crate::bench::Part::value_variants() {
            assert!(replace(&text, part.name(), "").is_ok(), "{part:?}");
        }
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text =
            "a\n<!-- x: begin, written by `cargo xtask bench` -->\nold\n<!-- x: end -->\nb\n";
        let new = replace(text, "x", "| new |\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- x: begin, written by `cargo xtask bench` -->\n\n| new |\n\n<!-- x: end -->\nb\n"
        );
        assert_eq!(replace(&new, "x", "| new |\n").unwrap(), new);
        assert!(replace(text, "y", "").is_err());
    }
}
