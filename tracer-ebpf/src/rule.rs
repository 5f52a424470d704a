//! Unwind rules: where a frame's caller is, in one word.
//!
//! A rule is what the call frame information of one address says about the
//! three registers that matter (DWARF 5, section 6.4; the psABI's `.eh_frame`):
//! the canonical frame address (CFA, the stack pointer before the call), the
//! frame pointer `rbp`, and `rbx`, from which a few frames count. The return
//! address is always the word below the CFA, except in a signal frame.
//!
//! ```text
//!  63      48 47      32 31            8 7    6 5    4 3      2    1     0
//! +----------+----------+---------------+------+------+----+------+--------+
//! |   rbx    |   rbp    |  CFA offset   | form | base | go | word | number |
//! +----------+----------+---------------+------+------+----+------+--------+
//! ```
//!
//! A base of 2 is the CFA too, in code that runs functions of a script language: CPython's
//! interpreter, V8's built-in functions and what V8 compiles.
//!
//! The CFA is register `number` plus the offset, or the `word` there. Offsets
//! are signed and in words of 8 bytes. The layout lets a step up the stack
//! take few branches: the kernel's verifier walks through all of them.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "fields are cut out of words"
)]

use crate::choice::is_equal;

/// Bytes of a word of the stack.
const WORD: i64 = 8;

/// An unwind rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Rule(u64);

/// What kind of frame it is: how its CFA is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// There is no rule: a gap between functions.
    None = 0,
    /// The outermost frame of a thread.
    End = 1,
    /// The information needs what a rule cannot say.
    Unsupported = 2,
    /// CFA = rsp + offset.
    Sp = GO,
    /// CFA = rbp + offset.
    Bp = GO | 1,
    /// CFA = rbx + offset.
    Bx = GO | 2,
    /// CFA = the word at rsp + offset.
    DerefSp = GO | DEREF,
    /// CFA = the word at rbp + offset: a realigned stack.
    DerefBp = GO | DEREF | 1,
    /// In a stub of the procedure linkage table: CFA = rsp + offset, and 8
    /// more from the stub's 11th byte on.
    Plt = PLT | GO,
    /// The kernel's signal frame: the return address is not below the CFA.
    Signal = SIGNAL | GO | DEREF,
    /// Code without tables that may keep frame pointers.
    FramePointer = FRAME_POINTER | GO | 1,
    /// A frame of HotSpot's interpreter: CFA = the word at rbp + offset, and
    /// the return address is above the saved rbp.
    Interpreted = FRAME_POINTER | GO | DEREF | 1,
    /// Go's `asmcgocall`, which calls C code on the stack of the thread: its
    /// caller is on the stack of a goroutine.
    GoCall = CROSSING | GO,
    /// Go's `cgocallback`, which C code calls, and which goes on with the stack
    /// of a goroutine: its caller is on the stack of the thread.
    GoCallback = CROSSING | GO | 1,
    /// Go's `systemstack`, which calls Go code on the stack of the thread: its caller is
    /// on the stack of the goroutine that the thread runs.
    GoSwitch = CROSSING | GO | 2,
}

const GO: u8 = 1 << 3;
const DEREF: u8 = 1 << 2;
const FORM: u8 = 3 << 6;
const PLT: u8 = 1 << 6;
const SIGNAL: u8 = 2 << 6;
const FRAME_POINTER: u8 = 3 << 6;
/// From one stack to another.
const CROSSING: u8 = PLT | DEREF;

/// Bits of the first of two places that a rule's CFA offset holds.
const SWITCH_BITS: u32 = 12;

/// The number of rbx in a rule.
pub const BX: usize = 2;

/// What saved registers' offsets count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Base {
    /// rsp of this frame.
    Sp = 0,
    /// rbp of this frame.
    Bp = 1,
    /// The CFA.
    Cfa = 3,
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Saved {
    /// Still in the register.
    Same,
    /// Saved this many bytes from the rule's [`Base`].
    At(i32),
    /// Nowhere.
    Lost,
}

/// The base of rules in code that runs functions of a script language: the CFA.
const MARKED: u64 = 2;
/// The bit that tells the two apart.
const NOT_MARKED: u64 = 1 << 4;

