//! Which tests run in a VM, and why others do not.
//!
//! A start of the tracer costs 5 s of processor time under emulation on 5.10 and 7 s on
//! 7.3, most of it in the verifier, and one of a JVM 15 s. So the default is a choice that reaches
//! every feature that a kernel may lack, and every fallback, once; what does not
//! depend on the kernel is left to the host, as are large loads.
//!
//! In `cargo xtask test` that choice is shared out between the oldest kernel and the
//! newest: see `shares.rs`.

/// Tests of a program that the default runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// All of them.
    All,
    /// These.
    Only(&'static [&'static str]),
    /// All but these, which would start a tracer of their own.
    AllBut(&'static [&'static str]),
}

impl Choice {
    /// Whether a test is among the chosen.
    pub(super) fn has(self, test: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(named) => named.contains(&test),
            Self::AllBut(named) => !named.contains(&test),
        }
    }

    /// The tests that it names.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &[],
            Self::Only(named) | Self::AllBut(named) => named,
        }
    }
}

/// The default of each test program; of one that is not here, all tests.
pub(super) const CHOSEN: &[(&str, Choice)] = &[
    // Functions without return probes, beside others that have one: that a program may
    // throw through them, a test of `semantics` shows with one library for three.
    ("allocators", Choice::Only(&[])),
    // The kernel's account and page map, which tells of runs from 6.7 on.
    (
        "balance",
        Choice::Only(&["mappings_count_by_what_was_written_to"]),
    ),
    // The programs with a budget, those at page faults among them, and the word that
    // changes what they follow. (How much of a load fits a budget is another thing under
    // emulation.)
    (
        "budget",
        Choice::Only(&["a_light_load_is_followed_exactly"]),
    ),
    ("budget_growth", Choice::Only(&[])),
    // What the kernel alone can tell: replaced code, replaced return addresses.
    (
        "changes",
        Choice::Only(&[
            "a_table_ends_with_its_library",
            "a_few_return_addresses_that_were_hijacked_before",
        ]),
    ),
    (
        "commands",
        Choice::Only(&["doctor_looks_at_the_machine_and_a_target"]),
    ),
    // Files are looked for by user space; who is not root has overlays from 5.11 on.
    ("containers", Choice::Only(&[])),
    // Where the kernel keeps how a process ends.
    (
        "endings",
        Choice::Only(&["an_exit_status_is_told_whichever_thread_gives_it"]),
    ),
    // Groups of processes by what the kernel says of their program; how fast
    // children come and go is the host's matter.
    (
        "follow",
        Choice::Only(&["processes_of_one_program_are_one_row"]),
    ),
    // Where the kernel has a thread's registers, and what it tells of faults.
    (
        "growth",
        Choice::Only(&[
            "each_page_is_of_who_touched_it",
            "what_is_moved_is_still_of_who_touched_it",
        ]),
    ),
    // Runs of pages in the page map, which old kernels do not tell.
    ("holders", Choice::Only(&["holders_of_c"])),
    // ptrace, and a signal that a program sends from within the kernel.
    (
        "held",
        Choice::Only(&[
            "stacks_are_whole_after_an_exec",
            "signals_and_children_are_as_without_a_tracer",
        ]),
    ),
    // What the kernel does when its breakpoints are gone.
    (
        "hooks",
        Choice::Only(&["a_breakpoint_that_is_put_back_is_still_known"]),
    ),
    // What is said of numbers, and of names, is user space's matter.
    ("findings", Choice::Only(&[])),
    ("grouping", Choice::Only(&[])),
    // Files, HTTP and signals; which pages a path touched, `growth` shows.
    ("serve", Choice::Only(&[])),
    // A browser's matter.
    ("serve_page", Choice::Only(&[])),
    // Requests to others, and files for systemd, Prometheus and Kubernetes.
    ("serve_push", Choice::Only(&[])),
    // Disks, many processes, long configurations.
    ("serve_faults", Choice::Only(&[])),
    ("serve_reload", Choice::Only(&[])),
    ("serve_tls", Choice::Only(&[])),
    // What is exported of a `serve`, and a screen.
    ("attach", Choice::Only(&[])),
    ("top", Choice::Only(&[])),
    // Other programs' memory is read alike everywhere.
    ("books", Choice::Only(&[])),
    // What is made of reports on the host; it takes minutes of leaks at a steady pace.
    ("table", Choice::Only(&[])),
    // Dozens of JVMs and tracers.
    ("incidents", Choice::Only(&[])),
    // What a JVM answers does not depend on the kernel; the probe of each object
    // has a program of its own.
    (
        "java_heap",
        Choice::Only(&["each_object_of_one_jvm_is_counted"]),
    ),
    // Other programs' memory is read alike everywhere.
    ("java_flights", Choice::Only(&[])),
    ("java_holders", Choice::Only(&[])),
    ("java_memory", Choice::Only(&[])),
    ("java_native", Choice::Only(&[])),
    ("jvm_attach", Choice::Only(&[])),
    // Walks, keys of their own among live blocks, a ring of its own for compiled
    // code: one JVM for all.
    ("jvm_all", Choice::All),
    ("jvm_handles", Choice::Only(&[])),
    ("jvm_started", Choice::Only(&[])),
    ("jvm_stacks", Choice::Only(&[])),
    ("jvm_thrown", Choice::Only(&[])),
    // Names, sizes and ends are the JVM's matter.
    ("jvm_ends", Choice::Only(&[])),
    ("jvm_names", Choice::Only(&[])),
    // Three minutes each. That the probes can be placed, handles show too.
    ("jvm_probes", Choice::Only(&[])),
    // User space's matter.
    ("isolation", Choice::Only(&[])),
    // Look-ups of its own in the programs, which `samplers` has here, too.
    ("kin", Choice::Only(&["living_descendants_are_followed"])),
    (
        "lifecycle",
        Choice::Only(&[
            "a_followed_child_that_execs_is_traced_from_its_start",
            "a_library_opened_after_attach_is_traced_and_named",
        ]),
    ),
    // One start for all.
    ("mappings", Choice::All),
    // Files and names, and a bound on time.
    ("hostile", Choice::Only(&[])),
    ("names", Choice::Only(&[])),
    ("oracle", Choice::Only(&[])),
    ("output", Choice::Only(&[])),
    // How long an emulated processor takes is nobody's measure.
    (
        "overhead",
        Choice::Only(&["the_walk_is_verified_once_for_all_system_calls"]),
    ),
    // Session links, and what there is in their place before 6.13. When they are given
    // up is user space's matter.
    (
        "sessions",
        Choice::AllBut(&["return_addresses_can_be_left_alone_later"]),
    ),
    // Which capabilities tracing takes is the kernel's to say, as is what is left of
    // root's rights in a program.
    (
        "privileges",
        Choice::Only(&["a_tracer_keeps_what_it_needs"]),
    ),
    // The walk through Python's frames, which each verifier has to take.
    (
        "python",
        Choice::Only(&["each_call_is_of_the_functions_that_python_says"]),
    ),
    // The machines have no node; that each verifier takes the walk each run of a program shows.
    ("javascript", Choice::Only(&[])),
    // Return addresses, also where return probes have replaced them, and mappings that
    // the allocator makes in a call that is left out.
    (
        "callers",
        Choice::Only(&["what_a_call_from_elsewhere_maps_is_the_allocators"]),
    ),
    // sudo's variables, and limits, which no kernel of these has changed.
    ("caller", Choice::Only(&[])),
    ("destinations", Choice::Only(&[])),
    // What the kernel does at a return instruction, and to a process with a
    // system call filter.
    (
        "returns",
        Choice::Only(&[
            "a_program_with_a_seccomp_filter_lives",
            "a_program_with_a_seccomp_filter_is_seen_without_return_probes",
            "an_agent_that_comes_later_finds_return_addresses_too",
            "the_rules_of_glibcs_functions_hold",
        ]),
    ),
    // What the kernel side does with its own maps. That nothing counts after the end is
    // one word in a map, which every kernel shows alike.
    (
        "races",
        Choice::Only(&["a_record_that_is_left_behind_does_not_speak_for_the_next_process"]),
    ),
    // Where kernels have no cookies, probes stand elsewhere.
    (
        "placement",
        Choice::Only(&["every_function_of_musl_is_exact_and_cheap"]),
    ),
    // Chains are followed by a loop that each verifier must take.
    (
        "pools",
        Choice::Only(&["slices_of_pages", "a_chain_that_is_too_long_is_a_loss"]),
    ),
    ("roads", Choice::All),
    (
        "robustness",
        Choice::Only(&[
            "a_kernel_thread",
            "a_killed_tracer_leaves_nothing_in_the_kernel",
            "missing_privileges_are_named",
        ]),
    ),
    // What is remembered of stacks, where the kernel has loops of its own.
    (
        "repeated",
        Choice::Only(&["paths_that_take_turns_are_told_apart"]),
    ),
    // Random numbers, division, and a filter of its own in the programs; with a few
    // call paths.
    (
        "sampled",
        Choice::Only(&[
            "blocks_of_many_intervals_are_exact",
            "dropped_samples_take_their_weight_with_them",
        ]),
    ),
    // Semaphores that the kernel counts, a map of sums, and what a copy inherits.
    (
        "samplers",
        Choice::Only(&[
            "a_semaphore_is_the_kernels_to_count",
            "a_child_frees_what_it_inherited",
        ]),
    ),
    // Probes in a file in memory.
    (
        "preloaded",
        Choice::Only(&["a_program_behind_a_shell_is_sampled"]),
    ),
    // Four starts for 37.
    (
        "semantics",
        Choice::AllBut(&[
            "min_size_leaves_small_blocks_out_and_holds_for_realloc",
            "two_processes_in_one_run_are_told_apart",
        ]),
    ),
    // What a walk does is the same in all its forms, and `stress` and the JVM have it go
    // far; gdb, and a runtime that waits by turning, take minutes here.
    ("stacks", Choice::Only(&[])),
    ("goroutines", Choice::Only(&[])),
    // Which file memory is a copy of is found by user space.
    ("copied", Choice::Only(&[])),
    ("undescribed", Choice::Only(&[])),
    (
        "stress",
        Choice::Only(&[
            "a_hundred_frames_reach_main",
            "too_many_live_blocks_are_counted_as_lost",
        ]),
    ),
    // Of what the tests share, what asks the kernel.
    (
        "unfreed_tests",
        Choice::Only(&[
            "entries::tests::what_happens_is_told_in_order",
            "kernel::tests::a_process_without_bpf_has_no_objects",
            "kernel::tests::own_code_is_not_patched",
        ]),
    ),
    (
        "threads",
        Choice::Only(&["a_path_of_several_threads_is_several_sites_with_their_names"]),
    ),
    // Two look-ups in maps; that old and small blocks are no loss, is user space's matter.
    (
        "unseen",
        Choice::Only(&["a_function_that_is_not_probed_is_betrayed_by_what_it_allocates"]),
    ),
    ("usdt", Choice::Only(&[])),
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
