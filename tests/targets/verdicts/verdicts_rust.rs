//! Labelled behaviours in Rust: see `verdicts.h` for what a program of the suite does, and
//! `labels.json` for what each of these is.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hint::black_box;
use std::io::{BufRead, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DAY: f64 = 20.0;

/// What a mode keeps; most use a few of these.
#[derive(Default)]
struct State {
    /// Time since the begin and since the last tick, seconds.
    now: f64,
    step: f64,
    seed: u32,
    /// Live bytes.
    held: i64,
    queue: VecDeque<Box<[u8]>>,
    by_end: BTreeMap<(u64, u64), Box<[u8]>>,
    by_key: HashMap<u64, Vec<u8>>,
    key: u64,
    next: f64,
}

impl State {
    fn chance(&mut self) -> u32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed >> 8
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        f64::from(self.chance()) / f64::from(1 << 24)
    }

    /// How many come in this tick of so many a second, by chance.
    fn arrivals(&mut self, rate: f64) -> u32 {
        let mean = rate * self.step;
        let trials = 8 + 2 * mean as u32;
        (0..trials).filter(|_| self.fraction() < mean / f64::from(trials)).count() as u32
    }

    fn push(&mut self, size: usize) {
        self.queue.push_back(vec![1; size].into_boxed_slice());
        self.held += size as i64;
    }

    fn pop(&mut self) {
        if let Some(block) = self.queue.pop_front() {
            self.held -= block.len() as i64;
        }
    }

    /// A block that goes after a while.
    fn push_for(&mut self, size: usize, seconds: f64) {
        self.key += 1;
        let end = ((self.now + seconds) * 1e6) as u64;
        self.by_end.insert((end, self.key), vec![1; size].into_boxed_slice());
        self.held += size as i64;
    }

    fn drop_due(&mut self) {
        let later = self.by_end.split_off(&((self.now * 1e6) as u64, 0));
        let due = std::mem::replace(&mut self.by_end, later);
        self.held -= due.values().map(|block| block.len() as i64).sum::<i64>();
    }
}

#[inline(never)]
fn forget_boxes(state: &mut State) {
    for _ in 0..state.arrivals(60.0) {
        std::mem::forget(black_box(Box::new([1_u8; 701])));
        state.held += 701;
    }
}

struct Parent {
    _state: [u8; 1900],
    child: RefCell<Option<Rc<Parent>>>,
}

/// One that holds itself, each two seconds.
#[inline(never)]
fn hold_itself(state: &mut State) {
    for _ in 0..state.arrivals(0.5) {
        let one = Rc::new(Parent { _state: [1; 1900], child: RefCell::new(None) });
        *one.child.borrow_mut() = Some(Rc::clone(&one));
        state.held += 1900;
    }
}

#[inline(never)]
fn remember_keys(state: &mut State) {
    for _ in 0..state.arrivals(12.0) {
        state.key += 1;
        state.by_key.insert(state.key, vec![1; 2100]);
        state.held += 2100;
    }
}

/// At work for eight seconds, at rest for twelve.
#[inline(never)]
fn leak_at_work(state: &mut State) {
    if state.now % 20.0 < 8.0 {
        for _ in 0..state.arrivals(25.0) {
            std::mem::forget(black_box(Box::new([1_u8; 1301])));
            state.held += 1301;
        }
    }
}

#[inline(never)]
fn newest_entries(state: &mut State) {
    for _ in 0..state.arrivals(50.0) {
        if state.queue.len() == 300 {
            state.pop();
        }
        state.push(1601);
    }
}

/// It has room for 200 s.
#[inline(never)]
fn roomy_cache(state: &mut State) {
    for _ in 0..state.arrivals(15.0) {
        if state.queue.len() == 3000 {
            state.pop();
        }
        state.push(1801);
    }
}

#[inline(never)]
fn expire_entries(state: &mut State) {
    state.drop_due();
    for _ in 0..state.arrivals(40.0) {
        state.push_for(1201, 8.0);
    }
}

#[inline(never)]
fn drain_channel(state: &mut State) {
    let lags = state.now % 10.0 < 5.0;
    for _ in 0..state.arrivals(60.0) {
        state.push(1103);
    }
    for _ in 0..state.arrivals(if lags { 20.0 } else { 150.0 }) {
        state.pop();
    }
}

#[inline(never)]
fn gather_rows(state: &mut State) {
    if state.now >= state.next {
        state.next += 6.0;
        state.held = 0;
        state.queue.clear();
    }
    for _ in 0..state.arrivals(70.0) {
        state.push(1409);
    }
}

static WORKS: AtomicBool = AtomicBool::new(true);
const STACK: i64 = 128 << 10;

/// A thread more each second, up to ten.
#[inline(never)]
fn start_workers(state: &mut State) {
    if state.now >= state.next && state.key < 10 {
        state.next += 1.0;
        state.key += 1;
        let work = || {
            while WORKS.load(Ordering::Relaxed) {
                std::thread::park();
            }
        };
        let started = std::thread::Builder::new().stack_size(STACK as usize).spawn(work);
        started.expect("a thread starts");
        state.held += STACK;
    }
}

/// A few blocks of a request, all of which go half a second later.
#[inline(never)]
fn fill_arenas(state: &mut State) {
    state.drop_due();
    for _ in 0..state.arrivals(10.0) {
        for _ in 0..4 {
            state.push_for(4001, 0.5);
        }
    }
}

/// What is live follows the day.
#[inline(never)]
fn follow_the_day(state: &mut State) {
    let hour = (state.now / DAY).fract();
    let light = if hour < 0.5 { 2.0 * hour } else { 2.0 - 2.0 * hour };
    let wanted = 10 + (250.0 * light) as usize;
    while state.queue.len() > wanted {
        state.pop();
    }
    while state.queue.len() < wanted {
        state.push(1709);
    }
}

type Tick = fn(&mut State);

const MODES: [(&str, Tick); 12] = [
    ("forget_boxes", forget_boxes),
    ("hold_itself", hold_itself),
    ("remember_keys", remember_keys),
    ("leak_at_work", leak_at_work),
    ("newest_entries", newest_entries),
    ("roomy_cache", roomy_cache),
    ("expire_entries", expire_entries),
    ("drain_channel", drain_channel),
    ("gather_rows", gather_rows),
    ("start_workers", start_workers),
    ("fill_arenas", fill_arenas),
    ("follow_the_day", follow_the_day),
];

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("stdout is open");
}

/// Says when standard input has ended.
fn awaits_end(ended: &'static AtomicBool) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        ended.store(true, Ordering::Relaxed);
    });
}

fn main() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    let name = std::env::args().nth(1).unwrap_or_default();
    let mode = MODES.iter().find(|(mode, _)| *mode == name).expect("a mode is named");
    say(&format!("{} ready\n", std::process::id()));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("stdin is readable");
    awaits_end(&ENDED);
    let mut state = State { seed: 1, ..State::default() };
    let (begin, mut told) = (Instant::now(), 0.0);
    while !ENDED.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
        let now = begin.elapsed().as_secs_f64();
        state.step = now - state.now;
        state.now = now;
        mode.1(&mut state);
        if now - told >= 1.0 {
            told = now;
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            say(&format!("live {:.6} {} {}\n", since.as_secs_f64(), mode.0, state.held));
        }
    }
    WORKS.store(false, Ordering::Relaxed);
}
