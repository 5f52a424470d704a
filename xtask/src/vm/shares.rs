//! Which kernel runs which of the chosen tests, and why the other does not.

use super::selection::Choice;

/// How many of the tests a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All that a VM can run.
    Full,
    /// The choice.
    Choice,
    /// The oldest kernel's part of the choice.
    Oldest,
    /// The newest kernel's.
    Newest,
    /// What is tried on one between them: [`BETWEEN`].
    Between,
    /// What is tried on the one that takes the least: [`STRICT`].
    Strict,
}

impl Extent {
    /// Whether a test of a program, whose choice is given, is run.
    pub(super) fn has(self, program: &str, choice: Choice, test: &str) -> bool {
        let others = match self {
            Self::Full => return true,
            Self::Choice => &[],
            Self::Oldest => NEWEST_ALONE,
            Self::Newest => OLDEST_ALONE,
            Self::Between => return names(BETWEEN, program, test),
            Self::Strict => return names(STRICT, program, test),
        };
        choice.has(test) && !names(others, program, test)
    }
}

/// Whether a test is among those that are named.
fn names(part: &[(&str, &[&str])], program: &str, test: &str) -> bool {
    let mut of_program = part.iter().filter(|(name, _)| *name == program);
    of_program.any(|(_, tests)| tests.contains(&test))
}

/// Of the choice, what in `cargo xtask test` the oldest kernel alone runs. There the
/// tracer has what newer kernels do without: a perf event for each probe, programs
/// without cookies, walks without `bpf_loop` and `bpf_find_vma`, tracepoints for system
/// calls, `pagemap` read word by word. The newest takes here the roads that the host's
/// kernel takes, so that the host has run the same.
pub(super) const OLDEST_ALONE: &[(&str, &[&str])] = &[
    // The page map word by word; the newest has `kinds`.
    ("balance", &["mappings_count_by_what_was_written_to"]),
    (
        "callers",
        &["what_a_call_from_elsewhere_maps_is_the_allocators"],
    ),
    ("changes", &["a_table_ends_with_its_library"]),
    // Says what this kernel lacks; what newer ones have, it says on the host.
    ("commands", &["doctor_looks_at_the_machine_and_a_target"]),
    // Where the kernel keeps how a process ends is looked up in its types, as on the host.
    (
        "endings",
        &["an_exit_status_is_told_whichever_thread_gives_it"],
    ),
    ("follow", &["processes_of_one_program_are_one_row"]),
    ("held", &["signals_and_children_are_as_without_a_tracer"]),
    ("java_heap", &["each_object_of_one_jvm_is_counted"]),
    ("kin", &["living_descendants_are_followed"]),
    ("kinds", &["the_most_that_was_in_memory_is_told"]),
    (
        "lifecycle",
        &["a_library_opened_after_attach_is_traced_and_named"],
    ),
    ("placement", &["every_function_of_musl_is_exact_and_cheap"]),
    // The newest has those of slices.
    ("pools", &["a_chain_that_is_too_long_is_a_loss"]),
    // By perf events; the host's links are the newest's.
    ("preloaded", &["a_program_behind_a_shell_is_sampled"]),
    (
        "races",
        &["a_record_that_is_left_behind_does_not_speak_for_the_next_process"],
    ),
    (
        "returns",
        &[
            "a_program_with_a_seccomp_filter_is_seen_without_return_probes",
            "an_agent_that_comes_later_finds_return_addresses_too",
            "the_rules_of_glibcs_functions_hold",
        ],
    ),
    ("roads", &["both_roads_count_the_same"]),
    ("sampled", &["dropped_samples_take_their_weight_with_them"]),
    (
        "samplers",
        &[
            "a_child_frees_what_it_inherited",
            "a_semaphore_is_the_kernels_to_count",
        ],
    ),
    (
        "semantics",
        &[
            "a_block_may_be_freed_in_another_thread",
            "a_program_may_throw_through_operator_new",
            "a_missed_return_poisons_no_later_call_and_is_counted",
        ],
    ),
    ("sessions", &["a_call_that_is_too_small_pays_for_no_return"]),
    (
        "stress",
        &[
            "a_hundred_frames_reach_main",
            "too_many_live_blocks_are_counted_as_lost",
        ],
    ),
    (
        "threads",
        &["a_path_of_several_threads_is_several_sites_with_their_names"],
    ),
    (
        "unseen",
        &["a_function_that_is_not_probed_is_betrayed_by_what_it_allocates"],
    ),
];

