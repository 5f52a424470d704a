//! Programs whose truth is known, seen in bursts: what is estimated of them is right in the
//! mean, and as often as the stated errors say.

use super::*;
use crate::budget::Gaps;
use crate::model::sampling::{range_by_bursts, rounded};
use crate::targets::estimate::Estimate;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// How long allocations are followed in a burst, and frees beyond that.
const ALLOCATIONS: u64 = 20 * MS;
const FREES: u64 = 10 * MS;
const SIZE: f64 = 100.0;

/// When a block is allocated, and when it is freed.
struct Life {
    born: u64,
    died: u64,
}

fn estimate(blocks: f64) -> Estimate {
    Estimate {
        count: blocks,
        bytes: blocks * SIZE,
        ..Estimate::default()
    }
}

fn key(number: u64) -> SiteKey {
    SiteKey {
        high: number,
        low: 0,
    }
}

/// `rate` blocks a second for `until`, each at a random moment.
fn lives(
    random: &mut fastrand::Rng,
    rate: u64,
    until: u64,
    age: impl Fn(&mut fastrand::Rng) -> f64,
) -> Vec<Life> {
    let count = rate * until / SECOND;
    let life = |_| {
        let born = random.u64(0..until);
        let age = age(random) * SECOND as f64;
        Life {
            born,
            died: born.saturating_add(rounded(age)),
        }
    };
    (0..count).map(life).collect()
}

/// The bursts of a run, at random moments with a gap of this mean, seconds.
fn bursts(random: &mut fastrand::Rng, mean: f64, until: u64) -> Vec<Spell> {
    let gaps = Gaps::of_mean(mean);
    let mut spells = Vec::new();
    let (mut at, mut before) = (0, 0);
    loop {
        at += rounded(gaps.draw(random.f64()) * SECOND as f64);
        let (allocations_until, ended) = (at + ALLOCATIONS, at + ALLOCATIONS + FREES);
        if ended >= until {
            return spells;
        }
        spells.push(Spell {
            began: at,
            allocations_until,
            ended,
            burst: Some(Work {
                since: (ended - before) as f64,
                allocations: ALLOCATIONS as f64,
                frees: (ALLOCATIONS + FREES) as f64,
                speed: 1.0,
            }),
            let_go: None,
        });
        (at, before) = (ended, ended);
    }
}

/// Shows one site's blocks as they are seen in these spells.
fn watch(duty: &mut Duty, spells: &[Spell], sites: &[Vec<Life>]) {
    duty.schedule.begin(0);
    for spell in spells {
        let standing = duty.schedule.add(*spell);
        for (number, lives) in (0..).zip(sites) {
            let is_followed = |born: u64| {
                let mut followed = spells.iter();
                followed.any(|it| (it.began..it.allocations_until).contains(&born))
            };
            let (mut allocated, mut freed) = (0.0, 0.0);
            for life in lives {
                let is_own = (spell.began..spell.allocations_until).contains(&life.born);
                let certain = match spell.burst {
                    Some(_) => FREES,
                    None => u64::MAX,
                };
                let dies = (spell.began..=spell.ended).contains(&life.died);
                let is_early = is_own && dies && life.died - life.born <= certain;
                allocated += f64::from(u8::from(is_own));
                freed += f64::from(u8::from(is_early));
                if dies && !is_early && is_followed(life.born) {
                    let late = Late {
                        block: estimate(1.0),
                        spell: duty.schedule.find(life.born).unwrap(),
                        age: life.died - life.born,
                    };
                    duty.lose(key(number), Some(&late), standing);
                }
            }
            let seen = Seen {
                allocated: estimate(allocated),
                freed: estimate(freed),
                samples: rounded(allocated),
                kept: rounded(allocated - freed),
            };
            duty.see(key(number), &seen, standing);
        }
    }
}

/// What there is of each kind of site: how often estimates are within their 95 %, the mean
/// of the estimates, and of the truth.
fn run(rounds: u64, until: u64, gap: f64) -> Vec<(u64, f64, f64)> {
    let mut found = vec![(0, 0.0, 0.0); 4];
    for round in 0..rounds {
        let mut random = fastrand::Rng::with_seed(round + 1);
        let sites = vec![
            // A leak; churn; requests of 50 to 500 ms; a cache.
            lives(&mut random, 100, until, |_| 1e6),
            lives(&mut random, 500, until, |random| random.f64() * 0.001),
            lives(&mut random, 200, until, |random| 0.05 + 0.45 * random.f64()),
            lives(&mut random, 200, until, |random| {
                -4.0 * (1.0 - random.f64()).ln()
            }),
        ];
        let spells = bursts(&mut random, gap, until);
        let mut duty = Duty::new(8);
        watch(&mut duty, &spells, &sites);
        let now = spells.last().unwrap().ended;
        let estimates = duty.estimates(now);
        for (number, (lives, found)) in (0..).zip(sites.iter().zip(&mut found)) {
            let is_live = |life: &&Life| life.born < now && life.died > now;
            let truth = lives.iter().filter(is_live).count() as f64;
            let (estimates, _) = &estimates[&key(number)];
            let error = estimates.live.count_variance.sqrt();
            let range = range_by_bursts(estimates.live.count, error);
            let is_within = match range {
                Some((low, high)) => (low..=high + 1.0).contains(&truth),
                None => true,
            };
            found.0 += u64::from(is_within);
            found.1 += estimates.live.count / rounds as f64;
            found.2 += truth / rounds as f64;
        }
    }
    found
}

