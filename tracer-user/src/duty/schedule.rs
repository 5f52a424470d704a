//! When allocations were followed.

use super::GROUPS;

/// How far the cost of tracing may be from the truth, as a part of it (BENCHMARKS.md).
const COST_ERROR: f64 = 0.1;

/// A time in which allocations were followed: a burst, or a longer one in which nothing
/// was missed. Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spell {
    /// From then on.
    pub began: u64,
    /// Allocations until then.
    pub allocations_until: u64,
    /// Frees until then.
    pub ended: u64,
    /// What the targets got done if it is a burst, which stands for the time since the
    /// spell before, too.
    pub burst: Option<Work>,
    /// From then on its blocks are not followed any more.
    pub let_go: Option<u64>,
}

/// What targets get done, as the processor time that it takes without being traced,
/// seconds. Tracing slows a target down, so that time says little of how much of its
/// work was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Since the spell before, this one too.
    pub since: f64,
    /// While allocations were followed.
    pub allocations: f64,
    /// While frees were.
    pub frees: f64,
    /// How fast they were meanwhile: 1 as without being traced.
    pub speed: f64,
}

impl Spell {
    /// How long frees were seen, in time that is not stretched by tracing, nanoseconds.
    pub fn watched(&self) -> f64 {
        (self.ended - self.began) as f64 * self.burst.map_or(1.0, |work| work.speed)
    }
}

/// All spells that have ended, in their order.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    began: u64,
    spells: Vec<Spell>,
    standings: Vec<Standing>,
    /// How long frees were seen, nanoseconds.
    watched: f64,
    /// What the bursts of each group stand for.
    stood_for: [f64; GROUPS],
    bursts: usize,
}

impl Schedule {
    /// The run begins.
    pub fn begin(&mut self, now: u64) {
        self.began = now;
    }

    /// When it did.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// All spells that have ended.
    pub fn spells(&self) -> &[Spell] {
        &self.spells
    }

    /// What each of them stands for.
    pub fn standing(&self, index: usize) -> Standing {
        self.standings
            .get(index)
            .copied()
            .unwrap_or(Standing::CERTAIN)
    }

    /// How many of them are bursts.
    pub fn bursts(&self) -> usize {
        self.bursts
    }

    /// Whether there is no time that was not seen.
    pub fn is_whole(&self) -> bool {
        self.bursts == 0
    }

    /// Notes a spell that has ended. Returns what it stands for.
    pub fn add(&mut self, spell: Spell) -> Standing {
        self.watched += spell.watched();
        let standing = match &spell.burst {
            Some(work) => Standing::of(work, self.bursts % GROUPS),
            None => Standing::CERTAIN,
        };
        if let (Some(group), Some(work)) = (standing.group, &spell.burst) {
            self.stood_for[group] += work.since;
            self.bursts += 1;
        }
        let goes_on = |last: &&mut Spell| last.burst.is_none() && spell.burst.is_none();
        match self.spells.last_mut().filter(goes_on) {
            Some(last) => {
                last.allocations_until = spell.allocations_until;
                last.ended = spell.ended;
            }
            None => {
                self.spells.push(spell);
                self.standings.push(standing);
            }
        }
        standing
    }

    /// How far what bursts stand for may be from the truth, all of it alike: what tracing
    /// took of the targets' time is known to [`COST_ERROR`], and the slower they were, the
    /// more hangs on it.
    pub fn scale_error(&self) -> f64 {
        let bursts = self.spells.iter().filter_map(|spell| spell.burst);
        let (sum, all) = bursts.fold((0.0, 0.0), |(sum, all), work| {
            let lost = 1.0 / work.speed.max(f64::EPSILON) - 1.0;
            (sum + work.since * COST_ERROR * lost, all + work.since)
        });
        if all > 0.0 { sum / all } else { 0.0 }
    }

    /// How long frees were seen until now, in time that is not stretched by tracing,
    /// nanoseconds.
    pub fn watched(&self) -> f64 {
        self.watched
    }

    /// The spell in which there was this moment.
    pub fn find(&self, time: u64) -> Option<usize> {
        let after = self.spells.partition_point(|spell| spell.began <= time);
        let index = after.checked_sub(1)?;
        (time <= self.spells[index].ended).then_some(index)
    }

    /// Blocks of spells that began before `at` are not followed any more.
    pub fn let_go(&mut self, at: u64, now: u64) {
        let old = self.spells.iter_mut().filter(|spell| spell.began < at);
        for spell in old {
            spell.let_go.get_or_insert(now);
        }
    }

    /// The least age, nanoseconds, at which blocks were let go; `None` if none were.
    pub fn followed_for(&self) -> Option<u64> {
        let gone = self
            .spells
            .iter()
            .filter_map(|spell| Some((spell.ended, spell.let_go?)));
        gone.map(|(ended, at)| at.saturating_sub(ended)).min()
    }

    /// What sums over all bursts are to be multiplied by if those of a group are left
    /// out; `None` if it has none, or all.
    pub fn without(&self, group: usize) -> Option<f64> {
        let all: f64 = self.stood_for.iter().sum();
        let left = all - self.stood_for[group];
        (self.stood_for[group] > 0.0 && left > 0.0).then(|| all / left)
    }
}

/// What a spell stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The group that its bursts belong to; `None` if it is none.
    pub group: Option<usize>,
    /// Each allocation in it stands for so many.
    pub of_allocations: f64,
    /// Each free, of a block that was followed for certain.
    pub of_frees: f64,
}

impl Standing {
    /// For what was seen in it and nothing else.
    pub const CERTAIN: Self = Self {
        group: None,
        of_allocations: 1.0,
        of_frees: 1.0,
    };

    fn of(work: &Work, group: usize) -> Self {
        let part = |seen: f64| {
            if seen > 0.0 {
                (work.since / seen).max(1.0)
            } else {
                1.0
            }
        };
        Self {
            group: Some(group),
            of_allocations: part(work.allocations),
            of_frees: part(work.frees),
        }
    }
}
