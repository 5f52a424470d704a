//! Offsets in the running kernel's structures, from its BTF.
//!
//! The format is the kernel's `Documentation/bpf/btf.rst`. The one crate that
//! reads members in full is under the LGPL, which does not go with a single
//! static binary; what is needed here is one structure's members.

use anyhow::{Context, Result, bail};
use bytes::Buf;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// Offsets in bytes in `struct task_struct`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `tgid`: the process' id.
    pub tgid: u32,
    /// `mm`: the address space.
    pub mm: u32,
    /// `utask`: what uprobes keep about the thread.
    pub utask: u32,
}

/// Reads the running kernel's offsets.
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn task_offsets() -> Result<TaskOffsets> {
    let btf = std::fs::read(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: unfreed needs a kernel with CONFIG_DEBUG_INFO_BTF")
    })?;
    let offset = |member| {
        member_offset(&btf, "task_struct", member)
            .with_context(|| format!("cannot find task_struct.{member} in {VMLINUX}"))
    };
    Ok(TaskOffsets {
        tgid: offset("tgid")?,
        mm: offset("mm")?,
        utask: offset("utask")?,
    })
}

/// The offset in bytes of a direct member of a structure.
fn member_offset(btf: &[u8], structure: &str, member: &str) -> Result<u32> {
    let mut header = btf;
    if header.try_get_u16_ne()? != MAGIC {
        bail!("it does not begin with BTF's magic number");
    }
    header.try_get_u16_ne()?;
    let mut word = || -> Result<usize> { Ok(usize::try_from(header.try_get_u32_ne()?)?) };
    let (header_len, type_at, type_len, string_at, string_len) =
        (word()?, word()?, word()?, word()?, word()?);
    let section = |at: usize, len: usize| {
        let start = header_len.checked_add(at)?;
        btf.get(start..start.checked_add(len)?)
    };
    let mut types = section(type_at, type_len).context("its types are cut off")?;
    let strings = section(string_at, string_len).context("its strings are cut off")?;
    while types.has_remaining() {
        let (name, info, _) = (
            types.try_get_u32_ne()?,
            types.try_get_u32_ne()?,
            types.try_get_u32_ne()?,
        );
        let tail = tail_len(info)?;
        let (members, rest) = types.split_at_checked(tail).context("a type is cut off")?;
        types = rest;
        if kind(info) == KIND_STRUCT && string(strings, name) == structure.as_bytes() {
            return find_member(members, info, strings, member);
        }
    }
    bail!("it has no structure {structure}");
}

/// Members are a name, a type and an offset in bits, whose upper eight bits
/// are a bit field's width if the structure's flag says so.
fn find_member(mut members: &[u8], info: u32, strings: &[u8], member: &str) -> Result<u32> {
    while members.has_remaining() {
        let name = members.try_get_u32_ne()?;
        members.try_get_u32_ne()?;
        let offset = members.try_get_u32_ne()?;
        if string(strings, name) == member.as_bytes() {
            let has_bit_fields = info >> 31 != 0;
            return Ok(if has_bit_fields {
                offset & 0xff_ffff
            } else {
                offset
            } / 8);
        }
    }
    bail!("the structure has no such member");
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes that follow a type's three words.
fn tail_len(info: u32) -> Result<usize> {
    let count = usize::try_from(info & 0xffff)?;
    Ok(match kind(info) {
        // Pointers, forward declarations, type definitions, qualifiers,
        // functions, floating-point numbers, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, 64-bit enumerations.
        4 | 5 | 15 | 19 => count * 12,
        // Enumerations, prototypes.
        6 | 13 => count * 8,
        other => bail!("it has a type of unknown kind {other}"),
    })
}

fn string(strings: &[u8], at: u32) -> &[u8] {
    let rest = usize::try_from(at)
        .ok()
        .and_then(|at| strings.get(at..))
        .unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_id_stands_right_after_the_thread_id() {
        let offsets = task_offsets().expect("this kernel has BTF");
        let btf = std::fs::read(VMLINUX).unwrap();
        let pid = member_offset(&btf, "task_struct", "pid").unwrap();
        assert_eq!(offsets.tgid, pid + 4);
    }

    #[test]
    fn an_unknown_member_or_structure_is_an_error() {
        let btf = std::fs::read(VMLINUX).unwrap();
        assert!(member_offset(&btf, "task_struct", "no_such_member").is_err());
        assert!(member_offset(&btf, "no_such_structure", "pid").is_err());
    }

    #[test]
    fn cut_off_data_is_an_error() {
        let btf = std::fs::read(VMLINUX).unwrap();
        for len in [0, 1, 3, 23, 100, btf.len() / 2] {
            assert!(
                member_offset(&btf[..len], "task_struct", "pid").is_err(),
                "{len}"
            );
        }
    }
}
