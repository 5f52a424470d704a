//! Processes that take samples of their allocations themselves: what they tell of by USDT
//! probes is what counts, and their allocators are left alone.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::sampling::rounded;
use unfreed_tests::model::{Errors, MemoryKind, Sampler};
use unfreed_tests::{
    Sums, Target, Tracer, View, kernel_version, send_signal, target_path, unfreed, wait_until,
};

/// What samples stand for: how many were taken and how many of these are live, of what
/// size, and for how many bytes each stands.
#[derive(Clone, Copy)]
struct Samples {
    taken: u64,
    live: u64,
    size: u64,
    weighted: u64,
}

/// Blocks and bytes of some samples, and the variances of both.
#[derive(Default)]
struct Stands {
    count: f64,
    bytes: f64,
    count_variance: f64,
    bytes_variance: f64,
}

impl Stands {
    fn of(all: &[Samples], how_many: fn(&Samples) -> u64) -> Self {
        let mut sum = Self::default();
        for samples in all {
            let (number, size, weighted) = (
                how_many(samples) as f64,
                samples.size as f64,
                samples.weighted as f64,
            );
            let weight = weighted / size;
            sum.count += number * weight;
            sum.bytes += number * weighted;
            sum.count_variance += number * weight * (weight - 1.0);
            sum.bytes_variance += number * weighted * (weighted - size);
        }
        sum
    }
}

/// Whether two numbers are the same but for what fixed point leaves out of each.
fn is_about(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1.0 + expected.abs() * 1e-5
}

fn check(report: &View, function: &str, samples: &[Samples]) -> Result<()> {
    let found = report.heap(function);
    let mut errors = Errors::default();
    for site in report.sites_with(function) {
        errors.add(site.errors.as_ref().context("a site without its errors")?);
    }
    let allocated = Stands::of(samples, |it| it.taken);
    let freed = Stands::of(samples, |it| it.taken - it.live);
    let live = Stands::of(samples, |it| it.live);
    // Bytes are exact; so are counts but for a part in 2^16 of each sample's.
    ensure!(
        (found.allocated_bytes, found.freed_bytes, found.live_bytes)
            == (
                rounded(allocated.bytes),
                rounded(freed.bytes),
                rounded(live.bytes)
            ),
        "{function}: {found:?}"
    );
    for (number, expected) in [
        (found.allocated_count as f64, allocated.count),
        (found.freed_count as f64, freed.count),
        (found.live_count as f64, live.count),
        (errors.allocated_bytes, allocated.bytes_variance.sqrt()),
        (errors.freed_bytes, freed.bytes_variance.sqrt()),
        (errors.live_bytes, live.bytes_variance.sqrt()),
        (errors.allocated_count, allocated.count_variance.sqrt()),
        (errors.freed_count, freed.count_variance.sqrt()),
        (errors.live_count, live.count_variance.sqrt()),
    ] {
        ensure!(
            is_about(number, expected),
            "{function}: {number} instead of {expected}"
        );
    }
    let taken = |how_many: fn(&Samples) -> u64| samples.iter().map(how_many).sum::<u64>();
    assert_eq!(errors.samples, taken(|it| it.taken));
    assert_eq!(errors.live_samples, taken(|it| it.live));
    Ok(())
}

const STEADY: Samples = Samples {
    taken: 400,
    live: 300,
    size: 101,
    weighted: 524_338,
};

fn one(size: u64, weighted: u64) -> Samples {
    Samples {
        taken: 1,
        live: 1,
        size,
        weighted,
    }
}

fn sampler(report: &View) -> Result<&Sampler> {
    let mut samplers = report.processes.iter().filter_map(|it| it.sampler.as_ref());
    samplers.next().context("no process has a sampler")
}

fn record(commands: &[&str], options: &[&str]) -> Result<View> {
    let mut target = Target::start("samples")?;
    let tracer = Tracer::record(target.pid, options)?;
    for command in commands {
        target.command(command)?;
    }
    tracer.stop()?.report()
}

