//! Java targets in folders of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::jdk::class_path;

/// A copy of a compiled Java target, in a folder that anybody may read.
#[derive(Debug)]
pub struct Program {
    folder: TempDir,
    class: String,
}

impl Program {
    /// Copies the class and those within it.
    ///
    /// # Errors
    /// It was not built.
    pub fn copy(class: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let mut copied = 0;
        for entry in fs::read_dir(class_path()?)? {
            let path = entry?.path();
            if is_of(&path, class) {
                let name = path.file_name().context("a file without a name")?;
                fs::copy(&path, folder.path().join(name))?;
                copied += 1;
            }
        }
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
