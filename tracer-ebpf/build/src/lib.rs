//! Finds the BPF toolchain and builds the BPF object.
//!
//! `tracer-user/build.rs` only looks at what is there and builds with it;
//! `cargo xtask setup` installs what [`choose`] says is missing.
//!
//! Two roads lead to a BPF object, tried in this order:
//!
//! 1. The distribution's compiler, when its packages carry a prebuilt `core`
//!    for BPF (Debian: `rustc-web` with `libstd-rust-web-dev-bpf`).
//! 2. rustup's nightly with the `rust-src` component, which builds `core` on
//!    the way (`-Z build-std=core`). No machine of this project has had that
//!    component so far: the choice of this road is covered by unit tests, its
//!    build is not.
//!
//! On both, bpf-linker is built from crates.io into `target/tools`, against
//! the very `libLLVM` that the compiler in use loads.

mod linker;
mod machine;
mod object;
mod toolchain;

use std::path::{Path, PathBuf};

pub use linker::{BPF_LINKER, Stamp, install};
pub use machine::{Compiler, Installer, Machine, look};
pub use object::{Object, build, clippy, inputs, keep_toolchains};
pub use toolchain::{Fault, Missing, PACKAGES, Road, Toolchain, choose};

/// The BPF target that the object is built for.
pub const TARGET: &str = "bpfel-unknown-none";

/// The workspace's root folder.
#[must_use]
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Where tools that the build needs are installed: `target/tools`.
#[must_use]
pub fn tools() -> PathBuf {
    workspace().join("target/tools")
}

/// Where the page of `unfreed serve` is, once it was built.
#[must_use]
pub fn page() -> PathBuf {
    tools().join("page")
}
