//! The rules of the allocator's functions, one test for each. The target's
//! source (`targets/c/semantics.c`) says what each command does.

use anyhow::Result;
use unfreed_tests::{Sums, Target, Tracer, View};

/// Attaches, runs one command, and compares the report with the target's
/// truth: every site, no site more, and no loss that is not there.
fn agrees(program: &str, command: &str) -> Result<View> {
    let mut target = Target::start(program)?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command(command)?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    // A thread that ends frees once more what glibc kept for its next malloc.
    if !truth.others {
        assert_eq!(
            report.totals.untraced_frees, truth.untraced_frees,
            "untraced frees"
        );
    }
    Ok(report)
}

#[test]
fn malloc_is_counted() -> Result<()> {
    let report = agrees("semantics", "malloc_plain")?;
    assert_eq!(report.heap("malloc_plain"), Sums::live(101, 10));
    Ok(())
}

#[test]
fn free_ends_a_block() -> Result<()> {
    let report = agrees("semantics", "malloc_and_free")?;
    assert_eq!(report.heap("malloc_and_free"), Sums::blocks(103, 13, 6));
    Ok(())
}

#[test]
fn only_successful_mallocs_are_counted() -> Result<()> {
    agrees("semantics", "malloc_fails").map(drop)
}

#[test]
fn blocks_of_no_bytes_are_blocks() -> Result<()> {
    let report = agrees("semantics", "malloc_zero")?;
    assert_eq!(report.heap("malloc_zero"), Sums::blocks(0, 2, 1));
    Ok(())
}

#[test]
fn free_of_null_is_nothing() -> Result<()> {
    agrees("semantics", "free_null").map(drop)
}

#[test]
fn calloc_counts_its_product() -> Result<()> {
    agrees("semantics", "calloc_plain").map(drop)
}

#[test]
fn calloc_that_overflows_is_not_counted() -> Result<()> {
    agrees("semantics", "calloc_overflow").map(drop)
}

#[test]
fn frees_from_before_the_run_are_counted_as_such() -> Result<()> {
    let report = agrees("semantics", "free_before_attach")?;
    assert_eq!((report.totals.untraced_frees, report.lost()), (7, 0));
    Ok(())
}

#[test]
fn realloc_that_grows() -> Result<()> {
    agrees("semantics", "realloc_grows").map(drop)
}

#[test]
fn realloc_that_shrinks_in_place() -> Result<()> {
    agrees("semantics", "realloc_shrinks").map(drop)
}

#[test]
fn realloc_that_moves() -> Result<()> {
    agrees("semantics", "realloc_moves").map(drop)
}

#[test]
fn realloc_that_fails_loses_nothing() -> Result<()> {
    let report = agrees("semantics", "realloc_fails")?;
    assert_eq!(report.heap("realloc_fails"), Sums::live(149, 1));
    Ok(())
}

#[test]
fn realloc_to_zero_frees() -> Result<()> {
    agrees("semantics", "realloc_to_zero").map(drop)
}

#[test]
fn realloc_of_null_allocates_once() -> Result<()> {
    agrees("semantics", "realloc_of_null").map(drop)
}

#[test]
fn realloc_of_a_block_from_before_the_run() -> Result<()> {
    agrees("semantics", "realloc_before_attach").map(drop)
}

#[test]
fn realloc_of_a_block_from_before_the_run_that_fails() -> Result<()> {
    agrees("semantics", "realloc_before_attach_fails").map(drop)
}

#[test]
fn reallocarray_counts_its_product_once() -> Result<()> {
    agrees("semantics", "reallocarray_plain").map(drop)
}

#[test]
fn reallocarray_that_overflows_loses_nothing() -> Result<()> {
    agrees("semantics", "reallocarray_overflow").map(drop)
}

#[test]
fn posix_memalign_gives_its_result_by_pointer() -> Result<()> {
    agrees("semantics", "posix_memalign_plain").map(drop)
}

