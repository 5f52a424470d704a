//! Names of compiled code by what a JVM tells of it, for code that is freed
//! before its names could be read from memory.
//!
//! An address means different methods at different times. But while code is
//! there its place is not freed, and every free is told too. So a method that
//! was told of has its place from the last free there until the next: a stack
//! that was seen within that time has it, and of any other nothing is said.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracer_ebpf::compiled::{Compiled, Gone, Name};

use super::frames::JavaFrame;
use super::klass::class_name;

/// Methods that are kept of one JVM while their code is there, some 400 bytes
/// each; more are not named.
const MAX_THERE: usize = 1 << 16;

/// The same of those whose code is gone. Stacks are named soon after they were
/// seen, so none is wanted for long.
const MAX_GONE: usize = 1 << 14;

/// Freed places that are remembered.
const MAX_FREED: usize = 1 << 16;

/// How many neighbours of a place are looked at. There are as many as code was
/// freed in it while nobody asked.
const MAX_NEIGHBOURS: usize = 4096;

/// No code is larger, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A method's code, and when it was at its place; nanoseconds of
/// `CLOCK_MONOTONIC`.
#[derive(Debug)]
pub struct Code {
    /// Its name.
    pub frame: JavaFrame,
    place: Range<u64>,
    since: u64,
    until: AtomicU64,
}

impl Code {
    /// Whether it was there all the time between two moments.
    pub fn was_there(&self, first: u64, last: u64) -> bool {
        self.since <= first && last < self.until.load(Ordering::Relaxed)
    }

    fn ends(&self, time: u64) {
        self.until.fetch_min(time, Ordering::Relaxed);
    }
}

/// The code of one JVM.
#[derive(Debug)]
pub struct ToldCode {
    /// What is there, by its first address.
    there: BTreeMap<u64, Arc<Code>>,
    /// What is gone, by its first address and a number of its own.
    gone: BTreeMap<(u64, u64), Arc<Code>>,
    next: u64,
    /// Places by their first address: the one behind them, and when they were
    /// freed last.
    freed: BTreeMap<u64, (u64, u64)>,
    /// Bytes of the longest of them.
    longest: u64,
    /// Since when all frees are known.
    since: u64,
}

impl ToldCode {
    /// Nothing is known before `since`.
    pub fn new(since: u64) -> Self {
        Self {
            there: BTreeMap::new(),
            gone: BTreeMap::new(),
            next: 0,
            freed: BTreeMap::new(),
            longest: 0,
            since,
        }
    }

    /// A method was compiled.
    pub fn compiled(&mut self, told: &Compiled) {
        let place = told.start..told.start.saturating_add(told.size);
        if let Some(frame) = frame(&told.names) {
            self.add(place, told.time..told.time, frame);
        }
    }

    /// There was code at a place at one moment within `time`.
    pub fn add(&mut self, place: Range<u64>, time: Range<u64>, frame: JavaFrame) {
        let size = place.end.saturating_sub(place.start);
        if place.start == 0 || !(1..=MAX_BYTES).contains(&size) {
            return;
        }
        let Some(since) = self.freed_before(&place) else {
            return;
        };
        // It may have come before the last free, or after it.
        if since > time.start {
            return;
        }
        if self.there.len() >= MAX_THERE {
            return;
        }
        let start = place.start;
        // If there is one already, it has not been freed: it is the same.
        self.there.entry(start).or_insert_with(|| {
            Arc::new(Code {
                frame,
                since,
                until: AtomicU64::new(u64::MAX),
                place,
            })
        });
    }

    /// A place was freed.
    pub fn gone(&mut self, gone: &Gone) {
        if gone.end.saturating_sub(gone.start).wrapping_sub(1) >= MAX_BYTES {
            // Nobody knows how much.
            self.distrust(gone.time, gone.time);
            return;
        }
        self.end_codes(gone);
        let inside: Vec<u64> = self
            .freed
            .range(gone.start..gone.end)
            .filter(|(_, (end, _))| *end <= gone.end)
            .map(|(start, _)| *start)
            .collect();
        for start in inside {
            self.freed.remove(&start);
        }
        if self.freed.len() >= MAX_FREED {
            self.freed.clear();
            self.since = gone.time;
        }
        let end = self.freed.get(&gone.start).map_or(0, |(end, _)| *end);
        let place = (gone.end.max(end), gone.time);
        self.longest = self.longest.max(place.0 - gone.start);
        self.freed.insert(gone.start, place);
    }

