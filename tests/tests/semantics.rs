//! The rules of the allocator's functions, one test for each. The target's
//! source (`targets/c/semantics.h`) says what each command does. The tests
//! share a run.

use std::sync::LazyLock;

use anyhow::{Result, anyhow};
use unfreed_tests::{Recording, Sums, Target, Tracer, View};

static SEMANTICS: LazyLock<Result<Recording>> = LazyLock::new(|| {
    let commands = [
        "malloc_plain",
        "malloc_and_free",
        "malloc_fails",
        "malloc_zero",
        "free_null",
        "calloc_plain",
        "calloc_overflow",
        "free_before_attach",
        "realloc_grows",
        "realloc_shrinks",
        "realloc_moves",
        "realloc_fails",
        "realloc_to_zero",
        "realloc_of_null",
        "realloc_before_attach",
        "realloc_before_attach_fails",
        "reallocarray_plain",
        "reallocarray_overflow",
        "posix_memalign_plain",
        "posix_memalign_fails",
        "aligned_alloc_plain",
        "memalign_plain",
        "valloc_plain",
        "pvalloc_plain",
        "strdup_counts_once",
        "asprintf_counts_once",
        "getline_counts_once",
    ];
    Recording::of("semantics", &commands, &[])
});

static PLUSPLUS: LazyLock<Result<Recording>> = LazyLock::new(|| {
    let commands = [
        "new_single",
        "new_array",
        "new_aligned",
        "new_throws",
        "exceptions_leave_nothing",
        "containers_are_freed",
    ];
    Recording::of("plusplus", &commands, &[])
});

/// These leave traces of threads, which belong to no command.
static THREADS: LazyLock<Result<Recording>> = LazyLock::new(|| {
    Recording::of(
        "semantics",
        &["freed_in_another_thread", "thread_after_attach"],
        &[],
    )
});

fn shared(recording: &'static LazyLock<Result<Recording>>) -> Result<&'static Recording> {
    recording.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// Compares the report with what one command of `semantics` did.
fn agrees(command: &str) -> Result<&'static View> {
    shared(&SEMANTICS)?.agrees(command)
}

/// The same for `plusplus`.
fn agrees_cpp(command: &str) -> Result<&'static View> {
    shared(&PLUSPLUS)?.agrees(command)
}

#[test]
fn nothing_else_is_counted_and_nothing_lost() -> Result<()> {
    shared(&SEMANTICS)?.has_nothing_else()?;
    shared(&PLUSPLUS)?.has_nothing_else()
}

#[test]
fn malloc_is_counted() -> Result<()> {
    let report = agrees("malloc_plain")?;
    assert_eq!(report.heap("malloc_plain"), Sums::live(101, 10));
    Ok(())
}

#[test]
fn free_ends_a_block() -> Result<()> {
    let report = agrees("malloc_and_free")?;
    assert_eq!(report.heap("malloc_and_free"), Sums::blocks(103, 13, 6));
    Ok(())
}

#[test]
fn only_successful_mallocs_are_counted() -> Result<()> {
    agrees("malloc_fails").map(drop)
}

#[test]
fn blocks_of_no_bytes_are_blocks() -> Result<()> {
    let report = agrees("malloc_zero")?;
    assert_eq!(report.heap("malloc_zero"), Sums::blocks(0, 2, 1));
    Ok(())
}

#[test]
fn free_of_null_is_nothing() -> Result<()> {
    agrees("free_null").map(drop)
}

#[test]
fn calloc_counts_its_product() -> Result<()> {
    agrees("calloc_plain").map(drop)
}

#[test]
fn calloc_that_overflows_is_not_counted() -> Result<()> {
    agrees("calloc_overflow").map(drop)
}

#[test]
fn frees_from_before_the_run_are_counted_as_such() -> Result<()> {
    let report = agrees("free_before_attach")?;
    // Seven by free, and seven by realloc.
    assert_eq!((report.totals.untraced_frees, report.lost()), (14, 0));
    Ok(())
}

#[test]
fn realloc_that_grows() -> Result<()> {
    agrees("realloc_grows").map(drop)
}

#[test]
fn realloc_that_shrinks_in_place() -> Result<()> {
    agrees("realloc_shrinks").map(drop)
}

#[test]
fn realloc_that_moves() -> Result<()> {
    agrees("realloc_moves").map(drop)
}

#[test]
fn realloc_that_fails_loses_nothing() -> Result<()> {
    let report = agrees("realloc_fails")?;
    assert_eq!(report.heap("realloc_fails"), Sums::live(149, 1));
    Ok(())
}

#[test]
fn realloc_to_zero_frees() -> Result<()> {
    agrees("realloc_to_zero").map(drop)
}

#[test]
fn realloc_of_null_allocates_once() -> Result<()> {
    agrees("realloc_of_null").map(drop)
}

#[test]
fn realloc_of_a_block_from_before_the_run() -> Result<()> {
    agrees("realloc_before_attach").map(drop)
}

