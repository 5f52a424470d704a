//! Which tests run in a VM, and why others do not.
//!
//! A start of the tracer costs some seconds under emulation (the kernel's
//! verifier does most of it), so the default is a choice that reaches every
//! feature and every fallback; what does not depend on the kernel is left to
//! the host.

/// Tests of a program that the default runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// All of them.
    All,
    /// These.
    Only(&'static [&'static str]),
}

/// The default of each test program; of one that is not here, all tests.
pub(super) const CHOSEN: &[(&str, Choice)] = &[
    (
        "commands",
        Choice::Only(&[
            "doctor_looks_at_the_machine_and_a_target",
            "doctor_says_what_a_target_lacks",
        ]),
    ),
    (
        "lifecycle",
        Choice::Only(&[
            "a_followed_child_is_a_process_of_its_own",
            "a_library_opened_after_attach_is_traced_and_named",
            "exec_begins_a_fresh_heap",
        ]),
    ),
    ("mappings", Choice::All),
    (
        "names",
        Choice::Only(&["another_mount_namespace_is_looked_into"]),
    ),
    ("oracle", Choice::Only(&["targets_tell_the_truth"])),
    (
        "output",
        Choice::Only(&["overhead_counts_the_probes_that_ran"]),
    ),
    ("roads", Choice::All),
    (
        "robustness",
        Choice::Only(&[
            "a_32_bit_process",
            "a_kernel_thread",
            "a_killed_tracer_leaves_nothing_in_the_kernel",
            "missing_privileges_are_named",
        ]),
    ),
    ("semantics", Choice::All),
    (
        "stress",
        Choice::Only(&[
            "a_hundred_frames_reach_main",
            "too_many_live_blocks_are_counted_as_lost",
        ]),
    ),
];

/// A test that no VM runs, with or without `--full`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exclusion {
    pub(super) program: &'static str,
    pub(super) test: &'static str,
    pub(super) reason: &'static str,
}

/// All exclusions.
pub(super) const EXCLUDED: &[Exclusion] = &[];
