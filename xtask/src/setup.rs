//! Installs what is missing: packages through apt, bpf-linker through cargo,
//! Java runtimes through pip and apt, the page of `serve` through npm.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tracer_ebpf_build::{BPF_LINKER, Missing, PACKAGES, Road, Toolchain, choose, install, look};

use crate::shell::{as_root_with, capture, is_root, run, say};
use crate::{apt, jdks, npm, page, python, wheel};

/// The clippy of the distribution's compiler, for the BPF programs.
const CLIPPY: &str = "rust-web-clippy";

/// What a set-up is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Group {
    /// `cargo build`
    Build,
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask lint`
    Lint,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask vm`
    Vm,
    /// `cargo xtask bench`
    Bench,
    /// `cargo xtask bench accuracy`: services that are traced, which their packages may
    /// start
    Services,
    /// `cargo xtask dist`
    Dist,
}

impl Group {
    /// Debian's packages that the group needs besides a BPF toolchain.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Build => &["gcc", "libc6-dev"],
            Self::Demo => &["g++"],
            Self::Lint => &[],
            Self::Test => &[
                "binutils",
                "bzip2",
                "chromium",
                "erlang-base",
                "g++",
                "gdb",
                "git",
                "golang-1.19-go",
                "jq",
                "libapr1",
                "libc++-14-dev",
                "libc++abi-14-dev",
                "libc6-dbg",
                "libclang-rt-14-dev",
                "libglib2.0-0",
                "libgoogle-perftools4",
                "libjemalloc-dev",
                "libjemalloc2",
                "libmimalloc2.0",
                "librsvg2-bin",
                "libtalloc2",
                "libtcmalloc-minimal4",
                "musl-tools",
                "openjdk-17-jdk-headless",
                "openssl",
                "perl",
                "prometheus",
                "python3",
                "python3-jsonschema",
                "python3-prometheus-client",
                "python3-seccomp",
                "python3-yaml",
                "sqlite3",
                "systemd",
                "tmux",
                "valgrind",
                "xz-utils",
                "zstd",
            ],
            // The libraries of Debian's QEMU; itself it is unpacked, not installed.
            Self::Vm => &[
                "libaio1",
                "libbpf1",
                "libcap-ng0",
                "libcapstone4",
                "libfdt1",
                "libfuse3-3",
                "libglib2.0-0",
                "libjpeg62-turbo",
                "libnuma1",
                "libpixman-1-0",
                "libpmem1",
                "libpng16-16",
                "librdmacm1",
                "libsasl2-2",
                "libseccomp2",
                "libslirp0",
                "liburing2",
                "libvdeplug2",
                "util-linux",
            ],
            Self::Bench => &[
                "bpftrace",
                "g++",
                "heaptrack",
                "nginx-light",
                "nodejs",
                "postgresql",
                "redis-server",
                "redis-tools",
                "wrk",
            ],
            Self::Services => &[
                "nginx-light",
                "nodejs",
                "postgresql",
                "redis-server",
                "redis-tools",
            ],
            Self::Dist => &["dpkg-dev"],
        }
    }

    /// Whether the binary is to have the page of `serve`. The demo does without, and
    /// lints look at the same code.
    fn wants_page(self) -> bool {
        matches!(self, Self::Build | Self::Test | Self::Dist)
    }
}

/// Installs what the groups need, and in any case a BPF toolchain. Says
/// nothing and takes no time when all is there.
///
/// # Errors
/// Fails when something is missing and cannot be installed.
pub(crate) fn ensure(groups: &[Group]) -> Result<Toolchain> {
    let mut wanted: BTreeSet<&str> = groups
        .iter()
        .chain([&Group::Build])
        .flat_map(|group| group.packages())
        .copied()
        .collect();
    // All in one run of apt, which is faster than two.
    let found = choose(&look());
    if matches!(found, Err(Missing::Compiler { .. })) {
        wanted.extend(PACKAGES);
    }
    if groups.contains(&Group::Lint) && !is_nightly(&found) {
        wanted.insert(CLIPPY);
    }
    let wants_python = groups.contains(&Group::Test);
    if groups.contains(&Group::Lint) || wants_python {
        wanted.extend(wheel::packages());
    }
    let wants_java = groups.contains(&Group::Test) || groups.contains(&Group::Bench);
    if wants_java {
        wanted.extend(jdks::packages());
    }
    let wants_page = groups.iter().any(|group| group.wants_page());
    if wants_page {
        wanted.extend(npm::packages());
    }
    apt(&wanted.into_iter().collect::<Vec<_>>())?;
    if wants_page {
        page::ensure()?;
    }
    if wants_python {
        npm::DRIVER.install()?;
    }
    if wants_java {
        jdks::ensure()?;
    }
    if wants_python {
        python::ensure()?;
    }

    if let Err(Missing::Linker { compiler, .. }) = choose(&look()) {
        say(format_args!(
            "bpf-linker {BPF_LINKER}: building it in target/tools, once"
        ));
        install(&compiler, run)?;
    }
    Ok(choose(&look())?)
}

