//! Allocators' own books and remedies, under each allocator, without a leak.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use unfreed_tests::allocators::{JEMALLOC, MIMALLOC, TCMALLOC};
use unfreed_tests::model::balance::KeptSource;
use unfreed_tests::{Target, Tracer, deadline, target_path};

const MIB: u64 = 1 << 20;

/// What the kernel finds in memory when it looks at each page, bytes.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no Rss")?.parse::<u64>()? << 10)
}

/// What a report names as the remedy has an effect: without it nearly all of the peak
/// stays, with it most of that is given back.
#[test]
fn remedies_that_reports_name_have_an_effect() -> Result<()> {
    for (library, name, value) in [
        (
            JEMALLOC,
            "MALLOC_CONF",
            "background_thread:true,dirty_decay_ms:1000",
        ),
        (TCMALLOC, "TCMALLOC_AGGRESSIVE_DECOMMIT", "1"),
        (MIMALLOC, "MIMALLOC_RESET_DELAY", "0"),
    ] {
        let start = |remedy: Option<&str>| {
            let mut command = Command::new(target_path("balance")?);
            command.env("LD_PRELOAD", library);
            command.envs(remedy.map(|value| (name, value)));
            let mut target = Target::start_with(&mut command)?;
            let before = resident(target.pid)?;
            target.command("peak_alone")?;
            Ok::<_, anyhow::Error>((target, before))
        };
        let (kept, before) = start(None)?;
        let grown = resident(kept.pid)?.saturating_sub(before);
        ensure!(grown > 40 * MIB, "{library} keeps {grown} without it");
        let (given_back, before) = start(Some(value))?;
        let began = Instant::now();
        loop {
            let grown = resident(given_back.pid)?.saturating_sub(before);
            if grown < 20 * MIB {
                break;
            }
            let waited = began.elapsed();
            ensure!(waited < deadline(), "{library} keeps {grown} with {name}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Nothing but what is in its memory tells that a program has jemalloc in itself. Of
/// mimalloc there are no books, and none are made up.
#[test]
fn books_need_no_symbols_and_no_library() -> Result<()> {
    for (program, library, expected) in [
        ("static_jemalloc", None, Some("jemalloc")),
        ("rust_jemalloc", None, Some("jemalloc")),
        ("balance", Some(MIMALLOC), None),
        ("balance", None, None),
    ] {
        let mut command = Command::new(target_path(program)?);
        command.envs(library.map(|library| ("LD_PRELOAD", library)));
        let target = Target::start_with(&mut command)?;
        let report = Tracer::record(target.pid, &[])?
            .stop()?
            .report_of_any_end()?;
        let balance = report.balance.first().context("no balance")?;
        let names: Vec<_> = (balance.books.iter())
            .map(|books| books.allocator.as_str())
            .collect();
        ensure!(names == Vec::from_iter(expected), "{program}: {balance:?}");
        let is_read = balance.kept_source == Some(KeptSource::Books);
        ensure!(is_read == expected.is_some(), "{program}: {balance:?}");
    }
    Ok(())
}
