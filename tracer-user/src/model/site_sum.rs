//! Sums of sites.

use std::borrow::Cow;

use super::{CurvePoint, LifetimeBucket, MappedFile, Site};

impl Site {
    /// What sites of one process and kind have together; there is one at least.
    pub fn sum<'a>(sites: &[&'a Self]) -> Cow<'a, Self> {
        let mut sum = Cow::Borrowed(sites[0]);
        for site in &sites[1..] {
            sum.to_mut().add((*site).clone());
        }
        sum
    }

    /// Adds another one, of the same process and kind. Frames stay as those were that
    /// have more live bytes.
    pub fn add(&mut self, site: Self) {
        self.merge_shares(&site);
        if let (Some(sum), Some(window)) = (&mut self.window, &site.window) {
            sum.add(window);
        }
        if site.live_bytes > self.live_bytes {
            self.frames = site.frames;
        }
        if let Some(errors) = site.errors {
            self.errors.get_or_insert_default().add(&errors);
        }
        if let Some(survival) = &site.survival {
            self.survival.get_or_insert_default().add(survival);
        }
        if let Some(holders) = site.holders {
            self.holders.get_or_insert_default().add(holders);
        }
        self.indices.extend(site.indices);
        self.live_bytes += site.live_bytes;
        self.live_count += site.live_count;
        self.allocated_bytes += site.allocated_bytes;
        self.allocated_count += site.allocated_count;
        self.freed_bytes += site.freed_bytes;
        self.freed_count += site.freed_count;
        let ages = self.oldest_age.into_iter().chain(site.oldest_age);
        self.oldest_age = ages.reduce(f64::max);
        self.oldest_survived = self.oldest_survived.max(site.oldest_survived);
        self.first_seen = self.first_seen.min(site.first_seen);
        self.last_seen = self.last_seen.max(site.last_seen);
        self.lower_bound |= site.lower_bound;
        let bytes = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        if site.resident_bytes > self.resident_bytes {
            self.resident_looks = site.resident_looks;
            self.resident_rises = site.resident_rises;
        }
        self.resident_bytes = bytes(self.resident_bytes, site.resident_bytes);
        self.resident_peak = bytes(self.resident_peak, site.resident_peak);
        MappedFile::merge(&mut self.files, &site.files);
        self.stacks.add(site.stacks);
        if let Some(pages) = &site.pages {
            self.pages.get_or_insert_default().add(pages);
        }
        for bucket in site.lifetimes {
            add_bucket(&mut self.lifetimes, bucket);
        }
        for bucket in site.ages {
            add_bucket(&mut self.ages, bucket);
        }
        self.curve = CurvePoint::sum(&self.curve, &site.curve);
    }
}

/// Buckets are in the order of their bounds; the last one has none.
fn add_bucket(buckets: &mut Vec<LifetimeBucket>, added: LifetimeBucket) {
    let bound = |bucket: &LifetimeBucket| bucket.below.unwrap_or(f64::INFINITY);
    let at = buckets.partition_point(|bucket| bound(bucket) < bound(&added));
    match buckets.get_mut(at) {
        Some(same) if same.below == added.below => same.count += added.count,
        _ => buckets.insert(at, added),
    }
}
