//! Offsets in the running kernel's structures, from its BTF.
//!
//! The format is the kernel's `Documentation/bpf/btf.rst`. The one crate that
//! reads members in full is under the LGPL, which does not go with a single
//! static binary; what is needed here is one structure's members.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use bytes::Buf;
use tracer_ebpf::settings::{Hijack, Mapped};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Structures without names that lie in each other, at most.
const MAX_NESTED: u32 = 8;

/// Offsets in bytes in the running kernel's structures.
#[derive(Debug, Clone, Copy)]
pub struct Offsets {
    /// `task_struct.tgid`: the process' id.
    pub tgid: u32,
    /// `task_struct.pid`: the thread's id.
    pub pid: u32,
    /// `task_struct.signal`: what the threads of a process share.
    pub signal: u32,
    /// `signal_struct.flags`.
    pub signal_flags: u32,
    /// `signal_struct.live`: threads that have not begun to end.
    pub signal_live: u32,
    /// `signal_struct.group_exit_code`: how the process ends, if all its
    /// threads end together.
    pub signal_exit_code: u32,
    /// `task_struct.exit_code`: how a thread ended.
    pub exit_code: u32,
    /// `task_struct.group_leader`: the first thread.
    pub leader: u32,
    /// `task_struct.mm`: the address space.
    pub mm: u32,
    /// `task_struct.utask`: what uprobes keep about the thread.
    pub utask: u32,
    /// Where replaced return addresses are kept; all zero if not found.
    pub hijack: Hijack,
    /// `vm_unmapped_area_info.length`.
    pub unmapped_length: u32,
    /// The way from a mapping to its file.
    pub mapped: Mapped,
    /// `mm_struct.brk`: where the heap ends that `brk` moves.
    pub brk: u32,
    /// `task_struct.thread.fsbase`: where the thread's own variables are.
    pub fs: u32,
    /// `task_struct.ptrace`: whether the thread is traced by ptrace.
    pub ptrace: u32,
    /// `task_struct.parent`: who is told of it.
    pub parent: u32,
    /// `task_struct.blocked`: signals that have to wait.
    pub blocked: u32,
    /// `task_struct.pagefault_disabled`: whether it must not bring pages in now.
    pub no_faults: u32,
    /// `task_struct.stack`: the kernel's own stack, for the thread.
    pub stack: u32,
}

/// Reads the running kernel's offsets.
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn offsets() -> Result<Offsets> {
    let btf = read()?;
    let structures = Structures::find(
        &btf,
        &[
            "task_struct",
            "uprobe_task",
            "return_instance",
            "signal_struct",
            "vm_unmapped_area_info",
            "vm_area_struct",
            "file",
            "backing_file",
            "dentry",
            "inode",
            "super_block",
            "mm_struct",
            "thread_struct",
        ],
    )
    .with_context(|| format!("cannot read {VMLINUX}"))?;
    let offset = |structure: &str, member: &str| {
        structures
            .offset(structure, member)
            .with_context(|| format!("cannot find {structure}.{member} in {VMLINUX}"))
    };
    let hijack = || -> Result<Hijack> {
        Ok(Hijack {
            instances: offset("uprobe_task", "return_instances")?,
            stack: offset("return_instance", "stack")?,
            original: offset("return_instance", "orig_ret_vaddr")?,
            next: offset("return_instance", "next")?,
        })
    };
    Ok(Offsets {
        tgid: offset("task_struct", "tgid")?,
        pid: offset("task_struct", "pid")?,
        signal: offset("task_struct", "signal")?,
        signal_flags: offset("signal_struct", "flags")?,
        signal_live: offset("signal_struct", "live")?,
        signal_exit_code: offset("signal_struct", "group_exit_code")?,
        exit_code: offset("task_struct", "exit_code")?,
        leader: offset("task_struct", "group_leader")?,
        mm: offset("task_struct", "mm")?,
        utask: offset("task_struct", "utask")?,
        hijack: hijack().unwrap_or_default(),
        unmapped_length: offset("vm_unmapped_area_info", "length")?,
        brk: offset("mm_struct", "brk")?,
        ptrace: offset("task_struct", "ptrace")?,
        parent: offset("task_struct", "parent")?,
        blocked: offset("task_struct", "blocked")?,
        no_faults: offset("task_struct", "pagefault_disabled")?,
        stack: offset("task_struct", "stack")?,
        fs: offset("task_struct", "thread")? + offset("thread_struct", "fsbase")?,
        mapped: Mapped {
            start: offset("vm_area_struct", "vm_start")?,
            end: offset("vm_area_struct", "vm_end")?,
            page_offset: offset("vm_area_struct", "vm_pgoff")?,
            file: offset("vm_area_struct", "vm_file")?,
            inode: offset("file", "f_inode")?,
            mode: offset("file", "f_mode")?,
            // A path's mount comes before its dentry.
            backing_dentry: offset("backing_file", "user_path").map_or(0, |path| path + 8),
            dentry_inode: offset("dentry", "d_inode")?,
            inode_number: offset("inode", "i_ino")?,
            inode_sb: offset("inode", "i_sb")?,
            device: offset("super_block", "s_dev")?,
            program: offset("mm_struct", "exe_file")?,
        },
    })
}