#[test]
fn samples_of_a_process_are_its_estimates() -> Result<()> {
    let report = record(&["steady", "large", "unseen", "mapped"], &[])?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    check(&report, "steady", &[STEADY])?;
    let large = [
        one(64 << 20, 64 << 20),
        one(600_000, 880_061),
        one(4 << 20, 7 * 524_288),
        one(4 << 20, 9 * 524_288),
    ];
    check(&report, "large", &large)?;
    // What the allocators do is nobody's business, nor what they map.
    for function in ["unseen", "mapped"] {
        ensure!(report.sites_with(function).next().is_none(), "{function}");
    }
    let sampler = sampler(&report)?;
    assert_eq!(
        (&*sampler.provider, sampler.samples, sampler.frees),
        ("otel_memory", 404, 100)
    );
    ensure!(sampler.interval.abs_diff(524_288) < 64, "{sampler:?}");
    ensure!(sampler.module.ends_with("/samples"), "{sampler:?}");
    ensure!(report.processes[0].probes.is_empty());
    assert_eq!(report.totals.untraced_frees, 0);
    Ok(())
}

#[test]
fn a_sampler_can_be_left_alone() -> Result<()> {
    let report = record(&["steady", "unseen"], &["--no-samplers"])?;
    assert_eq!(
        report.heap("unseen"),
        Sums::live(1009, 50) + Sums::blocks(300_000, 1, 1)
    );
    ensure!(report.sites_with("steady").next().is_none());
    Ok(())
}

/// Bursts are of allocators' probes, and that is said.
#[test]
fn a_budget_leaves_a_sampler_alone_and_says_so() -> Result<()> {
    let mut target = Target::start("samples")?;
    let tracer = Tracer::record(target.pid, &["--overhead", "500ms/s"])?;
    target.command("unseen")?;
    let finished = tracer.stop()?;
    ensure!(
        finished
            .stderr
            .contains("with --overhead they are not used"),
        "{}",
        finished.stderr
    );
    let report = finished.report()?;
    ensure!(
        report.processes[0].sampler.is_none(),
        "{:?}",
        report.processes
    );
    Ok(())
}

#[test]
fn what_cannot_be_is_lost() -> Result<()> {
    let report = record(&["lies", "steady"], &[])?;
    let lost: Vec<_> = report
        .occurred()
        .iter()
        .map(|loss| (loss.cause.clone(), loss.count))
        .collect();
    assert_eq!(lost, [("sample_unusable".to_owned(), 3)]);
    check(&report, "steady", &[STEADY])?;
    ensure!(report.sites_with("lies").next().is_none());
    Ok(())
}

/// What a sampler cannot follow is lost with all that it stands for.
#[test]
fn a_sample_without_room_is_allocated_and_not_live() -> Result<()> {
    let report = record(&["no_room"], &[])?;
    let found = report.heap("no_room");
    assert_eq!((found.allocated_bytes, found.live_bytes), (524_338, 0));
    let lost = report.occurred();
    let full = lost.iter().find(|loss| loss.cause == "live_full");
    assert_eq!(full.map(|loss| loss.count), Some(5_191), "{lost:?}");
    Ok(())
}

/// The program is told that it is watched, and that it is no longer, also if the tracer
/// is killed.
#[test]
fn a_semaphore_is_the_kernels_to_count() -> Result<()> {
    let wanted = |target: &mut Target| -> Result<String> {
        Ok(target.command_saying("wanted", "wanted ")?.0)
    };
    let roads: &[&str] = match kernel_version()? >= (6, 6) {
        true => &["multi", "perf"],
        false => &["perf"],
    };
    for road in roads {
        let mut target = Target::start("samples")?;
        assert_eq!(wanted(&mut target)?, "0 0", "{road}");
        let tracer = Tracer::record_with(target.pid, &[], |command| {
            command.env("UNFREED_ATTACH", road);
        })?;
        assert_eq!(wanted(&mut target)?, "1 1", "{road}");
        target.command("steady")?;
        send_signal(tracer.pid(), libc::SIGKILL)?;
        wait_until("nobody is told", || {
            Ok((wanted(&mut target)? == "0 0").then_some(()))
        })?;
        drop(tracer);
        let tracer = Tracer::record_with(target.pid, &[], |command| {
            command.env("UNFREED_ATTACH", road);
        })?;
        target.command("steady")?;
        let report = tracer.stop()?.report()?;
        check(&report, "steady", &[STEADY])?;
        assert_eq!(wanted(&mut target)?, "0 0", "{road}");
    }
    Ok(())
}