    fn end_codes(&mut self, gone: &Gone) {
        if self.gone.len() >= MAX_GONE {
            self.gone.clear();
        }
        for (start, code) in self.there.extract_if(gone.start..gone.end, |_, _| true) {
            code.ends(gone.time);
            self.gone.insert((start, self.next), code);
            self.next += 1;
        }
    }

    /// Something was not told after the moment `last`, and until `now`.
    pub fn distrust(&mut self, last: u64, now: u64) {
        for code in self.there.values().chain(self.gone.values()) {
            code.ends(last);
        }
        self.there.clear();
        self.gone.clear();
        self.freed.clear();
        self.since = now;
    }

    /// The code at a return address that was on stacks from `first` to `last`.
    pub fn find(&self, pc: u64, first: u64, last: u64) -> Option<&Arc<Code>> {
        // The call is before it.
        let call = pc.checked_sub(1)?;
        let there = self.there.range(..pc).rev().map(|(_, code)| code);
        let gone = self.gone.range(..(pc, 0)).rev().map(|(_, code)| code);
        let mut codes = there.take(MAX_NEIGHBOURS).chain(gone.take(MAX_NEIGHBOURS));
        codes.find(|code| code.place.contains(&call) && code.was_there(first, last))
    }

    /// Since when nothing of a place was freed; `None` if too much was around
    /// it to tell.
    fn freed_before(&self, place: &Range<u64>) -> Option<u64> {
        let (mut since, mut seen) = (self.since, 0);
        for (start, (end, time)) in self.freed.range(..place.end).rev() {
            if place.start.saturating_sub(*start) > self.longest {
                break;
            }
            seen += 1;
            if seen > MAX_NEIGHBOURS {
                return None;
            }
            if *end > place.start {
                since = since.max(*time);
            }
        }
        Some(since)
    }
}

