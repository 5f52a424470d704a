//! Builds the BPF object and hands its path to the code that embeds it.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let object = tracer_ebpf_build::build(&out.join("bpf"))?;
    println!("cargo::rerun-if-changed=../tracer-ebpf/src");
    println!("cargo::rerun-if-changed=../tracer-ebpf/Cargo.toml");
    println!("cargo::rustc-env=UNFREED_BPF_OBJECT={}", object.display());
    Ok(())
}
