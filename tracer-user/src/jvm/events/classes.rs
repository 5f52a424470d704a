//! Classes that come and go, and those that cannot be initialised.

use std::collections::HashMap;

/// Groups, loaders and failed classes that are told apart; further ones are
/// only in the sums.
const MAX_KEYS: usize = 8192;

/// How many came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Loaded during the run.
    pub loaded: u64,
    /// Unloaded during the run, whenever they were loaded.
    pub unloaded: u64,
}

impl Counts {
    /// How many more there are than when the run began.
    pub fn growth(self) -> i64 {
        self.loaded
            .cast_signed()
            .wrapping_sub(self.unloaded.cast_signed())
    }

    fn count(&mut self, loaded: bool) {
        if loaded {
            self.loaded += 1;
        } else {
            self.unloaded += 1;
        }
    }
}

/// Failures of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Times that it could not be initialised.
    pub count: u64,
    /// The last of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub last: u64,
}

/// All classes of a virtual machine.
#[derive(Debug, Default)]
pub struct Classes {
    /// All of them.
    pub total: Counts,
    groups: HashMap<String, Counts>,
    loaders: HashMap<u64, Counts>,
    failures: HashMap<String, Failures>,
    /// Failures of classes that are not told apart.
    pub other_failures: u64,
}

impl Classes {
    /// A class was loaded, or is unloaded.
    pub fn count(&mut self, name: &str, loader: Option<u64>, loaded: bool) {
        self.total.count(loaded);
        if let Some(counts) = bounded(&mut self.groups, group(name)) {
            counts.count(loaded);
        }
        if let Some(counts) = loader.and_then(|loader| bounded(&mut self.loaders, loader)) {
            counts.count(loaded);
        }
    }

    /// A class could not be initialised.
    pub fn failed(&mut self, name: &str, time: u64) {
        match bounded(&mut self.failures, dotted(name)) {
            Some(failures) => {
                failures.count += 1;
                failures.last = time;
            }
            None => self.other_failures += 1,
        }
    }

    /// Classes by name, those that differ in a number only together; the
    /// fastest growing first.
    pub fn groups(&self) -> Vec<(&str, Counts)> {
        let mut all: Vec<_> = self
            .groups
            .iter()
            .map(|(name, counts)| (name.as_str(), *counts))
            .collect();
        all.sort_by_key(|(name, counts)| (-counts.growth(), *name));
        all
    }

    /// How many classes each loader's data (an address) has; the fastest
    /// growing first.
    pub fn loaders(&self) -> Vec<(u64, Counts)> {
        let mut all: Vec<_> = self
            .loaders
            .iter()
            .map(|(at, counts)| (*at, *counts))
            .collect();
        all.sort_by_key(|(at, counts)| (-counts.growth(), *at));
        all
    }

    /// Classes that could not be initialised, the most frequent first.
    pub fn failures(&self) -> Vec<(&str, Failures)> {
        let mut all: Vec<_> = self
            .failures
            .iter()
            .map(|(name, failures)| (name.as_str(), *failures))
            .collect();
        all.sort_by_key(|(name, failures)| (std::cmp::Reverse(failures.count), *name));
        all
    }
}

fn bounded<K: std::hash::Hash + Eq, V: Default>(map: &mut HashMap<K, V>, key: K) -> Option<&mut V> {
    if map.len() >= MAX_KEYS && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}

/// The name as sources have it.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

/// The name without what tells generated classes apart: an address or a number
/// at its end.
fn group(name: &str) -> String {
    let name = match name.split_once("+0x").or(name.split_once("/0x")) {
        Some((name, _)) => name,
        None => name,
    };
    let plain = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    if plain.len() < name.len() && !plain.is_empty() {
        format!("{}*", dotted(plain))
    } else {
        dotted(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_classes_are_one_group() {
        for (name, expected) in [
            ("com/app/Main", "com.app.Main"),
            ("com/app/Main$$Lambda$14", "com.app.Main$$Lambda$*"),
            (
                "com/app/Main$$Lambda$14+0x00007f0001",
                "com.app.Main$$Lambda$*",
            ),
            ("com/app/Main$$Lambda/0x0000123", "com.app.Main$$Lambda"),
            ("jdk/proxy2/$Proxy117", "jdk.proxy2.$Proxy*"),
            ("123", "123"),
            ("", ""),
        ] {
            assert_eq!(group(name), expected, "{name}");
        }
    }

    #[test]
    fn what_grows_comes_first() {
        let mut classes = Classes::default();
        for index in 0..10 {
            classes.count(&format!("app/Proxy{index}"), Some(0x10), true);
            classes.count("app/Short", Some(0x20), true);
            classes.count("app/Short", Some(0x20), false);
        }
        let growth: Vec<_> = classes
            .groups()
            .into_iter()
            .map(|(name, counts)| (name.to_owned(), counts.growth()))
            .collect();
        assert_eq!(growth, [("app.Proxy*".into(), 10), ("app.Short".into(), 0)]);
        assert_eq!(classes.loaders()[0].0, 0x10);
        assert_eq!(classes.total.growth(), 10);
    }

    #[test]
    fn memory_is_bounded() {
        let mut classes = Classes::default();
        for index in 0..2 * MAX_KEYS as u64 {
            classes.count(&format!("a{index}x"), Some(index), true);
            classes.failed(&format!("a{index}x"), index);
        }
        assert_eq!(classes.groups().len(), MAX_KEYS);
        assert_eq!(classes.loaders().len(), MAX_KEYS);
        assert_eq!(classes.total.loaded, 2 * MAX_KEYS as u64);
        let named: u64 = classes
            .failures()
            .iter()
            .map(|(_, known)| known.count)
            .sum();
        assert_eq!(named + classes.other_failures, 2 * MAX_KEYS as u64);
    }
}
