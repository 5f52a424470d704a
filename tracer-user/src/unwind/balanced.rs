//! Where the return address is in code that nothing describes, by what that code does until it
//! returns.
//!
//! A function gives back the stack that it has taken: when it returns, its return address is where
//! rsp points. So from any instruction the way to a return tells how far away that is, and where the
//! caller's rbp and rbx are taken from. This is a data flow against the direction of the code, over all
//! of its ways, that begins at returns. Calls are taken to keep rsp, rbp and rbx, as the psABI has it.
//! Nothing is known
//!
//! - where ways that lead to a return differ;
//! - where a way ends at a jump through a register, unless the frame was given back right before: then
//!   it goes to another function, which returns for this one;
//! - behind a call that does not return, since another function's code stands there: a call behind
//!   which a function begins that others call or take the address of, or where padding may have one
//!   begin, and all calls of a function from which no way comes to a return.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Register};
use tracer_ebpf::rule::{Base, Kind, Rule, Saved};

use super::code::Code;
use super::effect::{Effect, From, Held, effect, is_jump, is_padding, is_stub, start_in};

/// Bytes of code that are looked through of a file, at most: that takes some 4 bytes of memory for
/// each.
pub const MAX_CODE: u64 = 16 << 20;
/// Instructions that do something, at most: compilers' code has one in 10 bytes.
const MAX_EFFECTS: usize = 2 << 20;
/// How often the flow is followed; loops in loops need more than two.
const MAX_PASSES: usize = 8;
/// Bytes read at a time.
const PIECE: u64 = 256 << 10;
/// How often functions are looked for that do not return.
const MAX_ROUNDS: usize = 3;
/// Frames beyond this are none, bytes.
const MAX_FRAME: i32 = 1 << 24;

/// Where the caller's value of a register is: so many bytes from the CFA, or still in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(i32);

impl Place {
    const SAME: Self = Self(i32::MAX);
}

/// What is known before an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    from: From,
    /// The CFA, bytes from that register.
    cfa: i32,
    bp: Place,
    bx: Place,
}

/// What the ways from an instruction say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// None reaches a return.
    Nothing,
    /// None but one that goes on nobody knows where.
    Hidden,
    It(State),
    /// They differ.
    Different,
}

/// Code without descriptions, and what is known of it.
pub struct Balanced {
    start: u64,
    /// Instructions that do something: their ends, bytes from the start, ascending.
    ends: Vec<u32>,
    effects: Vec<Effect>,
    known: Vec<Known>,
    /// Where instructions begin, a bit for each byte.
    begins: Vec<u64>,
    /// Where functions begin, as calls and pointers have it: ascending once all is decoded.
    starts: Vec<u32>,
    /// Calls behind which is nothing but padding, and where that ends.
    padded: HashMap<usize, u32>,
    /// Jumps to other code: which, and where to.
    leaving: Vec<(usize, u64)>,
    /// Functions that do not return, as calls have them.
    endless: HashSet<i32>,
}

impl Balanced {
    /// What is known of the code in this range, if it can be read and is not too long.
    /// `is_start` says whether a function begins at an address elsewhere.
    pub fn of(code: &mut Code, range: Range<u64>, is_start: impl Fn(u64) -> bool) -> Option<Self> {
        let length = range.end.checked_sub(range.start)?;
        if length == 0 || length > MAX_CODE {
            return None;
        }
        let words = usize::try_from(length.div_ceil(64)).ok()?;
        let mut balanced = Self {
            start: range.start,
            ends: Vec::new(),
            effects: Vec::new(),
            known: Vec::new(),
            begins: vec![0; words],
            starts: Vec::new(),
            padded: HashMap::new(),
            leaving: Vec::new(),
            endless: HashSet::new(),
        };
        balanced.decode(code, &range)?;
        balanced.follow_leaving(code, is_start);
        balanced.resolve();
        for _ in 0..MAX_ROUNDS {
            balanced.known = vec![Known::Nothing; balanced.effects.len()];
            let mut passes = 0..MAX_PASSES;
            while passes.next().is_some() && balanced.pass() {}
            if !balanced.find_endless() {
                break;
            }
        }
        Some(balanced)
    }