#[test]
fn leaks_are_told_from_what_dies_by_short_bursts() {
    let rounds = 30;
    let found = run(rounds, 120 * SECOND, 0.6);
    let [leak, churn, requests, cache] = found[..] else {
        panic!("four sites")
    };
    assert!((leak.1 / leak.2 - 1.0).abs() < 0.05, "{leak:?}");
    assert!(leak.0 >= rounds * 95 / 100, "{leak:?}");
    assert!(churn.1 < 30.0, "{churn:?}");
    for site in [requests, cache] {
        assert!(site.0 >= rounds * 90 / 100, "{site:?} of {rounds}");
    }
    // (Those of what dies are cut at nothing, so their mean is too high.)
    assert!(requests.1 < leak.1, "{requests:?} {leak:?}");
}

/// What was seen whole is exact; what was followed then dies in bursts later.
#[test]
fn what_is_followed_all_the_time_is_exact() {
    let whole = Spell {
        began: 0,
        allocations_until: 10 * SECOND,
        ended: 10 * SECOND,
        burst: None,
        let_go: None,
    };
    let mut random = fastrand::Rng::with_seed(7);
    let sites = vec![
        lives(&mut random, 100, 10 * SECOND, |_| 1e6),
        lives(&mut random, 100, 10 * SECOND, |random| 2.0 * random.f64()),
    ];
    let mut duty = Duty::new(8);
    watch(&mut duty, &[whole], &sites);
    assert!(duty.schedule.is_whole());
    let estimates = duty.estimates(10 * SECOND);
    let (leak, _) = &estimates[&key(0)];
    assert_eq!((leak.live.count, leak.allocated.count), (1000.0, 1000.0));
    assert_eq!(leak.live.count_variance, 0.0);
    let live = sites[1]
        .iter()
        .filter(|life| life.died > 10 * SECOND)
        .count();
    assert_eq!(estimates[&key(1)].0.live.count, live as f64);
}

#[test]
fn of_two_bursts_nothing_is_certain_and_of_none_nothing_is_said() {
    let until = 60 * SECOND;
    let mut random = fastrand::Rng::with_seed(3);
    let sites = vec![lives(&mut random, 500, until, |_| 1e6)];
    let spells: Vec<Spell> = bursts(&mut random, 5.0, until)
        .into_iter()
        .take(1)
        .collect();
    let mut duty = Duty::new(8);
    watch(&mut duty, &spells, &sites);
    let (leak, survival) = &duty.estimates(until)[&key(0)];
    assert!(
        leak.live.count_variance.sqrt() >= leak.live.count,
        "{leak:?}"
    );
    assert_eq!((survival.died, survival.reused), (0, 0));
    assert!(Duty::new(8).estimates(until).is_empty());
}

/// A path whose blocks are kept is shown by deaths that do not come.
#[test]
fn kept_blocks_show_by_deaths_that_do_not_come() {
    let until = 120 * SECOND;
    let mut random = fastrand::Rng::with_seed(11);
    let sites = vec![
        lives(&mut random, 1000, until, |_| 1e6),
        lives(&mut random, 1000, until, |random| 40.0 * random.f64()),
    ];
    let spells = bursts(&mut random, 0.6, until);
    let mut duty = Duty::new(8);
    watch(&mut duty, &spells, &sites);
    let estimates = duty.estimates(until);
    let (leak, cache) = (estimates[&key(0)].1, estimates[&key(1)].1);
    assert!(leak.expected > 20.0, "{leak:?}");
    assert!(leak.chance().unwrap() < 1e-8, "{leak:?}");
    assert_eq!(cache.chance(), None, "{cache:?}");
    assert!(cache.died > 20, "{cache:?}");
}

/// Blocks that are not followed any more count as live; those of later bursts do not.
#[test]
fn what_is_let_go_counts_as_live() {
    let until = 60 * SECOND;
    let mut random = fastrand::Rng::with_seed(5);
    let spells = bursts(&mut random, 0.5, until);
    let (middle, now) = (spells[spells.len() / 2].began, spells.last().unwrap().ended);
    let mut schedule = Schedule::default();
    schedule.begin(0);
    for spell in &spells {
        schedule.add(*spell);
    }
    let before = Coverage::of(&schedule, now);
    assert_eq!(schedule.followed_for(), None);
    schedule.let_go(middle, middle + SECOND);
    let after = Coverage::of(&schedule, now);
    assert!(schedule.followed_for().unwrap() <= SECOND + 20 * SECOND);
    // The probability of seeing a death at an age is that of those who are followed.
    let bin = coverage::bin(400 * MS);
    let ratio = after.seen(bin) / before.seen(bin);
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
}

#[test]
fn there_is_room_for_so_many_sites() {
    let mut duty = Duty::new(2);
    let seen = Seen {
        allocated: estimate(1.0),
        samples: 1,
        kept: 1,
        ..Seen::default()
    };
    for number in 0..5 {
        duty.see(key(number), &seen, Standing::CERTAIN);
    }
    assert_eq!(duty.estimates(SECOND).len(), 2);
    assert_eq!(duty.followed(), 5);
}
