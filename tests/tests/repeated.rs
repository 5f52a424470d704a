//! What is remembered of a thread's stacks is believed only while they are the same:
//! paths that differ in words far up, at the same place and stack pointer, are as many
//! sites with just the blocks of each.

use anyhow::Result;
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Recording, Target, Tracer};

#[test]
fn paths_that_take_turns_are_told_apart() -> Result<()> {
    let commands = ["alternate", "by_frame_pointer"];
    let recording = Recording::of("repeated", &commands, &[])?;
    recording.all_agree()?;
    recording.has_nothing_else()?;
    for function in ["first_caller", "second_caller"] {
        assert_eq!(recording.report.sites_with(function).count(), 1);
    }
    Ok(())
}

/// Each depth is a path of its own; each caller has all of them.
#[test]
fn deep_stacks_are_told_apart_by_their_last_words() -> Result<()> {
    let recording = Recording::of("repeated", &["recurse"], &[])?;
    recording.has_nothing_else()?;
    for (function, size) in [("first_caller", 1009), ("second_caller", 1013)] {
        let sites: Vec<_> = recording.report.sites_with(function).collect();
        assert_eq!(sites.len(), 60, "{function}");
        for site in sites {
            assert_eq!(site.kind, MemoryKind::Heap);
            assert_eq!(site.allocated_bytes, site.allocated_count * size);
        }
    }
    Ok(())
}

#[test]
fn threads_do_not_disturb_each_other() -> Result<()> {
    let recording = Recording::of("repeated", &["threads"], &[])?;
    recording.all_agree()?;
    assert_eq!(recording.report.lost(), 0);
    Ok(())
}

/// A thread that ends leaves what it remembered to the next.
#[test]
fn a_thread_knows_nothing_of_the_one_before() -> Result<()> {
    let mut target = Target::start("repeated")?;
    let tracer = Tracer::record(target.pid, &["--threads"])?;
    target.command("one_thread_after_the_other")?;
    let report = tracer.stop()?.report()?;
    let sites: Vec<_> = report.sites_with("three_blocks").collect();
    assert_eq!(sites.len(), 6, "{}", report.table());
    for site in sites {
        assert_eq!(site.allocated_count, 3);
    }
    Ok(())
}

#[test]
fn a_child_knows_nothing_of_its_parent() -> Result<()> {
    let mut target = Target::start("repeated")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.command("fork_child")?;
    let report = tracer.stop()?.report()?;
    let counts = (0..report.processes.len()).map(|process| {
        report
            .heap_of_process(process, "first_caller")
            .allocated_count
    });
    let mut counts: Vec<u64> = counts.filter(|count| *count > 0).collect();
    counts.sort_unstable();
    assert_eq!(counts, [5, 8], "{}", report.table());
    Ok(())
}
