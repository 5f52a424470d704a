use std::collections::{HashMap, HashSet};

use super::*;
use crate::frame::{Frame, is_shared};

const BP: u64 = 0x7ffd_0000_0100;
const CONTEXT: u64 = 0x1000;
const CLOSURE: u64 = 0x2000;
const SHARED: u64 = 0x3000;
const SCRIPT: u64 = 0x4000;
const SOURCE: u64 = 0x5000;
const MAPS: u64 = 0x6000;

const LAYOUT: Layout = Layout {
    context_below: 8,
    function_below: 16,
    shared: 24,
    script: 32,
    literal: 52,
    kind: 12,
    source: 8,
    id: 64,
    length: 12,
    shared_kind: 262,
    script_kind: 167,
    padding: 0,
};

/// Words of memory.
struct Words(HashMap<u64, u64>);

impl Words {
    fn set(&mut self, address: u64, word: u64) {
        self.0.insert(address, word);
    }
}

impl Anywhere for Words {
    fn byte(&mut self, _: u64) -> Option<u8> {
        None
    }

    fn int(&mut self, address: u64) -> Option<u32> {
        let word = self.long(address & !7)?;
        u32::try_from(word >> (8 * (address & 7)) & 0xffff_ffff).ok()
    }

    fn long(&mut self, address: u64) -> Option<u64> {
        self.0.get(&address).copied()
    }
}

impl Objects for Words {}

/// The same, of which the maps of types are remembered.
struct Remembered(Words, HashSet<[u64; 2]>);

impl Anywhere for Remembered {
    fn byte(&mut self, address: u64) -> Option<u8> {
        self.0.byte(address)
    }

    fn int(&mut self, address: u64) -> Option<u32> {
        self.0.int(address)
    }

    fn long(&mut self, address: u64) -> Option<u64> {
        self.0.long(address)
    }
}

impl Objects for Remembered {
    fn has_types(&mut self, maps: [u64; 2], look: impl FnOnce(&mut Self) -> bool) -> bool {
        let has = self.1.contains(&maps) || look(self);
        if has {
            self.1.insert(maps);
        }
        has
    }
}

/// A frame of function 7 of script 5, whose source has 1000 characters.
fn frame() -> Words {
    let mut words = Words(HashMap::new());
    for at in (0..56).step_by(8) {
        words.set(SHARED + at, at);
    }
    for at in (0..72).step_by(8) {
        words.set(SCRIPT + at, at);
    }
    words.set(BP - 8, CONTEXT + 1);
    words.set(BP - 16, CLOSURE + 1);
    words.set(CLOSURE + 24, SHARED + 1);
    words.set(SHARED, MAPS + 1);
    words.set(SHARED + 32, SCRIPT + 1);
    words.set(SHARED + 48, 7 << 32 | 0x1234);
    words.set(SCRIPT, MAPS + 0x101);
    words.set(SCRIPT + 8, SOURCE + 1);
    words.set(SCRIPT + 64, 5 << 32);
    words.set(SOURCE + 8, 1000 << 32 | 3);
    // Beside the type is something else.
    words.set(MAPS + 8, (0xabcd << 16 | 262) << 32);
    words.set(MAPS + 0x108, (0xabcd << 16 | 167) << 32);
    words
}

const IDENTITY: Identity = Identity {
    script: 5,
    literal: 7,
    length: 1000,
    padding: 0,
};

fn function(words: &mut Words) -> Option<Function> {
    LAYOUT.function(BP, &mut [0; WINDOW_WORDS], words)
}

#[test]
fn a_frame_says_which_function_it_runs() {
    let found = function(&mut frame()).unwrap();
    assert_eq!(found.shared, SHARED);
    assert_eq!(found.identity, IDENTITY);
}

#[test]
fn other_frames_have_no_function() {
    for (address, word) in [
        // A number for what the frame is.
        (BP - 8, 3 << 1),
        (BP - 16, 26 << 1),
        // A weak reference.
        (CLOSURE + 24, SHARED + 3),
        // Another type, a function without a script, and a script without a number.
        (MAPS + 8, 263 << 32),
        (MAPS + 0x108, 166 << 32),
        (SCRIPT + 64, SOURCE + 1),
    ] {
        let mut words = frame();
        words.set(address, word);
        assert_eq!(function(&mut words), None, "{address:x}");
    }
    let places: Vec<u64> = frame().0.into_keys().collect();
    for unreadable in places {
        let mut words = frame();
        words.0.remove(&unreadable);
        assert_eq!(function(&mut words), None, "{unreadable:x}");
    }
}

#[test]
fn types_are_read_once() {
    let mut memory = Remembered(frame(), HashSet::new());
    let mut window = [0; WINDOW_WORDS];
    for kept in [true, false] {
        let found = LAYOUT.identity(SHARED, &mut window, &mut memory);
        assert_eq!(found, Some(IDENTITY), "{kept}");
        memory.0.0.retain(|at, _| *at < MAPS);
    }
    // A map that is another one is not known.
    memory.0.set(SCRIPT, MAPS + 1);
    let found = LAYOUT.identity(SHARED, &mut window, &mut memory);
    assert_eq!(found, None);
    let keys = [
        (1, [2, 3]),
        (2, [2, 3]),
        (1, [3, 3]),
        (1, [2, 4]),
        (1, [3, 2]),
    ];
    let keys: HashSet<u64> = keys.map(|(image, maps)| types_key(image, maps)).into();
    assert!(keys.len() == 5 && !keys.contains(&0));
}

#[test]
fn a_layout_is_near_if_a_window_has_what_is_read() {
    assert!(LAYOUT.is_near());
    let far = |change: fn(&mut Layout)| {
        let mut layout = LAYOUT;
        change(&mut layout);
        !layout.is_near()
    };
    assert!(far(|it| it.literal = 80) && far(|it| it.id = 80) && !far(|it| it.id = 72));
}

#[test]
fn each_function_has_a_word_of_its_own() {
    let with = |change: fn(&mut Identity)| {
        let mut other = IDENTITY;
        change(&mut other);
        other
    };
    let others = [
        IDENTITY,
        with(|it| it.script = 6),
        with(|it| it.literal = 8),
        with(|it| it.length = 1001),
        with(|it| (it.script, it.literal) = (7, 5)),
    ];
    let words: HashSet<u64> = others.iter().map(|it| it.word(77)).collect();
    assert_eq!(words.len(), others.len());
    assert_ne!(IDENTITY.word(1), IDENTITY.word(2));
    for word in words {
        assert!(Frame::of(word).is_javascript() && !is_shared(word));
    }
}
