//! What was read of a target, by its address, within a budget of memory: how
//! much there is, the target decides.

use std::collections::HashMap;

/// Remembers until it is full, and then begins anew.
#[derive(Debug)]
pub struct Cache<V> {
    entries: HashMap<u64, V>,
    bytes: usize,
    limit: usize,
}

impl<V> Cache<V> {
    /// Keeps about so many bytes.
    pub fn new(limit: usize) -> Self {
        Cache {
            entries: HashMap::new(),
            bytes: 0,
            limit,
        }
    }

    /// What is remembered under a key.
    pub fn get(&self, key: u64) -> Option<&V> {
        self.entries.get(&key)
    }

    /// Remembers a value that takes about so many bytes.
    pub fn insert(&mut self, key: u64, value: V, bytes: usize) {
        let bytes = bytes.saturating_add(size_of::<(u64, V)>());
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limit {
            self.entries.clear();
            self.bytes = bytes;
        }
        self.entries.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_kept() {
        let mut cache = Cache::new(10_000);
        for key in 0..100_000 {
            cache.insert(key, key, 84);
            assert!(cache.entries.len() <= 100);
            assert_eq!(cache.get(key), Some(&key));
        }
        cache.insert(1, 1, usize::MAX);
        assert_eq!((cache.entries.len(), cache.get(1)), (1, Some(&1)));
    }
}
