//! What a VM's kernel starts from: busybox, our first process, and the modules
//! that lead to the host's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::run;

/// The first process.
const INIT: &str = include_str!("init.sh");
/// Folders that the first process mounts things on.
const FOLDERS: [&str; 6] = ["dev", "host", "modules", "proc", "root", "sys"];
/// What virtiofs needs. Debian's kernels have it as modules before 6.12, and
/// built in since.
const MODULES: [&str; 7] = [
    "fuse.ko",
    "virtio.ko",
    "virtio_pci.ko",
    "virtio_pci_legacy_dev.ko",
    "virtio_pci_modern_dev.ko",
    "virtio_ring.ko",
    "virtiofs.ko",
];

/// Makes the archive in `folder`, and returns its path.
///
/// # Errors
/// Something cannot be read or written.
pub(super) fn make(folder: &Path, busybox: &Path, kernel: &Path) -> Result<PathBuf> {
    let root = folder.join("initramfs");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for inner in FOLDERS.iter().chain(&["bin"]) {
        fs::create_dir_all(root.join(inner))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))
        .with_context(|| format!("copying {}", busybox.display()))?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    for module in find(kernel, &|name| MODULES.contains(&name))? {
        if let Some(name) = module.file_name() {
            fs::copy(&module, root.join("modules").join(name))?;
        }
    }
    let archive = folder.join("initramfs.cpio");
    run(Command::new("sh")
        .args([
            "-c",
            r#"find . | "$1" cpio --quiet -o -H newc >"$2""#,
            "initramfs",
        ])
        .arg(busybox)
        .arg(&archive)
        .current_dir(&root))?;
    Ok(archive)
}

/// The kernel itself, in the folder of its unpacked package.
///
/// # Errors
/// The package has none.
pub(super) fn image(package: &Path) -> Result<PathBuf> {
    find(package, &|name| name.starts_with("vmlinuz"))?
        .pop()
        .with_context(|| format!("no vmlinuz in {}", package.display()))
}

/// The files below a folder whose names are wanted.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(find(&entry.path(), wanted)?);
        } else if entry.file_name().to_str().is_some_and(wanted) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
