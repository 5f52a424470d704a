//! What lifetimes of freed blocks, and ages of live ones, say in a few words.

use super::layout::Marks;
use crate::model::life_table::{LifeTable, MOST};
use crate::model::{LifetimeBucket, Site};
use crate::report::units;
use crate::report::words::Words;

/// Less than this part of what is live being young is not worth a word.
const WORTH: f64 = 0.05;

/// The bucket that half of the freed blocks' lifetimes reach.
pub fn median(lifetimes: &[LifetimeBucket]) -> String {
    let total = lifetimes
        .iter()
        .fold(0_u64, |sum, bucket| sum.saturating_add(bucket.count));
    if total == 0 {
        return "–".into();
    }
    let mut seen = 0_u64;
    let mut over = None;
    for bucket in lifetimes {
        seen = seen.saturating_add(bucket.count);
        match bucket.below {
            Some(limit) if seen >= total.div_ceil(2) => {
                return format!("median <{}", units::seconds(limit));
            }
            limit => over = limit.or(over),
        }
    }
    format!("median ≥{}", units::seconds(over.unwrap_or(0.0)))
}

/// How many live blocks are younger than blocks of their site usually get, and that age,
/// seconds. Ages are known by buckets: one that goes beyond is not counted. `None` where most
/// blocks were not freed: how old those get is not known.
pub fn young_blocks(site: &Site) -> Option<(u64, f64)> {
    if site.freed_count <= site.live_count {
        return None;
    }
    let usual = LifeTable::of(&site.lifetimes, &[]).freed_by(MOST);
    let usual = usual.filter(|usual| usual.is_finite())?;
    let is_young = |bucket: &&LifetimeBucket| bucket.below.is_some_and(|below| below <= usual);
    let young = site.ages.iter().filter(is_young);
    let count = young
        .map(|bucket| bucket.count)
        .fold(0, u64::saturating_add);
    (count as f64 >= WORTH * site.live_count as f64 && count > 0).then_some((count, usual))
}

/// That many of the live blocks may be freed yet.
pub fn young(site: &Site, words: Words) -> Option<String> {
    let (count, usual) = young_blocks(site)?;
    let about = Marks::of(site).about;
    Some(format!(
        "{about}{} of {about}{} are younger than its {} usually get ({})",
        units::grouped(count),
        units::grouped(site.live_count),
        words.units,
        units::seconds(usual)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    const fn bucket(below: Option<f64>, count: u64) -> LifetimeBucket {
        LifetimeBucket { below, count }
    }

    #[test]
    fn young_blocks_are_those_that_others_outlived() {
        let mut site = sample::report().sites[1].clone();
        assert_eq!(young_blocks(&site), None, "no ages are known");
        site.ages = vec![
            bucket(Some(0.134), 500),
            bucket(Some(0.268), 500),
            bucket(Some(0.537), 24),
        ];
        assert_eq!(young_blocks(&site), Some((1000, 0.268)));
        site.lifetimes.clear();
        assert_eq!(young_blocks(&site), None, "none was freed");
        site.lifetimes = vec![bucket(None, 9)];
        assert_eq!(young_blocks(&site), None, "all of them live long");
    }

    #[test]
    fn the_median_is_a_bound_of_its_bucket() {
        assert_eq!(median(&[]), "–");
        assert_eq!(
            median(&[bucket(Some(0.001), 10), bucket(Some(2.0), 9)]),
            "median <1.00 ms"
        );
        assert_eq!(
            median(&[bucket(Some(0.001), 10), bucket(Some(2.0), 11)]),
            "median <2.0 s"
        );
        assert_eq!(
            median(&[bucket(Some(2.0), 1), bucket(None, 9)]),
            "median ≥2.0 s"
        );
    }
}
