#![expect(
    clippy::cast_possible_truncation,
    reason = "parts of words that tests made up"
)]

use std::collections::HashMap;

use super::*;
use crate::frame::Frame;
use crate::rule::{Kind, Saved};

const THREAD: u64 = 0x7f00_0000_1000;
const ORIGIN: u64 = 0x5500_0000_0000;
const RUNTIME: u64 = 0x40_0000;
const STATE: u64 = 0x6000;
/// The stack: C frames of the interpreter are from 0x100 to 0x200 and so on above it.
const STACK: u64 = 0x7ffd_0000_0000;
const EVAL: u64 = 0x1000;

/// Words of memory.
#[derive(Default)]
struct Words(HashMap<u64, u64>);

impl Words {
    fn set(&mut self, address: u64, word: u64) {
        self.0.insert(address, word);
    }
}

impl Anywhere for Words {
    fn byte(&mut self, address: u64) -> Option<u8> {
        let word = self.long(address & !7)?;
        Some(word.to_le_bytes()[(address & 7) as usize])
    }

    fn int(&mut self, address: u64) -> Option<u32> {
        let word = self.long(address & !7)?;
        Some((word >> (8 * (address & 7))) as u32)
    }

    fn long(&mut self, address: u64) -> Option<u64> {
        self.0.get(&address).copied()
    }
}

fn layout(shape: Shape) -> Layout {
    Layout {
        runtime: RUNTIME,
        tss_key: 0x10,
        thread_id: 8,
        newest: 0,
        shape: shape as u32,
        cframe_frame: 0,
        cframe_previous: 8,
        code: 0,
        previous: 8,
        entry: 16,
        entered: if shape == Shape::Marked { 1 } else { 3 },
        first_line: 0,
        name: 8,
        frame_bytes: 24,
        code_bytes: 16,
    }
}

/// A thread with a state, and `key` for it.
fn thread(key: u64) -> Words {
    let mut memory = Words::default();
    memory.set(ORIGIN + RUNTIME + 0x10, 1 | key << 32);
    memory.set(STATE + 8, THREAD);
    let block = if key < BLOCK_KEYS {
        THREAD + FIRST_BLOCK
    } else {
        memory.set(THREAD + BLOCKS + key / BLOCK_KEYS * 8, 0x9000);
        0x9000
    };
    memory.set(block + key % BLOCK_KEYS * 16 + 8, STATE);
    memory
}

/// A frame of the code object number `code`, called by `before`.
fn add_frame(memory: &mut Words, frame: u64, code: u64, before: u64, entry: u64) {
    memory.set(frame, code_at(code));
    memory.set(frame + 8, before);
    memory.set(frame + 16, entry);
    memory.set(code_at(code), 100 + code);
    memory.set(code_at(code) + 8, 0x8000 + code * 8);
}

const fn code_at(code: u64) -> u64 {
    0x10_0000 + code * 64
}

/// The word of the C frame's own place.
fn own() -> u64 {
    frame::in_file(7, EVAL, 0)
}

fn word(code: u64) -> u64 {
    frame::python(code_at(code), check(0x8000 + code * 8, 100 + code as u32))
}

/// The words of the C frames that begin so far above [`STACK`].
fn walk(layout: &Layout, memory: &mut Words, stack: &[u64]) -> Vec<Vec<u64>> {
    let rule = Rule::new(Kind::Sp, 0x100, Base::Cfa, Saved::Same, Saved::Same).unwrap();
    let mut walk = Walk::default();
    walk.begin();
    let mut each = |low: &u64| {
        let at = Registers {
            ip: ORIGIN + EVAL,
            sp: STACK + low,
            ..Registers::default()
        };
        walk.enter(at, rule, own());
        let mut words = Vec::new();
        while walk.is_pending.get() != 0 {
            words.push(walk.next(layout, || THREAD, &mut [0; WINDOW_WORDS], memory));
            assert!(words.len() < 100);
        }
        words.retain(|word| *word != 0);
        words
    };
    let words = stack.iter().map(&mut each).collect();
    assert_eq!((walk.file.get(), walk.origin.get()), (7, ORIGIN));
    words
}

/// A `_PyCFrame` in each of two C frames, the inner one of frame 1 and the outer one of 3.
fn add_cframes(memory: &mut Words) {
    memory.set(STATE, STACK + 0x140);
    memory.set(STACK + 0x140, 0x1_0000);
    memory.set(STACK + 0x148, STACK + 0x340);
    memory.set(STACK + 0x340, 0x3_0000);
    memory.set(STACK + 0x348, 0);
}

/// Three functions of which the second called the first in Python, and C the second.
fn marked() -> (Layout, Words) {
    let mut memory = thread(3);
    add_cframes(&mut memory);
    add_frame(&mut memory, 0x1_0000, 1, 0x2_0000, 0);
    add_frame(&mut memory, 0x2_0000, 2, 0x3_0000, 1);
    add_frame(&mut memory, 0x3_0000, 3, 0, 1);
    (layout(Shape::Marked), memory)
}

