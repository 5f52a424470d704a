//! Which road to the probes works here, and what a probe costs: found out on
//! ourselves, by the real programs on two functions that do nothing.

use std::arch::naked_asm;
use std::fs::File;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use tracer_ebpf::call::Function;
use tracer_ebpf::hits::Kind;

use super::cost::Prices;
use super::traps::{self, CALLS, Estimate, ROUNDS};
use crate::kernel::link::{Link, Road};
use crate::kernel::object::Object;
use crate::kernel::program::{Moment, Place, Programs};
use crate::process::address::CodeAddress;
use crate::process::clock::{monotonic_ns, thread_cpu_ns};
use crate::process::maps::read_executable;

/// Pairs of calls of [`in_thread`].
pub const PAIRS: u32 = CALLS * (ROUNDS + 1);

/// What takes longer than the mean run of a program by this factor was preempted, or
/// interrupted. The deepest stack takes a tenth of that.
const PREEMPTED: u64 = 32;

/// But nothing shorter than this, nanoseconds.
const SHORTEST_PREEMPTION: u64 = 30_000;

/// Probe hits of one call pair: entry, return, free.
const HITS: u32 = 3;

/// What was found out.
pub struct Calibration {
    /// Nanoseconds for one probe hit with a shallow stack.
    pub nanoseconds_per_hit: f64,
    /// What hits of each kind cost, apart from our programs.
    pub prices: Prices,
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

impl Plan {
    /// In which process probes fire.
    fn scope(&self) -> Option<u32> {
        (!self.everyone).then(std::process::id)
    }
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

/// A third pair, for session links.
#[unsafe(naked)]
extern "C" fn paired_malloc(_size: u64) -> usize {
    naked_asm!("push rbp", "pop rbp", "lea rax, [rdi + 12288]", "ret")
}

#[unsafe(naked)]
extern "C" fn paired_free(_block: usize) {
    naked_asm!("push rbp", "nop", "nop", "pop rbp", "ret")
}

/// Nobody has to know of frees of blocks that were left out.
#[unsafe(naked)]
extern "C" fn unprobed_free(_block: usize) {
    naked_asm!("nop", "nop", "ret")
}

/// Leaves the object on a road that works, and measures it.
///
/// # Errors
/// Fails if the kernel refuses the probes, or they miss calls.
pub fn calibrate(object: &mut Object, plan: &Plan) -> Result<Calibration> {
    let (pair, mut links) = on_some_road(object, plan)?;
    let (traps, others) = traps::measure(object, plan.scope())?;
    links.extend(others);
    let programs = time_programs(object, plan)?;
    object.begin_sessions();
    if object.has_sessions() {
        match prove_sessions(object, plan) {
            Ok(others) => links.extend(others),
            Err(_) => object.leave_sessions(),
        }
    }
    object.forget_in_passing()?;
    let kernels = traps.emulated.plus(traps.emulated).plus(traps.returning);
    let around = pair.minus(kernels).minus(programs);
    Ok(Calibration {
        nanoseconds_per_hit: pair.nanoseconds / f64::from(HITS),
        prices: Prices::new(traps, around.share(f64::from(HITS)), object.costs()?),
        links,
    })
}

/// Fails if a call is missed that a session link should tell of, or the return of one is
/// told that is too small to be followed, or made from elsewhere.
fn prove_sessions(object: &mut Object, plan: &Plan) -> Result<Vec<Link>> {
    let executable = Path::new("/proc/self/exe");
    let [malloc, free] = places(paired_malloc, paired_free)?;
    let mut links = object.attach(Moment::Free, &[free], executable, plan.scope())?;
    links.push(object.attach_session(&[malloc], executable, plan.scope())?);
    let pid = std::process::id();
    let image = object.admit(pid, monotonic_ns())?;
    object.set_active(true)?;
    // Of a sample's smallest blocks a few may be chosen.
    let (free, size, most): (Free, _, _) = match plan.min_size {
        0 => (paired_free, 1, u64::from(PAIRS) / 2),
        more => (unprobed_free, more - 1, 0),
    };
    let mut calls = || -> Result<[u64; 3]> {
        let before = returns(object)?;
        in_thread(paired_malloc, paired_free, certain(object, plan.min_size))?;
        let followed = returns(object)?;
        ensure_all_seen(object, image)?;
        if object.origins.is_used() {
            object.follow_from(image, &[], false)?;
        }
        in_thread(paired_malloc, free, size)?;
        Ok([before, followed, returns(object)?])
    };
    let told = calls();
    object.set_active(false)?;
    object.dismiss(pid, image);
    let [before, followed, left_out] = told?;
    ensure!(
        followed - before == u64::from(PAIRS) && left_out - followed <= most,
        "session links tell of other returns than they should"
    );
    Ok(links)
}

/// Returns that were told until now.
fn returns(object: &Object) -> Result<u64> {
    Ok(object.costs()?[Kind::Return as usize].hits)
}

/// What probes add to a pair of calls, on a road that works.
fn on_some_road(object: &mut Object, plan: &Plan) -> Result<(Estimate, Vec<Link>)> {
    if object.road() == Road::Multi {
        match prove_multi(object, plan) {
            Err(_) if plan.forced.is_none() => object.leave_multi(),
            result => return result,
        }
    }
    measure(object, plan)
}

fn prove_multi(object: &mut Object, plan: &Plan) -> Result<(Estimate, Vec<Link>)> {
    let measured = measure(object, plan)?;
    if !plan.everyone {
        object.attach_child_watch()?;
    }
    Ok(measured)
}

/// How long our programs run in a pair of calls, by their own account; and has no times
/// believed from now on that are much longer. [`measure`] has placed the probes.
fn time_programs(object: &mut Object, plan: &Plan) -> Result<Estimate> {
    let before = object.costs()?;
    let image = object.admit(std::process::id(), monotonic_ns())?;
    object.time_one_of(Some(1));
    object.set_active(true)?;
    let size = certain(object, plan.min_size);
    let ran = in_thread(pretend_malloc, pretend_free, size);
    object.set_active(false)?;
    object.time_one_of(None);
    object.dismiss(std::process::id(), image);
    ran?;
    let after = object.costs()?;
    let mean = |kind: Kind| {
        let (after, before) = (after[kind as usize], before[kind as usize]);
        let timed = after.timed.saturating_sub(before.timed).max(1);
        after.nanoseconds.saturating_sub(before.nanoseconds) / timed
    };
    let means = [Kind::Entry, Kind::Return, Kind::Free].map(mean);
    let longest = means.into_iter().fold(0, u64::max);
    object.limit_times(limit_of(longest));
    Ok(Estimate {
        nanoseconds: means.iter().sum::<u64>() as f64,
        spread: 0.0,
    })
}

/// The time, nanoseconds, beyond which a run of a program whose mean is known was
/// preempted, or interrupted.
pub fn limit_of(mean: u64) -> u64 {
    (mean * PREEMPTED).max(SHORTEST_PREEMPTION)
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
    Ok(((pair.nanoseconds - others).max(nanoseconds_per_hit), links))
}

/// What probes add to a pair of calls.
fn pair_at_instructions(object: &mut Object, min_size: u64) -> Result<(Estimate, Vec<Link>)> {
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
    Ok((traced?.minus(plain), links))
}

/// What probes add to a pair of calls. Fails if a call is missed. They come from another
/// than the first thread: for a link to one process, kernels before 6.10 let only the
/// first thread run into probes.
fn measure(object: &mut Object, plan: &Plan) -> Result<(Estimate, Vec<Link>)> {
    let pid = std::process::id();
    let size = certain(object, plan.min_size);
    let plain = in_thread(pretend_malloc, pretend_free, size)?;
    let image = object.admit(pid, monotonic_ns())?;
    let links = attach(object, plan.scope())?;
    object.set_active(true)?;
    let traced = in_thread(pretend_malloc, pretend_free, size);
    object.set_active(false)?;
    object.dismiss(pid, image);
    ensure_all_seen(object, image)?;
    // Every block was freed, so nothing else is left to forget.
    Ok((traced?.minus(plain), links))
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
    if seen != u64::from(PAIRS) {
        bail!(
            "probes by {} saw {seen} of {} calls of unfreed itself",
            object.road(),
            PAIRS
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

/// What a pair of calls takes in another thread: [`PAIRS`] are made. Blocks of `size`
/// bytes are traced.
fn in_thread(malloc: Malloc, free: Free, size: u64) -> Result<Estimate> {
    let rounds = move || {
        (0..=ROUNDS)
            .map(|_| time_pair(malloc, free, size))
            .collect()
    };
    match thread::spawn(rounds).join() {
        Ok(rounds) => {
            let rounds: Vec<f64> = rounds;
            // The first one warms up.
            Ok(Estimate::of(rounds.into_iter().skip(1).collect()))
        }
        Err(_) => bail!("a thread of unfreed panicked"),
    }
}

/// Nanoseconds of a pair of calls.
fn time_pair(malloc: Malloc, free: Free, size: u64) -> f64 {
    let begin = thread_cpu_ns();
    for _ in 0..CALLS {
        free(malloc(size));
    }
    thread_cpu_ns().saturating_sub(begin) as f64 / f64::from(CALLS)
}

/// Where a function of ours is in our file.
///
/// # Errors
/// Fails if our mappings cannot be read.
pub fn file_offset(address: u64) -> Result<u64> {
    let ranges = read_executable(File::open("/proc/self/maps")?)?;
    let range = ranges
        .iter()
        .find(|range| (range.start.0..range.end.0).contains(&address))
        .context("our own code is not mapped")?;
    Ok(range.file_offset.0 + (CodeAddress(address).0 - range.start.0))
}
