//! What the numbers of one site say of it.
//!
//! Three things are looked at: how long its blocks live (the life table of the freed and
//! the live ones), the curve of what is live, and when it allocated last. A **leak** is
//! what goes on growing while blocks that outlived by far what its blocks usually live are
//! not freed any more. Where nothing was freed at all, a cache that is filling looks the
//! same: the longer it goes on as it did, the less likely that is.
//!
//! # Confidence
//! Of a leak it is odds / (1 + odds), the odds being a product of
//! - (span / 7 s)^0.8: something that grows for a time t will stop at a time that nobody
//!   knows; with a scale-free prior what lasted for t lasts for more than 2 t with a
//!   probability that does not hang on t, and the exponent and the scale are chosen so
//!   that what is said of simulated leaks and caches (the tests below) is right as often
//!   as it says;
//! - 1 + log2 of how many times longer survivors live than blocks usually do, if some were
//!   freed;
//! - how much likelier it is to slow down as it did from the first half to the last if it
//!   goes on, and only its load drifts, than if it comes to an end as a cache does whose
//!   keys are known one by one (`slows`);
//! - n / 15 for n times that it rose, or n lots that would make growth as uneven, up to 1,
//!   the square of which weakens what survival says: what came in a few lots has a few lots of
//!   evidence that it is not freed with the next one.
//!
//! Of what grows otherwise it is odds / (1 + odds) of how many standard deviations that is
//! which growth by chance would have.

use std::f64::consts::TAU;

use super::curve::Curve;
use crate::model::life_table::{FAR, LifeTable, MOST};
use crate::model::{Judgement, MemoryKind, Site, Survival, Verdict};
use crate::report::own::warms_up;
use crate::report::text::SHORTEST;

/// Set-up is over after this part of a run.
const BEGINNING: f64 = 0.25;
/// So many of those that came so far may be freed yet, as a part.
const SOME: f64 = 0.1;
/// What grows is a leak from this confidence on.
const LIKELY: f64 = 0.5;
/// What is known of a site by bursts is nothing from this error on, as a part.
const UNKNOWN: f64 = 0.5;
/// Nothing is more certain, seen in bursts: blocks need not die independently.
const IN_BURSTS: f64 = 0.9;
/// Nothing is more certain, seen in one run.
const MOST_CERTAIN: f64 = 0.99;
/// Of blocks of which one is needed at a time more than this part are freed.
const REPLACED: f64 = 0.9;
/// Growth of so many standard deviations of the steps between looks is no chance; and so
/// much of it has to be in the last half.
const GROWN: f64 = 2.0;
const GROWN_LATE: f64 = 0.7;
/// The load of what goes on differs by this between the halves of a run, as the standard
/// deviation of its logarithm; and the logarithm of the range of time constants in which
/// what fills up does so.
const DRIFT: f64 = 0.15;
const RANGE: f64 = 11.5;
/// Fewer rises, or blocks, are nothing to tell; so many are full evidence.
const FEW: f64 = 3.0;
const MANY: f64 = 15.0;
/// The time after which what grew steadily is as likely a leak as not, seconds; and how
/// fast that changes.
const EVEN: f64 = 7.0;
const POWER: f64 = 0.8;

/// Mappings of less in memory than this are not looked at for how they fill, bytes; and of fewer
/// looks, or where less than this part of them found more.
const MUCH: u64 = 1 << 20;
const LOOKS: f64 = 6.0;
const RISING: f64 = 0.7;
/// Collections that tell, the part of the last floor that each leaves more, and the part of a site's time
/// that its oldest block has lived.
const FLOORS: usize = 3;
const FLOOR: f64 = 0.1;
const OLD: f64 = 0.9;
/// What comes in ever larger blocks has these larger by this in the last half.
const LARGER: f64 = 1.5;

/// The numbers of a site that are looked at.
struct Facts<'a> {
    site: &'a Site,
    /// When the run, or the process, ended: seconds from the run's start.
    end: f64,
    /// What is live: bytes, or blocks of what has none.
    curve: Curve,
    /// Blocks that are live.
    blocks: Curve,
    table: LifeTable,
}

/// What a site is, if its numbers tell. `end`: when the run, or the site's process, ended,
/// seconds from the run's start.
pub fn judge(site: &Site, end: f64) -> Option<Judgement> {
    let managed = site.kind == MemoryKind::JavaHeap;
    if end < SHORTEST || managed || site.allocated_count == 0 {
        return None;
    }
    if site.live_count == 0 {
        return of_nothing_live(site);
    }
    if let Some(survival) = &site.survival {
        return of_bursts(site, survival, end);
    }
    if site.is_unsure() {
        return None;
    }
    let facts = Facts {
        site,
        end,
        curve: Curve::of(&site.curve, site.kind.is_memory()),
        blocks: Curve::of(&site.curve, false),
        table: LifeTable::of(&site.lifetimes, &site.ages),
    };
    facts.judge()
}

