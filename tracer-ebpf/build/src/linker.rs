//! bpf-linker: built once, into the project's target folder, against the LLVM
//! of the compiler in use.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine::Compiler;
use crate::tools;

/// The release of bpf-linker that is built.
pub const BPF_LINKER: &str = "0.13.0";

/// What the bpf-linker in `target/tools` was built as. Kept beside it, as
/// three lines: release, LLVM `major.minor`, library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Its release.
    pub version: String,
    /// The LLVM it was built against: major, minor.
    pub llvm: (u32, u32),
    /// The LLVM library that it loads.
    pub library: PathBuf,
}

impl Stamp {
    /// Whether a bpf-linker with this stamp can link what the compiler emits.
    /// LLVM's library is compatible within one minor version.
    #[must_use]
    pub fn fits(&self, compiler: &Compiler) -> bool {
        self.version == BPF_LINKER && self.llvm == compiler.llvm
    }

    /// The stamp of the bpf-linker that is installed. `None` too when the
    /// library that it loads is gone.
    pub(crate) fn read() -> Option<Self> {
        let stamp = Self::parse(&fs::read_to_string(stamp_file()).ok()?)?;
        (executable().is_file() && stamp.library.is_file()).then_some(stamp)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let version = lines.next()?.to_owned();
        let (major, minor) = lines.next()?.split_once('.')?;
        let llvm = (major.parse().ok()?, minor.parse().ok()?);
        Some(Self {
            version,
            llvm,
            library: lines.next()?.into(),
        })
    }

    fn text(&self) -> String {
        let (major, minor) = self.llvm;
        format!(
            "{}\n{major}.{minor}\n{}\n",
            self.version,
            self.library.display()
        )
    }
}

/// The bpf-linker that is built with, as an absolute path.
pub(crate) fn executable() -> PathBuf {
    tools().join("bin/bpf-linker")
}

pub(crate) fn stamp_file() -> PathBuf {
    tools().join("bpf-linker.stamp")
}

/// Builds bpf-linker for a compiler; `run` runs the one command that takes
/// time. Downloads from crates.io; needs a C linker, and no LLVM development
/// package, for it links to the library that the compiler itself loads.
///
/// # Errors
/// Fails when the compiler's LLVM library is not found, when the command
/// fails, or when `target/tools` cannot be written.
pub fn install(compiler: &Compiler, run: impl FnOnce(&mut Command) -> Result<()>) -> Result<()> {
    let library = llvm_library(compiler)?;
    let prefix = tools().join("llvm");
    link_library(&library, &prefix.join("lib"))?;
    // A stamp must not outlive the binary it tells of.
    match fs::remove_file(stamp_file()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", stamp_file().display()));
        }
        _ => {}
    }
    let mut command = Command::new(crate::object::host_cargo());
    crate::object::forget_outer_cargo(&mut command);
    command
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
            "--quiet",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{}", compiler.llvm.0),
        ])
        .arg("--root")
        .arg(tools())
        // Not the proxy of rustup, which goes by the folder it is called in.
        .envs(crate::object::host_rustc().map(|rustc| ("RUSTC", rustc)))
        .env("LLVM_PREFIX", &prefix)
        // The work is done inside LLVM: what is left compiles in half the time.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    run(&mut command)?;
    let stamp = Stamp {
        version: BPF_LINKER.into(),
        llvm: compiler.llvm,
        library,
    };
    fs::write(stamp_file(), stamp.text())
        .with_context(|| format!("cannot write {}", stamp_file().display()))
}

/// The LLVM library that a compiler loads, by the dynamic loader's account;
/// for a compiler that has LLVM linked in, that of the distribution.
fn llvm_library(compiler: &Compiler) -> Result<PathBuf> {
    let output = Command::new("ldd")
        .arg(&compiler.rustc)
        .output()
        .with_context(|| format!("cannot run ldd {}", compiler.rustc.display()))?;
    if let Some(path) = parse_ldd(&String::from_utf8_lossy(&output.stdout)) {
        return fs::canonicalize(&path).with_context(|| format!("cannot read {}", path.display()));
    }
    let major = compiler.llvm.0;
    let packaged = PathBuf::from(format!("/usr/lib/llvm-{major}/lib/libLLVM.so"));
    if !packaged.exists() {
        bail!(
            "{} has LLVM {major} linked in, and {} is not there; run: apt-get install llvm-{major}-dev",
            compiler.rustc.display(),
            packaged.display()
        );
    }
    fs::canonicalize(&packaged).with_context(|| format!("cannot read {}", packaged.display()))
}

/// The path of libLLVM in the output of ldd: `libLLVM.so.22.1 => PATH (0x…)`.
fn parse_ldd(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let (path, _address) = rest.rsplit_once(" (")?;
        name.starts_with("libLLVM").then(|| path.into())
    })
}

/// Makes a folder that holds nothing but the library, under the name that the
/// linker asks for (`-lLLVM`) and the name that the loader asks for.
fn link_library(library: &Path, folder: &Path) -> Result<()> {
    let name = library
        .file_name()
        .context("LLVM's library has no file name")?;
    let make = || -> std::io::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        symlink(library, folder.join(name))?;
        symlink(library, folder.join("libLLVM.so"))
    };
    make().with_context(|| {
        format!(
            "cannot link {} into {}",
            library.display(),
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_file() {
        let stamp = Stamp {
            version: "0.13.0".into(),
            llvm: (22, 1),
            library: "/a b/libLLVM.so.22.1".into(),
        };
        assert_eq!(Stamp::parse(&stamp.text()), Some(stamp));
        assert_eq!(Stamp::parse(""), None);
        assert_eq!(Stamp::parse("0.13.0\n22\n/lib/libLLVM.so\n"), None);
    }

    #[test]
    fn ldd_of_both_roads() {
        let debian = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f71c6600000)\n";
        assert_eq!(
            parse_ldd(debian),
            Some("/lib/x86_64-linux-gnu/libLLVM.so.22.1".into())
        );
        let nightly = "\tlibLLVM.so.22.1-rust-1.97.0-nightly => \
                       /t/bin/../lib/libLLVM.so.22.1-rust-1.97.0-nightly (0x00007f99a7c00000)\n";
        assert_eq!(
            parse_ldd(nightly),
            Some("/t/bin/../lib/libLLVM.so.22.1-rust-1.97.0-nightly".into())
        );
        assert_eq!(parse_ldd("\tlibLLVM.so.22.1 => not found\n"), None);
        assert_eq!(parse_ldd("\tstatically linked\n"), None);
    }
}