    /// Branches and jumps have the place of the instruction that they go to from now on, of which
    /// none is behind the last one.
    fn resolve(&mut self) {
        for index in 0..self.effects.len() {
            let resolved = match self.effects[index] {
                Effect::Branch(target) => Effect::Branch(self.place_of(target)),
                Effect::Jump(target) => Effect::Jump(self.place_of(target)),
                _ => continue,
            };
            self.effects[index] = resolved;
        }
    }

    /// The first instruction that does something from an address on; none if no instruction begins
    /// there.
    fn place_of(&self, target: u32) -> u32 {
        let first = self.ends.partition_point(|end| *end <= target);
        match u32::try_from(first) {
            Ok(first) if self.begins_at(target) => first,
            _ => u32::MAX,
        }
    }

    /// A jump to where another function begins is its return.
    fn follow_leaving(&mut self, code: &mut Code, is_start: impl Fn(u64) -> bool) {
        for (index, target) in std::mem::take(&mut self.leaving) {
            if is_start(target) || is_stub(code, target) {
                self.effects[index] = Effect::Return;
            }
        }
    }

    /// Finds functions behind a call of which another one begins; says whether there are new ones.
    fn find_endless(&mut self) -> bool {
        let before = self.endless.len();
        for (index, effect) in self.effects.iter().enumerate() {
            let Effect::Call(Some(target)) = effect else {
                continue;
            };
            let leads_nowhere = || {
                let target = u32::try_from(*target).ok();
                target.is_some_and(|it| {
                    self.begins_at(it) && self.at(self.place_of(it)) == Known::Nothing
                })
            };
            if self.is_last(index) || leads_nowhere() {
                self.endless.insert(*target);
            }
        }
        self.endless.len() > before
    }

