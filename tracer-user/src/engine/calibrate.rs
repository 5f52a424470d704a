//! Which road to the probes works here, and what a probe costs: found out on
//! ourselves, by the real programs on two functions that do nothing.

use std::arch::naked_asm;
use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tracer_ebpf::call::Function;

use crate::kernel::link::{Link, Road};
use crate::kernel::object::Object;
use crate::kernel::program::{Moment, Place, Programs};
use crate::process::address::CodeAddress;
use crate::process::clock::monotonic_ns;
use crate::process::maps::read_executable;

/// Calls measured. At some 3 us each this takes a millisecond or two.
const CALLS: u32 = 500;

/// Probe hits of one call pair: entry, return, free.
const HITS: u32 = 3;

/// What was found out.
pub struct Calibration {
    /// Nanoseconds for one probe hit with a shallow stack.
    pub nanoseconds_per_hit: f64,
    /// The probes on ourselves, which are best taken away with all others.
    pub links: Vec<Link>,
}

/// How the run will trace.
pub struct Plan {
    /// Allocations below this are not traced.
    pub min_size: u64,
    /// Whether probes will fire in all processes.
    pub everyone: bool,
    /// The road to take, if there is no choice.
    pub forced: Option<Road>,
}

type Malloc = extern "C" fn(u64) -> usize;
type Free = extern "C" fn(usize);

/// Bytes of [`quiet_malloc`] before its return instruction.
const RETURN: u64 = 9;

#[unsafe(naked)]
extern "C" fn pretend_malloc(_size: u64) -> usize {
    naked_asm!("push rbp", "pop rbp", "lea rax, [rdi + 4096]", "ret")
}

#[unsafe(naked)]
extern "C" fn pretend_free(_block: usize) {
    naked_asm!("push rbp", "pop rbp", "ret")
}

/// Another such pair, which never gets a return probe: the probes of the first
/// stay until the end of the run.
#[unsafe(naked)]
extern "C" fn quiet_malloc(_size: u64) -> usize {
    naked_asm!("push rbp", "pop rbp", "lea rax, [rdi + 8192]", "ret")
}

#[unsafe(naked)]
extern "C" fn quiet_free(_block: usize) {
    naked_asm!("push rbp", "nop", "pop rbp", "ret")
}

/// Leaves the object on a road that works, and measures it.
///
/// # Errors
/// Fails if the kernel refuses the probes, or they miss calls.
pub fn calibrate(object: &mut Object, plan: &Plan) -> Result<Calibration> {
    if object.road() == Road::Multi {
        match prove_multi(object, plan) {
            Err(_) if plan.forced.is_none() => object.leave_multi(),
            result => return result,
        }
    }
    measure(object, plan)
}

fn prove_multi(object: &mut Object, plan: &Plan) -> Result<Calibration> {
    let calibration = measure(object, plan)?;
    if !plan.everyone {
        object.attach_child_watch()?;
    }
    Ok(calibration)
}

/// What a hit at a return instruction costs, nanoseconds, and the probes that
/// told. `nanoseconds_per_hit` is what others cost.
///
/// # Errors
/// Fails if the kernel refuses the probes.
pub fn at_instructions(
    object: &mut Object,
    min_size: u64,
    nanoseconds_per_hit: f64,
) -> Result<(f64, Vec<Link>)> {
    let was_active = object.is_active();
    let programs = object.replace_programs(Programs::Counting);
    let measured = pair_at_instructions(object, min_size);
    object.replace_programs(programs);
    object.set_active(was_active)?;
    let (pair, links) = measured?;
    let others = f64::from(HITS - 1) * nanoseconds_per_hit;
    Ok(((pair - others).max(nanoseconds_per_hit), links))
}

