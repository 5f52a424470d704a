//! The BPF object, built by a cargo of its own.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::toolchain::{Road, Toolchain};
use crate::{TARGET, linker, workspace};

/// A BPF object, by the kernels it is for: a verifier refuses helpers and
/// instructions that it does not know, used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// For all kernels.
    Oldest,
    /// For those that have `bpf_find_vma`, from 5.17 on.
    FindVma,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Oldest, Self::FindVma];

    /// The name of its file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oldest => "unfreed-bpf",
            Self::FindVma => "unfreed-bpf-find-vma",
        }
    }

    const fn features(self) -> &'static str {
        match self {
            Self::Oldest => "bpf",
            Self::FindVma => "bpf,find_vma",
        }
    }
}

/// Builds a BPF object and returns its path. Does next to nothing when
/// nothing has changed.
///
/// # Errors
/// Fails when the build does; the compiler's messages are on standard error.
pub fn build(toolchain: &Toolchain, object: Object) -> Result<PathBuf> {
    let mut command = cargo(toolchain, "build", object);
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("the BPF object did not build; the compiler's messages are above");
    }
    // Cargo has one name for both.
    let built = target_dir().join(TARGET).join("release/unfreed-bpf");
    let copy = target_dir().join(object.name());
    std::fs::copy(&built, &copy)
        .with_context(|| format!("cannot copy {} to {}", built.display(), copy.display()))?;
    Ok(copy)
}

/// A cargo command on the BPF program: `build`, `check`.
fn cargo(toolchain: &Toolchain, subcommand: &str, object: Object) -> Command {
    let cargo = match toolchain.road {
        Road::Distribution => host_cargo(),
        // Only nightly's own cargo knows -Z.
        Road::Nightly => toolchain.rustc.with_file_name("cargo").into(),
    };
    prepare(Command::new(cargo), toolchain, subcommand, object)
}

/// Clippy on the BPF program, with warnings denied. It is the clippy that
/// belongs to the toolchain's compiler.
#[must_use]
pub fn clippy(toolchain: &Toolchain) -> Command {
    let clippy = Command::new(toolchain.rustc.with_file_name("cargo-clippy"));
    let mut command = prepare(clippy, toolchain, "clippy", Object::FindVma);
    let cargo = match toolchain.road {
        Road::Distribution => host_cargo(),
        Road::Nightly => toolchain.rustc.with_file_name("cargo").into(),
    };
    command.env("CARGO", cargo).args(["--", "-D", "warnings"]);
    command
}

fn prepare(
    mut command: Command,
    toolchain: &Toolchain,
    subcommand: &str,
    object: Object,
) -> Command {
    forget_outer_cargo(&mut command);
    command
        .current_dir(workspace())
        .arg(subcommand)
        .args([
            "--release",
            "--package",
            "tracer-ebpf",
            "--bin",
            "unfreed-bpf",
        ])
        .args(["--features", object.features()])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir())
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags());
    match toolchain.road {
        // For one feature of aya-ebpf: asm_experimental_arch.
        Road::Distribution => command.env("RUSTC_BOOTSTRAP", "1"),
        Road::Nightly => command.args(["-Z", "build-std=core"]),
    };
    command
}

/// One folder for all profiles and verbs, so that the object is built once.
fn target_dir() -> PathBuf {
    workspace().join("target/bpf")
}

/// Debug information becomes BTF, which the kernel wants for functions,
/// maps and CO-RE.
fn rustflags() -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker::executable());
    flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf");
    flags
}

/// The cargo that runs us, or the one on the path.
pub(crate) fn host_cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The compiler that lies beside the cargo that runs us.
pub(crate) fn host_rustc() -> Option<PathBuf> {
    let rustc = PathBuf::from(env::var_os("CARGO")?).with_file_name("rustc");
    rustc.is_file().then_some(rustc)
}

/// Removes what an outer cargo tells its children: target, flags, wrappers,
/// profile and package. What leads to the registry stays: homes, proxies,
/// certificates. And so does all of rustup's: without `RUSTUP_TOOLCHAIN` its
/// proxies obey the toolchain files of the crates they compile, and without
/// `RUSTUP_AUTO_INSTALL=0` they then update the user's toolchains.
pub(crate) fn forget_outer_cargo(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_outer_cargo) {
            command.env_remove(name);
        }
    }
    keep_toolchains(command);
}

/// Nothing that is run here may change which compilers are installed.
pub fn keep_toolchains(command: &mut Command) {
    command.env("RUSTUP_AUTO_INSTALL", "0");
}

fn is_of_outer_cargo(name: &str) -> bool {
    let has = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let stays = name == "CARGO_HOME"
        || has(&[
            "CARGO_HTTP_",
            "CARGO_NET_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
        ]);
    has(&["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY"]) && !stays
}

/// What to watch: the object is built again when one of these changes.
/// Paths that do not exist are left out, for cargo takes them as changed.
#[must_use]
pub fn inputs(toolchain: Option<&Toolchain>) -> Vec<PathBuf> {
    let files = [
        "tracer-ebpf/src",
        "tracer-ebpf/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ];
    let mut inputs: Vec<PathBuf> = files.iter().map(|file| workspace().join(file)).collect();
    inputs.push(linker::stamp_file());
    inputs.extend(toolchain.map(|toolchain| toolchain.rustc.clone()));
    inputs.retain(|path| Path::new(path).exists());
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_cargo_is_forgotten_but_not_the_way_out() {
        for name in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_CFG_TARGET_ARCH",
            "RUSTFLAGS",
            "RUSTC",
        ] {
            assert!(is_of_outer_cargo(name), "{name}");
        }
        for name in ["RUSTC_WORKSPACE_WRAPPER", "RUSTDOCFLAGS", "CLIPPY_ARGS"] {
            assert!(is_of_outer_cargo(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_CAINFO",
            "CARGO_NET_OFFLINE",
            "HTTPS_PROXY",
            "PATH",
        ] {
            assert!(!is_of_outer_cargo(name), "{name}");
        }
    }

    /// Without these, a build inside the build once updated the stable
    /// toolchain of a whole machine.
    #[test]
    fn rustup_is_told_all_that_we_were_told() {
        for name in ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "RUSTUP_AUTO_INSTALL"] {
            assert!(!is_of_outer_cargo(name), "{name}");
        }
        let mut command = Command::new("cargo");
        forget_outer_cargo(&mut command);
        let guard = command
            .get_envs()
            .find(|(name, _)| *name == "RUSTUP_AUTO_INSTALL");
        assert_eq!(guard.and_then(|(_, value)| value), Some("0".as_ref()));
    }

    #[test]
    fn each_road_has_its_own_switch() {
        let command = |road| {
            let toolchain = Toolchain {
                road,
                rustc: "/t/bin/rustc".into(),
            };
            let command = cargo(&toolchain, "build", Object::Oldest);
            let args: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
            let bootstrap = command.get_envs().any(|(name, value)| {
                name == "RUSTC_BOOTSTRAP" && value.is_some_and(|value| value == "1")
            });
            (
                command.get_program().to_owned(),
                args.contains(&"build-std=core".into()),
                bootstrap,
            )
        };
        let (_, build_std, bootstrap) = command(Road::Distribution);
        assert!(!build_std && bootstrap);
        let (program, build_std, bootstrap) = command(Road::Nightly);
        assert!(build_std && !bootstrap);
        assert_eq!(program, "/t/bin/cargo");
    }
}
