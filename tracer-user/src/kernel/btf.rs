//! Offsets in the running kernel's structures, from its BTF.

use anyhow::{Context, Result};
use btf_rs::{Btf, Type};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Offsets in bytes in `struct task_struct`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `pid`: the thread's id.
    pub pid: u32,
    /// `tgid`: the process' id.
    pub tgid: u32,
}

/// Reads the running kernel's offsets.
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn task_offsets() -> Result<TaskOffsets> {
    let btf = Btf::from_file(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: unfreed needs a kernel with CONFIG_DEBUG_INFO_BTF")
    })?;
    let types = btf
        .resolve_types_by_name("task_struct")
        .context("the kernel's BTF has no task_struct")?;
    let task = types.into_iter().find_map(|kind| match kind {
        Type::Struct(task) => Some(task),
        _ => None,
    });
    let task = task.context("task_struct is not a structure in the kernel's BTF")?;
    let offset = |wanted: &str| {
        task.members
            .iter()
            .find(|member| btf.resolve_name(*member).is_ok_and(|name| name == wanted))
            .map(|member| member.bit_offset() / 8)
            .with_context(|| format!("the kernel's task_struct has no {wanted}"))
    };
    Ok(TaskOffsets {
        pid: offset("pid")?,
        tgid: offset("tgid")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_id_stands_right_after_the_thread_id() {
        let offsets = task_offsets().expect("this kernel has BTF");
        assert_eq!(offsets.tgid, offsets.pid + 4);
    }
}
