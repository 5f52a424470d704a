//! Blocks that are held in the ways that Rust has, and some that nobody holds: see
//! `holders_cpp.cpp`.

#[path = "common/handshake.rs"]
mod handshake;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::OnceLock;

const COUNT: u64 = 64;

type Record = [u8; 613];

static REGISTRY: OnceLock<Mutex<HashMap<u64, Box<Record>>>> = OnceLock::new();

#[inline(never)]
fn in_registry() {
    let registry = REGISTRY.get_or_init(Mutex::default);
    for number in 0..COUNT {
        registry.lock().unwrap().insert(number, black_box(Box::new([1; 613])));
    }
}

thread_local! {
    static OWN: RefCell<BTreeMap<u64, Box<Record>>> = const { RefCell::new(BTreeMap::new()) };
}

#[inline(never)]
fn in_own() {
    OWN.with_borrow_mut(|own| {
        for number in 0..COUNT {
            own.insert(number, black_box(Box::new([2; 613])));
        }
    });
}

type Channel = (Sender<Box<Record>>, Mutex<Receiver<Box<Record>>>);
static CHANNEL: OnceLock<Channel> = OnceLock::new();

#[inline(never)]
fn in_channel() {
    let (sender, _) = CHANNEL.get_or_init(|| {
        let (sender, receiver) = channel();
        (sender, Mutex::new(receiver))
    });
    for _ in 0..COUNT {
        sender.send(black_box(Box::new([3; 613]))).unwrap();
    }
}

#[inline(never)]
fn forgotten() {
    for _ in 0..COUNT {
        std::mem::forget(black_box(Box::new([4_u8; 613])));
    }
}

struct Peer {
    other: RefCell<Option<Rc<Peer>>>,
    _bytes: Record,
}

#[inline(never)]
fn in_cycle() {
    let peer = || {
        black_box(Rc::new(Peer {
            other: RefCell::default(),
            _bytes: [5; 613],
        }))
    };
    for _ in 0..COUNT / 2 {
        let (one, other) = (peer(), peer());
        *one.other.borrow_mut() = Some(other.clone());
        *other.other.borrow_mut() = Some(one);
    }
}

/// Writes over what is left on the stack.
#[inline(never)]
fn scrub() {
    black_box([6_u8; 32768]);
}

fn leak_vectors() {
    in_registry();
    in_own();
    in_channel();
    forgotten();
    in_cycle();
    scrub();
}

fn main() {
    handshake::serve(leak_vectors, [0, 0, 0, 0]);
}
