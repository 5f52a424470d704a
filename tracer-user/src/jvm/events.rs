//! What HotSpot's own probes tell of one virtual machine.

pub mod classes;
pub mod collections;
pub mod pools;
pub mod probe;
pub mod threads;

use tracer_ebpf::usdt::Told;

use self::classes::Classes;
use self::collections::Collections;
use self::pools::{Point, Pools};
use self::probe::Watched;
use self::threads::{LiveThread, Threads};

/// Everything that was told of one process image.
#[derive(Debug, Default)]
pub struct Events {
    /// Garbage collections.
    pub collections: Collections,
    /// Memory pools.
    pub pools: Pools,
    /// Classes.
    pub classes: Classes,
    /// Threads.
    pub threads: Threads,
    /// Hits whose arguments could not be read, and that are in no number.
    pub unreadable: u64,
}

impl Events {
    /// Enters what a hit told.
    pub fn apply(&mut self, told: &Told) {
        if self.enter(told).is_none() {
            self.unreadable += 1;
        }
    }

    /// How many collections a block survived that was allocated at a time,
    /// nanoseconds of `CLOCK_MONOTONIC`.
    pub fn survived(&self, time: u64) -> u32 {
        self.collections.survived(time)
    }

    fn enter(&mut self, told: &Told) -> Option<()> {
        let classes = &mut self.classes;
        match Watched::from_number(told.probe)? {
            Watched::PauseBegin => self.collections.pause_begins(told.argument(0)? != 0),
            Watched::PauseEnd => self.collections.pause_ends(),
            Watched::PoolBegin => self.collections.begins(&text(told, 0)?, told.time),
            Watched::PoolEnd => self.pool_ended(told)?,
            Watched::ClassLoaded => classes.count(&text(told, 0)?, told.argument(2), true),
            Watched::ClassUnloaded => classes.count(&text(told, 0)?, told.argument(2), false),
            Watched::InitialiserFailed
            | Watched::InitialiserHadFailed
            | Watched::SuperclassFailed => classes.failed(&text(told, 0)?, told.time),
            Watched::ThreadStart => {
                let thread = LiveThread {
                    name: text(told, 0).unwrap_or_default(),
                    id: told.thread,
                    began: told.time,
                    daemon: told.argument(4).is_some_and(|daemon| daemon != 0),
                };
                self.threads.starts(told.argument(2)?, thread);
            }
            Watched::ThreadStop => self.threads.stops(told.argument(2)?),
            // These are counted in the kernel, or told in another way.
            Watched::Initialised | Watched::MethodLoaded | Watched::MethodUnloaded => {}
        }
        Some(())
    }

    fn pool_ended(&mut self, told: &Told) -> Option<()> {
        let (collector, pool) = (text(told, 0)?, text(told, 1)?);
        let point = Point {
            time: told.time,
            used: told.argument(5)?,
            committed: told.argument(6)?,
            // HotSpot has no size for "no limit" but the greatest.
            max: told.argument(7).filter(|max| max.cast_signed() > 0),
        };
        self.collections.ended(&collector, &pool, told.time);
        self.pools.add(&pool, point);
        Some(())
    }
}

/// A string that was told, with a mark if it was too long.
fn text(told: &Told, index: usize) -> Option<String> {
    let text = told.texts.get(index)?;
    let mut name = String::from_utf8_lossy(text.read()?).into_owned();
    if text.is_cut() {
        name.push('…');
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::usdt::Text;

    use super::*;

    fn told(probe: Watched, time: u64, texts: [&str; 2], arguments: [u64; 8]) -> Told {
        let text = |text: &str| {
            let mut bytes = [0; 128];
            let known = text.len().min(bytes.len());
            bytes[..known].copy_from_slice(&text.as_bytes()[..known]);
            Text {
                length: u32::try_from(text.len()).unwrap(),
                is_known: 1,
                bytes,
            }
        };
        Told {
            image: 1,
            time,
            thread: 7,
            probe: probe as u16,
            known: 0xff,
            arguments,
            texts: texts.map(text),
        }
    }

    #[test]
    fn a_collection_is_told_by_its_pools() {
        let mut events = Events::default();
        let names = ["G1 Old Generation", "G1 Old Gen"];
        let usage = [0, 0, 0, 0, 1, 1000, 2000, u64::MAX];
        events.apply(&told(Watched::PauseBegin, 9, ["", ""], [1; 8]));
        events.apply(&told(Watched::PoolBegin, 10, names, usage));
        events.apply(&told(Watched::PoolEnd, 12, names, usage));
        events.apply(&told(Watched::PauseEnd, 13, ["", ""], [0; 8]));
        assert_eq!((events.survived(5), events.survived(10)), (1, 0));
        assert_eq!(events.collections.full(), 1);
        let (name, pool) = events.pools.iter().next().unwrap();
        let point = pool.points()[0];
        assert_eq!((name, point.used, point.max), ("G1 Old Gen", 1000, None));
        assert_eq!(events.unreadable, 0);
    }

    #[test]
    fn classes_and_threads_are_told() {
        let mut events = Events::default();
        events.apply(&told(
            Watched::ClassLoaded,
            1,
            ["a/B", ""],
            [0, 3, 9, 0, 0, 0, 0, 0],
        ));
        events.apply(&told(Watched::InitialiserFailed, 2, ["a/B", ""], [0; 8]));
        events.apply(&told(Watched::InitialiserHadFailed, 3, ["a/B", ""], [0; 8]));
        let thread = [0, 0, 11, 12, 1, 0, 0, 0];
        events.apply(&told(Watched::ThreadStart, 4, ["worker", ""], thread));
        assert_eq!(events.classes.loaders()[0].0, 9);
        let (name, failures) = events.classes.failures()[0];
        assert_eq!((name, failures.count, failures.last), ("a.B", 2, 3));
        let live = events.threads.live()[0].clone();
        assert_eq!(
            (live.name.as_str(), live.id, live.daemon),
            ("worker", 7, true)
        );
        let long = "x".repeat(200);
        events.apply(&told(Watched::ClassLoaded, 1, [&long, ""], [0; 8]));
        let cut = format!("{}…", "x".repeat(128));
        assert!(events.classes.groups().iter().any(|(name, _)| *name == cut));
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let mut events = Events::default();
        let mut pause = told(Watched::PauseBegin, 1, ["", ""], [1; 8]);
        pause.known = 0;
        events.apply(&pause);
        let mut odd = told(Watched::ClassLoaded, 1, ["a", ""], [0; 8]);
        odd.texts[0].is_known = 0;
        events.apply(&odd);
        odd.probe = 999;
        events.apply(&odd);
        assert_eq!(events.unreadable, 3);
        assert_eq!(events.collections.pauses(), (0, 0));
    }
}
