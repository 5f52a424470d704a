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
        "Best of 3 builds, files in the page cache, one thread a file.\n\n\
         | file | its size | rows for returns | all rows | in the kernel | built in |\n\
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
    returns_bytes: u64,
    full: u64,
    full_bytes: u64,
    milliseconds: f64,
}

impl Figures {
    /// Reads `FILE: N rows for returns, N bytes; N rows for interrupted
    /// instructions, N bytes; built in X ms; left out: …`.
    fn parse(line: &str) -> Option<Self> {
        let (said, _) = line.rsplit_once("; left out: ")?;
        let (_, said) = said.rsplit_once(": ")?;
        let mut parts = said.split("; ");
        let mut rows = || {
            let (rows, bytes) = parts.next()?.split_once(", ")?;
            Some((first(rows)?.parse().ok()?, first(bytes)?.parse().ok()?))
        };
        let (returns, returns_bytes) = rows()?;
        let (full, full_bytes) = rows()?;
        let time = parts.next()?.strip_prefix("built in ")?;
        Some(Self {
            returns,
            returns_bytes,
            full,
            full_bytes,
            milliseconds: first(time)?.parse().ok()?,
        })
    }

    fn row(&self, file: &Path, size: u64) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "| {name} | {} | {} | {} | {} + {} | {:.1} ms |\n",
            size_text(size),
            self.returns,
            self.full,
            size_text(self.returns_bytes),
            size_text(self.full_bytes),
            self.milliseconds
        )
    }
}

fn first(words: &str) -> Option<&str> {
    words.split(' ').next()
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{}.{} MiB", bytes >> 20, (bytes & 0xf_ffff) * 10 >> 20),
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
        let line = "/lib/a: b.so: 2333 rows for returns, 18664 bytes; 28379 rows for interrupted \
                    instructions, 227032 bytes; built in 18.5 ms; left out: 6 rows not expressible\n";
        let figures = Figures::parse(line).unwrap();
        assert_eq!(
            figures.row(Path::new("/lib/b.so"), 2_097_152),
            "| b.so | 2.0 MiB | 2333 | 28379 | 19 KiB + 222 KiB | 18.5 ms |\n"
        );
        assert_eq!(
            Figures::parse("/lib/b.so: it has no unwind information\n"),
            None
        );
    }
}