/// The frame of a method; `None` if its name was not read whole.
fn frame([class, method, signature]: &[Name; 3]) -> Option<JavaFrame> {
    let whole = |name: &Name| {
        let text = String::from_utf8_lossy(name.read()).into_owned();
        (!text.is_empty() && !name.is_cut()).then_some(text)
    };
    let cut = |name: &Name| format!("{}…", String::from_utf8_lossy(name.read()));
    let class = match class.is_cut() {
        true => cut(class).replace('/', "."),
        false => class_name(&whole(class)?)?,
    };
    let method = match method.is_cut() {
        true => cut(method),
        false => whole(method)?,
    };
    Some(JavaFrame::told(class, method, whole(signature)))
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::compiled::NAME_BYTES;

    use super::*;

    const PLACE: u64 = 0x7f00_0000;

    fn name(text: &str) -> Name {
        let mut bytes = [0; NAME_BYTES];
        let known = text.len().min(NAME_BYTES);
        bytes[..known].copy_from_slice(&text.as_bytes()[..known]);
        Name {
            length: text.len() as u64,
            bytes,
        }
    }

    fn compiled(method: &str, start: u64, time: u64) -> Compiled {
        Compiled {
            image: 1,
            time,
            start,
            size: 0x100,
            names: [name("a/B"), name(method), name("()V")],
        }
    }

    /// The block that has the code of [`compiled`] and what stands before it.
    fn gone(start: u64, time: u64) -> Gone {
        Gone {
            image: 1,
            time,
            start: start - 0x80,
            end: start + 0x180,
        }
    }

    fn found(told: &ToldCode, pc: u64, first: u64, last: u64) -> Option<String> {
        let code = told.find(pc, first, last)?;
        code.frame.method.as_deref().map(ToOwned::to_owned)
    }

    #[test]
    fn code_is_where_it_was_told_until_that_is_freed() {
        let mut told = ToldCode::new(10);
        told.compiled(&compiled("one", PLACE, 20));
        // It may run a moment before it is told, but nothing is known of the
        // time before the first event.
        assert_eq!(found(&told, PLACE + 1, 19, 30).as_deref(), Some("one"));
        assert_eq!(found(&told, PLACE + 0x100, 10, 10).as_deref(), Some("one"));
        assert_eq!(found(&told, PLACE + 0x101, 20, 30), None);
        assert_eq!(found(&told, PLACE, 20, 30), None);
        assert_eq!(found(&told, PLACE + 1, 9, 30), None);
        told.gone(&gone(PLACE, 40));
        assert_eq!(found(&told, PLACE + 1, 20, 39).as_deref(), Some("one"));
        assert_eq!(found(&told, PLACE + 1, 20, 40), None);
    }

    #[test]
    fn a_place_that_is_used_again_has_each_at_its_time() {
        let mut told = ToldCode::new(0);
        told.compiled(&compiled("one", PLACE, 20));
        told.gone(&gone(PLACE, 40));
        told.compiled(&compiled("two", PLACE + 0x40, 60));
        assert_eq!(found(&told, PLACE + 0x80, 20, 30).as_deref(), Some("one"));
        assert_eq!(found(&told, PLACE + 0x80, 41, 59).as_deref(), Some("two"));
        // A stack of both times is of neither.
        assert_eq!(found(&told, PLACE + 0x80, 30, 50), None);
    }

    #[test]
    fn code_that_was_named_stays_so_only_until_it_is_freed() {
        let mut told = ToldCode::new(0);
        told.compiled(&compiled("one", PLACE, 20));
        let code = Arc::clone(told.find(PLACE + 1, 20, 20).unwrap());
        assert!(code.was_there(20, 100));
        told.gone(&gone(PLACE, 40));
        assert!(!code.was_there(20, 100) && code.was_there(20, 39));
    }

    #[test]
    fn after_a_loss_nothing_from_before_is_believed() {
        let mut told = ToldCode::new(0);
        told.compiled(&compiled("one", PLACE, 20));
        let code = Arc::clone(told.find(PLACE + 1, 20, 20).unwrap());
        told.distrust(30, 50);
        assert!(code.was_there(20, 29) && !code.was_there(20, 30));
        told.compiled(&compiled("two", PLACE, 60));
        assert_eq!(found(&told, PLACE + 1, 49, 61), None);
        assert_eq!(found(&told, PLACE + 1, 50, 61).as_deref(), Some("two"));
        // A block of no size could be any.
        told.gone(&Gone {
            end: 0,
            ..gone(PLACE, 70)
        });
        assert_eq!(found(&told, PLACE + 1, 60, 61), None);
    }

    #[test]
    fn what_was_there_at_some_moment_may_be_gone() {
        let mut told = ToldCode::new(0);
        let frame = || frame(&compiled("one", PLACE, 0).names).unwrap();
        told.gone(&gone(PLACE, 40));
        told.add(PLACE..PLACE + 0x100, 30..50, frame());
        assert_eq!(found(&told, PLACE + 1, 45, 46), None);
        told.add(PLACE..PLACE + 0x100, 41..50, frame());
        assert_eq!(found(&told, PLACE + 1, 45, 46).as_deref(), Some("one"));
    }

    #[test]
    fn names_are_whole_or_marked() {
        let long = "x".repeat(200);
        let of = |class: &str, method: &str| {
            let frame = frame(&[name(class), name(method), name("()V")])?;
            Some(format!("{}.{}", frame.class?, frame.method?))
        };
        assert_eq!(of("a/B", "c").as_deref(), Some("a.B.c"));
        let cut = format!("a.B.{}…", "x".repeat(NAME_BYTES));
        assert_eq!(of("a/B", &long), Some(cut));
        assert_eq!(of("", "c"), None);
        assert_eq!(of("a/B", ""), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut told = ToldCode::new(0);
        for index in 0..3 * MAX_GONE as u64 {
            let place = PLACE + index % 7 * 0x1000;
            told.compiled(&compiled("one", place, 2 * index));
            told.gone(&gone(place, 2 * index + 1));
            assert!(told.there.len() <= 1 && told.gone.len() <= MAX_GONE && told.freed.len() <= 7);
        }
        for index in 0..2 * MAX_THERE as u64 {
            told.compiled(&compiled("one", PLACE + index * 0x1000, u64::MAX / 2));
            told.gone(&gone(PLACE - index * 0x1000, u64::MAX / 2));
        }
        assert!(told.there.len() <= MAX_THERE && told.freed.len() <= MAX_FREED);
        told.compiled(&Compiled {
            size: u64::MAX,
            ..compiled("one", PLACE, 1)
        });
        assert_eq!(found(&told, PLACE + 1, u64::MAX - 1, u64::MAX - 1), None);
    }
}
