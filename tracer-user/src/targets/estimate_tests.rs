//! Estimates over many runs of the same allocations, with the choice, the weights and
//! the sums of the kernel side, and random numbers that are the same each time.

use tracer_ebpf::sample::probability;

use super::*;
use crate::model::sampling::range;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((word ^ (word >> 31)) >> 32).unwrap()
    }
}

/// Blocks of one size: how many, and how many of them are freed.
type Blocks = (u64, u64, u64);

const INTERVAL: u64 = 16 << 10;

/// Small ones, ones of about an interval, and a mixture with chains of `realloc` as in
/// `tests/targets/c/sampled.c`.
const SITES: [&[Blocks]; 5] = [
    &[(64, 8192, 0)],
    &[(1, 16 << 10, 0), (48, 4096, 1024), (4096, 30, 3)],
    &[(10_007, 40, 10), (20_011, 30, 5), (50_021, 10, 0)],
    &[(200, 16_384, 0)],
    &[
        (16, 4096, 0),
        (128, 512, 256),
        (1024, 64, 0),
        (8191, 8, 0),
        (64 << 10, 1, 0),
        (16 << 20, 1, 1),
        (16, 32, 32),
        (64, 32, 32),
        (256, 32, 32),
        (1024, 32, 32),
        (4096, 32, 0),
    ],
];

/// As the programs add it.
fn add(sums: &mut Weighted, weight: &Weight) {
    let [count, bytes, low, high, variance] = weight.words();
    sums.count += count;
    sums.bytes += bytes;
    sums.count_variance[0] += low;
    sums.count_variance[1] += high;
    sums.bytes_variance += variance;
}

fn run(site: &[Blocks], sampling: &Sampling, random: &mut Random) -> Estimates {
    let mut sums = SampledSite::EMPTY;
    let (mut samples, mut live) = (0, 0);
    for (size, allocated, freed) in site.iter().copied() {
        let weight = sampling.weight(size);
        for number in 0..allocated {
            if !sampling.chooses(size, random.next(), probability) {
                continue;
            }
            samples += 1;
            add(&mut sums.allocated, &weight);
            if number < freed {
                add(&mut sums.freed, &weight);
            } else {
                live += 1;
            }
        }
    }
    Estimates::of(&sums, (samples, live), sampling)
}

/// Live bytes, live blocks, and allocated bytes: the truth.
fn truths(site: &[Blocks]) -> [f64; 3] {
    let sum = |of: fn(&Blocks) -> u64| site.iter().map(of).sum::<u64>() as f64;
    [
        sum(|(size, allocated, freed)| size * (allocated - freed)),
        sum(|(_, allocated, freed)| allocated - freed),
        sum(|(size, allocated, _)| size * allocated),
    ]
}

/// The estimates of these, each with its variance.
fn estimated(estimates: &Estimates) -> [(f64, f64); 3] {
    let Estimates {
        live, allocated, ..
    } = estimates;
    [
        (live.bytes, live.bytes_variance),
        (live.count, live.count_variance),
        (allocated.bytes, allocated.bytes_variance),
    ]
}

#[test]
fn the_mean_is_the_truth_and_95_of_100_ranges_have_it() {
    const RUNS: u32 = 4000;
    let sampling = Sampling::every(INTERVAL);
    let mut random = Random(12);
    for (number, site) in SITES.into_iter().enumerate() {
        let truths = truths(site);
        let (mut sums, mut squares, mut hits, mut variances) =
            ([0.0; 3], [0.0; 3], [0_u32; 3], [0.0; 3]);
        for _ in 0..RUNS {
            let all = estimated(&run(site, &sampling, &mut random));
            for (index, (value, variance)) in all.into_iter().enumerate() {
                let truth = truths[index];
                sums[index] += value - truth;
                squares[index] += (value - truth).powi(2);
                variances[index] += variance;
                let range = range(value, variance.sqrt());
                let has = range.is_some_and(|(low, high)| low <= truth && truth <= high);
                hits[index] += u32::from(has);
            }
        }
        let runs = f64::from(RUNS);
        for index in 0..3 {
            let error = (squares[index] / runs).sqrt();
            let bias = sums[index] / runs / (error / runs.sqrt());
            let stated = (variances[index] / runs).sqrt() / error;
            let covered = f64::from(hits[index]) / runs;
            println!("site {number}, {index}: bias {bias:.2}, errors {stated:.3}, {covered:.3}");
            assert!(
                bias.abs() < 3.5,
                "site {number}, {index}: {bias} errors off"
            );
            let is_sure = (0.95..1.05).contains(&stated);
            assert!(is_sure, "site {number}, {index}: {stated}");
            // Of blocks of very different sizes the number hangs on the smallest, which
            // are hardly ever chosen: a range is told of bytes alone.
            let is_told = index != 1 || !matches!(number, 1 | 4);
            let covers = !is_told || (0.93..=0.97).contains(&covered);
            assert!(covers, "site {number}, {index}: {covered}");
        }
    }
}

/// The bound that is told where no sample is live.
#[test]
fn what_no_sample_shows_is_rarely_more_than_three_intervals() {
    let sampling = Sampling::every(INTERVAL);
    let bound = crate::model::Sampling {
        interval: INTERVAL,
        ..Default::default()
    };
    let mut random = Random(5);
    let site = [(100, bound.unseen() / 100, 0)];
    let runs = 20_000;
    let unseen = (0..runs).filter(|_| run(&site, &sampling, &mut random).live_samples == 0);
    let share = unseen.count() as f64 / f64::from(runs);
    assert!((0.045..0.055).contains(&share), "{share}");
}

#[test]
fn what_is_freed_leaves_nothing() {
    let sampling = Sampling::every(INTERVAL);
    let estimates = run(&[(100, 5000, 5000)], &sampling, &mut Random(1));
    assert!(estimates.samples > 0);
    assert_eq!(estimates.live, Estimate::default());
    assert_eq!(estimates.allocated, estimates.freed);
}

#[test]
fn a_sum_of_sites_has_the_sum_of_their_variances() {
    let sampling = Sampling::every(INTERVAL);
    let block = Estimate::of_block(100, false, &sampling);
    let mut site = Estimates {
        live: block,
        live_samples: 1,
        ..Estimates::default()
    };
    site.add(&site.clone());
    let mut errors = Estimates {
        live: block,
        live_samples: 1,
        ..Estimates::default()
    }
    .errors();
    errors.add(&errors.clone());
    assert_eq!(site.live_samples, errors.live_samples);
    let off = site.errors().live_bytes / errors.live_bytes - 1.0;
    assert!(off.abs() < 1e-9, "{off}");
}
