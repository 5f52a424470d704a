//! What changed at each call path between two moments.

use std::collections::{HashMap, HashSet};

use tracer_ebpf::site::SiteKey;

use super::collect::CollectedSite;
use crate::model::{Balance, MemoryKind, SiteWindow, Window};

/// A path and the kind of memory.
type Key = (SiteKey, MemoryKind);

/// The sums of each path at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    allocated: (u64, u64),
    freed: (u64, u64),
    live: (u64, u64),
}

/// The windows of a run, one after the other.
#[derive(Debug, Default)]
pub struct Windows {
    before: HashMap<Key, Sums>,
    /// When the last one ended, seconds since the run's start.
    at: f64,
    /// What each process had in memory then, bytes.
    resident: HashMap<u32, u64>,
}

impl Windows {
    /// Windows of which the first begins at `at`, seconds since the run's start, with nothing.
    pub fn since(at: f64) -> Self {
        Self {
            at,
            ..Self::default()
        }
    }

    /// Ends a window at `at`, seconds since the run's start: each site gets what
    /// is new at its path. A path that comes twice, from the kernel and from
    /// before its place was given to another, is one: its first site has it all.
    pub fn next(&mut self, at: f64, sites: &mut [&mut CollectedSite]) -> Window {
        let mut now: HashMap<Key, Sums> = HashMap::new();
        for site in &*sites {
            now.entry((site.key, site.kind)).or_default().add(site);
        }
        let mut all = SiteWindow::default();
        let mut seen = HashSet::new();
        for site in sites {
            let key = (site.key, site.kind);
            let mut window = SiteWindow::default();
            if seen.insert(key) {
                let before = self.before.get(&key).copied().unwrap_or_default();
                window = now.get(&key).copied().unwrap_or_default().since(&before);
            }
            if site.kind.is_memory() {
                all.add(&window);
            }
            site.window = Some(window);
        }
        self.before = now;
        Window {
            began: std::mem::replace(&mut self.at, at),
            ended: at,
            sums: all,
            resident_start: 0,
            resident_end: 0,
        }
    }

    /// Adds what the processes have in memory, by their balances.
    pub fn add_resident(&mut self, window: &mut Window, balances: &[Balance]) {
        let now = balances.iter().map(|it| (it.pid, it.resident_end));
        let before = std::mem::replace(&mut self.resident, now.collect());
        for balance in balances {
            let start = before.get(&balance.pid);
            window.resident_start += start.copied().unwrap_or(balance.resident_start);
            window.resident_end += balance.resident_end;
        }
    }
}

impl Sums {
    fn add(&mut self, site: &CollectedSite) {
        let pair = |a: &mut (u64, u64), b: (u64, u64)| *a = (a.0 + b.0, a.1 + b.1);
        pair(&mut self.allocated, site.allocated);
        pair(&mut self.freed, site.freed);
        pair(&mut self.live, site.live);
    }

    fn since(&self, before: &Self) -> SiteWindow {
        let grown = |now: u64, before: u64| {
            i64::try_from(i128::from(now) - i128::from(before)).unwrap_or(i64::MAX)
        };
        SiteWindow {
            live_bytes: grown(self.live.1, before.live.1),
            live_count: grown(self.live.0, before.live.0),
            allocated_bytes: self.allocated.1.saturating_sub(before.allocated.1),
            allocated_count: self.allocated.0.saturating_sub(before.allocated.0),
            freed_bytes: self.freed.1.saturating_sub(before.freed.1),
            freed_count: self.freed.0.saturating_sub(before.freed.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(number: u64, allocated: u64, freed: u64) -> CollectedSite {
        CollectedSite {
            key: SiteKey {
                high: number,
                low: 1,
            },
            allocated: (allocated, allocated * 10),
            freed: (freed, freed * 10),
            live: (allocated - freed, (allocated - freed) * 10),
            ..CollectedSite::empty()
        }
    }

    fn next(windows: &mut Windows, at: f64, sites: &mut [CollectedSite]) -> Window {
        let mut sites: Vec<_> = sites.iter_mut().collect();
        windows.next(at, &mut sites)
    }

    #[test]
    fn a_window_has_what_is_new() {
        let mut windows = Windows::default();
        let mut sites = [site(1, 5, 2), site(2, 7, 7)];
        let first = next(&mut windows, 1.0, &mut sites);
        assert_eq!((first.began, first.ended), (0.0, 1.0));
        assert_eq!((first.sums.allocated_count, first.sums.live_count), (12, 3));
        // The first path's place was given to another, and it is made again.
        let mut sites = [site(1, 5, 5), site(2, 7, 7), site(1, 3, 0)];
        let second = next(&mut windows, 2.5, &mut sites);
        assert_eq!((second.began, second.ended), (1.0, 2.5));
        let windows: Vec<_> = sites.iter().filter_map(|site| site.window).collect();
        let first = SiteWindow {
            live_bytes: 0,
            live_count: 0,
            allocated_bytes: 30,
            allocated_count: 3,
            freed_bytes: 30,
            freed_count: 3,
        };
        assert_eq!(
            windows,
            [first, SiteWindow::default(), SiteWindow::default()]
        );
        assert_eq!(second.sums, first);
    }
}