    /// Each stretch of code with one rule, in order; `None` where nothing is known.
    pub fn rules(&self) -> impl Iterator<Item = (Range<u64>, Option<Rule>)> + '_ {
        let mut from = 0;
        self.ends.iter().zip(&self.known).map(move |(end, known)| {
            let range = self.start + u64::from(from)..self.start + u64::from(*end);
            from = *end;
            let rule = match known {
                Known::It(state) => state.rule(),
                Known::Nothing | Known::Hidden | Known::Different => None,
            };
            (range, rule)
        })
    }

    fn decode(&mut self, code: &mut Code, range: &Range<u64>) -> Option<()> {
        let mut info = InstructionInfoFactory::new();
        let mut at = range.start;
        let mut padding: Option<usize> = None;
        while at < range.end {
            let piece = at..range.end.min(at + PIECE);
            let is_last = piece.end == range.end;
            let bytes = code.bytes(piece.clone())?;
            let decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
            for instruction in decoder {
                // The last may be cut by the end of the piece.
                if instruction.is_invalid() && !is_last && piece.end - instruction.ip() < 16 {
                    break;
                }
                let (begin, end) = (instruction.ip(), instruction.next_ip());
                let effect = effect(&mut info, &instruction, range);
                self.starts.extend(start_in(&instruction, range));
                if is_padding(&instruction) {
                    padding = padding.or_else(|| self.last_is_call(begin));
                } else if let Some(call) = padding.take() {
                    let offset = u32::try_from(begin - self.start).ok();
                    self.padded.extend(offset.map(|offset| (call, offset)));
                }
                if is_jump(&instruction) && matches!(effect, Some(Effect::Vanish)) {
                    let target = instruction.near_branch_target();
                    self.leaving.push((self.effects.len(), target));
                }
                self.enter(begin, end, effect);
                at = end;
            }
            if at < piece.end && is_last {
                break;
            }
            if self.effects.len() > MAX_EFFECTS {
                return None;
            }
        }
        self.starts.sort_unstable();
        self.starts.dedup();
        Some(())
    }

    /// The last instruction that does something, if it is a call and ends here.
    fn last_is_call(&self, end: u64) -> Option<usize> {
        let ends = self.start + u64::from(*self.ends.last()?);
        let is_call = self.effects.last()?.is_call();
        (is_call && ends == end).then(|| self.effects.len() - 1)
    }

    /// Whether another function begins behind a call.
    fn is_last(&self, call: usize) -> bool {
        let end = self.ends[call];
        let next = self.padded.get(&call).copied().unwrap_or(end);
        self.starts.binary_search(&next).is_ok()
    }

    fn enter(&mut self, begin: u64, end: u64, effect: Option<Effect>) {
        let offset = |address: u64| usize::try_from(address - self.start).unwrap_or(usize::MAX);
        if let Some(word) = self.begins.get_mut(offset(begin) / 64) {
            *word |= 1 << (offset(begin) % 64);
        }
        if let (Some(effect), Ok(end)) = (effect, u32::try_from(end - self.start)) {
            let effect = match (effect, self.effects.last()) {
                // The frame is given back: it goes to another function, which returns for this one.
                // A jump by a table comes after a branch around it.
                (Effect::Vanish, Some(last)) if last.gives_back() => Effect::Return,
                (effect, _) => effect,
            };
            self.ends.push(end);
            self.effects.push(effect);
        }
    }

    /// Follows all code once, from the last instruction to the first; says whether anything is new.
    fn pass(&mut self) -> bool {
        let mut is_new = false;
        for index in (0..self.effects.len()).rev() {
            let before = self.before(index);
            if let Some(known) = self.known.get_mut(index)
                && *known != before
            {
                *known = before;
                is_new = true;
            }
        }
        is_new
    }

    /// What is known before an instruction, from what is known after it.
    fn before(&self, index: usize) -> Known {
        let next = self.known.get(index + 1).copied().unwrap_or(Known::Nothing);
        match self.effects[index] {
            Effect::Return => Known::It(State::RETURN),
            Effect::Stop => Known::Nothing,
            Effect::Vanish => Known::Hidden,
            Effect::Call(Some(target)) if self.endless.contains(&target) => Known::Nothing,
            Effect::Jump(target) => self.at(target),
            Effect::Branch(target) => next.and(self.at(target)),
            effect => match next {
                _ if effect.is_call() && self.is_last(index) => Known::Nothing,
                // Another function may begin there, which nobody has named.
                Known::It(State::RETURN) if effect.is_call() => Known::Hidden,
                Known::It(_) if self.padded.contains_key(&index) => Known::Hidden,
                Known::It(state) => state.before(effect).map_or(Known::Hidden, Known::It),
                other => other,
            },
        }
    }

    fn begins_at(&self, target: u32) -> bool {
        let word = self.begins.get(target as usize / 64).copied().unwrap_or(0);
        word >> (target % 64) & 1 == 1
    }

    /// What is known before an instruction.
    fn at(&self, place: u32) -> Known {
        let known = self.known.get(place as usize);
        known.copied().unwrap_or(Known::Nothing)
    }
}

impl Known {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, known) | (known, Self::Nothing) => known,
            (Self::Hidden, known) | (known, Self::Hidden) => known,
            (one, other) if one == other => one,
            _ => Self::Different,
        }
    }
}

impl State {
    /// At a return.
    const RETURN: Self = Self {
        from: From::Sp,
        cfa: 8,
        bp: Place::SAME,
        bx: Place::SAME,
    };

    fn rule(self) -> Option<Rule> {
        let kind = match self.from {
            From::Sp => Kind::Sp,
            From::Bp => Kind::Bp,
        };
        let saved = |place| match place {
            Place::SAME => Saved::Same,
            Place(at) => Saved::At(at),
        };
        Rule::new(
            kind,
            self.cfa.into(),
            Base::Cfa,
            saved(self.bp),
            saved(self.bx),
        )
    }

