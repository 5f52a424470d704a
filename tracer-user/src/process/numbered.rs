//! Files with mapped code by number, as the kernel side names places in them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracer_ebpf::limits::MAX_FILES;

use super::file::ModuleFile;
use super::maps::FileId;

/// A file and the path under which it was met first.
#[derive(Debug, Clone)]
pub struct NumberedFile {
    /// The file, open.
    pub file: Arc<ModuleFile>,
    /// Its path as a process saw it.
    pub path: PathBuf,
}

/// All files that have a number. It is theirs for good.
#[derive(Debug, Clone, Default)]
pub struct NumberedFiles {
    numbers: HashMap<FileId, u32>,
    files: Vec<NumberedFile>,
}

impl NumberedFiles {
    /// The number of a file, a new one if it has none yet; 0 if all are used up.
    pub fn number(&mut self, file: &Arc<ModuleFile>, path: &Path) -> u32 {
        if let Some(number) = self.numbers.get(&file.mapped) {
            return *number;
        }
        // 0 is no file.
        let number = u32::try_from(self.files.len() + 1).unwrap_or(MAX_FILES);
        if number >= MAX_FILES {
            return 0;
        }
        self.files.push(NumberedFile {
            file: Arc::clone(file),
            path: path.to_owned(),
        });
        self.numbers.insert(file.mapped, number);
        number
    }

    /// The number of a file, 0 if it has none.
    pub fn known(&self, file: FileId) -> u32 {
        self.numbers.get(&file).copied().unwrap_or(0)
    }

    /// The file of a number.
    pub fn get(&self, number: u32) -> Option<&NumberedFile> {
        self.files
            .get(usize::try_from(number.checked_sub(1)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::file::ModuleFiles;

    #[test]
    fn a_file_keeps_its_number() {
        let mut files = ModuleFiles::new();
        let mut open = |path: &str| files.open_path(Path::new(path)).unwrap();
        let (first, second) = (open("/etc/passwd"), open("/etc/group"));
        let mut numbered = NumberedFiles::default();
        assert_eq!(numbered.number(&first, Path::new("/a")), 1);
        assert_eq!(numbered.number(&second, Path::new("/b")), 2);
        assert_eq!(numbered.number(&first, Path::new("/c")), 1);
        assert_eq!(numbered.get(1).unwrap().path, Path::new("/a"));
        assert_eq!(numbered.get(2).unwrap().file.mapped, second.mapped);
        assert!(numbered.get(0).is_none() && numbered.get(3).is_none());
    }
}
