//! Which toolchain to build the BPF object with, or what is missing.

use std::fmt;
use std::path::PathBuf;

use crate::TARGET;
use crate::linker::BPF_LINKER;
use crate::machine::{Compiler, Installer, Machine};

/// The distribution's packages that carry a compiler and its `core` for BPF.
pub const PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// The oldest compiler that the BPF programs build with (`rust-version` of
/// the workspace).
const OLDEST_RUSTC: (u32, u32) = (1, 95);

/// The LLVM major versions that [`BPF_LINKER`] has a Cargo feature for.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// How `core` for BPF comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// The distribution ships it.
    Distribution,
    /// rustup's nightly builds it from `rust-src`.
    Nightly,
}

/// A complete toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// How `core` comes about.
    pub road: Road,
    /// The compiler.
    pub rustc: PathBuf,
}

/// Why a compiler cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not installed.
    Absent,
    /// It is this release, older than the workspace's `rust-version`.
    TooOld((u32, u32)),
    /// bpf-linker does not support its LLVM, which has this major version.
    Llvm(u32),
    /// It has no `core` for BPF, or no source to build one from.
    NoCore,
}

/// What has to be installed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No road has a usable compiler.
    Compiler {
        /// What is wrong with the distribution's.
        distribution: Fault,
        /// What is wrong with rustup's nightly.
        nightly: Fault,
        /// How software gets onto this machine.
        installer: Installer,
    },
    /// The compiler is there, a bpf-linker that fits it is not.
    Linker {
        /// How its `core` comes about.
        road: Road,
        /// The compiler.
        compiler: Compiler,
    },
}

/// Chooses the first complete road.
///
/// # Errors
/// Says what to install next when there is none.
pub fn choose(machine: &Machine) -> Result<Toolchain, Missing> {
    let (road, compiler) = choose_compiler(machine)?;
    match &machine.linker {
        Some(stamp) if stamp.fits(compiler) => Ok(Toolchain {
            road,
            rustc: compiler.rustc.clone(),
        }),
        _ => Err(Missing::Linker {
            road,
            compiler: compiler.clone(),
        }),
    }
}

fn choose_compiler(machine: &Machine) -> Result<(Road, &Compiler), Missing> {
    let distribution = match usable(machine.distribution.as_ref()) {
        Ok(compiler) => return Ok((Road::Distribution, compiler)),
        Err(fault) => fault,
    };
    let nightly = match usable(machine.nightly.as_ref()) {
        Ok(compiler) => return Ok((Road::Nightly, compiler)),
        Err(fault) => fault,
    };
    Err(Missing::Compiler {
        distribution,
        nightly,
        installer: machine.installer,
    })
}

fn usable(compiler: Option<&Compiler>) -> Result<&Compiler, Fault> {
    let compiler = compiler.ok_or(Fault::Absent)?;
    if compiler.release < OLDEST_RUSTC {
        Err(Fault::TooOld(compiler.release))
    } else if !LINKER_LLVM.contains(&compiler.llvm.0) {
        Err(Fault::Llvm(compiler.llvm.0))
    } else if !compiler.core {
        Err(Fault::NoCore)
    } else {
        Ok(compiler)
    }
}

impl Fault {
    fn describe(self, road: Road) -> String {
        match (self, road) {
            (Self::Absent, _) => "is not installed".into(),
            (Self::TooOld((major, minor)), _) => {
                format!(
                    "is {major}.{minor}, older than {}.{}",
                    OLDEST_RUSTC.0, OLDEST_RUSTC.1
                )
            }
            (Self::Llvm(major), _) => {
                let (first, last) = (LINKER_LLVM.start(), LINKER_LLVM.end());
                format!(
                    "has LLVM {major}, and bpf-linker {BPF_LINKER} works with {first} to {last}"
                )
            }
            (Self::NoCore, Road::Distribution) => format!("has no `core` for {TARGET}"),
            (Self::NoCore, Road::Nightly) => "has no rust-src".into(),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler {
                distribution,
                nightly,
                installer,
            } => {
                write!(
                    f,
                    "no compiler for BPF: the distribution's rustc {}, rustup's nightly {}; run: ",
                    distribution.describe(Road::Distribution),
                    nightly.describe(Road::Nightly)
                )?;
                match installer {
                    Installer::Setup => f.write_str("cargo xtask setup"),
                    Installer::AptAsRoot => write!(
                        f,
                        "apt-get install {} (as root), then cargo xtask setup",
                        PACKAGES.join(" ")
                    ),
                    Installer::None => f.write_str(
                        "rustup toolchain install nightly --component rust-src, \
                         then cargo xtask setup",
                    ),
                }
            }
            Self::Linker { compiler, .. } => write!(
                f,
                "no bpf-linker {BPF_LINKER} for LLVM {}.{} (of {}) in target/tools; \
                 run: cargo xtask setup",
                compiler.llvm.0,
                compiler.llvm.1,
                compiler.rustc.display()
            ),
        }
    }
}