const SAME: u16 = 0x8000;
const LOST: u16 = 0x8001;

impl Rule {
    /// No rule.
    pub const NONE: Self = Self(Kind::None as u64);
    /// The outermost frame.
    pub const END: Self = Self(Kind::End as u64);
    /// Not expressible.
    pub const UNSUPPORTED: Self = Self(Kind::Unsupported as u64);
    /// At a function's first instruction: nothing is pushed but the return
    /// address.
    pub const ENTRY: Self = Self::known(Kind::Sp, 8, Base::Cfa, Saved::Same, Saved::Same);
    /// Where a signal handler returns to. The kernel has saved all registers
    /// in a `struct rt_sigframe` (`arch/x86/include/asm/sigframe.h`), of which
    /// the handler's return took the first word; `ucontext_t` is next.
    pub const SIGNAL: Self =
        Self::known(Kind::Signal, 160, Base::Sp, Saved::At(120), Saved::At(128));
    /// Where the interrupted instruction's address is in such a frame, bytes
    /// above the stack pointer.
    pub const SIGNAL_IP: u64 = 168;
    /// By frame pointer.
    pub const FRAME_POINTER: Self = Self::known(
        Kind::FramePointer,
        16,
        Base::Cfa,
        Saved::At(-16),
        Saved::Lost,
    );

    /// The same, in code of V8 that may run a function of JavaScript.
    pub const SCRIPT: Self = Self(Self::FRAME_POINTER.0 & !NOT_MARKED);

    /// A frame of HotSpot's interpreter. Between it and a caller that was
    /// compiled may be arguments that an adapter copied, so the caller's stack
    /// pointer is kept in the frame. (HotSpot's `frame_x86.hpp`.)
    pub const INTERPRETED: Self =
        Self::known(Kind::Interpreted, -8, Base::Bp, Saved::At(0), Saved::Same);
    /// Where the return address is in such a frame, bytes above rbp.
    pub const INTERPRETED_RETURN: u64 = 8;
    /// The stub through which HotSpot's native code calls Java code: Java code
    /// may use all registers, so the stub saves them, rbx six words below
    /// rbp's. (HotSpot's `generate_call_stub`.)
    pub const CALL_STUB: Self =
        Self::known(Kind::Bp, 16, Base::Cfa, Saved::At(-16), Saved::At(-72));

    /// Go's `asmcgocall`, when it has called C code. `depth` bytes above the stack
    /// pointer is how far below its end the goroutine's stack was in use, and the
    /// goroutine in the word after that; if that is 0, the depth is a stack pointer
    /// itself, of the same stack. `frame` bytes further up is the return address.
    /// The thread's stack pointer was `size` bytes higher before. (Go's
    /// `runtime/asm_amd64.s`.)
    pub const fn go_call(depth: i64, frame: i32, size: i32) -> Option<Self> {
        let (frame, size) = (Saved::At(frame), Saved::At(size));
        Self::new(Kind::GoCall, depth, Base::Sp, frame, size)
    }

    /// Where the goroutine's stack ends, bytes from the start of its `g`, whose
    /// first member is a pair of the lowest and the highest address. (Go's
    /// `runtime/runtime2.go`.)
    pub const GO_STACK_END: u64 = 8;

    /// Go's `cgocallback`, when it has called Go code. Its frame has so many bytes
    /// with the return address, on both stacks.
    pub const fn go_callback(size: i64) -> Option<Self> {
        let lost = Saved::Lost;
        Self::new(Kind::GoCallback, size, Base::Cfa, lost, lost)
    }

    /// Go's `systemstack`, when it has called Go code: the places, in bytes, of the
    /// current `g` from the thread pointer, of its `m` in it, of the goroutine that the
    /// thread runs in that (`curg`), and of the stack pointer that was saved in this
    /// one, at which the return address is. (Go's `runtime/asm_amd64.s`.)
    pub const fn go_switch(current: i32, machine: i64, running: i32, stack: i64) -> Option<Self> {
        let (machine_words, stack_words) = (machine / WORD, stack / WORD);
        if machine < 0
            || stack < 0
            || machine % WORD != 0
            || stack % WORD != 0
            || machine_words >= 1 << SWITCH_BITS
            || stack_words >= 1 << (SWITCH_BITS - 2)
        {
            return None;
        }
        let both = (machine_words | stack_words << SWITCH_BITS) * WORD;
        let (current, running) = (Saved::At(current), Saved::At(running));
        Self::new(Kind::GoSwitch, both, Base::Sp, current, running)
    }