#[test]
fn a_c_frame_has_the_frames_up_to_the_one_that_c_called() {
    let (layout, mut memory) = marked();
    let words = walk(&layout, &mut memory, &[0x100, 0x300]);
    assert_eq!(words, [vec![word(1), word(2)], vec![word(3)]]);
}

#[test]
fn a_c_frame_without_a_cframe_in_it_runs_nothing() {
    let (layout, mut memory) = marked();
    // The innermost returns: its own is not the newest any more.
    let words = walk(&layout, &mut memory, &[0x0, 0x100, 0x300]);
    assert_eq!(words, [vec![own()], vec![word(1), word(2)], vec![word(3)]]);
    // One that was not met does not shift the names of others.
    assert_eq!(walk(&layout, &mut memory, &[0x300]), [[own()]]);
}

#[test]
fn frames_end_before_the_one_that_is_in_the_c_frame() {
    for shape in [Shape::Shim, Shape::ShimAndCFrame] {
        let (layout, mut memory) = (layout(shape), thread(40));
        let (one, two) = (STACK + 0x110, STACK + 0x310);
        match shape {
            Shape::Shim => memory.set(STATE, 0x1_0000),
            _ => add_cframes(&mut memory),
        }
        add_frame(&mut memory, 0x1_0000, 1, 0x2_0000, 0);
        add_frame(&mut memory, 0x2_0000, 2, one, 1);
        add_frame(&mut memory, one, 9, 0x3_0000, 3);
        add_frame(&mut memory, 0x3_0000, 3, two, 0);
        add_frame(&mut memory, two, 9, 0, 3);
        let words = walk(&layout, &mut memory, &[0x100, 0x300]);
        assert_eq!(words, [vec![word(1), word(2)], vec![word(3)]], "{shape:?}");
        if shape == Shape::Shim {
            // Another C frame than the walk has met: nothing more is believed.
            let words = walk(&layout, &mut memory, &[0x400, 0x500]);
            let gap = Gap::Mismatch.word();
            assert_eq!(words, [vec![word(1), word(2), gap], vec![gap]]);
        }
    }
}

#[test]
fn to_3_10_each_c_frame_has_one() {
    let (layout, mut memory) = (layout(Shape::One), thread(0));
    memory.set(STATE, 0x1_0000);
    add_frame(&mut memory, 0x1_0000, 1, 0x2_0000, 0);
    add_frame(&mut memory, 0x2_0000, 2, 0, 0);
    let words = walk(&layout, &mut memory, &[0x100, 0x300, 0x500]);
    assert_eq!(words, [vec![word(1)], vec![word(2)], vec![own()]]);
}

#[test]
fn what_is_not_this_threads_is_not_believed() {
    let cases: [(u64, u64, Gap); 5] = [
        (STATE + 8, THREAD + 64, Gap::OtherThread),
        (THREAD + FIRST_BLOCK + 3 * 16 + 8, 0, Gap::NoThread),
        (ORIGIN + RUNTIME + 0x10, 3 << 32, Gap::NoThread),
        (ORIGIN + RUNTIME + 0x10, 1 | 5000 << 32, Gap::NoThread),
        (STATE, STACK + 0x180, Gap::Unreadable),
    ];
    for (address, value, gap) in cases {
        let (layout, mut memory) = marked();
        memory.set(address, value);
        let words = walk(&layout, &mut memory, &[0x100, 0x300]);
        assert_eq!(words, [vec![gap.word()], vec![gap.word()]], "{address:x}");
        let Frame::Python { code, .. } = Frame::of(gap.word()) else {
            panic!("{gap:?}");
        };
        assert_eq!(Gap::of(code), Some(gap));
    }
}

#[test]
fn a_loop_of_frames_ends_with_the_room() {
    let (layout, mut memory) = marked();
    add_frame(&mut memory, 0x1_0000, 1, 0x1_0000, 0);
    let mut walk = Walk::default();
    walk.begin();
    let rule = Rule::new(Kind::Sp, 0x100, Base::Cfa, Saved::Same, Saved::Same).unwrap();
    let at = Registers {
        ip: ORIGIN + EVAL,
        sp: STACK + 0x100,
        ..Registers::default()
    };
    walk.enter(at, rule, frame::in_file(7, EVAL, 0));
    // One word a call: the caller has room for so many.
    for _ in 0..1000 {
        assert_eq!(
            walk.next(&layout, || THREAD, &mut [0; WINDOW_WORDS], &mut memory),
            word(1)
        );
    }
}

#[test]
fn code_that_took_the_place_of_other_code_is_told_from_it() {
    assert_ne!(check(0x7f00_1230, 5), check(0x7f00_1230, 6));
    assert_ne!(check(0x7f00_1230, 5), check(0x7f00_1240, 5));
    let all: std::collections::HashSet<u64> = (0..1000)
        .map(|at| check(0x7f00_0000 + at * 16, 1))
        .collect();
    assert!(all.len() > 950, "{}", all.len());
}