/// The same of the newest, whose verifier takes all programs, and which alone of the
/// three kernels (the host's is the third) tells of system calls at its own functions.
/// Its code for breakpoints is the one that changed last.
pub(super) const NEWEST_ALONE: &[(&str, &[&str])] = &[
    (
        "changes",
        &["a_few_return_addresses_that_were_hijacked_before"],
    ),
    ("held", &["stacks_are_whole_after_an_exec"]),
    ("hooks", &["a_breakpoint_that_is_put_back_is_still_known"]),
    // Each system call at a function of its own; the oldest has the tracepoints of all,
    // and the host has trace events.
    (
        "overhead",
        &["the_walk_is_verified_once_for_all_system_calls"],
    ),
    (
        "kinds",
        &[
            "a_mapping_is_as_large_as_what_of_it_is_in_memory",
            "private_mappings_of_files_have_the_files_name",
            "reserved_addresses_count_from_when_they_can_be_used",
            "segments_are_as_long_as_the_kernel_says",
            "shared_memory_without_a_name_is_a_file_with_one",
            "stacks_are_of_who_started_the_thread_that_was_never_joined",
            "what_brk_grows_and_shrinks_is_counted",
            "what_is_mapped_by_the_function_syscall_is_counted",
            "what_is_mapped_without_libc_is_counted_with_its_path",
            "what_is_remapped_without_libc_is_counted",
        ],
    ),
    (
        "lifecycle",
        &["a_followed_child_that_execs_is_traced_from_its_start"],
    ),
    ("pools", &["slices_of_pages"]),
    // The oldest remembers nothing.
    ("repeated", &["paths_that_take_turns_are_told_apart"]),
    ("returns", &["a_program_with_a_seccomp_filter_lives"]),
    (
        "robustness",
        &["a_killed_tracer_leaves_nothing_in_the_kernel"],
    ),
    ("sampled", &["blocks_of_many_intervals_are_exact"]),
    // Session links, with what such a call does in the kernel's own functions.
    ("sessions", &["what_a_small_call_maps_is_the_allocators"]),
];

/// What runs on a kernel between the oldest and the newest, too: its verifier refused
/// programs that both took, and return probes kill programs with a seccomp filter there
/// (6.11 to 6.13).
pub(super) const BETWEEN: &[(&str, &[&str])] = &[
    ("roads", &["both_roads_count_the_same"]),
    (
        "returns",
        &["a_program_with_a_seccomp_filter_is_seen_without_return_probes"],
    ),
    ("stress", &["a_hundred_frames_reach_main"]),
];

/// What runs on the kernel whose verifier counts the most: it has `bpf_loop` and
/// `bpf_find_vma`, so that the programs with these are used, and takes each function's part of a
/// program's stack for a multiple of 32 bytes (since 6.12: of 16).
pub(super) const STRICT: &[(&str, &[&str])] = &[("roads", &["both_roads_count_the_same"])];

#[cfg(test)]
mod tests {
    use super::super::selection::CHOSEN;
    use super::*;

    #[test]
    fn what_is_between_runs_a_few() {
        let runs = |program, test| Extent::Between.has(program, Choice::All, test);
        assert!(runs("stress", "a_hundred_frames_reach_main"));
        assert!(!runs("stress", "too_many_live_blocks_are_counted_as_lost"));
        assert!(!runs("growth", "a_hundred_frames_reach_main"));
        assert!(Extent::Strict.has("roads", Choice::All, "both_roads_count_the_same"));
        assert!(!Extent::Strict.has("stress", Choice::All, "a_hundred_frames_reach_main"));
    }

    /// Whatever is chosen runs on one of the two kernels at least.
    #[test]
    fn what_one_kernel_leaves_out_the_other_runs() {
        for (part, runs, leaves) in [
            (OLDEST_ALONE, Extent::Oldest, Extent::Newest),
            (NEWEST_ALONE, Extent::Newest, Extent::Oldest),
        ] {
            for (program, tests) in part {
                let of_program = CHOSEN.iter().find(|(name, _)| name == program);
                let choice = of_program.map_or(Choice::All, |(_, choice)| *choice);
                for test in *tests {
                    assert!(Extent::Choice.has(program, choice, test), "{test}");
                    assert!(runs.has(program, choice, test), "{test}");
                    assert!(!leaves.has(program, choice, test), "{test}");
                }
            }
        }
    }
}