/// A child has copies of its parent's samples.
#[test]
fn a_child_frees_what_it_inherited() -> Result<()> {
    let report = record(&["steady", "child"], &["--follow"])?;
    check(&report, "steady", &[STEADY])?;
    let own = Samples {
        taken: 2,
        live: 1,
        size: 101,
        weighted: 524_338,
    };
    check(&report, "child", &[own])?;
    assert_eq!(report.totals.inherited_frees, 2);
    assert_eq!(report.totals.untraced_frees, 0);
    Ok(())
}

/// A child that is not traced is told so.
#[test]
fn a_child_that_is_not_traced_is_no_harm() -> Result<()> {
    let report = record(&["steady", "child", "child"], &[])?;
    check(&report, "steady", &[STEADY])?;
    ensure!(report.sites_with("child").next().is_none());
    Ok(())
}

/// A sampler that is loaded later takes over, and what is no longer followed is said.
#[test]
fn a_sampler_that_comes_later_takes_over() -> Result<()> {
    let mut command = Command::new(target_path("samples_later")?);
    let folder = target_path("libsamples_library.so")?;
    let folder = folder.parent().context("no folder")?;
    command.env("LD_LIBRARY_PATH", folder);
    let mut target = Target::start_with(&mut command)?;
    let mut tracer = Tracer::record(target.pid, &[])?;
    target.command("before")?;
    target.command("load")?;
    tracer.wait_saying("takes samples of its allocations itself")?;
    target.command("sampled")?;
    let report = tracer.stop()?.report()?;
    let samples = Samples {
        taken: 30,
        live: 29,
        size: 211,
        weighted: 524_393,
    };
    check(&report, "library_samples", &[samples])?;
    assert_eq!(sampler(&report)?.provider, "ddheap");
    let before = report.heap("before");
    assert_eq!(
        (before.allocated_count, before.allocated_bytes),
        (20, 20 * 1013)
    );
    assert_eq!((before.freed_count, before.live_count), (0, 0));
    ensure!(report.sites_with("before").all(|site| site.lower_bound));
    let lost = report.occurred();
    let gone = lost.iter().find(|loss| loss.cause == "sampler_took_over");
    ensure!(gone.is_some_and(|loss| loss.count >= 20), "{lost:?}");
    // The sampler's own frames end at its door.
    let site = report
        .sites_with("library_samples")
        .next()
        .context("no site")?;
    let leaf = site.frames.last().context("no frames")?;
    assert_eq!(leaf.function.as_deref(), Some("library_samples"));
    for function in ["malloc", "free"] {
        let late = report
            .sites_with("sampled")
            .filter(|it| it.kind == MemoryKind::Heap);
        let of_allocator = late.filter(|site| {
            site.frames
                .last()
                .is_some_and(|leaf| leaf.function.as_deref() == Some(function))
        });
        ensure!(of_allocator.count() == 0, "{function} was probed");
    }
    Ok(())
}

#[test]
fn reports_and_doctor_say_whose_samples_they_are() -> Result<()> {
    let mut target = Target::start("samples")?;
    let pid = target.pid.to_string();
    let said = unfreed(&["doctor", "-p", &pid])?.stdout;
    ensure!(said.contains("otel_memory"), "{said}");
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("steady")?;
    let finished = tracer.stop()?;
    for part in ["otel_memory of", "/samples", "300 live", "512 KiB", "±"] {
        ensure!(
            finished.stdout.contains(part),
            "no {part:?} in {}",
            finished.stdout
        );
    }
    ensure!(
        finished.stderr.contains("otel_memory of"),
        "{}",
        finished.stderr
    );
    Ok(())
}
