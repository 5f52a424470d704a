//! Java targets in folders of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::jdk::oldest_class_path;

/// The package of what programs have in common.
const COMMON: &str = "common";

/// A copy of a compiled Java target, in a folder that anybody may read.
#[derive(Debug)]
pub struct Program {
    folder: TempDir,
    class: String,
}

impl Program {
    /// Copies the class, those within it, and those that all programs use.
    ///
    /// # Errors
    /// It was not built.
    pub fn copy(class: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let compiled = oldest_class_path()?;
        let copied = copy(&compiled, folder.path(), |path| is_of(path, class))?;
        let common = folder.path().join(COMMON);
        fs::create_dir(&common)?;
        fs::set_permissions(&common, fs::Permissions::from_mode(0o755))?;
        copy(&compiled.join(COMMON), &common, |_| true)?;
        ensure!(
            copied > 0,
            "{class} was not built; run `cargo xtask targets`"
        );
        Ok(Self {
            folder,
            class: class.to_owned(),
        })
    }

    /// Where its classes are, and nothing else.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name of its main class.
    pub fn class(&self) -> &str {
        &self.class
    }
}

/// Copies files that are wanted into another folder, and counts them.
fn copy(from: &Path, to: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<usize> {
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if is_wanted(&path) {
            let name = path.file_name().context("a file without a name")?;
            fs::copy(&path, to.join(name))?;
            copied += 1;
        }
    }
    Ok(copied)
}

/// Whether a file is that of a class or of one within it.
fn is_of(path: &Path, class: &str) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    path.extension().is_some_and(|end| end == "class")
        && stem.and_then(|stem| stem.split('$').next()) == Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_within_belong_to_it() {
        let is_of = |path: &str| is_of(Path::new(path), "Heap");
        assert!(is_of("java/Heap.class") && is_of("java/Heap$Grown.class"));
        assert!(!is_of("java/Heaps.class") && !is_of("java/Heap.java"));
    }
}
