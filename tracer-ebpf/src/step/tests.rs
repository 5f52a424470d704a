//! Steps over stacks that are arrays.

use super::*;
use crate::rule::{Kind, Saved};

const STACK: u64 = 0x7000;

/// Words from [`STACK`] up.
struct Words(Vec<u64>);

impl Memory for Words {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.near(address)
    }

    fn near(&self, address: u64) -> Option<u64> {
        let index = address.checked_sub(STACK)? / 8;
        self.0.get(usize::try_from(index).unwrap()).copied()
    }
}

fn registers() -> Registers {
    Registers {
        ip: 0x40_1000,
        sp: STACK,
        bp: STACK + 32,
        bx: STACK + 48,
    }
}

fn step(rule: Rule, from: Registers, memory: &mut Words) -> Result<Registers, StackEnd> {
    let mut frame = Frame::default();
    frame.begin(from, rule);
    let result = frame.step(memory).map(|()| frame.registers());
    // The short cut is one only if it leads to the same place.
    if let Some(plain) = plain_step(rule, from, memory) {
        assert_eq!(result, Ok(plain));
    }
    result
}

fn numbered() -> Words {
    Words((0..64).map(|index| 1000 + index).collect())
}

fn go(kind: Kind, offset: i64, base: Base, bp: Saved, bx: Saved) -> Registers {
    let rule = Rule::new(kind, offset, base, bp, bx).unwrap();
    step(rule, registers(), &mut numbered()).unwrap()
}

#[test]
fn a_frame_by_the_stack_pointer() {
    let up = go(Kind::Sp, 64, Base::Cfa, Saved::At(-16), Saved::At(-24));
    let rule = Rule::new(Kind::Sp, 64, Base::Cfa, Saved::At(-16), Saved::At(-24));
    assert_eq!(
        plain_step(rule.unwrap(), registers(), &numbered()),
        Some(up)
    );
    let expected = Registers {
        ip: 1007,
        sp: STACK + 64,
        bp: 1006,
        bx: 1005,
    };
    assert_eq!(up, expected);
}

#[test]
fn a_frame_by_rbp_and_one_by_rbx() {
    let up = go(Kind::Bp, 16, Base::Cfa, Saved::At(-16), Saved::Same);
    assert_eq!((up.ip, up.sp, up.bp), (1005, STACK + 48, 1004));
    assert_eq!(up.bx, registers().bx);
    let up = go(Kind::Bx, 8, Base::Cfa, Saved::Same, Saved::Lost);
    assert_eq!((up.ip, up.sp, up.bx), (1006, STACK + 56, LOST));
}

#[test]
fn a_realigned_frame() {
    let mut words = numbered();
    words.0[3] = STACK + 80;
    let rule = Rule::new(Kind::DerefBp, -8, Base::Bp, Saved::At(0), Saved::At(-16));
    let up = step(rule.unwrap(), registers(), &mut words).unwrap();
    assert_eq!((up.ip, up.sp), (1009, STACK + 80));
    assert_eq!((up.bp, up.bx), (1004, 1002));
}

#[test]
fn a_signal_frame_gives_all_registers() {
    let mut words = numbered();
    words.0[20] = STACK - 0x1000;
    let up = step(Rule::SIGNAL, registers(), &mut words).unwrap();
    let expected = Registers {
        ip: 1021,
        sp: STACK - 0x1000,
        bp: 1015,
        bx: 1016,
    };
    assert_eq!(up, expected);
}

#[test]
fn an_interpreted_frame_keeps_the_callers_stack_pointer() {
    let mut words = numbered();
    words.0[3] = STACK + 96;
    let up = step(Rule::INTERPRETED, registers(), &mut words).unwrap();
    assert_eq!((up.ip, up.sp), (1005, STACK + 96));
    assert_eq!((up.bp, up.bx), (1004, registers().bx));
}

#[test]
fn the_call_stub_restores_what_java_code_overwrote() {
    let from = Registers {
        bp: STACK + 8 * 12,
        ..registers()
    };
    let up = step(Rule::CALL_STUB, from, &mut numbered()).unwrap();
    assert_eq!((up.ip, up.sp), (1013, STACK + 8 * 14));
    assert_eq!((up.bp, up.bx), (1012, 1005));
}

