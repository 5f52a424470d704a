//! What this machine offers for building BPF.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TARGET;
use crate::linker::Stamp;

/// The distribution's compiler.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// What a machine offers, gathered once; plain data for [`crate::choose`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The distribution's compiler; `core` tells of a prebuilt one for BPF.
    pub distribution: Option<Compiler>,
    /// rustup's nightly; `core` tells of the `rust-src` component.
    pub nightly: Option<Compiler>,
    /// The bpf-linker in `target/tools`.
    pub linker: Option<Stamp>,
    /// How software gets onto this machine.
    pub installer: Installer,
}

/// A Rust compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The compiler's file, not rustup's proxy.
    pub rustc: PathBuf,
    /// Its release: major, minor.
    pub release: (u32, u32),
    /// The LLVM it has: major, minor.
    pub llvm: (u32, u32),
    /// Whether it has a `core` for BPF, or what it takes to build one.
    pub core: bool,
}

/// How software gets onto a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Installer {
    /// `cargo xtask setup` can use apt: there is apt, and we are root or
    /// have sudo.
    Setup,
    /// There is apt, but only an administrator can use it.
    AptAsRoot,
    /// There is no apt.
    #[default]
    None,
}

/// Looks at this machine. What cannot be read counts as absent.
#[must_use]
pub fn look() -> Machine {
    Machine {
        distribution: compiler(Path::new(DISTRIBUTION_RUSTC), |sysroot| {
            sysroot.join("lib/rustlib").join(TARGET).is_dir()
        }),
        nightly: nightly().and_then(|rustc| {
            compiler(&rustc, |sysroot| {
                sysroot
                    .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                    .is_file()
            })
        }),
        linker: Stamp::read(),
        installer: installer(),
    }
}

fn compiler(rustc: &Path, has_core: impl FnOnce(&Path) -> bool) -> Option<Compiler> {
    let (release, llvm) = parse_version(&stdout(rustc, &["-vV"])?)?;
    let sysroot = stdout(rustc, &["--print", "sysroot"])?;
    let core = has_core(Path::new(sysroot.trim_end()));
    Some(Compiler {
        rustc: rustc.to_path_buf(),
        release,
        llvm,
        core,
    })
}

/// Standard output of a program that ends well.
fn stdout(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The release and the LLVM version, each as major and minor, from the
/// output of `rustc -vV`.
fn parse_version(text: &str) -> Option<((u32, u32), (u32, u32))> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut parts = value.trim().split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    Some((field("release:")?, field("LLVM version:")?))
}

/// The compiler of rustup's nightly, found in rustup's folder: its proxies
/// might download.
fn nightly() -> Option<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")))?;
    let toolchains = home.join("toolchains");
    let names = fs::read_dir(&toolchains)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Some(toolchains.join(newest_nightly(names)?).join("bin/rustc"))
}

/// The rolling `nightly-<host>` when it is there, else the newest dated one
/// (`nightly-2026-05-20-<host>`).
fn newest_nightly(names: impl Iterator<Item = String>) -> Option<String> {
    let is_dated = |name: &str| name["nightly-".len()..].starts_with(|c: char| c.is_ascii_digit());
    names
        .filter(|name| name.starts_with("nightly-"))
        .max_by_key(|name| (!is_dated(name), name.clone()))
}

fn installer() -> Installer {
    let on_path = |program: &str| {
        env::var_os("PATH")
            .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
    };
    if !on_path("apt-get") {
        Installer::None
    } else if is_root() || on_path("sudo") {
        Installer::Setup
    } else {
        Installer::AptAsRoot
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_distribution_and_a_nightly() {
        let debian = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                      binary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                      release: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(debian), Some(((1, 96), (22, 1))));
        let nightly = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nrelease: 1.97.0-nightly\n\
                       LLVM version: 22.1.4\n";
        assert_eq!(parse_version(nightly), Some(((1, 97), (22, 1))));
        assert_eq!(parse_version("release: 1.96.0\n"), None);
        assert_eq!(parse_version("rustup: no such toolchain"), None);
    }

    #[test]
    fn the_rolling_nightly_comes_before_dated_ones() {
        let pick = |names: &[&str]| newest_nightly(names.iter().map(|name| (*name).to_owned()));
        let stable = "stable-x86_64-unknown-linux-gnu";
        let rolling = "nightly-x86_64-unknown-linux-gnu";
        let may = "nightly-2026-05-20-x86_64-unknown-linux-gnu";
        let june = "nightly-2026-06-01-x86_64-unknown-linux-gnu";
        assert_eq!(
            pick(&[may, rolling, stable, june]).as_deref(),
            Some(rolling)
        );
        assert_eq!(pick(&[june, may, stable]).as_deref(), Some(june));
        assert_eq!(pick(&[stable]), None);
    }
}
