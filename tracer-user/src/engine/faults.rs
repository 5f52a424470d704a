//! Whether the kernel tells of page faults here, and what that costs: found out on
//! ourselves.

use std::thread;

use anyhow::{Result, bail, ensure};
use tracer_ebpf::block::{BlockKey, PAGE, page_of};
use tracer_ebpf::hits::Kind;

use super::calibrate::{Calibration, limit_of};
use super::cost::Prices;
use super::traps::{Estimate, ROUNDS, Traps};
use crate::kernel::object::{FaultLinks, Object};
use crate::process::clock::{monotonic_ns, thread_cpu_ns};

/// Pages of one measurement.
const PAGES: usize = 100;

/// What was found out.
pub(super) struct Faults {
    /// The programs in place.
    pub(super) links: FaultLinks,
    /// What a fault costs that is told of, apart from our program, and one that is passed
    /// over.
    pub(super) traps: Traps,
    /// How long our program runs, in the mean, nanoseconds.
    pub(super) mean: u64,
}

impl Faults {
    /// What is known if no allocations are followed.
    ///
    /// # Errors
    /// Fails if the kernel's maps cannot be read.
    pub(super) fn alone(&self, object: &mut Object) -> Result<Calibration> {
        object.limit_times(limit_of(self.mean));
        Ok(Calibration {
            nanoseconds_per_hit: self.traps.fault.nanoseconds + self.mean as f64,
            prices: Prices::new(self.traps, Estimate::default(), object.costs()?),
            links: Vec::new(),
        })
    }
}

/// Attaches the programs, and measures what they cost.
///
/// # Errors
/// Fails if the kernel refuses them, or a page that was touched is not told of.
pub(super) fn calibrate(object: &mut Object) -> Result<Faults> {
    let plain = in_thread()?;
    object.attach_moves()?;
    let links = object.attach_faults()?;
    object.set_active(true)?;
    object.follow_faults(false);
    let passed_over = in_thread();
    object.follow_faults(true);
    // Of a process that is not traced: our own code has no tables, and what a walk costs
    // is timed in the targets.
    let told_of = in_thread();
    let pid = std::process::id();
    let image = object.admit(pid, monotonic_ns())?;
    object.time_one_of(Some(1));
    let traced = in_thread();
    object.set_active(false)?;
    object.time_one_of(None);
    object.dismiss(pid, image);
    traced?;
    forget_pages(object, image)?;
    let own = object.pages().filter(|(_, site)| site.image == image);
    let told: u64 = own.map(|(_, site)| site.allocated_count).sum();
    let wanted = PAGES as u64 * u64::from(ROUNDS + 1);
    ensure!(
        told >= wanted,
        "the kernel tells of {told} of {wanted} pages that unfreed itself touched"
    );
    let timed = object.costs()?[Kind::Fault as usize];
    let traps = Traps {
        fault: told_of?.minus(plain),
        passed_over: passed_over?.minus(plain),
        ..Traps::default()
    };
    Ok(Faults {
        links,
        traps,
        mean: timed.nanoseconds / timed.timed.max(1),
    })
}

/// Takes our own pages out of the kernel's map.
fn forget_pages(object: &Object, image: u64) -> Result<()> {
    let mut own: Vec<BlockKey> = Vec::new();
    object.for_each_block(|key, _| {
        if key.image == image && page_of(key.address).is_some() {
            own.push(key);
        }
    })?;
    object.delete_live(&own)
}

/// Nanoseconds of a page's first touch, in a thread of ours.
fn in_thread() -> Result<Estimate> {
    let rounds = || -> Result<Vec<f64>> { (0..=ROUNDS).map(|_| time_pages()).collect() };
    match thread::spawn(rounds).join() {
        // The first one warms up.
        Ok(rounds) => Ok(Estimate::of(rounds?.into_iter().skip(1).collect())),
        Err(_) => bail!("a thread of unfreed panicked"),
    }
}

/// Nanoseconds of a page's first touch.
fn time_pages() -> Result<f64> {
    let length = PAGES * usize::try_from(PAGE)?;
    // SAFETY: a fresh mapping, of ours alone.
    let start = unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            bail!("cannot map memory: {}", std::io::Error::last_os_error());
        }
        // That a huge page may come instead shows in the count.
        libc::madvise(start, length, libc::MADV_NOHUGEPAGE);
        start.cast::<u8>()
    };
    let begin = thread_cpu_ns();
    for page in 0..PAGES {
        // SAFETY: a page of that mapping.
        unsafe {
            start.add(page * usize::try_from(PAGE)?).write_volatile(1);
        }
    }
    let took = thread_cpu_ns().saturating_sub(begin);
    // SAFETY: that mapping, which nobody uses any more.
    unsafe { libc::munmap(start.cast(), length) };
    Ok(took as f64 / PAGES as f64)
}
