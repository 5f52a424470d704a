//! The Debian package as dpkg installs, upgrades and purges it: on an overlay of this
//! machine's files, of which nothing stays.

use std::path::Path;

use anyhow::Result;
use tracer_ebpf_build::workspace;

use crate::shell::{as_root, run};

/// Installs a package, upgrades and purges it.
///
/// # Errors
/// Says what is wrong; also where the kernel has no overlays, or we are not root.
pub(crate) fn check(package: &Path, version: &str) -> Result<()> {
    run(as_root("unshare")
        .args(["--mount", "sh", "-eu"])
        .arg(workspace().join("xtask/src/installed.sh"))
        .arg(package)
        .arg(version))
}
