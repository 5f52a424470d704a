//! Builds the binary.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cargo, run};

/// The profile to build with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; what tests and the demo use.
    Dev,
    /// What is shipped and measured.
    Release,
}

impl Profile {
    /// Where cargo puts what it builds.
    pub(crate) fn folder(self) -> PathBuf {
        target_dir().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// Builds `unfreed`, with the BPF object in it, and returns its path.
///
/// # Errors
/// Fails when cargo does.
pub(crate) fn unfreed(profile: Profile) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "tracer-user"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    run(&mut command)?;
    Ok(profile.folder().join("unfreed"))
}

/// The folder that cargo builds the workspace into.
pub(crate) fn target_dir() -> PathBuf {
    let workspace = tracer_ebpf_build::workspace();
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
