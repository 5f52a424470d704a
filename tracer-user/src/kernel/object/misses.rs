//! Runs of programs that the kernel left out.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::Program;

use super::Object;

/// The program at page faults within the kernel.
const KERNEL_FAULT: &str = "uf_kernel_fault";

impl Object {
    /// How often the kernel left out a program at a tracepoint, because another
    /// thread was in the middle of the same program on that CPU; at a trace event (see
    /// [`SystemCalls::Each`](super::SystemCalls::Each)), in the middle of any, or of a
    /// change to a map. Kernels that
    /// preempt programs at tracepoints do so, of whatever process. Faults within the
    /// kernel do not count: what such a program reads may not be there, which is a
    /// fault that it is left out for.
    pub fn left_out(&self) -> u64 {
        self.ebpf
            .programs()
            .filter(|(name, _)| *name != KERNEL_FAULT)
            .filter_map(|(_, program)| match program {
                Program::RawTracePoint(program) => program.fd().ok(),
                Program::TracePoint(program) => program.fd().ok(),
                Program::FEntry(program) => program.fd().ok(),
                Program::FExit(program) => program.fd().ok(),
                _ => None,
            })
            .filter_map(|program| {
                let number = program.as_fd().as_raw_fd();
                let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
                recursion_misses(&about)
            })
            .sum()
    }
}

/// The number that the kernel (5.12 and later) gives in a program's `fdinfo`.
fn recursion_misses(about: &str) -> Option<u64> {
    let line = |line: &str| line.strip_prefix("recursion_misses:")?.trim().parse().ok();
    about.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read_from_what_the_kernel_says() {
        let about =
            "pos:\t0\nprog_type:\t17\nrun_cnt:\t9\nrecursion_misses:\t3\nverified_insns:\t7\n";
        assert_eq!(recursion_misses(about), Some(3));
        assert_eq!(recursion_misses("prog_type:\t17\n"), None);
        assert_eq!(recursion_misses("recursion_misses:\tmany\n"), None);
    }
}
