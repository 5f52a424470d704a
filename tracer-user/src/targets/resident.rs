//! What of the memory of an account was there at looks.

use std::collections::HashMap;
use std::hash::Hash;

/// What of an account's memory was there, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// At the last look.
    pub now: u64,
    /// At the look at which it was most.
    pub peak: u64,
    /// Looks that found some of it, of the image that has most.
    pub looks: u32,
    /// ... and those that found more than any before.
    pub rises: u32,
}

impl Resident {
    /// Adds that of another image. The peaks need not have been at one moment.
    pub fn add(&mut self, other: Self) {
        if other.now > self.now {
            (self.looks, self.rises) = (other.looks, other.rises);
        }
        self.now += other.now;
        self.peak += other.peak;
    }

    /// Enters what a look found of each account; nothing is there of the others.
    pub fn enter<K: Copy + Eq + Hash>(accounts: &mut HashMap<K, Self>, found: &HashMap<K, u64>) {
        for (account, resident) in accounts.iter_mut() {
            if !found.contains_key(account) {
                resident.now = 0;
            }
        }
        for (account, bytes) in found {
            let resident = accounts.entry(*account).or_default();
            resident.now = *bytes;
            resident.looks += 1;
            resident.rises += u32::from(*bytes > resident.peak);
            resident.peak = resident.peak.max(*bytes);
        }
    }
}
