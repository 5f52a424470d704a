//! Signals, and what a tracer leaves in the kernel and in a target's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// The BPF programs, maps and links that a process holds, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// Program ids.
    pub programs: BTreeSet<u32>,
    /// Map ids.
    pub maps: BTreeSet<u32>,
    /// Link ids.
    pub links: BTreeSet<u32>,
}

/// `BPF_PROG_TYPE_TRACEPOINT`: at trace events.
pub const TRACEPOINT: u64 = 5;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
pub const RAW_TRACEPOINT: u64 = 17;
/// `BPF_PROG_TYPE_TRACING`: at the kernel's own functions.
pub const TRACING: u64 = 26;

/// How many instructions the kernel went through to verify each of the BPF programs of a
/// type that a process holds. Kernels before 5.16 do not tell.
///
/// # Errors
/// The process is gone or not ours.
pub fn verified_instructions(pid: u32, kind: u64) -> Result<Vec<u64>> {
    let mut of_program = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = |key: &str| -> Option<u64> {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        };
        if number("prog_type:") == Some(kind)
            && let Some(id) = number("prog_id:")
            && let Some(instructions) = number("verified_insns:")
        {
            of_program.insert(id, instructions);
        }
    }
    Ok(of_program.into_values().collect())
}

/// `bpf(2)` commands that tell the next id of an object. None is opened for that: a program
/// array that is opened by its id and closed, while the kernel has its last user's end to
/// do yet, stays for good (`prog_array_map_clear` takes a reference for work that is queued
/// already; seen on 6.18).
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_int = 12;
const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;

impl KernelObjects {
    /// Reads the ids from `/proc/PID/fdinfo`.
    ///
    /// # Errors
    /// The process is gone or not ours.
    pub fn of_process(pid: u32) -> Result<Self> {
        let mut objects = Self::default();
        let folder = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            for line in text.lines() {
                let Some((key, value)) = line.split_once(':') else {
                    continue;
                };
                let Ok(id) = value.trim().parse() else {
                    continue;
                };
                match key {
                    "prog_id" => objects.programs.insert(id),
                    "map_id" => objects.maps.insert(id),
                    "link_id" => objects.links.insert(id),
                    _ => continue,
                };
            }
        }
        Ok(objects)
    }

    /// Those that the kernel still has. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn remaining(&self) -> Result<Self> {
        let alive = |ids: &BTreeSet<u32>, command| {
            ids.iter()
                .copied()
                .filter_map(|id| {
                    exists(command, id)
                        .map(|there| there.then_some(id))
                        .transpose()
                })
                .collect::<Result<_>>()
        };
        Ok(Self {
            programs: alive(&self.programs, BPF_PROG_GET_NEXT_ID)?,
            maps: alive(&self.maps, BPF_MAP_GET_NEXT_ID)?,
            links: alive(&self.links, BPF_LINK_GET_NEXT_ID)?,
        })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn exists(command: libc::c_int, id: u32) -> Result<bool> {
    let Some(before) = id.checked_sub(1) else {
        return Ok(false);
    };
    // The part of `union bpf_attr` for these commands: the id to begin behind, then the next
    // one, which the kernel writes, and flags.
    let mut attributes = [before, 0, 0];
    // SAFETY: the kernel reads and writes 12 bytes of `attributes`, which has 12.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    };
    if result >= 0 {
        return Ok(attributes[1] == id);
    }
    let error = io::Error::last_os_error();
    ensure!(
        error.raw_os_error() == Some(libc::ENOENT),
        "bpf({command}) behind id {before}: {error}"
    );
    Ok(false)
}

/// Major and minor number of the running kernel.
///
/// # Errors
/// The kernel does not tell.
pub fn kernel_version() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    number()
        .zip(number())
        .with_context(|| format!("no version in {release:?}"))
}

/// Sends a signal to a process that was not waited for.
///
/// # Errors
/// There is no such process, or it is not ours.
pub fn send_signal(pid: u32, number: i32) -> Result<()> {
    let pid = i32::try_from(pid)?;
    // SAFETY: kill takes two numbers.
    let result = unsafe { libc::kill(pid, number) };
    ensure!(
        result == 0,
        "signal {number} to {pid}: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// How many bytes of a process's mapped code differ from the files that it
/// comes from: the breakpoints of probes.
///
/// # Errors
/// The process is gone, or a file cannot be read.
pub fn patched_bytes(pid: u32) -> Result<usize> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut patched = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[range, permissions, offset, _, _, path] = fields.as_slice() else {
            continue;
        };
        if !permissions.contains('x') || !path.starts_with('/') {
            continue;
        }
        let (start, end) = range.split_once('-').context("no address range")?;
        let start = u64::from_str_radix(start, 16)?;
        let length = usize::try_from(u64::from_str_radix(end, 16)? - start)?;
        let (mut mapped, mut stored) = (vec![0; length], vec![0; length]);
        memory.read_exact_at(&mut mapped, start)?;
        let file = File::open(format!("/proc/{pid}/root{path}"))?;
        let filled = file.read_at(&mut stored, u64::from_str_radix(offset, 16)?)?;
        patched += mapped
            .iter()
            .zip(&stored[..filled])
            .filter(|(one, other)| one != other)
            .count();
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_bpf_has_no_objects() -> Result<()> {
        assert!(KernelObjects::of_process(std::process::id())?.is_empty());
        Ok(())
    }

    #[test]
    fn own_code_is_not_patched() -> Result<()> {
        assert_eq!(patched_bytes(std::process::id())?, 0);
        Ok(())
    }
}
