//! What a probe costs here and now, measured on ourselves: the real programs
//! on two functions of our own that do nothing.

use std::arch::naked_asm;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use aya::programs::uprobe::UProbeLink;

use crate::kernel::object::Object;
use crate::process::address::CodeAddress;
use crate::process::clock::monotonic_ns;
use crate::process::maps::read_executable;

/// Calls measured. At some 3 us each this takes a millisecond or two.
const CALLS: u32 = 500;

/// Probe hits of one call pair: entry, return, free.
const HITS: u32 = 3;

#[unsafe(naked)]
extern "C" fn pretend_malloc(_size: u64) -> usize {
    naked_asm!("push rbp", "pop rbp", "lea rax, [rdi + 4096]", "ret")
}

#[unsafe(naked)]
extern "C" fn pretend_free(_block: usize) {
    naked_asm!("push rbp", "pop rbp", "ret")
}

/// Nanoseconds for one probe hit with a shallow stack, and the probes, which
/// are best taken away with all others. Blocks of `min_size` bytes are traced.
///
/// # Errors
/// Fails if the kernel refuses the probes.
pub fn nanoseconds_per_hit(object: &mut Object, min_size: u64) -> Result<(f64, [UProbeLink; 3])> {
    let pid = std::process::id();
    let executable = Path::new("/proc/self/exe");
    let malloc = file_offset(pretend_malloc as *const () as u64)?;
    let free = file_offset(pretend_free as *const () as u64)?;
    let plain = time_pairs(min_size);
    let image = object.admit(pid, monotonic_ns())?;
    let links = [
        object.attach("uf_free", executable, free, Some(pid))?,
        object.attach("uf_malloc_ret", executable, malloc, Some(pid))?,
        object.attach("uf_malloc", executable, malloc, Some(pid))?,
    ];
    object.set_active(true)?;
    time_pairs(min_size);
    let traced = time_pairs(min_size);
    object.set_active(false)?;
    object.dismiss(pid, image);
    // Every block was freed, so nothing else is left to forget.
    Ok(((traced - plain).max(0.0) / f64::from(CALLS * HITS), links))
}

/// Nanoseconds for all calls.
fn time_pairs(size: u64) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        pretend_free(pretend_malloc(size));
    }
    begin.elapsed().as_nanos() as f64
}

fn file_offset(address: u64) -> Result<u64> {
    let ranges = read_executable(File::open("/proc/self/maps")?)?;
    let range = ranges
        .iter()
        .find(|range| (range.start.0..range.end.0).contains(&address))
        .context("our own code is not mapped")?;
    Ok(range.file_offset.0 + (CodeAddress(address).0 - range.start.0))
}
