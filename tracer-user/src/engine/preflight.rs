//! What the kernel and our privileges must offer, each with its remedy.

use std::path::Path;

use anyhow::{Result, bail};
use caps::{CapSet, Capability};

use crate::privilege::limits;

/// Where the kernel lists the uprobe event source.
const UPROBE_SOURCE: &str = "/sys/bus/event_source/devices/uprobe/type";
/// The kernel's own type information.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// One thing that must hold.
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// What is wrong and what mends it, if something is.
    pub problem: Option<String>,
}

/// Looks at everything.
pub fn checks() -> Vec<Check> {
    vec![
        Check {
            what: "privileges",
            problem: missing_privileges(),
        },
        Check {
            what: "kernel has uprobes",
            problem: missing_uprobes(),
        },
        Check {
            what: "kernel has BTF",
            problem: missing_btf(),
        },
        Check {
            what: "host's pid namespace",
            problem: foreign_namespace(),
        },
    ]
}

/// The first problem as an error.
///
/// # Errors
/// Fails if anything that tracing needs is missing.
pub fn check() -> Result<()> {
    limits::raise();
    for check in checks() {
        if let Some(problem) = check.problem {
            bail!("{problem}");
        }
    }
    Ok(())
}

fn missing_privileges() -> Option<String> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) {
        return None;
    }
    let needed = [
        (Capability::CAP_BPF, "CAP_BPF (load the programs)"),
        (Capability::CAP_PERFMON, "CAP_PERFMON (place the probes)"),
        (
            Capability::CAP_SYS_PTRACE,
            "CAP_SYS_PTRACE (read the target's mappings)",
        ),
        (
            Capability::CAP_DAC_READ_SEARCH,
            "CAP_DAC_READ_SEARCH (read the target's files)",
        ),
    ];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(_, name)| name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "not enough privilege: missing {}; run it with sudo",
            missing.join(", ")
        )
    })
}

fn missing_uprobes() -> Option<String> {
    (!Path::new(UPROBE_SOURCE).exists()).then(|| {
        format!("this kernel has no uprobes ({UPROBE_SOURCE} is missing); it needs CONFIG_UPROBE_EVENTS, and sysfs mounted at /sys")
    })
}

fn missing_btf() -> Option<String> {
    (!Path::new(BTF).exists()).then(|| {
        format!("this kernel tells no type information ({BTF} is missing); it needs CONFIG_DEBUG_INFO_BTF")
    })
}

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: u64 = 0xeffffffc;

fn foreign_namespace() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
    (inode != INITIAL_PID_NAMESPACE).then(|| {
        "unfreed runs in a pid namespace of its own, where process ids differ from the kernel's; run it on the host, or in a container with --pid=host".to_owned()
    })
}
