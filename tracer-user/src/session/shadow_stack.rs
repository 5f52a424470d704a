//! Processes with a shadow stack (x86's, kernels from 6.6 on).
//!
//! The processor keeps a second copy of each return address, and kills a process
//! that returns elsewhere. Return probes change only the first copy until 6.11,
//! where the kernel changes both ("x86/shstk: Make return uprobe work with shadow
//! stack"). No machine of ours has shadow stacks, so this follows from the
//! kernel's source alone.

use crate::kernel::memory::release;
use crate::process::status::any_thread;

/// The first kernel whose return probes change both copies.
const FIXED: (u32, u32) = (6, 11);

/// Whether a return probe kills a process, since it has a shadow stack and the
/// kernel does not know what to do with that.
pub fn return_probe_kills(pid: u32) -> bool {
    let is_old = release().is_ok_and(|release| release < FIXED);
    is_old && any_thread(pid, is_on)
}

/// Whether a thread's `status` says so.
fn is_on(status: &str) -> bool {
    let features = |line: &'_ str| {
        let features = line.strip_prefix("x86_Thread_features:")?;
        Some(features.split_whitespace().any(|it| it == "shstk"))
    };
    status.lines().find_map(features).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_says_what_it_has() {
        let thread = |features| format!("Name:\tx\nx86_Thread_features:\t{features}\nNext:\t1\n");
        assert!(is_on(&thread("shstk wrss ")));
        assert!(!is_on(&thread("wrss ")));
        assert!(!is_on(&thread("")));
        // What is locked only cannot be changed any more.
        assert!(!is_on("Name:\tx\nx86_Thread_features_locked:\tshstk\n"));
        assert!(!is_on(""));
    }
}
