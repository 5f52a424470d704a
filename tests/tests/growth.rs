//! Growth without probes (`--growth`): each new page is of who touched it first, for as
//! long as it is in memory, and all of them add up to what the kernel accounts. The
//! target's source (`targets/c/touched.c`) says what each command does.

use std::fs;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::balance::PartName;
use unfreed_tests::model::pages::PageKind;
use unfreed_tests::model::{Balance, FindingKind, MemoryKind, Site};
use unfreed_tests::{
    KernelMap, Outputs, Target, Tracer, View, folded, gunzip, kernel_version, patched_bytes,
    wait_until,
};

const PAGE: i64 = 4096;

/// What the tracer cannot know of a process's account: the kernel may sum it up from
/// parts of each CPU, of 32 pages or fewer for each of two kinds.
const ROUGH: u64 = 2 * 64 * 4096;

fn site<'a>(report: &'a View, function: &'a str) -> Result<&'a Site> {
    report
        .sites_with(function)
        .next()
        .with_context(|| report.table())
}

fn kinds(site: &Site) -> Vec<(PageKind, u64)> {
    let pages = site.pages.iter().flat_map(|pages| &pages.kinds);
    pages.map(|pages| (pages.kind, pages.bytes)).collect()
}

fn adds_up(balance: &Balance) -> Result<()> {
    ensure!(balance.adds_up(), "{balance:?}");
    ensure!(balance.unexplained.unsigned_abs() <= ROUGH, "{balance:?}");
    Ok(())
}

#[test]
fn each_page_is_of_who_touched_it() -> Result<()> {
    let mut target = Target::start("touched")?;
    let tracer = Tracer::record(target.pid, &["--growth"])?;
    let mut truths = Vec::new();
    // Page maps of older kernels do not tell the page of zeros from others.
    if kernel_version()? >= (6, 7) {
        truths.push(("looked_at", target.command("looked_at")?));
    }
    for name in [
        "by_writing",
        "by_the_kernel",
        "given_back",
        "touched_again",
        "huge",
        "shared",
        "populated",
    ] {
        truths.push((name, target.command(name)?));
    }
    let report = tracer.stop()?.report()?;
    for (name, truth) in &truths {
        report.sites_agree_with(truth).context(*name)?;
    }
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    ensure!(
        report.stacks.whole == report.stacks.allocations,
        "{:?}",
        report.stacks
    );
    let shared = kinds(site(&report, "shares")?);
    ensure!(
        shared == [(PageKind::SharedMemory, 149 << 12)],
        "{shared:?}"
    );
    let anonymous = kinds(site(&report, "writes")?);
    ensure!(
        anonymous == [(PageKind::Anonymous, 101 << 12)],
        "{anonymous:?}"
    );
    let balance = report.balance.first().context("no balance")?;
    adds_up(balance)?;
    let untold = balance.part(PartName::Untold);
    ensure!(untold == 137 * PAGE, "{balance:?}");
    let touched = balance.part(PartName::FirstTouched) + balance.part(PartName::BroughtAlong);
    ensure!(
        i64::try_from(report.totals.live_bytes)? == touched,
        "{balance:?}"
    );
    Ok(())
}

#[test]
fn what_is_moved_is_still_of_who_touched_it() -> Result<()> {
    let mut target = Target::start("touched")?;
    let tracer = Tracer::record(target.pid, &["--growth"])?;
    let truth = target.command("moved")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    adds_up(report.balance.first().context("no balance")?)
}

#[test]
fn what_was_there_before_is_no_growth() -> Result<()> {
    let mut target = Target::start("touched")?;
    target.command("by_writing")?;
    let tracer = Tracer::record(target.pid, &["--growth"])?;
    // That reads all code, which brings it into memory.
    ensure!(patched_bytes(target.pid)? == 0, "there are probes");
    let report = tracer.stop()?.report()?;
    ensure!(
        report.sites_with("writes").next().is_none(),
        "{}",
        report.table()
    );
    ensure!(
        report.totals.live_bytes < 20 * PAGE.unsigned_abs(),
        "{}",
        report.table()
    );
    Ok(())
}