#[test]
fn posix_memalign_that_fails_leaves_the_old_pointer_alone() -> Result<()> {
    agrees("semantics", "posix_memalign_fails").map(drop)
}

#[test]
fn aligned_alloc_is_counted() -> Result<()> {
    agrees("semantics", "aligned_alloc_plain").map(drop)
}

#[test]
fn memalign_is_counted() -> Result<()> {
    agrees("semantics", "memalign_plain").map(drop)
}

#[test]
fn valloc_is_counted() -> Result<()> {
    agrees("semantics", "valloc_plain").map(drop)
}

#[test]
fn pvalloc_counts_what_was_asked_for() -> Result<()> {
    agrees("semantics", "pvalloc_plain").map(drop)
}

#[test]
fn strdup_counts_once() -> Result<()> {
    agrees("semantics", "strdup_counts_once").map(drop)
}

#[test]
fn asprintf_counts_once() -> Result<()> {
    agrees("semantics", "asprintf_counts_once").map(drop)
}

#[test]
fn getline_counts_once() -> Result<()> {
    agrees("semantics", "getline_counts_once").map(drop)
}

#[test]
fn operator_new_counts_once() -> Result<()> {
    agrees("plusplus", "new_single").map(drop)
}

#[test]
fn operator_new_array_counts_once() -> Result<()> {
    agrees("plusplus", "new_array").map(drop)
}

#[test]
fn aligned_operator_new_counts_once() -> Result<()> {
    agrees("plusplus", "new_aligned").map(drop)
}

#[test]
fn a_program_may_throw_through_operator_new() -> Result<()> {
    agrees("plusplus", "new_throws").map(drop)
}

#[test]
fn exceptions_leave_nothing() -> Result<()> {
    agrees("plusplus", "exceptions_leave_nothing").map(drop)
}

#[test]
fn freed_containers_leave_nothing() -> Result<()> {
    agrees("plusplus", "containers_are_freed").map(drop)
}

#[test]
fn a_block_may_be_freed_in_another_thread() -> Result<()> {
    agrees("semantics", "freed_in_another_thread").map(drop)
}

#[test]
fn threads_created_after_attach_are_traced() -> Result<()> {
    agrees("semantics", "thread_after_attach").map(drop)
}

#[test]
fn a_missed_return_poisons_no_later_call_and_is_counted() -> Result<()> {
    let report = agrees("semantics", "after_missed_return")?;
    let causes = report.occurred_losses().count();
    assert_eq!((causes, report.lost()), (1, 1), "{:?}", report.losses);
    Ok(())
}

#[test]
fn commands_one_after_another_add_up() -> Result<()> {
    let mut target = Target::start("semantics")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let mut truth = target.command("malloc_plain")?;
    for command in [
        "realloc_grows",
        "posix_memalign_plain",
        "calloc_plain",
        "strdup_counts_once",
    ] {
        truth.add(target.command(command)?);
    }
    // The entry of strdup speaks for the whole process, and so only for
    // strdup's own run.
    truth.sites.retain(|entry| !entry.function.is_empty());
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    assert_eq!(report.lost(), 0);
    Ok(())
}

#[test]
fn min_size_leaves_small_blocks_out() -> Result<()> {
    let mut target = Target::start("semantics")?;
    let tracer = Tracer::record(target.pid, &["--min-size", "1000"])?;
    let mut truth = target.command("small_block")?;
    truth.add(target.command("large_block")?);
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(report.totals.untraced_frees, 1, "the small block's free");
    assert_eq!(report.settings.min_size, 1000);
    Ok(())
}

#[test]
fn min_size_holds_for_realloc() -> Result<()> {
    let mut target = Target::start("semantics")?;
    let tracer = Tracer::record(target.pid, &["--min-size", "1000"])?;
    let truth = target.command("across_the_limit")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(report.totals.untraced_frees, 1, "the small block that grew");
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
