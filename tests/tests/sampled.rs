//! `--sample`: the estimates, against a target that does the same in many call paths.
//!
//! The kernel draws the random numbers, so each check has a probability to fail by
//! chance. They are below one in a million: five standard deviations of what is nearly
//! normal, or more.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tracer_ebpf::sample::{ONE, Sampling};
use unfreed_tests::model::{Errors, MemoryKind, Site};
use unfreed_tests::{Sums, Target, Tracer, View, target_path};

/// The interval that the target's mixture is made for, bytes.
const INTERVAL: u64 = 16 << 10;

/// What each trial of the target allocates and frees: the size, how many blocks of it,
/// and how many of these it frees. See `mix` in `targets/c/sampled.c`.
const MIXTURE: [(u64, u64, u64); 7] = [
    (16, 4096, 0),
    (128, 512, 256),
    (1024, 64, 0),
    (8191, 8, 0),
    (64 << 10, 1, 0),
    (512 << 10, 1, 0),
    (16 << 20, 1, 1),
];

/// The sizes of one of the 32 chains of `realloc`, of which the last one stays.
const CHAINS: u64 = 32;
const CHAIN: [u64; 9] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// Blocks that `release` frees, of each trial.
const LATER: (u64, u64) = (8191, 8);

/// One number of a trial, the variance of its estimate, and the variance of what a report
/// says this variance is.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    truth: f64,
    variance: f64,
    of_variance: f64,
}

impl Moments {
    /// Adds blocks that count for `each`.
    fn add(&mut self, size: u64, blocks: u64, each: f64) {
        let p = Sampling::every(INTERVAL).probability(size) as f64 / ONE as f64;
        self.truth += blocks as f64 * each;
        self.variance += blocks as f64 * (1.0 - p) / p * each * each;
        // Each block in the sample adds `(1 - p) / p²` to the stated variance.
        self.of_variance += blocks as f64 * ((1.0 - p) / p).powi(3) * each.powi(4);
    }

    /// How far the mean variance that so many trials state may be from this, as a share.
    ///
    /// Rare blocks make it, so it is as skewed as the sum of a Poisson variable: of 200 trials
    /// some 6 samples of 16 bytes are freed, more than 22 with a chance of 10⁻⁷.
    fn margin(&self, trials: usize) -> f64 {
        6.5 * (self.of_variance / trials as f64).sqrt() / self.variance
    }
}

/// Live, allocated and freed bytes, then blocks.
fn expected(released: bool) -> [Moments; 6] {
    let mut all = [Moments::default(); 6];
    let mut add = |size: u64, allocated: u64, freed: u64| {
        for (index, blocks) in [allocated - freed, allocated, freed]
            .into_iter()
            .enumerate()
        {
            all[index].add(size, blocks, size as f64);
            all[index + 3].add(size, blocks, 1.0);
        }
    };
    for (size, allocated, freed) in MIXTURE {
        let later = if released && size == LATER.0 {
            LATER.1
        } else {
            0
        };
        add(size, allocated, freed + later);
    }
    for size in CHAIN {
        let stays = size == CHAIN[CHAIN.len() - 1];
        add(size, CHAINS, if stays { 0 } else { CHAINS });
    }
    all
}

/// What the report says of a trial: the numbers, their standard errors, and where the
/// live bytes are with 95 %.
struct Trial {
    numbers: [f64; 6],
    errors: Errors,
    live: (f64, f64),
}

fn trial(report: &View, number: usize) -> Result<Trial> {
    let function = format!("trial_{}", 100 + number);
    let sums = report.heap(&function);
    let mut errors = Errors::default();
    let heap = |site: &&Site| site.kind == MemoryKind::Heap;
    for site in report.sites_with(&function).filter(heap) {
        errors.add(site.errors.as_ref().context("a site without its errors")?);
    }
    let numbers = [
        sums.live_bytes,
        sums.allocated_bytes,
        sums.freed_bytes,
        sums.live_count,
        sums.allocated_count,
        sums.freed_count,
    ]
    .map(|number| number as f64);
    let live = unfreed_tests::model::sampling::range(numbers[0], errors.live_bytes);
    Ok(Trial {
        numbers,
        errors,
        // Without a sample there is no range, which has no truth either.
        live: live.unwrap_or_default(),
    })
}

