//! Finds the BPF toolchain and builds the BPF object.
//!
//! Used by `tracer-user/build.rs` (which only looks) and by `cargo xtask
//! setup` (which installs what is missing).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The BPF target that the object is built for.
pub const TARGET: &str = "bpfel-unknown-none";

/// The workspace that this crate was built in.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Builds the BPF object and returns its path.
///
/// # Errors
/// Fails with one message that names what is missing when there is no
/// toolchain, and with the compiler's own output when the build fails.
pub fn build(target_dir: &Path) -> Result<PathBuf> {
    let workspace = workspace();
    let tools = workspace.join("target/tools/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut cargo = Command::new("cargo");
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(|k| k.starts_with("CARGO") || k.starts_with("RUST")) && key != "CARGO_HOME" {
            cargo.env_remove(key);
        }
    }
    let status = cargo
        .args(["build", "--release", "--package", "tracer-ebpf", "--bin", "unfreed-bpf", "--features", "bpf"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .current_dir(&workspace)
        .env("PATH", path)
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-C linker=bpf-linker -C debuginfo=2 -C link-arg=--btf")
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the BPF object did not build");
    }
    Ok(target_dir.join(TARGET).join("release/unfreed-bpf"))
}