const fn judgement(verdict: Verdict, confidence: f64) -> Judgement {
    let confidence = confidence.clamp(0.0, MOST_CERTAIN);
    Judgement {
        verdict,
        confidence,
    }
}

/// A probability of odds.
fn of_odds(odds: f64) -> f64 {
    odds / (1.0 + odds)
}

/// Nothing is live. Of an estimate that is as sure as the number of blocks that it is made
/// of allows: if n were seen and all are gone, the next one stays with 1 / (n + 2) (Laplace's
/// rule of succession). `None` if none was seen, or one that was is not known to be gone.
fn of_nothing_live(site: &Site) -> Option<Judgement> {
    if site.freed_count == 0 {
        return None;
    }
    let Some(errors) = &site.errors else {
        let exact = site.survival.is_none();
        return exact.then(|| judgement(Verdict::Churn, MOST_CERTAIN));
    };
    let most = if site.survival.is_some() {
        IN_BURSTS
    } else {
        MOST_CERTAIN
    };
    let gone = (errors.live_samples == 0 && errors.samples > 0).then_some(errors.samples as f64)?;
    Some(judgement(Verdict::Churn, of_odds(1.0 + gone).min(most)))
}

/// What became of blocks that were followed in bursts says whether they stay: where none
/// died of those that would have if they lived as long as the run, and more came all the
/// time, that is a leak. `None` if what is live is not known by half, or if a few blocks that
/// stand for no others are all there is.
fn of_bursts(site: &Site, survival: &Survival, end: f64) -> Option<Judgement> {
    let error = site.errors.map_or(0.0, |errors| errors.live_bytes);
    if error > UNKNOWN * site.live_bytes as f64 {
        return None;
    }
    let died = (survival.died + survival.reused) as f64;
    if survival.chance().is_none() && died > 0.5 * survival.expected {
        let likely = of_odds(1.0 + died).min(IN_BURSTS);
        return Some(judgement(Verdict::Churn, likely));
    }
    if let Some(quiet) = quiet_since_startup(site, end) {
        return Some(judgement(Verdict::Startup, of_odds(quiet).min(IN_BURSTS)));
    }
    let seen = site.errors.map_or(0, |errors| errors.live_samples) as f64;
    let alone = site.live_count as f64 <= 2.0 * seen;
    let warms_up = warms_up(&site.frames).is_some();
    let too_few = if warms_up { MANY } else { FEW };
    let came_late = came_late(site, end);
    if (alone && seen < too_few) || (!came_late && has_stopped(site, seen, end)) {
        return None;
    }
    Some(match survival.chance() {
        Some(chance) if survival.tells() && !warms_up && came_late => {
            judgement(Verdict::Leak, (1.0 - chance).min(IN_BURSTS))
        }
        // More came than was seen to go, and it is too early to say more.
        _ => judgement(Verdict::Growing, 0.5),
    })
}

/// How long nothing came since the site's last block, in times of what it took until then;
/// `None` if that block came when set-up was over.
fn quiet_since_startup(site: &Site, end: f64) -> Option<f64> {
    let last = site.last_seen;
    (last < BEGINNING * end).then(|| (end - last) / last.max(0.1 * end))
}

/// Whether a site's last block came in the last half of the time that it was seen for:
/// what came at once came once, however many blocks it is.
fn came_late(site: &Site, end: f64) -> bool {
    site.last_seen - site.first_seen > 0.5 * (end - site.first_seen)
}

/// Whether a site of which so many blocks were seen would have been seen again if it had
/// gone on as it did: with a mean of 3 more none is no chance.
fn has_stopped(site: &Site, seen: f64, end: f64) -> bool {
    let came_for = site.last_seen - site.first_seen;
    (seen - 1.0) * (end - site.last_seen) > 3.0 * came_for
}