#[test]
fn realloc_of_a_block_from_before_the_run_that_fails() -> Result<()> {
    agrees("realloc_before_attach_fails").map(drop)
}

#[test]
fn reallocarray_counts_its_product_once() -> Result<()> {
    agrees("reallocarray_plain").map(drop)
}

#[test]
fn reallocarray_that_overflows_loses_nothing() -> Result<()> {
    agrees("reallocarray_overflow").map(drop)
}

#[test]
fn posix_memalign_gives_its_result_by_pointer() -> Result<()> {
    agrees("posix_memalign_plain").map(drop)
}

#[test]
fn posix_memalign_that_fails_leaves_the_old_pointer_alone() -> Result<()> {
    agrees("posix_memalign_fails").map(drop)
}

#[test]
fn aligned_alloc_is_counted() -> Result<()> {
    agrees("aligned_alloc_plain").map(drop)
}

#[test]
fn memalign_is_counted() -> Result<()> {
    agrees("memalign_plain").map(drop)
}

#[test]
fn valloc_is_counted() -> Result<()> {
    agrees("valloc_plain").map(drop)
}

#[test]
fn pvalloc_counts_what_was_asked_for() -> Result<()> {
    agrees("pvalloc_plain").map(drop)
}

#[test]
fn strdup_counts_once() -> Result<()> {
    agrees("strdup_counts_once").map(drop)
}

#[test]
fn asprintf_counts_once() -> Result<()> {
    agrees("asprintf_counts_once").map(drop)
}

#[test]
fn getline_counts_once() -> Result<()> {
    agrees("getline_counts_once").map(drop)
}

#[test]
fn operator_new_counts_once() -> Result<()> {
    agrees_cpp("new_single").map(drop)
}

#[test]
fn operator_new_array_counts_once() -> Result<()> {
    agrees_cpp("new_array").map(drop)
}

#[test]
fn aligned_operator_new_counts_once() -> Result<()> {
    agrees_cpp("new_aligned").map(drop)
}

#[test]
fn a_program_may_throw_through_operator_new() -> Result<()> {
    agrees_cpp("new_throws").map(drop)
}

#[test]
fn exceptions_leave_nothing() -> Result<()> {
    agrees_cpp("exceptions_leave_nothing").map(drop)
}

#[test]
fn freed_containers_leave_nothing() -> Result<()> {
    agrees_cpp("containers_are_freed").map(drop)
}

#[test]
fn a_block_may_be_freed_in_another_thread() -> Result<()> {
    shared(&THREADS)?
        .agrees("freed_in_another_thread")
        .map(drop)
}

#[test]
fn threads_created_after_attach_are_traced() -> Result<()> {
    shared(&THREADS)?.agrees("thread_after_attach").map(drop)
}

#[test]
fn a_missed_return_poisons_no_later_call_and_is_counted() -> Result<()> {
    let recording = Recording::of("semantics", &["after_missed_return"], &[])?;
    recording.has_nothing_else()?;
    let report = &recording.report;
    let causes = report.occurred_losses().count();
    assert_eq!((causes, report.lost()), (1, 1), "{:?}", report.occurred());
    Ok(())
}

#[test]
fn min_size_leaves_small_blocks_out_and_holds_for_realloc() -> Result<()> {
    let mut target = Target::start("semantics")?;
    let tracer = Tracer::record(target.pid, &["--min-size", "1000"])?;
    let mut truth = target.command("small_block")?;
    truth.add(target.command("large_block")?);
    truth.add(target.command("across_the_limit")?);
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(
        report.totals.untraced_frees, 2,
        "a small block's free, and one that grew"
    );
    assert_eq!(report.settings.min_size, 1000);
    Ok(())
}

#[test]
fn two_processes_in_one_run_are_told_apart() -> Result<()> {
    let (mut one, mut other) = (Target::start("semantics")?, Target::start("semantics")?);
    let other_pid = other.pid.to_string();
    let tracer = Tracer::record(one.pid, &["-p", &other_pid])?;
    one.command("malloc_plain")?;
    other.command("malloc_plain")?;
    other.command("malloc_and_free")?;
    let report = tracer.stop()?.report()?;
    let process = |pid| {
        report
            .processes
            .iter()
            .position(|process| process.pid == pid)
    };
    let (Some(one), Some(other)) = (process(one.pid), process(other.pid)) else {
        panic!("a process is missing: {:?}", report.processes)
    };
    assert_eq!(
        report.heap_of_process(one, "malloc_plain"),
        Sums::live(101, 10)
    );
    assert_eq!(
        report.heap_of_process(one, "malloc_and_free"),
        Sums::default()
    );
    assert_eq!(
        report.heap_of_process(other, "malloc_plain"),
        Sums::live(101, 10)
    );
    assert_eq!(
        report.heap_of_process(other, "malloc_and_free"),
        Sums::blocks(103, 13, 6)
    );
    Ok(())
}