impl std::error::Error for Missing {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linker::Stamp;

    fn compiler(rustc: &str) -> Compiler {
        Compiler {
            rustc: rustc.into(),
            release: (1, 96),
            llvm: (22, 1),
            core: true,
        }
    }

    fn stamp(llvm: (u32, u32)) -> Stamp {
        Stamp {
            version: BPF_LINKER.into(),
            llvm,
            library: "/lib/libLLVM.so.22.1".into(),
        }
    }

    fn complete() -> Machine {
        Machine {
            distribution: Some(compiler("/usr/bin/rustc")),
            nightly: Some(compiler("/nightly/bin/rustc")),
            linker: Some(stamp((22, 1))),
            installer: Installer::Setup,
        }
    }

    #[test]
    fn the_distribution_comes_first() {
        let toolchain = choose(&complete()).unwrap();
        assert_eq!(toolchain.road, Road::Distribution);
        assert_eq!(toolchain.rustc, PathBuf::from("/usr/bin/rustc"));
    }

    #[test]
    fn nightly_when_the_distribution_has_no_core() {
        let mut machine = complete();
        machine.distribution = Some(Compiler {
            core: false,
            ..compiler("/usr/bin/rustc")
        });
        let toolchain = choose(&machine).unwrap();
        assert_eq!(toolchain.road, Road::Nightly);
        assert_eq!(toolchain.rustc, PathBuf::from("/nightly/bin/rustc"));
    }

    #[test]
    fn nightly_when_the_distribution_is_too_old() {
        let mut machine = complete();
        machine.distribution = Some(Compiler {
            release: (1, 85),
            ..compiler("/usr/bin/rustc")
        });
        assert_eq!(choose(&machine).unwrap().road, Road::Nightly);
    }

    #[test]
    fn neither_names_both_faults_and_one_command() {
        let mut machine = complete();
        machine.distribution = Some(Compiler {
            release: (1, 63),
            ..compiler("/usr/bin/rustc")
        });
        machine.nightly = Some(Compiler {
            core: false,
            ..compiler("/nightly/bin/rustc")
        });
        let missing = choose(&machine).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "no compiler for BPF: the distribution's rustc is 1.63, older than 1.95, \
             rustup's nightly has no rust-src; run: cargo xtask setup"
        );
    }

    #[test]
    fn the_remedy_fits_the_machine() {
        let remedy = |installer| {
            let machine = Machine {
                installer,
                ..Machine::default()
            };
            choose(&machine).unwrap_err().to_string()
        };
        assert!(remedy(Installer::Setup).ends_with("run: cargo xtask setup"));
        assert!(remedy(Installer::AptAsRoot).contains(
            "run: apt-get install rustc-web libstd-rust-web-dev-bpf (as root), then cargo xtask"
        ));
        assert!(remedy(Installer::None).contains("run: rustup toolchain install nightly"));
    }

    #[test]
    fn an_llvm_without_a_linker_is_no_road() {
        let mut machine = complete();
        machine.distribution = Some(Compiler {
            llvm: (29, 0),
            ..compiler("/usr/bin/rustc")
        });
        machine.nightly = None;
        let missing = choose(&machine).unwrap_err();
        assert!(missing.to_string().contains("has LLVM 29"), "{missing}");
    }

    #[test]
    fn a_linker_for_another_llvm_is_missing() {
        for linker in [None, Some(stamp((21, 1))), Some(stamp((22, 2)))] {
            let machine = Machine {
                linker,
                ..complete()
            };
            let missing = choose(&machine).unwrap_err();
            let compiler = compiler("/usr/bin/rustc");
            assert_eq!(
                missing,
                Missing::Linker {
                    road: Road::Distribution,
                    compiler
                }
            );
            assert!(
                missing.to_string().ends_with("run: cargo xtask setup"),
                "{missing}"
            );
        }
    }

    #[test]
    fn an_older_linker_is_missing() {
        let mut machine = complete();
        machine.linker = Some(Stamp {
            version: "0.9.0".into(),
            ..stamp((22, 1))
        });
        assert!(matches!(choose(&machine), Err(Missing::Linker { .. })));
    }
}
