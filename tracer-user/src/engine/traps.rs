//! What the kernel's part of a probe hit costs on this machine: empty programs at
//! functions of our own that do nothing.

use std::arch::naked_asm;
use std::path::Path;
use std::thread;

use anyhow::{Result, bail};

use super::calibrate::file_offset;
use crate::kernel::link::Link;
use crate::kernel::object::Object;
use crate::kernel::program::{Moment, Place, Programs};
use crate::process::clock::thread_cpu_ns;

/// Calls of one measurement. At 11 us for a single step in a virtual machine this takes
/// a millisecond.
pub(super) const CALLS: u32 = 100;

/// Measurements, of which the median counts; the first of all only warms up.
pub(super) const ROUNDS: u32 = 8;

/// Something that was measured several times.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// The median, nanoseconds.
    pub nanoseconds: f64,
    /// How far the truth may be from that, nanoseconds: half of the distance between the
    /// least and the upper quartile.
    pub spread: f64,
}

impl Estimate {
    /// Of some measurements; nothing of none.
    pub(super) fn of(mut measured: Vec<f64>) -> Self {
        measured.sort_by(f64::total_cmp);
        let at = |place: usize| measured.get(place).copied().unwrap_or(0.0);
        let count = measured.len();
        Self {
            nanoseconds: at(count / 2),
            spread: (at(count * 3 / 4) - at(0)).max(0.0) / 2.0,
        }
    }

    /// The difference, which is nothing at least.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            nanoseconds: (self.nanoseconds - other.nanoseconds).max(0.0),
            spread: self.spread + other.spread,
        }
    }

    /// One of so many equal parts.
    pub(super) fn share(self, parts: f64) -> Self {
        Self {
            nanoseconds: self.nanoseconds / parts,
            spread: self.spread / parts,
        }
    }

    /// The sum.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds + other.nanoseconds,
            spread: self.spread + other.spread,
        }
    }
}

/// What the kernel's part of a hit costs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traps {
    /// At an instruction that it emulates.
    pub emulated: Estimate,
    /// At one that it single-steps.
    pub stepped: Estimate,
    /// At a return instruction, which it single-steps.
    pub end: Estimate,
    /// A return probe, without the entry that belongs to it.
    pub returning: Estimate,
    /// To tell of a page fault; nothing if nobody is told.
    pub fault: Estimate,
    /// The same while faults are passed over; without a budget they never are.
    pub passed_over: Estimate,
}

type Nothing = extern "C" fn();

#[unsafe(naked)]
extern "C" fn plain() {
    naked_asm!("push rbp", "pop rbp", "ret")
}

#[unsafe(naked)]
extern "C" fn emulated() {
    naked_asm!("push rbp", "pop rbp", "nop", "ret")
}

#[unsafe(naked)]
extern "C" fn stepped() {
    naked_asm!("lea rax, [rsp + 8]", "nop", "ret")
}

/// Bytes of [`ending`] before its return instruction.
const END: u64 = 1;

#[unsafe(naked)]
extern "C" fn ending() {
    naked_asm!("nop", "ret")
}

#[unsafe(naked)]
extern "C" fn returning() {
    naked_asm!("push rbp", "pop rbp", "nop", "nop", "ret")
}

/// Measures them by the road that the object is on, in this process alone or in all
/// (`None`). The probes are best taken away with all others.
///
/// # Errors
/// Fails if the kernel refuses the probes.
pub(super) fn measure(object: &mut Object, pid: Option<u32>) -> Result<(Traps, Vec<Link>)> {
    let programs = object.replace_programs(Programs::Empty);
    let attached = attach(object, pid);
    object.replace_programs(programs);
    let links = attached?;
    let times = thread::spawn(|| [plain, emulated, stepped, ending, returning].map(time));
    let Ok([plain, emulated, stepped, end, returning]) = times.join() else {
        bail!("a thread of unfreed panicked");
    };
    let emulated = emulated.minus(plain);
    let traps = Traps {
        emulated,
        stepped: stepped.minus(plain),
        end: end.minus(plain),
        returning: returning.minus(plain).minus(emulated),
        fault: Estimate::default(),
        passed_over: Estimate::default(),
    };
    Ok((traps, links))
}

fn attach(object: &mut Object, pid: Option<u32>) -> Result<Vec<Link>> {
    let executable = Path::new("/proc/self/exe");
    let at = |function: Nothing, bytes| -> Result<Place> {
        let offset = file_offset(function as *const () as u64)?;
        Ok(Place::new(None, offset + bytes))
    };
    let entries = [
        at(emulated, 0)?,
        at(stepped, 0)?,
        at(ending, END)?,
        at(returning, 0)?,
    ];
    let mut links = object.attach(Moment::Return, &[at(returning, 0)?], executable, pid)?;
    links.extend(object.attach(Moment::Entry, &entries, executable, pid)?);
    Ok(links)
}

/// Nanoseconds of a call.
fn time(function: Nothing) -> Estimate {
    let round = || {
        let begin = thread_cpu_ns();
        for _ in 0..CALLS {
            function();
        }
        thread_cpu_ns().saturating_sub(begin) as f64 / f64::from(CALLS)
    };
    Estimate::of((0..=ROUNDS).map(|_| round()).skip(1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_measurement_moves_no_estimate() {
        let quiet = Estimate::of(vec![10.0, 11.0, 12.0, 12.0, 11.0, 10.0, 12.0, 10.0]);
        let disturbed = Estimate::of(vec![10.0, 11.0, 12.0, 12.0, 900.0, 10.0, 12.0, 10.0]);
        assert!((quiet.nanoseconds - disturbed.nanoseconds).abs() < 2.0);
        assert!(disturbed.spread <= 1.0, "{disturbed:?}");
        assert_eq!(Estimate::of(Vec::new()), Estimate::default());
    }

    #[test]
    fn a_difference_is_not_below_nothing_and_as_uncertain_as_both() {
        let (small, large) = (Estimate::of(vec![1.0, 3.0]), Estimate::of(vec![9.0, 9.0]));
        assert_eq!(large.minus(small).spread.to_bits(), small.spread.to_bits());
        assert_eq!(small.minus(large).nanoseconds.to_bits(), 0.0f64.to_bits());
    }
}
