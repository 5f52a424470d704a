//! Every argument of every probe of the JDKs and libraries at hand is read.
//! Further JDKs: `UNFREED_JDKS`, their folders with colons between them.

use std::path::{Path, PathBuf};

use super::super::*;
use crate::process::file::ModuleFiles;

fn probes_of(path: &Path) -> Vec<Probe> {
    let file = ModuleFiles::new().open_path(path).unwrap();
    read(&file.content).unwrap()
}

fn check(path: &Path) -> usize {
    let mut count = 0;
    for probe in probes_of(path) {
        for site in &probe.sites {
            count += 1;
            assert!(site.offset.is_some(), "{}: {probe:?}", path.display());
            for argument in &site.arguments {
                let why = format!("{}: {} {argument:?}", path.display(), probe.name);
                assert!(argument.operand.is_ok(), "{why}");
            }
        }
    }
    count
}

/// `libjvm.so` of each JDK.
fn virtual_machines() -> Vec<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten();
    let installed = installed.flatten().map(|entry| entry.path());
    let further = std::env::var_os("UNFREED_JDKS").unwrap_or_default();
    let further: Vec<PathBuf> = std::env::split_paths(&further).collect();
    installed
        .filter(|path| !path.is_symlink())
        .chain(further)
        .map(|home| home.join("lib/server/libjvm.so"))
        .filter(|path| path.exists())
        .collect()
}

#[test]
fn every_argument_of_every_jdk_is_read() {
    for path in virtual_machines() {
        let count = check(&path);
        // Debian's JDK 8 is built without.
        assert!(count == 0 || count > 500, "{}: {count}", path.display());
    }
}

#[test]
fn every_argument_of_libraries_is_read() {
    let folders = [
        "/lib64",
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/bin",
    ];
    let files = [
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libstdc++.so.6",
        "libpthread.so.0",
        "python3",
    ];
    for path in folders
        .iter()
        .flat_map(|folder| files.map(|file| Path::new(folder).join(file)))
    {
        if path.exists() {
            check(&path);
        }
    }
}