impl Facts<'_> {
    fn judge(&self) -> Option<Judgement> {
        let found = self.startup().or_else(|| self.batch());
        let found = found.or_else(|| self.churn()).or_else(|| self.plateau());
        let found = found.or_else(|| self.growth());
        match found.map(|it| it.verdict) {
            None | Some(Verdict::Startup | Verdict::Plateau) => self.fills().or(found),
            Some(_) => found,
        }
    }

    /// Mappings and large blocks of which ever more comes into memory, whenever they were made: a
    /// heap of a language or a pool fills what it has taken.
    fn fills(&self) -> Option<Judgement> {
        let site = self.site;
        let (looks, rises) = (
            f64::from(site.resident_looks),
            f64::from(site.resident_rises),
        );
        let is_much = site.resident_bytes.is_some_and(|bytes| bytes >= MUCH);
        let is_kind = matches!(site.kind, MemoryKind::Heap | MemoryKind::Mapping);
        let fills = is_kind && is_much;
        (fills && looks >= LOOKS && rises >= RISING * looks)
            .then(|| judgement(Verdict::Growing, of_odds(rises.sqrt())))
    }

    /// Whether blocks get ever larger, so that few of them come, and ever more seldom: an arena
    /// takes as much again as it has.
    fn enlarges(&self) -> bool {
        let count = self.site.live_count as f64;
        let is_few = (FEW..MANY).contains(&count) && self.site.freed_count == 0;
        if !is_few || !self.curve.tells() {
            return false;
        }
        let since = self.site.first_seen;
        let ((few, more, _), (early, late, _)) =
            (self.blocks.halves(since), self.curve.halves(since));
        late > 0.0 && few > 0.0 && late * few > LARGER * early * more
    }

    /// For how long the site was seen, seconds.
    fn span(&self) -> f64 {
        self.end - self.site.first_seen
    }

    fn oldest(&self) -> f64 {
        self.site.oldest_age.unwrap_or(0.0)
    }

    /// The part of its blocks that were freed.
    fn freed_part(&self) -> f64 {
        self.site.freed_count as f64 / self.site.allocated_count as f64
    }

    /// The longer nothing came since, the surer.
    fn startup(&self) -> Option<Judgement> {
        let quiet = quiet_since_startup(self.site, self.end)?;
        Some(judgement(Verdict::Startup, of_odds(quiet)))
    }

    /// Most of what was live went at once, and what is live now came since.
    fn batch(&self) -> Option<Judgement> {
        let fall = self.curve.fall();
        let is_it = self.curve.tells() && fall >= 0.5 && self.oldest() < self.span() * 0.75;
        is_it.then(|| judgement(Verdict::Batch, fall))
    }

    /// What is live is young, and replaces what was freed.
    fn churn(&self) -> Option<Judgement> {
        let young = 1.0 - self.oldest() / self.span();
        if self.freed_part() <= 0.5 || self.rises_through() {
            return None;
        }
        // One after the other, of which one may rest for long.
        let in_turn = self.site.may_be_table() && self.freed_part() > REPLACED;
        match in_turn {
            true => Some(judgement(Verdict::Churn, self.freed_part())),
            false => (young > 0.5).then(|| judgement(Verdict::Churn, young)),
        }
    }

    /// Whether more is live at the end than ever in the first half: what is replaced has a
    /// level.
    fn rises_through(&self) -> bool {
        let before = self.end - self.span() / 2.0;
        let most = self.curve.before(before).peak();
        self.curve.tells() && self.curve.at(self.end) > 1.2 * most
    }

    /// It has grown, and did so no more in the last part.
    fn plateau(&self) -> Option<Judgement> {
        if !self.curve.tells() {
            return None;
        }
        let (full, span) = (self.curve.full_at(), self.span());
        let flat = (self.end - full) / span;
        // One that rests between bursts goes on.
        let (longest, rested) = self.curve.rests();
        let goes_on = self.curve.rises() > 2 && longest > 0.7 * rested;
        (flat > 0.5 && !goes_on).then(|| judgement(Verdict::Plateau, flat))
    }

    /// How long survivors lived, in times of what blocks usually live; `None` if those
    /// that live so long are freed, too.
    fn outlives(&self) -> Option<f64> {
        let Some(usual) = self.table.freed_by(MOST) else {
            return Some(1.0);
        };
        let tail = self.table.tail(usual * FAR);
        let survive = tail.reached >= 1.0 && tail.freed <= SOME * tail.reached;
        survive.then(|| (self.oldest() / usual).max(1.0))
    }

    /// How much likelier growth that slows down like this is if it goes on than if it comes
    /// to an end, at most 1.
    ///
    /// With x the logarithm of growth in the first half over that in the last: of what goes
    /// on x is normal around 0, by the load's drift and by chance; of what fills up with a
    /// time constant t, x is half of the span over t, and each power of ten of t is as
    /// likely as another, so the density of x is 1 / (x ln R) over a range of R.
    fn slows(&self) -> f64 {
        let (first, last, scatter) = self.blocks.halves(self.site.first_seen);
        if !self.blocks.tells() || first <= 0.0 || last >= first {
            return 1.0;
        }
        let chance = 2.0 * scatter.max(1.0) / (first + last);
        let spread = DRIFT.hypot(chance);
        let slower = (first / last.max(1.0)).ln();
        if slower <= spread {
            return 1.0;
        }
        let goes_on = (-0.5 * (slower / spread).powi(2)).exp() / (spread * TAU.sqrt());
        let ends = 1.0 / (slower * RANGE);
        (goes_on / ends).min(1.0)
    }

    /// More is live than was.
    fn growth(&self) -> Option<Judgement> {
        let rises = match self.curve.tells() {
            true => self.curve.rises(),
            // Blocks that differ in age by powers of two came at times of their own.
            false => self.site.ages.len(),
        };
        let seen = self.site.errors.map_or(u64::MAX, |it| it.live_samples) as f64;
        let rises = (rises as f64).min(seen);
        let grew_late = came_late(self.site, self.end);
        let Some(sigmas) = self.sigmas(rises) else {
            return self.floors_rise();
        };
        if rises < FEW || !grew_late || self.span() < SHORTEST {
            return None;
        }
        let weight = (rises.max(self.lots().min(seen)) / MANY).min(1.0);
        // A few lots of what a compiler keeps are nothing to tell.
        let warms_up = warms_up(&self.site.frames).is_some();
        if warms_up && weight < 1.0 {
            return None;
        }
        let steady = (self.span() / EVEN).powf(POWER) * weight;
        let odds = steady * self.slows();
        Some(match self.outlives() {
            Some(times) if !warms_up => {
                let survive = 1.0 + weight.powi(2) * times.log2();
                self.leak(odds * survive, sigmas)
            }
            _ => judgement(Verdict::Growing, of_odds(sigmas)),
        })
    }

    /// In how many lots of the same size what is live may have come, at most one each block:
    /// so many make growth as uneven as it was.
    fn lots(&self) -> f64 {
        if !self.blocks.tells() {
            return 0.0;
        }
        let (first, last, scatter) = self.blocks.halves(self.site.first_seen);
        let lots = ((first + last) / scatter.max(1.0)).powi(2);
        lots.min(self.site.live_count as f64)
    }

    /// What is collected from time to time grows if each collection leaves more than the one before,
    /// and what came first is still there: chance has three floors rise by as much with less than
    /// one in six.
    fn floors_rise(&self) -> Option<Judgement> {
        let floors = self.blocks.floors();
        let least = FLOOR * floors.last().copied().unwrap_or(0.0);
        let rise = floors.windows(2).all(|pair| pair[1] - pair[0] >= least);
        let is_old = self.oldest() > OLD * self.span();
        let is_it = floors.len() >= FLOORS && rise && is_old && !self.site.may_be_table();
        is_it.then(|| judgement(Verdict::Growing, of_odds((floors.len() as f64).sqrt())))
    }

    /// By how many standard deviations of chance it grew; `None` if it did not.
    fn sigmas(&self, rises: f64) -> Option<f64> {
        if !self.blocks.tells() {
            return Some(rises.sqrt());
        }
        if self.site.may_be_table() || self.enlarges() {
            // It gets larger by parts of itself, ever more seldom.
            let grows = self.curve.rests().1 < 0.5 * self.span() && self.rises_through();
            return grows.then(|| rises.sqrt());
        }
        let (first, last, scatter) = self.blocks.halves(self.site.first_seen);
        let sigmas = (first + last) / scatter.max(f64::MIN_POSITIVE);
        let late = last / scatter.max(f64::MIN_POSITIVE);
        (sigmas >= GROWN && late >= GROWN_LATE).then_some(sigmas)
    }

    /// A leak by these odds, of what has grown by so many standard deviations.
    fn leak(&self, odds: f64, sigmas: f64) -> Judgement {
        // That a page came into memory does not say who keeps it.
        let is_page = self.site.kind == MemoryKind::Page;
        match of_odds(odds) {
            likely
                if likely >= LIKELY
                    && !self.site.may_be_table()
                    && !is_page
                    && !self.enlarges() =>
            {
                judgement(Verdict::Leak, likely)
            }
            _ => judgement(Verdict::Growing, of_odds(sigmas)),
        }
    }
}

#[cfg(test)]
mod tests;
