//! Facts of a call path, as sentences, by what they speak for.

use crate::model::life_table::{FAR, LifeTable, MOST};
use crate::model::{MemoryKind, Report, Site, Verdict};
use crate::report::text::young_blocks;
use crate::report::units;
use crate::verdict::Curve;

/// Growth in the last half of the time that is less than this part of the first half's is
/// slower.
const SLOWER: f64 = 0.7;
/// What has not grown for this part of the run rests.
const RESTS: f64 = 0.15;
/// A fall by this part of the peak is worth a word.
const FALL: f64 = 0.2;
/// So few rises are little evidence.
const FEW: usize = 10;

/// What speaks for growth, and what speaks for none.
#[derive(Debug, Default)]
pub struct Reasons {
    /// For a leak.
    pub grows: Vec<String>,
    /// For what does no harm.
    pub calm: Vec<String>,
}

impl Reasons {
    /// Those of a call path.
    pub fn of(report: &Report, site: &Site) -> Self {
        let end = report.ended(site.process);
        let mut reasons = Self::default();
        reasons.of_lifetimes(site);
        reasons.of_pages(site);
        reasons.of_curve(site, end);
        reasons.of_births(site, end);
        reasons.of_what_was_seen(report, site);
        reasons
    }

    /// What is mapped, or a large block, that fills.
    fn of_pages(&mut self, site: &Site) {
        if let Some(bytes) = site.resident_bytes.filter(|_| site.resident_rises > 1) {
            self.grows.push(format!(
                "{} of it are in memory, more than at any look before at {} of {} looks",
                units::bytes(bytes),
                site.resident_rises,
                site.resident_looks
            ));
        }
    }

    fn of_lifetimes(&mut self, site: &Site) {
        if site.freed_count == 0 {
            self.grows.push("none of its blocks was freed".to_owned());
            self.calm.push(
                "a cache that fills looks the same until it is full: nothing was freed that would tell how long blocks are needed"
                    .to_owned(),
            );
            return;
        }
        let table = LifeTable::of(&site.lifetimes, &site.ages);
        let usual = table.freed_by(MOST).filter(|usual| usual.is_finite());
        if let Some(usual) = usual {
            let tail = table.tail(FAR * usual);
            let survive = 100.0 * table.survival(FAR * usual);
            let (usual, far) = (units::seconds(usual), units::seconds(FAR * usual));
            match tail.reached > tail.freed {
                true => self.grows.push(format!(
                    "95 % of the freed blocks lived for less than {usual}, and {survive:.2} % of all outlive {far}"
                )),
                false => self.calm.push(format!(
                    "95 % of the freed blocks lived for less than {usual}, and no live one is older than {far}"
                )),
            }
        }
        if let Some((young, usual)) = young_blocks(site) {
            self.calm.push(format!(
                "{} of {} live blocks are younger than blocks usually get ({}): most of these will be freed",
                units::grouped(young),
                units::grouped(site.live_count),
                units::seconds(usual)
            ));
        }
        if let Some(survived) = site.oldest_survived.filter(|count| *count > 0) {
            let collections = units::counted(survived.into(), "garbage collection");
            self.grows
                .push(format!("the oldest live block survived {collections}"));
        }
    }

    fn of_curve(&mut self, site: &Site, end: f64) {
        let curve = Curve::of(&site.curve, site.kind.is_memory());
        if !curve.tells() {
            return;
        }
        let (rises, looks) = (curve.rises(), site.curve.len() - 1);
        let rose = format!("more was live at {rises} of {looks} looks");
        match rises > looks / 2 {
            true => self.grows.push(rose),
            false if rises < FEW => self
                .calm
                .push(format!("{rose}: few lots are little evidence")),
            false => self.calm.push(rose),
        }
        let (first, last, scatter) = curve.halves(site.first_seen);
        if first > 0.0 || last > 0.0 {
            let amount = |value: f64| match site.kind.is_memory() {
                true => units::bytes_per_second(value.max(0.0)),
                false => units::per_second(value.max(0.0)),
            };
            let halves = format!(
                "it grew by {} in the first half of its time and by {} in the last (chance alone makes ± {})",
                amount(first),
                amount(last),
                amount(scatter)
            );
            match last < SLOWER * first {
                true => self.calm.push(halves),
                false => self.grows.push(halves),
            }
        }
        let rest = end - curve.rose_at();
        if rest > RESTS * end {
            self.calm
                .push(format!("it has not grown for {}", units::seconds(rest)));
        }
        if curve.fall() > FALL {
            self.calm.push(format!(
                "it once fell by {:.0} % of its peak",
                100.0 * curve.fall()
            ));
        }
    }

    fn of_births(&mut self, site: &Site, end: f64) {
        let quiet = end - site.last_seen;
        match quiet > RESTS * end {
            true => self
                .calm
                .push(format!("nothing came for {}", units::seconds(quiet))),
            false => self.grows.push(format!(
                "blocks came until the end (the last {} before it)",
                units::seconds(quiet)
            )),
        }
        if site.may_be_table() && site.live_count > 0 {
            self.calm.push(
                "it is hardly more than one block: a table may be made larger again and again"
                    .to_owned(),
            );
        }
        if site.kind == MemoryKind::Page {
            self.calm
                .push("that a page came into memory does not say who keeps it".to_owned());
        }
    }

    fn of_what_was_seen(&mut self, report: &Report, site: &Site) {
        let older = report.totals.untraced_frees;
        let replaces = site.verdict == Some(Verdict::Churn) && site.live_count > site.freed_count;
        if replaces && older > 0 {
            self.calm.push(format!(
                "{} from before the run were freed meanwhile, whose place these take",
                units::counted(older, "block")
            ));
        }
        if let Some(errors) = &site.errors {
            self.calm.push(format!(
                "all of this is estimated by {}",
                units::counted(errors.live_samples, "sampled block")
            ));
        }
        if site.lower_bound {
            self.calm.push(format!(
                "some of its events were lost ({} in the run)",
                units::grouped(report.lost_events())
            ));
        }
    }
}
