//! The JVM's own counters (`PerfCounter.print`), which it keeps unless it was
//! started with `-XX:-UsePerfData`.
//!
//! One `name=value` a line; names that begin with `sun` are HotSpot's, and the
//! same from JDK 8 to 25.

use std::collections::HashMap;
use std::time::Duration;

/// More counters than this are not kept; JVMs have about 200.
const MAX_COUNTERS: usize = 10_000;

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    /// Reads what the command prints; values that are no numbers are left out.
    pub fn parse(text: &str) -> Self {
        let numbers = text.lines().filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(numbers.take(MAX_COUNTERS).collect())
    }

    /// A counter by its name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Collections of all kinds since the JVM's start; none where the
    /// collector does not count (ZGC before JDK 15).
    pub fn collections(&self) -> Option<u64> {
        let counts = self.0.iter().filter(|(name, _)| {
            name.starts_with("sun.gc.collector.") && name.ends_with(".invocations")
        });
        counts.map(|(_, count)| *count).reduce(u64::saturating_add)
    }

    /// How long the JVM has stopped all its Java threads since its start.
    pub fn stopped(&self) -> Option<Duration> {
        let ticks = self.get("sun.rt.safepointTime")?;
        let frequency = self
            .get("sun.os.hrt.frequency")
            .filter(|&hertz| hertz > 0)?;
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(frequency);
        Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_of_all_kinds_are_summed() {
        let text = "sun.gc.collector.0.invocations=39\nsun.gc.collector.0.name=\"G1\"\nsun.gc.collector.1.invocations=3\nsun.os.hrt.frequency=1000000000\nsun.rt.safepointTime=64988696\n";
        let counters = Counters::parse(text);
        assert_eq!(counters.collections(), Some(42));
        assert_eq!(counters.stopped(), Some(Duration::from_nanos(64_988_696)));
        assert_eq!(counters.get("sun.gc.collector.0.name"), None);
    }

    #[test]
    fn what_is_not_counted_is_none() {
        let counters = Counters::parse("sun.os.hrt.frequency=0\nsun.rt.safepointTime=1\nx\n=\n");
        assert_eq!((counters.collections(), counters.stopped()), (None, None));
    }
}
