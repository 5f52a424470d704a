//! Every kind of memory, by every door that a program may take to it, and what of it
//! is in memory. The target's source (`targets/c/kinds.c`) says what each command
//! does.

use std::fs;
use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow, ensure};
use unfreed_tests::model::{MemoryKind, Site, StackOwners};
use unfreed_tests::{Recording, Sums, Target, Tracer, View, unless_missed};

const PAGE: u64 = 4096;

static KINDS: LazyLock<Result<Recording>> = LazyLock::new(|| {
    let commands = [
        "map_raw",
        "map_by_syscall",
        "remap_raw",
        "grow_by_brk",
        "protect_reserved",
        "protect_by_key",
        "map_memfd",
        "attach_segments",
        "map_private_file",
    ];
    Recording::of("kinds", &commands, &[])
});

fn agrees(command: &str) -> Result<&'static View> {
    let recording = KINDS.as_ref().map_err(|error| anyhow!("{error:#}"))?;
    recording.agrees(command)
}

fn site_of<'a>(report: &'a View, function: &'a str, kind: MemoryKind) -> Result<&'a Site> {
    let mut sites = report.sites_with(function).filter(|it| it.kind == kind);
    let site = sites.next().with_context(|| report.table())?;
    assert!(sites.next().is_none(), "two sites:\n{}", report.table());
    Ok(site)
}

#[test]
fn what_is_mapped_without_libc_is_counted_with_its_path() -> Result<()> {
    let report = agrees("map_raw")?;
    let site = site_of(report, "map_raw", MemoryKind::Mapping)?;
    let names = site.frames.iter().map(|frame| frame.function.as_deref());
    let names: Vec<_> = names.flatten().collect();
    let end = ["map_raw", "raw", "[system call]"];
    assert_eq!(names[names.len() - 3..], end, "{names:?}");
    assert!(names.contains(&"main"), "{names:?}");
    Ok(())
}

#[test]
fn what_is_mapped_by_the_function_syscall_is_counted() -> Result<()> {
    let report = agrees("map_by_syscall")?;
    let site = site_of(report, "map_by_syscall", MemoryKind::Mapping)?;
    let last = site.frames.last().and_then(|it| it.function.as_deref());
    assert_eq!(last, Some("syscall"));
    Ok(())
}

#[test]
fn what_is_remapped_without_libc_is_counted() -> Result<()> {
    agrees("remap_raw").map(drop)
}

#[test]
fn what_brk_grows_and_shrinks_is_counted() -> Result<()> {
    agrees("grow_by_brk").map(drop)
}

#[test]
fn reserved_addresses_count_from_when_they_can_be_used() -> Result<()> {
    agrees("protect_reserved")?;
    agrees("protect_by_key").map(drop)
}

#[test]
fn shared_memory_without_a_name_is_a_file_with_one() -> Result<()> {
    let report = agrees("map_memfd")?;
    let site = site_of(report, "map_memfd", MemoryKind::FileMapping)?;
    let [file] = &site.files[..] else {
        panic!("{:?}", site.files);
    };
    assert_eq!(file.name, "/memfd:prime (deleted)");
    assert_eq!((file.mappings, file.bytes), (3, 3 * 31 * PAGE));
    Ok(())
}

#[test]
fn segments_are_as_long_as_the_kernel_says() -> Result<()> {
    let report = agrees("attach_segments")?;
    let found = report.sums("attach_segments", MemoryKind::FileMapping);
    assert_eq!(found, Sums::live(23 * PAGE, 2), "{}", report.table());
    Ok(())
}

#[test]
fn private_mappings_of_files_have_the_files_name() -> Result<()> {
    let report = agrees("map_private_file")?;
    let site = site_of(report, "map_private_file", MemoryKind::FileMapping)?;
    let file = site.files.first().context("no file")?;
    assert!(file.name.ends_with("/kinds"), "{file:?}");
    Ok(())
}