#[test]
fn a_child_grows_by_what_it_touches() -> Result<()> {
    let mut target = Target::start("touched")?;
    let tracer = Tracer::record(target.pid, &["--growth", "--follow"])?;
    let truth = target.command("have_child")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    let child = report.balance.iter().find(|it| it.pid != target.pid);
    let child = child.with_context(|| format!("{:?}", report.balance))?;
    let inherited = child.part(PartName::Inherited);
    ensure!(inherited >= 157 * PAGE, "{child:?}");
    report.balance.iter().try_for_each(adds_up)
}

/// Small maps: what was given back makes room for what comes.
#[test]
fn pages_that_were_given_back_make_room() -> Result<()> {
    let mut target = Target::start("touched")?;
    const ROOM: usize = 2048;
    let room = ROOM.to_string();
    let tracer = Tracer::record(target.pid, &["--growth", "--max-live", &room])?;
    let mut touched = 0;
    for _ in 0..8 {
        for _ in 0..10 {
            target.command("given_back")?;
            touched += 109;
        }
        let live = KernelMap::of(tracer.pid(), "LIVE")?;
        wait_until("room for pages", || {
            let count = live.keys()?.len();
            Ok((count <= ROOM / 2).then_some(()))
        })?;
    }
    let report = tracer.stop()?.report()?;
    let site = site(&report, "gives_back")?;
    ensure!(
        (site.allocated_count, site.live_count) == (touched, touched / 109 * 9),
        "{site:?}"
    );
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

/// In all formats.
#[test]
fn all_formats_tell_of_pages() -> Result<()> {
    let folder = Outputs::new()?;
    let outputs = ["growth.svg", "growth.folded", "growth.pb.gz", "growth.txt"];
    let outputs = outputs.map(|name| folder.text(name));
    let mut options = vec!["--growth"];
    for output in &outputs {
        options.extend(["-o", output]);
    }
    let mut target = Target::start("touched")?;
    let tracer = Tracer::record(target.pid, &options)?;
    target.command("by_writing")?;
    let report = tracer.stop()?.report()?;
    let pages = |site: &Site| site.kind == MemoryKind::Page;
    ensure!(report.sites.iter().all(pages), "{}", report.table());
    ensure!(report.settings.growth, "{:?}", report.settings);
    let read = |name: &str| fs::read_to_string(folder.path(name));
    ensure!(read("growth.svg")?.contains("Growth of "), "no title");
    let text = read("growth.txt")?;
    ensure!(
        text.contains("where memory was first touched, not who keeps it"),
        "{text}"
    );
    let bytes = folded(&folder.path("growth.folded"))?;
    let of_path = bytes.iter().find(|(path, _)| path.contains(";writes"));
    ensure!(
        of_path.is_some_and(|(_, bytes)| *bytes == 101 << 12),
        "{bytes:?}"
    );
    let profile = gunzip(&folder.path("growth.pb.gz"))?;
    ensure!(!profile.is_empty(), "an empty profile");
    Ok(())
}

/// The path that touches ever more is what is found, and that it stays is not said of it.
#[test]
fn what_grows_is_a_finding() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tracer = Tracer::record(target.pid, &["--growth", "--duration", "16s"])?;
    target.tell("grow 500")?;
    let report = tracer.wait()?.report()?;
    let found = report.findings.first().with_context(|| report.table())?;
    ensure!(found.kind == FindingKind::Growing, "{found:?}");
    ensure!(found.title.starts_with("grows touches memory"), "{found:?}");
    ensure!(found.title.contains("MiB/s"), "{found:?}");
    let bytes = site(&report, "grows")?.live_bytes;
    ensure!(found.live_bytes == bytes, "{found:?}");
    Ok(())
}

/// Go takes its memory from the kernel by itself, and nothing else tells who asks for it.
#[test]
fn a_program_without_an_allocator_to_probe_is_followed_by_its_page_faults() -> Result<()> {
    let target = Target::start("own_heap")?;
    let tracer = Tracer::record(target.pid, &["--duration", "16s"])?;
    let report = tracer.wait()?.report()?;
    ensure!(report.settings.growth, "{:?}", report.settings);
    ensure!(report.settings.growth_instead, "{:?}", report.settings);
    let found = report.findings.first().with_context(|| report.table())?;
    ensure!(found.kind == FindingKind::Growing, "{found:?}");
    ensure!(found.title.starts_with("main."), "{found:?}");
    site(&report, "main.remember")?;
    Ok(())
}