    /// Where the `m` is in a `g`, and the saved stack pointer, of such a rule.
    #[inline(always)]
    pub const fn switched(self) -> (u64, u64) {
        let both = self.offset() / WORD as u64;
        let machine = both & ((1 << SWITCH_BITS) - 1);
        (machine * WORD as u64, (both >> SWITCH_BITS) * WORD as u64)
    }

    /// A frame of so many words in HotSpot's code cache: rbp is saved below
    /// the return address. rbx passes for saved, since nothing counts from it
    /// until the call stub restores it.
    #[inline(always)]
    pub const fn java(words: u64) -> Self {
        const EMPTY: Rule = Rule::known(Kind::Sp, 0, Base::Cfa, Saved::At(-16), Saved::Same);
        Self(EMPTY.0 | (words & 0x7f_ffff) << 8)
    }

    const fn known(kind: Kind, offset: i64, base: Base, bp: Saved, bx: Saved) -> Self {
        match Self::new(kind, offset, base, bp, bx) {
            Some(rule) => rule,
            None => Self::UNSUPPORTED,
        }
    }

    /// A rule whose CFA is `offset` bytes from what `kind` says. `None` if a
    /// number does not fit: offsets are multiples of 8, that of the CFA below
    /// 64 MiB, those of registers below 256 KiB.
    pub const fn new(kind: Kind, offset: i64, base: Base, bp: Saved, bx: Saved) -> Option<Self> {
        let words = offset / WORD;
        if offset % WORD != 0 || words < -(1 << 23) || words >= 1 << 23 {
            return None;
        }
        let (Some(bp), Some(bx)) = (saved(bp), saved(bx)) else {
            return None;
        };
        let offset = (words as u64 & 0xff_ffff) << 8;
        let registers = (bp as u64) << 32 | (bx as u64) << 48;
        Some(Self(kind as u64 | (base as u64) << 4 | offset | registers))
    }

    /// A rule from its word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The rule's word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The number of its [`Kind`].
    #[inline(always)]
    pub const fn kind(self) -> u8 {
        self.0 as u8 & (FORM | GO | DEREF | 3)
    }

