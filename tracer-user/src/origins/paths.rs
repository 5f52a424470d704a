//! Names of files, as they are typed.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::process::file::ModuleFile;

/// A file that was asked for.
#[derive(Debug)]
pub struct Wanted {
    typed: String,
    /// Its path without links, and its inode, if a path was typed and there is such a file.
    here: Option<(PathBuf, u64)>,
}

/// How a mapped file's name is like one that was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// It is another file's.
    Other,
    /// It begins so, and goes on as libraries' names do.
    Begins,
    /// It is the name, or the path.
    Same,
}

impl Wanted {
    /// The file of a name or a path.
    pub fn new(typed: &str) -> Self {
        let here = typed
            .contains('/')
            .then(|| Path::new(typed).canonicalize().ok());
        let here = here.flatten().and_then(|path| {
            let inode = path.metadata().ok()?.ino();
            Some((path, inode))
        });
        Self {
            typed: typed.to_owned(),
            here,
        }
    }

    /// As it was typed.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// How a file is like it that a process has mapped by a path.
    pub fn likeness(&self, path: &Path, file: &ModuleFile) -> Likeness {
        let is_here = self
            .here
            .as_ref()
            .is_some_and(|(here, inode)| here == path && *inode == file.content.id().inode);
        match is_here {
            true => Likeness::Same,
            false => by_name(&self.typed, path),
        }
    }
}

/// How a path is like a typed name, or path: that may be one in a container's root.
fn by_name(typed: &str, path: &Path) -> Likeness {
    if typed.contains('/') {
        return match path == Path::new(typed) {
            true => Likeness::Same,
            false => Likeness::Other,
        };
    }
    let name = path.file_name().map_or(&b""[..], OsStrExt::as_bytes);
    match name.strip_prefix(typed.as_bytes()) {
        Some(b"") => Likeness::Same,
        Some(rest) if goes_on(rest) && !typed.is_empty() => Likeness::Begins,
        _ => Likeness::Other,
    }
}

/// Whether a library's name goes on like this: `.so`, `.so.6`, `-2.31.so`.
fn goes_on(rest: &[u8]) -> bool {
    let is_version = |text: &[u8]| text.iter().all(|it| it.is_ascii_digit() || *it == b'.');
    let rest = match rest.strip_prefix(b"-") {
        Some(numbered) => {
            let digits = numbered
                .iter()
                .take_while(|it| it.is_ascii_digit() || **it == b'.');
            // The dot of `.so` is one of them.
            let count = digits.count();
            &numbered[count.saturating_sub(1)..]
        }
        None => rest,
    };
    rest.strip_prefix(b".so").is_some_and(is_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_leave_out_what_follows_so() {
        let of = |typed, path| by_name(typed, Path::new(path));
        let path = "/usr/lib/x86_64-linux-gnu/libfoo.so.1.2";
        assert_eq!(of("libfoo.so.1.2", path), Likeness::Same);
        assert_eq!(of(path, path), Likeness::Same);
        for typed in ["libfoo", "libfoo.so", "libfoo.so.1"] {
            let expected = match typed {
                "libfoo" => Likeness::Begins,
                // A version that goes on is another one.
                _ => Likeness::Other,
            };
            assert_eq!(of(typed, path), expected, "{typed}");
        }
        assert_eq!(of("libc", "/lib/libc-2.31.so"), Likeness::Begins);
        assert_eq!(of("libc", "/lib/libcrypto.so.3"), Likeness::Other);
        assert_eq!(of("libc", "/lib/libc-client.so.3"), Likeness::Other);
        assert_eq!(of("foo", path), Likeness::Other);
        assert_eq!(of("", path), Likeness::Other);
        assert_eq!(of("service", "/opt/service"), Likeness::Same);
        assert_eq!(of("./service", "/opt/service"), Likeness::Other);
    }

    #[test]
    fn a_path_with_links_is_that_of_the_file() {
        let wanted = Wanted::new("/proc/self/exe");
        assert_eq!(
            wanted.here.map(|(path, _)| path),
            std::env::current_exe()
                .ok()
                .and_then(|it| it.canonicalize().ok())
        );
        assert!(Wanted::new("/nowhere/at/all").here.is_none());
    }
}