fn is_nightly(found: &Result<Toolchain, Missing>) -> bool {
    let (Ok(Toolchain { road, .. }) | Err(Missing::Linker { road, .. })) = found else {
        return false;
    };
    *road == Road::Nightly
}

/// Installs those of the packages that are missing.
fn apt(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    say(format_args!("missing packages: {}", missing.join(" ")));
    if !is_root()
        && Command::new("sudo")
            .arg("-V")
            .stdout(Stdio::null())
            .status()
            .is_err()
    {
        bail!(
            "not root, and no sudo; run as root: apt-get install {}",
            missing.join(" ")
        );
    }
    match apt::run(apt_get().args(["-qq", "update"])) {
        Err(error) if error.is::<apt::Held>() => return Err(error),
        Err(_) => say("the package index is not fresh; going on with the one that is there"),
        Ok(()) => {}
    }
    // Never at the price of what is installed already.
    apt::run(
        apt_get()
            .args([
                "-qq",
                "install",
                "-y",
                "--no-install-recommends",
                "--no-remove",
            ])
            .args(&missing)
            .stdout(Stdio::null()),
    )
    .with_context(|| format!("cannot install {}", missing.join(" ")))
}

/// apt-get as root, which asks for nothing.
fn apt_get() -> Command {
    let (language, tongue) = apt::LANGUAGE;
    let variables = [("DEBIAN_FRONTEND", "noninteractive"), (language, tongue)];
    let variables = variables.map(|(name, value)| (name, OsStr::new(value)));
    as_root_with(variables, "apt-get")
}

/// Those of the packages that are not installed.
fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output();
    match query {
        Ok(output) => Ok(not_installed(
            packages,
            &String::from_utf8_lossy(&output.stdout),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            say(format_args!(
                "no dpkg here; wanted are the likes of: {}",
                packages.join(" ")
            ));
            Ok(Vec::new())
        }
        Err(error) => Err(error).context("cannot run dpkg-query"),
    }
}

/// The packages that dpkg-query's lines (`name status`) do not call installed.
fn not_installed<'a>(packages: &[&'a str], listing: &str) -> Vec<&'a str> {
    let installed: BTreeSet<&str> = listing
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    packages
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect()
}

/// Whether a program is there in a version.
pub(crate) fn is_version(binary: &std::path::Path, version: &str) -> bool {
    binary.is_file()
        && capture(Command::new(binary).arg("--version")).is_ok_and(|text| text.contains(version))
}

/// A cargo subcommand from crates.io, built once into `target/tools`.
///
/// # Errors
/// Fails when it does not build.
pub(crate) fn cargo_tool(name: &str, version: &str) -> Result<std::path::PathBuf> {
    let root = tracer_ebpf_build::tools();
    let binary = root.join("bin").join(name);
    if !is_version(&binary, version) {
        say(format_args!(
            "{name} {version}: building it in target/tools, once"
        ));
        run(crate::shell::cargo()
            .args([
                "install",
                name,
                "--version",
                version,
                "--locked",
                "--force",
                "--quiet",
            ])
            .arg("--root")
            .arg(&root)
            // It runs for a second and is built for a minute: no optimization,
            // of what is C in it neither.
            .env("CFLAGS", "-O0")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"))?;
    }
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listing = "gcc installed\ngdb config-files\nlibc6-dev installed\n";
        let wanted = ["gcc", "gdb", "libc6", "libc6-dev", "valgrind"];
        assert_eq!(
            not_installed(&wanted, listing),
            ["gdb", "libc6", "valgrind"]
        );
        assert_eq!(not_installed(&wanted, ""), wanted);
    }
}