    /// Whether the CFA is rsp or rbp plus the offset, and registers count from
    /// the CFA: nearly all rules do.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        const MASK: u64 = 0xfe;
        const PLAIN: u64 = (Base::Cfa as u64) << 4 | GO as u64;
        self.0 & MASK == PLAIN
    }

    /// 1 if what it goes by can be told in words of one stack and registers: it is no
    /// signal's frame or interpreter's, leads to no other stack, and is no guess; else 0.
    #[inline(always)]
    pub fn local(self) -> u64 {
        let is = |bits: u8, form: u8| is_equal(self.0 & u64::from(bits), u64::from(form));
        is(FORM, 0) | is(FORM | DEREF, PLT)
    }

    /// Whether it leads to a caller.
    #[inline(always)]
    pub const fn goes_on(self) -> bool {
        self.0 & GO as u64 != 0
    }

    /// Whether the CFA is the word in memory, not the sum.
    #[inline(always)]
    pub const fn is_in_memory(self) -> bool {
        self.0 & DEREF as u64 != 0
    }

    /// Whether it is one for the linkage table.
    #[inline(always)]
    pub const fn is_plt(self) -> bool {
        self.0 & (FORM | DEREF) as u64 == PLT as u64
    }

    /// Whether the caller is on another stack.
    #[inline(always)]
    pub const fn is_crossing(self) -> bool {
        self.0 & (FORM | DEREF) as u64 == CROSSING as u64
    }

    /// Whether it is one from the thread's stack to a goroutine's.
    #[inline(always)]
    pub const fn is_go_call(self) -> bool {
        self.is_crossing() && self.register() == 0
    }

    /// Whether the frame was made by a signal.
    #[inline(always)]
    pub const fn is_signal(self) -> bool {
        self.0 & FORM as u64 == SIGNAL as u64
    }

    /// Whether the frame pointer is believed without a table.
    #[inline(always)]
    pub const fn is_frame_pointer(self) -> bool {
        self.0 & (FORM | DEREF) as u64 == FRAME_POINTER as u64
    }

    /// Whether it is a frame of HotSpot's interpreter.
    #[inline(always)]
    pub const fn is_interpreted(self) -> bool {
        self.0 & (FORM | DEREF) as u64 == (FRAME_POINTER | DEREF) as u64
    }

    /// Whether it is one to the goroutine that the thread runs.
    #[inline(always)]
    pub const fn is_go_switch(self) -> bool {
        self.is_crossing() && self.register() == BX
    }

    /// The same rule, in the code of CPython's interpreter: if it is one of those that such
    /// code has.
    pub const fn in_python(self) -> Option<Self> {
        const FORMS: u64 = (FORM | GO | DEREF) as u64;
        let is_usual = self.0 & FORMS == GO as u64 && self.base() == Base::Cfa as usize;
        if !is_usual {
            return None;
        }
        Some(Self(self.0 & !NOT_MARKED))
    }

    /// Whether it is one in code that runs functions of a script language.
    #[inline(always)]
    pub const fn is_marked(self) -> bool {
        const BASE: u64 = 3 << 4;
        self.0 & BASE == MARKED << 4
    }

    /// The same rule, whatever code it is in.
    #[inline(always)]
    pub const fn anywhere(self) -> Self {
        // A base of 2 becomes one of 3.
        Self(self.0 | (self.0 >> 1 & NOT_MARKED))
    }

    /// The number of the register that the CFA counts from.
    #[inline(always)]
    pub const fn register(self) -> usize {
        self.0 as usize & 3
    }

    /// The number of its [`Base`]; of one in the interpreter's code, see [`Self::anywhere`].
    #[inline(always)]
    pub const fn base(self) -> usize {
        self.0 as usize >> 4 & 3
    }

    /// The CFA's offset in bytes.
    #[inline(always)]
    pub const fn offset(self) -> u64 {
        // Bits 8 to 31, extended by their sign, times 8.
        ((self.0 << 32) as i64 >> 40 << 3) as u64
    }

    /// Where rbp is.
    #[inline(always)]
    pub const fn bp(self) -> Slot {
        Slot((self.0 >> 32) as u16)
    }

    /// Where rbx is.
    #[inline(always)]
    pub const fn bx(self) -> Slot {
        Slot((self.0 >> 48) as u16)
    }
}

/// Where a register is, as a rule has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// Whether the register still holds the caller's value.
    #[inline(always)]
    pub const fn is_same(self) -> bool {
        self.0 == SAME
    }

    /// The same as a number: 1 or 0.
    #[inline(always)]
    pub fn same(self) -> u64 {
        is_equal(self.0.into(), SAME.into())
    }

    /// Whether the caller's value is nowhere.
    #[inline(always)]
    pub const fn is_lost(self) -> bool {
        self.0 == LOST
    }

    /// Bytes from the rule's base, if it is saved.
    #[inline(always)]
    pub const fn offset(self) -> u64 {
        (self.0 as i16 as i64 * WORD) as u64
    }
}

const fn saved(place: Saved) -> Option<u16> {
    match place {
        Saved::Same => Some(SAME),
        Saved::Lost => Some(LOST),
        Saved::At(offset) => {
            let words = offset as i64 / WORD;
            if offset as i64 % WORD != 0 || words < -0x7ffe || words > 0x7fff {
                return None;
            }
            Some(words as i16 as u16)
        }
    }
}