/// The names of enumerators for helpers that some kernels have.
const FIND_VMA: &str = "BPF_FUNC_find_vma";
const ATTACH_COOKIE: &str = "BPF_FUNC_get_attach_cookie";
/// The beginning of the names of functions that x32 programs call.
const X32: &str = "__x64_compat_sys_";
/// A function of the release that counts programs left out at perf events (Linux 6.7).
/// That shows in no type.
const TASK_ITERATOR: &str = "bpf_iter_task_new";

/// Whether the running kernel lends programs `bpf_find_vma`.
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn has_find_vma() -> Result<bool> {
    has_helper(FIND_VMA)
}

/// Whether it lends them `bpf_get_attach_cookie` (Linux 5.15, with which the
/// links came that give perf events a cookie).
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn has_cookies() -> Result<bool> {
    has_helper(ATTACH_COOKIE)
}

/// Whether the kernel serves system calls of x32, or would if it were told to at boot.
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn has_x32() -> Result<bool> {
    has_helper(X32)
}

/// Whether it counts how often a program at a trace event was left out (Linux 6.7).
///
/// # Errors
/// Fails on a kernel without BTF.
pub fn counts_left_out() -> Result<bool> {
    has_helper(TASK_ITERATOR)
}

/// BTF has the kernel's list of helpers, and its functions.
fn has_helper(name: &str) -> Result<bool> {
    let btf = read()?;
    Ok(memchr::memmem::find(&btf, name.as_bytes()).is_some())
}

fn read() -> Result<Vec<u8>> {
    std::fs::read(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: unfreed needs a kernel with CONFIG_DEBUG_INFO_BTF")
    })
}

/// Some structures of a kernel, found in one pass over all its types.
pub(super) struct Structures<'a> {
    found: HashMap<&'a [u8], usize>,
    /// All types: the word with their kind, and what follows their three words.
    types: Vec<(u32, &'a [u8])>,
    strings: &'a [u8],
}

impl<'a> Structures<'a> {
    pub(super) fn find(btf: &'a [u8], names: &[&str]) -> Result<Self> {
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
        let mut rest = section(type_at, type_len).context("its types are cut off")?;
        let strings = section(string_at, string_len).context("its strings are cut off")?;
        let mut found = HashMap::new();
        // Number 0 is no type.
        let mut types: Vec<(u32, &[u8])> = vec![(0, &[])];
        while rest.has_remaining() {
            let (name, info, _) = (
                rest.try_get_u32_ne()?,
                rest.try_get_u32_ne()?,
                rest.try_get_u32_ne()?,
            );
            let tail = tail_len(info)?;
            let (members, after) = rest.split_at_checked(tail).context("a type is cut off")?;
            rest = after;
            if kind(info) == KIND_STRUCT {
                let name = string(strings, name);
                if names.iter().any(|wanted| wanted.as_bytes() == name) {
                    found.entry(name).or_insert(types.len());
                }
            }
            types.push((info, members));
        }
        Ok(Self {
            found,
            types,
            strings,
        })
    }

    /// The offset in bytes of a member, also of one in a structure or union
    /// without a name.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Result<u32> {
        let number = self
            .found
            .get(structure.as_bytes())
            .with_context(|| format!("it has no structure {structure}"))?;
        self.member(*number, member.as_bytes(), 0)?
            .with_context(|| format!("its structure {structure} has no member {member}"))
    }

    /// Members are a name, a type and an offset in bits, whose upper eight bits
    /// are a bit field's width if the structure's flag says so.
    fn member(&self, number: usize, member: &[u8], depth: u32) -> Result<Option<u32>> {
        let Some((info, mut members)) = self.types.get(number).copied() else {
            return Ok(None);
        };
        let is_structure = matches!(kind(info), KIND_STRUCT | KIND_UNION);
        if !is_structure || depth > MAX_NESTED {
            return Ok(None);
        }
        while members.has_remaining() {
            let name = members.try_get_u32_ne()?;
            let inner = usize::try_from(members.try_get_u32_ne()?)?;
            let offset = members.try_get_u32_ne()?;
            let has_bit_fields = info >> 31 != 0;
            let bits = if has_bit_fields {
                offset & 0xff_ffff
            } else {
                offset
            };
            if name != 0 && string(self.strings, name) == member {
                return Ok(Some(bits / 8));
            }
            if name == 0
                && let Some(within) = self.member(inner, member, depth + 1)?
            {
                return Ok(Some(bits / 8 + within));
            }
        }
        Ok(None)
    }
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

    fn offset(btf: &[u8], structure: &str, member: &str) -> Result<u32> {
        Structures::find(btf, &[structure])?.offset(structure, member)
    }

    #[test]
    fn the_process_id_stands_right_after_the_thread_id() {
        let offsets = offsets().expect("this kernel has BTF");
        let btf = std::fs::read(VMLINUX).unwrap();
        let pid = offset(&btf, "task_struct", "pid").unwrap();
        assert_eq!(offsets.tgid, pid + 4);
        assert_ne!(offsets.hijack.original, 0);
    }

    #[test]
    fn an_unknown_member_or_structure_is_an_error() {
        let btf = std::fs::read(VMLINUX).unwrap();
        assert!(offset(&btf, "task_struct", "no_such_member").is_err());
        assert!(offset(&btf, "no_such_structure", "pid").is_err());
    }

    #[test]
    fn cut_off_data_is_an_error() {
        let btf = std::fs::read(VMLINUX).unwrap();
        for len in [0, 1, 3, 23, 100, btf.len() / 2] {
            assert!(offset(&btf[..len], "task_struct", "pid").is_err(), "{len}");
        }
    }
}