fn trials(report: &View, count: usize) -> Result<Vec<Trial>> {
    (0..count).map(|number| trial(report, number)).collect()
}

fn record(commands: &[&str], options: &[&str]) -> Result<View> {
    let target = Target::start("sampled")?;
    record_in(target, commands, options)
}

fn record_in(mut target: Target, commands: &[&str], options: &[&str]) -> Result<View> {
    let tracer = Tracer::record(target.pid, options)?;
    for command in commands {
        target.command(command)?;
    }
    let report = tracer.stop()?.report()?;
    let sampling = report
        .sampling
        .context("the report says nothing of a sample")?;
    ensure!(sampling.errors.samples > 0, "{sampling:?}");
    ensure!(report.totals.untraced_frees == 0, "{:?}", report.totals);
    for site in &report.sites {
        let is_heap = site.kind == MemoryKind::Heap;
        ensure!(site.errors.is_some() == is_heap, "{site:?}");
    }
    // What an allocator maps is its own, in calls too that were not chosen.
    let mapped = report
        .sites_with("mix")
        .find(|site| site.kind != MemoryKind::Heap);
    ensure!(mapped.is_none(), "{mapped:?}");
    Ok(report)
}

/// Checks sums over all trials: their mean is the truth, and the variance that the
/// report states is the true one.
fn check_means(trials: &[Trial], expected: &[Moments; 6]) -> Result<()> {
    let count = trials.len() as f64;
    for (index, moments) in expected.iter().enumerate() {
        let mean = trials.iter().map(|it| it.numbers[index]).sum::<f64>() / count;
        let z = (mean - moments.truth) / (moments.variance / count).sqrt();
        ensure!(
            z.abs() < 5.2,
            "number {index}: {mean}, {moments:?}, {z} errors"
        );
    }
    Ok(())
}

#[test]
fn estimates_are_without_bias_and_as_sure_as_they_say() -> Result<()> {
    let report = record(&["mix_all", "release"], &["--sample", "16k"])?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    let expected = expected(true);
    let trials = trials(&report, 200)?;
    check_means(&trials, &expected)?;
    // The errors are right.
    for (index, error) in [
        (0, (|it| it.live_bytes) as fn(&Errors) -> f64),
        (1, |it| it.allocated_bytes),
        (2, |it| it.freed_bytes),
        (3, |it| it.live_count),
        (4, |it| it.allocated_count),
        (5, |it| it.freed_count),
    ] {
        let sum: f64 = trials.iter().map(|it| error(&it.errors).powi(2)).sum();
        let ratio = sum / trials.len() as f64 / expected[index].variance;
        let margin = expected[index].margin(trials.len());
        ensure!(
            (ratio - 1.0).abs() < margin,
            "number {index}: {ratio}, margin {margin}"
        );
    }
    // Of 200 intervals of 95 % some 190 have the truth, 174 at least.
    let truth = expected[0].truth;
    let hits = trials
        .iter()
        .filter(|it| (it.live.0..=it.live.1).contains(&truth));
    let hits = hits.count();
    ensure!(hits >= 174, "{hits} of 200");
    // And what lies between trials is chance, not more nor less of it.
    let squares = |trial: &Trial| (trial.numbers[0] - truth).powi(2) / expected[0].variance;
    let spread = trials.iter().map(squares).sum::<f64>() / trials.len() as f64;
    ensure!((0.5..1.6).contains(&spread), "{spread}");
    Ok(())
}