/// The thread's stack is from [`STACK`] on, the goroutine's from its 32nd word,
/// and the goroutine itself is at the 20th.
#[test]
fn a_call_from_go_to_c_leads_to_the_goroutines_stack_and_a_callback_back() {
    let mut words = numbered();
    let goroutine = STACK + 8 * 20;
    words.0[5] = 8 * 4;
    words.0[6] = goroutine;
    words.0[21] = STACK + 8 * 40;
    let rule = Rule::go_call(40, 8, 64).unwrap();
    let mut frame = Frame::default();
    frame.begin(registers(), rule);
    frame.step(&mut words).unwrap();
    let up = frame.registers();
    assert_eq!((up.ip, up.sp), (1037, STACK + 8 * 38));
    assert_eq!((up.bp, up.bx), (LOST, LOST));
    frame.begin(up, Rule::go_callback(24).unwrap());
    frame.step(&mut words).unwrap();
    let back = frame.registers();
    assert_eq!((back.ip, back.sp), (1010, STACK + 64 + 24));
    assert_eq!((back.bp, back.bx), (LOST, LOST));
    frame.begin(back, Rule::go_callback(24).unwrap());
    assert_eq!(frame.step(&mut words), Err(StackEnd::Unsupported));
}

#[test]
fn a_call_from_the_threads_own_stack_stays_there() {
    let mut words = numbered();
    words.0[0] = STACK + 8 * 9;
    words.0[1] = 0;
    let mut frame = Frame::default();
    frame.begin(registers(), Rule::go_call(0, 0, 16).unwrap());
    frame.step(&mut words).unwrap();
    let up = frame.registers();
    assert_eq!((up.ip, up.sp), (1009, STACK + 8 * 10));
    frame.begin(up, Rule::go_callback(24).unwrap());
    assert_eq!(frame.step(&mut words), Err(StackEnd::Unsupported));
}

#[test]
fn a_stub_of_the_linkage_table_has_pushed_by_its_11th_byte() {
    let rule = Rule::new(Kind::Plt, 8, Base::Cfa, Saved::Same, Saved::Same).unwrap();
    for (ip, sp) in [(0x40_1006, STACK + 8), (0x40_100b, STACK + 16)] {
        let from = Registers { ip, ..registers() };
        assert_eq!(step(rule, from, &mut numbered()).unwrap().sp, sp);
    }
}

#[test]
fn a_caller_is_never_below() {
    let down = Rule::new(Kind::Bp, -40, Base::Cfa, Saved::Same, Saved::Same).unwrap();
    assert_eq!(
        step(down, registers(), &mut numbered()),
        Err(StackEnd::BadReturn)
    );
}

#[test]
fn a_register_that_is_lost_is_not_used() {
    let lost = Registers {
        bp: LOST,
        ..registers()
    };
    let rule = Rule::new(Kind::Bp, 16, Base::Cfa, Saved::Same, Saved::Same).unwrap();
    assert_eq!(
        step(rule, lost, &mut numbered()),
        Err(StackEnd::Unsupported)
    );
    assert_eq!(
        step(Rule::UNSUPPORTED, registers(), &mut numbered()),
        Err(StackEnd::Unsupported)
    );
}

#[test]
fn an_implausible_frame_pointer_is_not_followed() {
    for (bp, end) in [
        (0, StackEnd::NoFramePointer),
        (STACK - 24, StackEnd::NoFramePointer),
        (STACK + 4, StackEnd::BadReturn),
        (STACK + (1 << 20), StackEnd::NoFramePointer),
        (LOST, StackEnd::Unsupported),
    ] {
        let from = Registers { bp, ..registers() };
        assert_eq!(step(Rule::FRAME_POINTER, from, &mut numbered()), Err(end));
    }
    let up = step(Rule::FRAME_POINTER, registers(), &mut numbered()).unwrap();
    assert_eq!((up.ip, up.sp, up.bp), (1005, STACK + 48, 1004));
}

#[test]
fn memory_that_cannot_be_read_ends_the_stack() {
    let rule = Rule::new(Kind::Sp, 4096, Base::Cfa, Saved::Same, Saved::Same).unwrap();
    assert_eq!(
        step(rule, registers(), &mut numbered()),
        Err(StackEnd::Unreadable)
    );
}
