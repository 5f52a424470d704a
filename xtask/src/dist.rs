//! Release packages: a tarball and a .deb, in `target/dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use crate::build::{Profile, unfreed};
use crate::installed;
use crate::package;
use crate::setup::{Group, cargo_tool, ensure};
use crate::shell::{capture, cargo, run, say};

/// The release of cargo-deb that makes the Debian package.
const CARGO_DEB: &str = "3.8.0";

/// What lies beside the binary in the tarball.
const DOCUMENTS: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Each shell, and the file name under which it finds completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "unfreed"),
    ("zsh", "_unfreed"),
    ("fish", "unfreed.fish"),
];

/// Builds the release binary, packs it, and checks what is in the package.
///
/// # Errors
/// Fails when it does not build, or cannot be packed.
pub(crate) fn all() -> Result<()> {
    ensure(&[Group::Dist])?;
    let binary = unfreed(Profile::Release)?;
    let dist = workspace().join("target/dist");
    // The .deb's list of files, in tracer-user/Cargo.toml, names these two.
    write_manual(&binary, &dist.join("man"))?;
    write_completions(&binary, &dist.join("completions"))?;
    let version = version(&binary)?;
    let tarball = tarball(&binary, &dist, &version)?;
    let deb = deb(&dist, &version)?;
    let unpacked = dist.join("unpacked");
    make_empty(&unpacked)?;
    package::check(&deb, &unpacked, &version)?;
    installed::check(&deb, &version)?;
    say(format_args!("\n{}\n{}", tarball.display(), deb.display()));
    Ok(())
}

/// The version that the binary itself tells: `unfreed 0.1.0`.
fn version(binary: &Path) -> Result<String> {
    let line = capture(Command::new(binary).arg("--version"))?;
    let version = line.split_whitespace().nth(1);
    Ok(version
        .with_context(|| format!("no version in {line:?}"))?
        .to_owned())
}

/// The binary writes its own man pages.
fn write_manual(binary: &Path, folder: &Path) -> Result<()> {
    make_empty(folder)?;
    run(Command::new(binary).arg("manual").arg(folder))
}

/// The binary prints its own completions.
fn write_completions(binary: &Path, folder: &Path) -> Result<()> {
    make_empty(folder)?;
    for (shell, name) in COMPLETIONS {
        let script = capture(Command::new(binary).args(["completions", shell]))?;
        let file = folder.join(name);
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// `unfreed-<version>-x86_64-linux.tar.gz`, with one folder of that name in it.
fn tarball(binary: &Path, dist: &Path, version: &str) -> Result<PathBuf> {
    let name = format!("unfreed-{version}-{}-linux", std::env::consts::ARCH);
    let folder = dist.join(&name);
    make_empty(&folder)?;
    run(Command::new("strip")
        .arg("-o")
        .arg(folder.join("unfreed"))
        .arg(binary))?;
    let documents = DOCUMENTS.map(|document| workspace().join(document));
    run(Command::new("cp")
        .arg("-r")
        .args(documents)
        .args([dist.join("man"), dist.join("completions")])
        .arg(&folder))?;
    let tarball = dist.join(format!("{name}.tar.gz"));
    run(Command::new("tar")
        .args([
            "--create",
            "--gzip",
            "--sort=name",
            "--owner=root:0",
            "--group=root:0",
        ])
        .arg("--file")
        .arg(&tarball)
        .arg("--directory")
        .arg(dist)
        .arg(&name))?;
    Ok(tarball)
}

/// `unfreed_<version>-1_amd64.deb`; its contents are described in
/// tracer-user/Cargo.toml.
fn deb(dist: &Path, version: &str) -> Result<PathBuf> {
    let tool = cargo_tool("cargo-deb", CARGO_DEB)?;
    let package = dist.join(format!("unfreed_{version}-1_amd64.deb"));
    let mut command = Command::new(tool);
    command
        .current_dir(workspace())
        .env("CARGO", cargo().get_program())
        .args([
            "--package",
            "tracer-user",
            "--no-build",
            "--strip",
            "--quiet",
            "--output",
        ])
        .arg(&package);
    run(&mut command)?;
    run(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
    Ok(package)
}

fn make_empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
