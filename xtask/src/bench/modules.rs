//! The unwind tables of some libraries: their rows, their bytes in the
//! kernel, and how long they take to build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Measures all, and makes the table. A library that is not here is left out.
///
/// # Errors
/// Fails if a table cannot be built.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    let files = [
        of_gcc("libc.so.6"),
        of_gcc("libstdc++.so.6"),
        libjvm(),
        librustc(),
        python(),
    ];
    let mut text = String::from(
        "Best of 3 builds, the files in the page cache, one thread a file.\n\n\
         | file | its size | rows for returns | rows for interrupted instructions | in the kernel | built in |\n\
         |---|---|---|---|---|---|\n",
    );
    for file in files.into_iter().flatten() {
        let line = shell::capture(
            Command::new("timeout")
                .arg("60")
                .arg(unfreed)
                .arg("tables")
                .arg(&file),
        )?;
        let figures = Figures::parse(&line).with_context(|| format!("no figures in {line:?}"))?;
        let size = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        text.push_str(&figures.row(&file, size));
    }
    Ok(text)
}

/// What `unfreed tables` says of a file.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    returns: u64,
    full: u64,
    /// Whether `full` is so many that the kernel does not hold them.
    too_many: bool,
    bytes: u64,
    milliseconds: f64,
}

impl Figures {
    /// Reads `FILE: N rows for returns, N for interrupted instructions, N
    /// bytes in the kernel, built in X ms, left out: …`.
    fn parse(line: &str) -> Option<Self> {
        let (said, _) = line.rsplit_once(", left out: ")?;
        let (_, said) = said.rsplit_once(": ")?;
        let parts: Vec<_> = said.split(", ").collect();
        let [returns, full, bytes, time] = parts[..] else {
            return None;
        };
        let first = |words: &str| words.split(' ').next()?.parse().ok();
        Some(Self {
            returns: first(returns)?,
            full: first(full)?,
            too_many: full.contains("too many"),
            bytes: first(bytes)?,
            milliseconds: time
                .strip_prefix("built in ")?
                .strip_suffix(" ms")?
                .parse()
                .ok()?,
        })
    }

    fn row(&self, file: &Path, size: u64) -> String {
        format!(
            "| {} | {} | {} | {}{} | {} | {:.1} ms |\n",
            file.file_name().unwrap_or_default().to_string_lossy(),
            size_text(size),
            self.returns,
            self.full,
            if self.too_many { " (not held)" } else { "" },
            size_text(self.bytes),
            self.milliseconds
        )
    }
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}

fn of_gcc(library: &str) -> Option<PathBuf> {
    let path =
        shell::capture(Command::new("gcc").arg(format!("-print-file-name={library}"))).ok()?;
    existing(path.trim())
}

fn libjvm() -> Option<PathBuf> {
    let java = existing("/usr/bin/java")?;
    existing(java.parent()?.parent()?.join("lib/server/libjvm.so"))
}

/// The compiler's own, with which we were built.
fn librustc() -> Option<PathBuf> {
    let mut rustc = Command::new("rustc");
    tracer_ebpf_build::keep_toolchains(&mut rustc);
    let sysroot = shell::capture(rustc.args(["--print", "sysroot"])).ok()?;
    let files = fs::read_dir(Path::new(sysroot.trim()).join("lib")).ok()?;
    let is_driver = |name: &str| name.starts_with("librustc_driver") && name.ends_with(".so");
    let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths.find(|path| {
        path.file_name()
            .is_some_and(|name| is_driver(&name.to_string_lossy()))
    })
}

fn python() -> Option<PathBuf> {
    existing("/usr/bin/python3")
}

/// The file itself, if there is one.
fn existing(path: impl AsRef<Path>) -> Option<PathBuf> {
    path.as_ref().canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_that_the_verb_prints() {
        let line = "/lib/a: b.so: 2333 rows for returns, 28379 for interrupted instructions, \
                    245696 bytes in the kernel, built in 18.5 ms, left out: 6 rows not expressible\n";
        let row = |line: &str| {
            let figures = Figures::parse(line).unwrap();
            figures.row(Path::new("/lib/b.so"), 2_097_152)
        };
        assert_eq!(
            row(line),
            "| b.so | 2.0 MiB | 2333 | 28379 | 240 KiB | 18.5 ms |\n"
        );
        let large = line.replace("28379", "28379 (too many to be held)");
        assert!(row(&large).contains("| 28379 (not held) |"));
        let without = "/lib/b.so: it has no unwind information\n";
        assert_eq!(Figures::parse(without), None);
    }
}