    /// The state before an instruction that goes on with the next; `None` if it does not tell.
    fn before(self, effect: Effect) -> Option<Self> {
        let state = match effect {
            Effect::Move(by) => self.moved(by),
            Effect::Push(register) => self.moved(-8)?.stored(register, -self.cfa, self.from),
            Effect::Pop(register) => self.popped(register),
            Effect::Load(register, from, at) => self.loaded(register, from, at),
            Effect::Store(register, from, at) => {
                let place = (from == self.from).then(|| at - self.cfa);
                Some(place.map_or(self, |place| self.with_stored(register, place)))
            }
            Effect::SpFromBp(by) => self.taken_from_bp(by),
            Effect::BpFromSp(by) => self.taken_from_sp(by),
            Effect::Leave => self.popped(Some(Held::Bp))?.taken_from_bp(0),
            Effect::Write(register) => self.written(register),
            Effect::Call(_) => Some(self),
            Effect::Return
            | Effect::Branch(_)
            | Effect::Jump(_)
            | Effect::Vanish
            | Effect::Stop => None,
        };
        state.filter(|state| state.is_possible())
    }

    /// A return address that was taken from the stack, or a frame without an end, is none.
    fn is_possible(self) -> bool {
        match self.from {
            From::Sp => (8..MAX_FRAME).contains(&self.cfa),
            From::Bp => (-MAX_FRAME..MAX_FRAME).contains(&self.cfa),
        }
    }

    fn moved(self, by: i32) -> Option<Self> {
        Some(match self.from {
            From::Sp => Self {
                cfa: self.cfa.checked_add(by)?,
                ..self
            },
            From::Bp => self,
        })
    }

    /// Before a register was put to a place.
    fn with_stored(self, register: Held, place: i32) -> Self {
        let mut state = self;
        let known = state.place(register);
        if *known == Place(place) {
            *known = Place::SAME;
        }
        state
    }

    /// The same for a push: where it is to, is known only where rsp is.
    fn stored(self, register: Option<Held>, place: i32, from: From) -> Option<Self> {
        Some(match register {
            Some(register) if from == From::Sp => self.with_stored(register, place),
            _ => self,
        })
    }

    fn popped(self, register: Option<Held>) -> Option<Self> {
        let mut state = self.moved(8)?;
        match (register, self.from) {
            // rbp is another one afterwards.
            (Some(Held::Bp), From::Bp) => None,
            (Some(register), From::Sp) => {
                let slot = Place(-state.cfa);
                let place = state.place(register);
                // The last of several restores it; others make room only.
                if *place == Place::SAME {
                    *place = slot;
                }
                Some(state)
            }
            _ => Some(state),
        }
    }

    fn loaded(self, register: Held, from: From, at: i32) -> Option<Self> {
        let mut state = self;
        if register == Held::Bp && self.from == From::Bp {
            return None;
        }
        let place = state.place(register);
        if *place == Place::SAME {
            if from != self.from {
                return None;
            }
            *place = Place(at - self.cfa);
        }
        Some(state)
    }

    fn taken_from_bp(self, by: i32) -> Option<Self> {
        (self.from == From::Sp).then_some(Self {
            from: From::Bp,
            cfa: self.cfa.checked_add(by)?,
            ..self
        })
    }

    fn taken_from_sp(self, by: i32) -> Option<Self> {
        // A function that sets rbp has kept its caller's.
        match (self.bp, self.from) {
            (Place::SAME, _) => None,
            (_, From::Bp) => Some(Self {
                from: From::Sp,
                cfa: self.cfa.checked_add(by)?,
                ..self
            }),
            (_, From::Sp) => Some(self),
        }
    }

    fn written(self, register: Register) -> Option<Self> {
        match register {
            Register::RSP => (self.from == From::Bp).then_some(self),
            Register::RBP => (self.from == From::Sp && self.bp != Place::SAME).then_some(self),
            _ => (self.bx != Place::SAME).then_some(self),
        }
    }

    fn place(&mut self, register: Held) -> &mut Place {
        match register {
            Held::Bp => &mut self.bp,
            Held::Bx => &mut self.bx,
        }
    }
}