/// What probes add to a pair of calls, nanoseconds.
fn pair_at_instructions(object: &mut Object, min_size: u64) -> Result<(f64, Vec<Link>)> {
    let pid = std::process::id();
    let size = certain(object, min_size);
    let plain = in_thread(quiet_malloc, quiet_free, size)?;
    let executable = Path::new("/proc/self/exe");
    let [malloc, free] = places(quiet_malloc, quiet_free)?;
    let ends = Place::new(None, malloc.offset + RETURN);
    let mut links = Vec::new();
    for (moment, place) in [
        (Moment::Free, free),
        (Moment::End, ends),
        (Moment::Entry, malloc),
    ] {
        links.extend(object.attach(moment, &[place], executable, Some(pid))?);
    }
    let image = object.admit(pid, monotonic_ns())?;
    object.set_active(true)?;
    let traced = in_thread(quiet_malloc, quiet_free, size);
    object.dismiss(pid, image);
    ensure_all_seen(object, image)?;
    Ok(((traced? - plain) / f64::from(CALLS), links))
}

/// What a hit costs: with sampling, one of a call that is not chosen, as most are.
///
/// # Errors
/// Fails if a call is missed. They come from another than the first thread:
/// for a link to one process, kernels before 6.10 let only the first thread
/// run into probes.
fn measure(object: &mut Object, plan: &Plan) -> Result<Calibration> {
    let pid = std::process::id();
    let size = certain(object, plan.min_size);
    let plain = in_thread(pretend_malloc, pretend_free, size)?;
    let image = object.admit(pid, monotonic_ns())?;
    let links = attach(object, (!plan.everyone).then_some(pid))?;
    object.set_active(true)?;
    let mut traced = in_thread(pretend_malloc, pretend_free, size);
    let seen = ensure_all_seen(object, image);
    if object.sampling.is_on() {
        traced = in_thread(pretend_malloc, pretend_free, 1);
    }
    object.set_active(false)?;
    object.dismiss(pid, image);
    seen?;
    // Every block was freed, so nothing else is left to forget.
    Ok(Calibration {
        nanoseconds_per_hit: (traced? - plain).max(0.0) / f64::from(CALLS * HITS),
        links,
    })
}

/// A size that is traced in any case.
fn certain(object: &Object, min_size: u64) -> u64 {
    object.sampling.certain.max(min_size)
}

/// Fails if a call of ours was not counted.
fn ensure_all_seen(object: &Object, image: u64) -> Result<()> {
    let seen: u64 = object
        .used_sites()
        .filter(|(_, site)| site.image == image)
        .map(|(_, site)| site.allocated_count.min(site.freed_count))
        .sum();
    if seen != u64::from(2 * CALLS) {
        bail!(
            "probes by {} saw {seen} of {} calls of unfreed itself",
            object.road(),
            2 * CALLS
        );
    }
    Ok(())
}

fn attach(object: &mut Object, pid: Option<u32>) -> Result<Vec<Link>> {
    let executable = Path::new("/proc/self/exe");
    let [malloc, free] = places(pretend_malloc, pretend_free)?;
    let mut links = object.attach(Moment::Free, &[free], executable, pid)?;
    links.extend(object.attach(Moment::Return, &[malloc], executable, pid)?);
    links.extend(object.attach(Moment::Entry, &[malloc], executable, pid)?);
    Ok(links)
}

/// Where two functions of ours are.
fn places(malloc: Malloc, free: Free) -> Result<[Place; 2]> {
    Ok([
        Place {
            is_last: true,
            ..Place::new(
                Some(Function::Malloc),
                file_offset(malloc as *const () as u64)?,
            )
        },
        Place::new(None, file_offset(free as *const () as u64)?),
    ])
}

/// Nanoseconds for all calls in another thread, once they are warm. Blocks of
/// `size` bytes are traced.
fn in_thread(malloc: Malloc, free: Free, size: u64) -> Result<f64> {
    let times = thread::spawn(move || [(); 2].map(|()| time_pairs(malloc, free, size)));
    match times.join() {
        Ok([_, warm]) => Ok(warm),
        Err(_) => bail!("a thread of unfreed panicked"),
    }
}

/// Nanoseconds for all calls.
fn time_pairs(malloc: Malloc, free: Free, size: u64) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        free(malloc(size));
    }
    begin.elapsed().as_nanos() as f64
}

pub fn file_offset(address: u64) -> Result<u64> {
    let ranges = read_executable(File::open("/proc/self/maps")?)?;
    let range = ranges
        .iter()
        .find(|range| (range.start.0..range.end.0).contains(&address))
        .context("our own code is not mapped")?;
    Ok(range.file_offset.0 + (CodeAddress(address).0 - range.start.0))
}