/// Bytes in memory of a process's mappings that are as long as that, as the kernel
/// adds them up.
fn resident(pid: u32, length: u64) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let (mut sum, mut size) = (0, 0);
    for line in text.lines() {
        match () {
            () if line.starts_with("Size:") => size = kilobytes(line).unwrap_or(0) * 1024,
            () if line.starts_with("Rss:") && size >= length => {
                sum += kilobytes(line).unwrap_or(0) * 1024;
            }
            () => {}
        }
    }
    Ok(sum)
}

#[test]
fn a_mapping_is_as_large_as_what_of_it_is_in_memory() -> Result<()> {
    let mut target = Target::start("kinds")?;
    let tracer = Tracer::record(target.pid, &["--fail-above", "1MiB"])?;
    let truth = target.command("touch_little")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    report.sites_agree_with(&truth)?;
    let site = site_of(&report, "touch_little", MemoryKind::Mapping)?;
    assert_eq!(site.live_bytes, 3 * (4 << 30));
    assert_eq!(site.resident_bytes, Some(3 * 2 * PAGE));
    assert_eq!(site.resident_bytes, Some(resident(target.pid, 4 << 30)?));
    assert!(
        finished.stdout.contains("24,576 bytes in memory"),
        "{}",
        finished.stdout
    );
    Ok(())
}

#[test]
fn the_most_that_was_in_memory_is_told() -> Result<()> {
    let mut target = Target::start("kinds")?;
    let tracer = Tracer::record(target.pid, &["--interval", "100ms"])?;
    target.command("touch_and_give_back")?;
    let peak = |report: &View| {
        let site = report.sites_with("touch_and_give_back").next();
        site.and_then(|site| site.resident_peak)
    };
    unfreed_tests::wait_until("a report with what was touched", || {
        let report = tracer.report_so_far()?;
        let is_there = report.is_some_and(|report| peak(&report) == Some(13 * PAGE));
        Ok(is_there.then_some(()))
    })?;
    target.command("touch_and_give_back")?;
    let report = tracer.stop()?.report()?;
    let site = site_of(&report, "touch_and_give_back", MemoryKind::Mapping)?;
    assert_eq!(site.resident_bytes, Some(2 * PAGE));
    assert_eq!(site.resident_peak, Some(13 * PAGE));
    Ok(())
}

#[test]
fn stacks_are_of_who_started_the_thread_that_was_never_joined() -> Result<()> {
    let run = || {
        let mut target = Target::start("kinds")?;
        let tracer = Tracer::record(target.pid, &[])?;
        target.command("unjoined")?;
        target.command("keep_running")?;
        tracer.stop()?.report()
    };
    unless_missed(run, stacks_are_of_their_starters)
}

fn stacks_are_of_their_starters(report: &View) -> Result<()> {
    let owners = |function| -> Result<(u64, StackOwners)> {
        let site = site_of(report, function, MemoryKind::ThreadStack)?;
        let resident = site.resident_bytes;
        ensure!(
            resident.is_some_and(|it| it < site.live_bytes / 2),
            "{resident:?}"
        );
        Ok((site.live_count, site.stacks))
    };
    let stacks = |running, ended, joined| StackOwners {
        running,
        ended,
        joined,
    };
    // The last joined one's went to a thread that runs.
    for (function, expected) in [
        ("never_join", (13, stacks(0, 13, 0))),
        ("keep_running", (3, stacks(3, 0, 0))),
    ] {
        let found = owners(function)?;
        ensure!(found == expected, "{function}: {found:?}, not {expected:?}");
    }
    let joined = site_of(report, "start_and_join", MemoryKind::ThreadStack)?;
    ensure!((joined.allocated_count, joined.live_count) == (13, 0));
    let mappings = report.sums("pthread_create", MemoryKind::Mapping);
    ensure!(mappings == Sums::default(), "{}", report.table());
    Ok(())
}