// SAFETY: one u64, any bit pattern is valid.
unsafe impl crate::Record for Rule {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_in_pythons_code_is_the_same_rule() {
        let rule = Rule::new(Kind::Sp, 96, Base::Cfa, Saved::At(-16), Saved::Same).unwrap();
        let marked = rule.in_python().unwrap();
        assert!(marked.is_marked() && !rule.is_marked() && marked != rule);
        assert!(!marked.is_plain() && marked.goes_on());
        assert_eq!((marked.anywhere(), rule.anywhere()), (rule, rule));
        for other in [
            Rule::NONE,
            Rule::END,
            Rule::SIGNAL,
            Rule::FRAME_POINTER,
            Rule::INTERPRETED,
            Rule::new(Kind::DerefBp, 8, Base::Bp, Saved::At(0), Saved::Same).unwrap(),
            Rule::new(Kind::Sp, 8, Base::Sp, Saved::At(0), Saved::Same).unwrap(),
        ] {
            assert_eq!(other.in_python(), None);
            assert!(!other.is_marked());
            assert_eq!(other.anywhere(), other);
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        for offset in [0, 8, -8, 160, (1 << 26) - 8, -(1 << 26)] {
            for (bp, bx) in [
                (Saved::Same, Saved::Lost),
                (Saved::At(-16), Saved::At(-262_128)),
                (Saved::At(0), Saved::At(262_136)),
            ] {
                let rule = Rule::new(Kind::Bp, offset, Base::Bp, bp, bx).unwrap();
                assert_eq!(rule.kind(), Kind::Bp as u8);
                assert_eq!(rule.base(), Base::Bp as usize);
                assert_eq!(rule.offset().cast_signed(), offset);
                for (slot, saved) in [(rule.bp(), bp), (rule.bx(), bx)] {
                    assert_eq!(slot.is_same(), saved == Saved::Same);
                    assert_eq!(slot.is_lost(), saved == Saved::Lost);
                    if let Saved::At(offset) = saved {
                        assert_eq!(slot.offset().cast_signed(), i64::from(offset));
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let rule = |offset, bp| Rule::new(Kind::Sp, offset, Base::Cfa, bp, Saved::Same);
        assert_eq!(rule(12, Saved::Same), None);
        assert_eq!(rule(1 << 26, Saved::Same), None);
        assert_eq!(rule(8, Saved::At(4)), None);
        assert_eq!(rule(8, Saved::At(-262_144)), None);
    }

    #[test]
    fn fixed_rules_are_what_they_are_called() {
        assert_eq!(Rule::ENTRY.kind(), Kind::Sp as u8);
        assert_eq!(Rule::END.kind(), Kind::End as u8);
        assert_eq!(Rule::UNSUPPORTED.kind(), Kind::Unsupported as u8);
        assert!(Rule::SIGNAL.is_signal() && Rule::SIGNAL.is_in_memory());
        assert!(Rule::FRAME_POINTER.is_frame_pointer() && Rule::FRAME_POINTER.goes_on());
        assert!(Rule::ENTRY.is_plain());
        assert!(Rule::INTERPRETED.is_interpreted() && Rule::INTERPRETED.is_in_memory());
        assert!(!Rule::INTERPRETED.is_frame_pointer() && !Rule::FRAME_POINTER.is_interpreted());
        assert!(Rule::CALL_STUB.is_plain() && Rule::java(14).is_plain());
        assert_eq!(Rule::java(14).offset(), 14 * 8);
        let call = Rule::go_call(40, 8, 64).unwrap();
        let callback = Rule::go_callback(40).unwrap();
        assert!(call.is_go_call() && call.offset() == 40);
        assert_eq!((call.bp().offset(), call.bx().offset()), (8, 64));
        assert!(callback.is_crossing() && !callback.is_go_call());
        assert_eq!(callback.kind(), Kind::GoCallback as u8);
        let switch = Rule::go_switch(-8, 48, 192, 56).unwrap();
        assert!(switch.is_go_switch() && !switch.is_go_call());
        assert_eq!(switch.switched(), (48, 56));
        assert_eq!(switch.bp().offset().cast_signed(), -8);
        assert_eq!(switch.bx().offset(), 192);
        assert_eq!(Rule::go_switch(-8, 1 << 15, 192, 56), None);
        for rule in [call, callback, switch] {
            assert!(!rule.is_plt() && !rule.is_signal() && !rule.is_interpreted());
        }
        for rule in [
            call,
            callback,
            Rule::SIGNAL,
            Rule::FRAME_POINTER,
            Rule::INTERPRETED,
            Rule::NONE,
            Rule::END,
        ] {
            assert!(!rule.is_plain());
        }
        for rule in [Rule::NONE, Rule::END, Rule::UNSUPPORTED] {
            assert!(!rule.goes_on() && !rule.is_signal() && !rule.is_plt());
        }
    }
}