/// A choice in the wrapper and another in libc would be twice the chance.
#[test]
fn a_wrapped_malloc_has_one_choice() -> Result<()> {
    let mut command = Command::new(target_path("sampled")?);
    command.env("LD_PRELOAD", target_path("libsampled_wrapper.so")?);
    let target = Target::start_with(&mut command)?;
    let report = record_in(target, &["mix_few"], &["--sample", "16k"])?;
    check_means(&trials(&report, 20)?, &expected(false))
}

/// What a child held when it ended is estimated too, and is a part of the same paths.
#[test]
fn children_are_in_the_estimates_of_their_group() -> Result<()> {
    let options = ["--sample", "16k", "--follow"];
    let report = record(&["mix_in_child", "mix_few"], &options)?;
    let twice = |it: Moments| Moments {
        truth: 2.0 * it.truth,
        variance: 2.0 * it.variance,
        of_variance: 2.0 * it.of_variance,
    };
    let expected = expected(false).map(twice);
    check_means(&trials(&report, 20)?, &expected)?;
    // The child's half: chance is as large as for 20 trials of its own.
    let left: u64 = (0..20)
        .flat_map(|number| {
            let function = format!("trial_{}", 100 + number);
            report
                .sites_with(&function)
                .map(|site| site.left_bytes)
                .collect::<Vec<_>>()
        })
        .sum();
    let half = Moments {
        truth: 10.0 * expected[0].truth,
        variance: 10.0 * expected[0].variance,
        of_variance: 10.0 * expected[0].of_variance,
    };
    let z = (left as f64 - half.truth) / half.variance.sqrt();
    ensure!(z.abs() < 5.2, "{left} of {half:?}, {z} errors");
    Ok(())
}

#[test]
fn blocks_of_many_intervals_are_exact() -> Result<()> {
    let report = record(&["large"], &["--sample", "1k"])?;
    let exact = Sums::blocks(40009, 7, 3) + Sums::blocks(30011, 1, 1) + Sums::live(50021, 1);
    assert_eq!(report.heap("large"), exact);
    for site in report.sites_with("large") {
        let errors = site.errors.context("a site without its errors")?;
        ensure!(
            errors.live_bytes == 0.0 && errors.allocated_count == 0.0,
            "{errors:?}"
        );
    }
    Ok(())
}

/// What there is no room for is lost with all that it stands for, and nothing else
/// becomes more.
#[test]
fn dropped_samples_take_their_weight_with_them() -> Result<()> {
    let report = record(&["mix_few"], &["--sample", "16k", "--max-live", "64"])?;
    let trials = trials(&report, 20)?;
    let expected = expected(false);
    // What is allocated is known all the same.
    for index in [1, 4] {
        let moments = expected[index];
        let sum: f64 = trials.iter().map(|it| it.numbers[index]).sum();
        let error = (moments.variance * 20.0).sqrt();
        let off = (sum - moments.truth * 20.0).abs();
        ensure!(off < 5.2 * error, "number {index}: {sum}, {moments:?}");
    }
    let live: f64 = trials.iter().map(|it| it.numbers[3]).sum();
    let occurred = report.occurred();
    let lost = occurred.iter().filter(|loss| loss.cause == "live_full");
    let lost: u64 = lost.map(|loss| loss.count).sum();
    ensure!(lost > 0, "{:?}", report.losses);
    // Lost blocks are never seen to be freed, so they are live, or were.
    let allocated: f64 = trials.iter().map(|it| it.numbers[4]).sum();
    let freed: f64 = trials.iter().map(|it| it.numbers[5]).sum();
    let known = live + freed + lost as f64;
    ensure!(
        (known - allocated).abs() < 0.02 * allocated,
        "{known} of {allocated}"
    );
    ensure!(
        trials.iter().any(|it| it.errors.live_samples == 0) || live > 0.0,
        "{live}"
    );
    Ok(())
}
