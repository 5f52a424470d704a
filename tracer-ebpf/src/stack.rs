//! Whole stacks, by unwind rules.
//!
//! At a function's entry the return address is on top of the stack. From there
//! each return address has a rule, which leads to the next.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the depth is at most MAX_FRAMES, and usize has 64 bits here"
)]

use crate::choice::{either, is_equal};
use crate::frame;
use crate::limits::{MAX_FRAMES, USER_END};
use crate::notes::{Beginning, Notes};
use crate::rule::{BX, Base, Kind, Rule, Slot};
use crate::site::SiteKey;
use crate::step::{Frame, Memory, Registers, plain_step};
use crate::volatile::{Volatile, opaque};

/// No code lies in the first page.
const LOWEST_CODE: u64 = 0x1000;

/// Why a stack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum StackEnd {
    /// The thread's start: the stack is whole.
    Start = 0,
    /// The module has a table, but no row for this address.
    NoRow = 1,
    /// What should be the return address cannot be one.
    BadReturn = 2,
    /// [`MAX_FRAMES`] were found.
    TooDeep = 3,
    /// Stack memory could not be read.
    Unreadable = 4,
    /// Nothing is known to be mapped at the return address.
    NoMapping = 5,
    /// The table of this code was not there yet.
    NoRowYet = 6,
    /// Code without a table, and no frame pointer to go by.
    NoFramePointer = 7,
    /// A return probe replaced the return address, and the kernel did not
    /// give it back.
    Hijacked = 8,
    /// The unwind information needs what rules cannot say.
    Unsupported = 9,
    /// The thread's start, through code without a table by frame pointers:
    /// frames that have none may be missing.
    StartByFramePointers = 10,
    /// An address in a JVM's code cache where no code is known.
    JavaCode = 11,
    /// The rest of a virtual thread's stack is in the Java heap.
    Continuation = 12,
    /// A JVM's code cache, of a layout that is not known.
    JavaLayout = 13,
}

impl StackEnd {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Start,
        Self::NoRow,
        Self::BadReturn,
        Self::TooDeep,
        Self::Unreadable,
        Self::NoMapping,
        Self::NoRowYet,
        Self::NoFramePointer,
        Self::Hijacked,
        Self::Unsupported,
        Self::StartByFramePointers,
        Self::JavaCode,
        Self::Continuation,
        Self::JavaLayout,
    ];

    /// The reason of a number.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Start,
            1 => Self::NoRow,
            2 => Self::BadReturn,
            3 => Self::TooDeep,
            5 => Self::NoMapping,
            6 => Self::NoRowYet,
            7 => Self::NoFramePointer,
            8 => Self::Hijacked,
            9 => Self::Unsupported,
            10 => Self::StartByFramePointers,
            11 => Self::JavaCode,
            12 => Self::Continuation,
            13 => Self::JavaLayout,
            _ => Self::Unreadable,
        }
    }
}

impl Rule {
    /// Why a frame with this rule is the last one, if it is.
    #[inline(always)]
    fn end(self) -> Option<StackEnd> {
        if self.goes_on() {
            return None;
        }
        let kind = self.kind();
        Some(if kind == Kind::End as u8 {
            StackEnd::Start
        } else if kind == Kind::None as u8 {
            StackEnd::NoRow
        } else {
            StackEnd::Unsupported
        })
    }
}

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How to go up from it.
    pub rule: Rule,
    /// Its word; see [`crate::frame`].
    pub word: u64,
}

/// The thread whose stack is walked.
pub trait Target: Memory {
    /// What is known of a frame by its registers: of one to return to, or
    /// (`exact` is 1) one that a signal interrupted.
    ///
    /// # Errors
    /// Says why nothing is. [`StackEnd::BadReturn`] and
    /// [`StackEnd::Continuation`] say that it is no frame at all.
    fn find(&mut self, frame: Registers, exact: u64) -> Result<Found, StackEnd>;

    /// The word of an address of which nothing else is known.
    fn place(&mut self, address: u64, exact: u64) -> u64;

    /// The return address that a return probe replaced in the word at `slot`,
    /// if one did.
    fn original(&mut self, slot: u64) -> Option<u64>;

    /// A frame of code that runs functions of a script language was met, which the walk's
    /// record is at: those take the place of its word `met`. The first word of these.
    #[inline(always)]
    fn enter_script(&mut self, met: u64) -> u64 {
        met
    }

    /// Whether there may be more Python frames before the next of C's.
    #[inline(always)]
    fn is_in_python(&mut self) -> bool {
        false
    }

    /// The word of the next Python frame, or of C's if that runs none; 0 if there are no more
    /// before the next of C's.
    #[inline(always)]
    fn python(&mut self) -> u64 {
        0
    }

    /// Whether what a walk goes by is noted; see [`crate::memo`].
    const NOTES: bool;

    /// What it goes by, if that is noted.
    fn notes(&mut self) -> &mut Notes;

    /// It goes by something that is not noted.
    #[inline(always)]
    fn give_up(&mut self) {
        if Self::NOTES {
            self.notes().give_up();
        }
    }
}

/// A stack's length, end and identity; the frames themselves are in the
/// caller's array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Walk {
    /// How many frames were found.
    pub depth: u32,
    /// Why no more.
    pub end: StackEnd,
    /// Hash of the seed and all frames, and of the process image if any frame
    /// means something in that image only.
    pub key: SiteKey,
    /// Whether one does.
    pub is_local: bool,
}

impl Default for Walk {
    /// Of no stack.
    fn default() -> Self {
        Self::NONE
    }
}

impl Walk {
    /// Of a stack that could not be walked.
    pub const NONE: Self = Self {
        depth: 0,
        end: StackEnd::Unreadable,
        key: SiteKey { high: 0, low: 0 },
        is_local: true,
    };
}

/// Where a walk is.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct WalkState {
    frame: Frame,
    /// 1 if the last step was from a signal's frame.
    exact: Volatile,
    /// 1 if a frame pointer was believed.
    believed: Volatile,
    /// 1 if a frame means something in one image only.
    local: Volatile,
    /// Frames until here.
    depth: Volatile,
    /// The hash until here.
    high: Volatile,
    low: Volatile,
    /// The number of why it ended.
    end: Volatile,
    /// Where the frame's rbp and rbx were read; 0 if they are those of the beginning.
    bp_at: Volatile,
    bx_at: Volatile,
}

/// A frame, and how to go up from it.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The frame's.
    pub registers: Registers,
    /// The way to its caller.
    pub rule: Rule,
}

/// Frames of one part of a walk. The verifier follows each part on its own:
/// what it knows of one frame grows with all those before.
pub const PART: u32 = 16;

/// Walks of more parts than this are too deep.
pub const MAX_PARTS: u32 = (MAX_FRAMES as u32).div_ceil(PART);

impl WalkState {
    /// Begins at an instruction from which `rule` leads up, and for which the
    /// word `first` stands. Stacks of one `group` of processes with equal frames
    /// are one; `run` is what every hash of a run has in it.
    #[inline(always)]
    pub fn begin(
        &mut self,
        (registers, rule): (Registers, Rule),
        first: u64,
        (run, group): (u64, u64),
        frames: &mut [u64; MAX_FRAMES],
    ) {
        self.high.set(run);
        self.low.set(group);
        self.local.set(0);
        self.frame.on_one_stack();
        self.frame.begin(registers, rule);
        self.add_frame(first);
        frames[0] = first;
        self.believed.set(0);
        self.bp_at.set(0);
        self.bx_at.set(0);
        self.end.set(StackEnd::TooDeep as u64);
        self.depth.set(1);
    }

    /// Where the walk is, outside of the record.
    #[inline(always)]
    pub fn at(&self) -> At {
        At {
            registers: self.frame.registers(),
            rule: self.frame.rule(),
        }
    }

    /// Walks one part further: the probed instruction comes first in `frames`,
    /// then return addresses. `None` if there is more.
    #[inline(always)]
    pub fn part(
        &mut self,
        target: &mut impl Target,
        frames: &mut [u64; MAX_FRAMES],
    ) -> Option<StackEnd> {
        let mut at = self.at();
        let mut round = 0;
        while round < PART {
            let end = match self.python(target, frames) {
                Some(put) => put.err(),
                None => self.round(&mut at, target, frames),
            };
            if end.is_some() {
                return end;
            }
            round += 1;
        }
        self.go_on(at);
        None
    }

    /// Notes where the walk goes on.
    #[inline(always)]
    pub fn go_on(&mut self, at: At) {
        self.frame.begin(at.registers, at.rule);
    }

    /// Whether a signal interrupted the frame that the walk is at.
    #[inline(always)]
    pub fn is_exact(&self) -> bool {
        self.exact.get() != 0
    }

    /// Notes why the walk ended.
    #[inline(always)]
    pub fn end_with(&mut self, end: StackEnd) {
        self.end.set(end as u64);
    }

    /// Why it ended: at first, since it is too deep.
    #[inline(always)]
    pub fn end(&self) -> StackEnd {
        StackEnd::from_number(self.end.get())
    }

    /// Goes one Python frame further, if the walk is in such: whether there was room for it.
    #[inline(always)]
    pub fn python(
        &mut self,
        target: &mut impl Target,
        frames: &mut [u64; MAX_FRAMES],
    ) -> Option<Result<(), StackEnd>> {
        if !target.is_in_python() {
            return None;
        }
        let word = target.python();
        if word == 0 {
            return None;
        }
        Some(self.put(word, frames).map_or(Ok(()), Err))
    }

    /// Walks one frame of C's further. `None` if there is more.
    #[inline(always)]
    pub fn round<T: Target>(
        &mut self,
        at: &mut At,
        target: &mut T,
        frames: &mut [u64; MAX_FRAMES],
    ) -> Option<StackEnd> {
        if self.depth.get() >= MAX_FRAMES as u64 {
            return Some(StackEnd::TooDeep);
        }
        if let Some(caller) = plain_step(at.rule, at.registers, target) {
            if T::NOTES {
                self.note_plain(at.rule, at.registers, caller, target.notes());
            }
            at.registers = caller;
            self.exact.set(0);
        } else {
            self.frame.begin(at.registers, at.rule);
            self.exact.set(u64::from(at.rule.is_signal()));
            if at.rule.is_frame_pointer() {
                self.believed.set(1);
            }
            if let Err(reason) = self.frame.step(target) {
                return Some(reason);
            }
            let caller = self.frame.registers();
            if T::NOTES {
                self.note(at.rule, at.registers, caller, target.notes());
            }
            at.registers = caller;
        }
        if may_be_trampoline(at.registers.ip) {
            target.give_up();
            // What a signal interrupted may be at such an address too,
            // but the kernel has no return address for it.
            if let Some(original) = target.original(at.registers.sp.wrapping_sub(8)) {
                at.registers.ip = original;
            }
        }
        if at.registers.ip.wrapping_sub(LOWEST_CODE) >= USER_END - LOWEST_CODE {
            return Some(match at.registers.ip {
                0 => StackEnd::Start,
                _ => StackEnd::BadReturn,
            });
        }
        let exact = self.exact.get() & 1;
        let (end, word) = match target.find(at.registers, exact) {
            Ok(found) => {
                at.rule = found.rule.anywhere();
                if found.rule.is_marked() {
                    self.frame.begin(at.registers, at.rule);
                    // Such rules go on.
                    let end = self.put(target.enter_script(found.word), frames);
                    // Read again: what was kept meanwhile would take of the kernel's stack.
                    *at = self.at();
                    return end;
                }
                (at.rule.end(), found.word)
            }
            Err(reason @ (StackEnd::BadReturn | StackEnd::Continuation)) => {
                return Some(reason);
            }
            Err(reason) => (Some(reason), target.place(at.registers.ip, exact)),
        };
        self.put(word, frames).or(end)
    }

    /// Adds a frame; says if there is no room.
    #[inline(always)]
    fn put(&mut self, word: u64, frames: &mut [u64; MAX_FRAMES]) -> Option<StackEnd> {
        self.add_frame(word);
        // Right before it is used: kernels before 5.12 forget what they
        // know of a number that was on the stack meanwhile.
        let depth = opaque(self.depth.get() as usize);
        if depth >= MAX_FRAMES {
            return Some(StackEnd::TooDeep);
        }
        frames[depth] = word;
        self.depth.set(self.depth.get() + 1);
        None
    }

    /// Notes what a plain step has gone by.
    #[inline(always)]
    fn note_plain(&mut self, rule: Rule, from: Registers, to: Registers, notes: &mut Notes) {
        let by_bp = rule.register() as u64;
        notes.add_register(by_bp, Beginning::Bp, self.bp_at.get(), from.bp);
        notes.add_word(to.sp.wrapping_sub(8), to.ip);
        self.saved_at(rule, to.sp);
    }

    /// Notes what any other step has gone by.
    #[inline(always)]
    fn note(&mut self, rule: Rule, from: Registers, to: Registers, notes: &mut Notes) {
        notes.give_up_if(rule.local() ^ 1);
        let is = |number: usize, other: usize| is_equal(number as u64, other as u64);
        let by_bp = is(rule.register(), Base::Bp as usize);
        let from_bp = is(rule.base(), Base::Bp as usize);
        let by_bx = is(rule.register(), BX);
        notes.add_register(by_bp | from_bp, Beginning::Bp, self.bp_at.get(), from.bp);
        notes.add_register(by_bx, Beginning::Bx, self.bx_at.get(), from.bx);
        let cfa = either(by_bp, from.bp, from.sp).wrapping_add(rule.offset());
        notes.add_word_if(u64::from(rule.is_in_memory()), cfa, to.sp);
        notes.add_word(to.sp.wrapping_sub(8), to.ip);
        let from_sp = is(rule.base(), Base::Sp as usize);
        let base = either(from_sp, from.sp, either(from_bp, from.bp, to.sp));
        self.saved_at(rule, base);
    }

    /// Where the caller's registers were read.
    #[inline(always)]
    fn saved_at(&mut self, rule: Rule, base: u64) {
        let at = |slot: Slot, before: u64| {
            let read = base.wrapping_add(slot.offset());
            either(slot.same(), before, read)
        };
        self.bp_at.set(at(rule.bp(), self.bp_at.get()));
        self.bx_at.set(at(rule.bx(), self.bx_at.get()));
    }

    /// The whole walk, once it ended. `image` is the process image, and how
    /// often its code was replaced: it tells stacks apart that have other frames
    /// than places in files.
    #[inline(always)]
    pub fn finish(&mut self, end: StackEnd, image: (u64, u64)) -> Walk {
        let depth = self.depth.get();
        let end = match end {
            StackEnd::Start if self.believed.get() != 0 => StackEnd::StartByFramePointers,
            end => end,
        };
        self.add(depth << 32 | end as u64);
        let is_local = self.local.get() != 0;
        if is_local {
            self.add(image.0);
            self.add(image.1);
        }
        Walk {
            depth: depth as u32,
            end,
            key: SiteKey {
                high: self.high.get(),
                low: self.low.get(),
            },
            is_local,
        }
    }

    #[inline(always)]
    fn add_frame(&mut self, word: u64) {
        if !frame::is_shared(word) {
            self.local.set(1);
        }
        self.add(word);
    }

    /// Two independent 64-bit multiply-xorshift lanes.
    #[inline(always)]
    fn add(&mut self, word: u64) {
        let high = (self.high.get() ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.high.set(high ^ (high >> 32));
        let low = (self.low.get().rotate_left(23) ^ word).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        self.low.set(low ^ (low >> 29));
    }
}

/// Whether a return address may be the kernel's trampoline, which is the
/// first instruction of a page.
#[inline(always)]
const fn may_be_trampoline(address: u64) -> bool {
    address & 0xfff == 0 && address != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Saved;

    const STACK: u64 = 0x7_0000;
    const CODE: u64 = 0x40_0000;

    /// Words from [`STACK`] up. Code at [`CODE`] has frames of two words, that
    /// of the last page is the thread's start.
    struct Thread {
        words: Vec<u64>,
        hijacked: Vec<(u64, u64)>,
        notes: Notes,
    }

    impl Memory for Thread {
        fn word(&mut self, address: u64) -> Option<u64> {
            let index = usize::try_from(address.checked_sub(STACK)? / 8).ok()?;
            self.words.get(index).copied()
        }

        fn near(&self, _: u64) -> Option<u64> {
            None
        }
    }

    impl Target for Thread {
        fn find(&mut self, at: Registers, exact: u64) -> Result<Found, StackEnd> {
            let rule = match (at.ip.wrapping_sub(CODE) >> 12, exact) {
                (0..0xf, 0) => two_words(),
                (0..0xf, _) => Rule::ENTRY,
                (0xf, _) => Rule::END,
                (0x10, _) => Rule::SIGNAL,
                (0x11, _) => Rule::NONE,
                (0x12, _) => return Err(StackEnd::NoRowYet),
                (0x15, _) => Rule::FRAME_POINTER,
                (0x13, _) => return Err(StackEnd::BadReturn),
                (0x16, _) => return Err(StackEnd::Continuation),
                _ => return Err(StackEnd::NoMapping),
            };
            let word = frame::native(at.ip, exact);
            Ok(Found { rule, word })
        }

        fn place(&mut self, address: u64, exact: u64) -> u64 {
            frame::native(address, exact)
        }

        fn original(&mut self, slot: u64) -> Option<u64> {
            let known = self.hijacked.iter().find(|(at, _)| *at == slot)?;
            Some(known.1)
        }

        const NOTES: bool = false;

        fn notes(&mut self) -> &mut Notes {
            &mut self.notes
        }
    }

    fn two_words() -> Rule {
        Rule::new(Kind::Sp, 16, Base::Cfa, Saved::Same, Saved::Same).unwrap()
    }

    fn walk_thread(thread: Thread) -> (Walk, Vec<u64>) {
        walk_from(thread, 0)
    }

    fn walk_thread_at(words: &[u64], bp: u64) -> (Walk, Vec<u64>) {
        let words = words.to_vec();
        let hijacked = Vec::new();
        let notes = Notes::default();
        walk_from(
            Thread {
                words,
                hijacked,
                notes,
            },
            bp,
        )
    }

    fn walk_from(mut thread: Thread, bp: u64) -> (Walk, Vec<u64>) {
        let mut frames = [0; MAX_FRAMES];
        let registers = Registers {
            ip: CODE,
            sp: STACK,
            bp,
            bx: 0,
        };
        let mut state = WalkState::default();
        state.begin((registers, Rule::ENTRY), registers.ip, (1, 2), &mut frames);
        let end = (0..MAX_PARTS).find_map(|_| state.part(&mut thread, &mut frames));
        let walk = state.finish(end.unwrap_or(StackEnd::TooDeep), (3, 0));
        (walk, frames[..walk.depth as usize].to_vec())
    }

    fn walk_words(words: &[u64]) -> (Walk, Vec<u64>) {
        walk_thread(Thread {
            words: words.to_vec(),
            hijacked: Vec::new(),
            notes: Notes::default(),
        })
    }

    #[test]
    fn a_stack_goes_from_the_caller_to_the_start() {
        let (walk, frames) = walk_words(&[CODE + 1, 0, CODE + 2, 0, CODE + 0xf001]);
        assert_eq!(frames, [CODE, CODE + 1, CODE + 2, CODE + 0xf001]);
        assert_eq!(walk.end, StackEnd::Start);
    }

    #[test]
    fn the_last_frame_stays_when_it_has_no_rule() {
        for (page, end) in [
            (0x11, StackEnd::NoRow),
            (0x12, StackEnd::NoRowYet),
            (0x14, StackEnd::NoMapping),
        ] {
            let last = CODE + (page << 12) + 5;
            let (walk, frames) = walk_words(&[CODE + 1, 0, last]);
            assert_eq!((frames, walk.end), (vec![CODE, CODE + 1, last], end));
        }
    }

    #[test]
    fn a_start_that_frame_pointers_led_to_is_not_certain() {
        let bare = CODE + 0x15_001;
        let (walk, frames) = walk_thread_at(&[bare, 0, 0, CODE + 0xf001], STACK + 16);
        assert_eq!(frames, [CODE, bare, CODE + 0xf001]);
        assert_eq!(walk.end, StackEnd::StartByFramePointers);
    }

    #[test]
    fn what_is_no_return_address_is_no_frame() {
        let (walk, frames) = walk_words(&[CODE + 1, 0, CODE + 0x16_001]);
        assert_eq!((frames.len(), walk.end), (2, StackEnd::Continuation));
        for word in [CODE + 0x13_001, 7, 1 << 60, u64::MAX] {
            let (walk, frames) = walk_words(&[CODE + 1, 0, word]);
            assert_eq!(
                (frames, walk.end),
                (vec![CODE, CODE + 1], StackEnd::BadReturn)
            );
        }
        let (walk, frames) = walk_words(&[CODE + 1, 0, 0]);
        assert_eq!((frames.len(), walk.end), (2, StackEnd::Start));
    }

    #[test]
    fn after_a_signal_the_address_is_exact() {
        let handler = CODE + 0x1_0000;
        let mut words = vec![handler; 64];
        words[1 + 20] = STACK + 8 * 40;
        words[1 + 21] = CODE + 0x123;
        words[40] = CODE + 0xf001;
        let (walk, frames) = walk_words(&words);
        let interrupted = frame::native(CODE + 0x123, 1);
        assert_eq!(frames, [CODE, handler, interrupted, CODE + 0xf001]);
        assert_eq!(walk.end, StackEnd::Start);
    }

    #[test]
    fn a_hijacked_return_address_is_restored() {
        let (walk, frames) = walk_thread(Thread {
            words: vec![CODE + 1, 0, 0x7fff_f000, 0, CODE + 0xf001],
            hijacked: vec![(STACK + 8, 1), (STACK + 16, CODE + 2)],
            notes: Notes::default(),
        });
        assert_eq!(frames, [CODE, CODE + 1, CODE + 2, CODE + 0xf001]);
        assert_eq!(walk.end, StackEnd::Start);
    }

    #[test]
    fn a_stack_deeper_than_the_limit_says_so() {
        let (walk, frames) = walk_words(&[CODE + 1; 400]);
        assert_eq!((frames.len(), walk.end), (MAX_FRAMES, StackEnd::TooDeep));
    }

    #[test]
    fn memory_that_cannot_be_read_ends_the_walk() {
        let (walk, frames) = walk_words(&[CODE + 1, 0]);
        assert_eq!((frames.len(), walk.end), (2, StackEnd::Unreadable));
    }

    #[test]
    fn the_key_tells_order_depth_and_end_apart() {
        let key = |words: &[u64]| walk_words(words).0.key;
        let start = CODE + 0xf001;
        let one = key(&[CODE + 1, 0, CODE + 2, 0, start]);
        assert_ne!(one, key(&[CODE + 2, 0, CODE + 1, 0, start]));
        assert_ne!(one, key(&[CODE + 1, 0, start]));
        assert_ne!(
            key(&[CODE + 1, 0, CODE + 2]),
            key(&[CODE + 1, 0, CODE + 2, 0, 7])
        );
        assert_eq!(one, key(&[CODE + 1, 0, CODE + 2, 0, start]));
    }

    #[test]
    fn reasons_have_their_numbers() {
        for (number, end) in StackEnd::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, number);
            assert_eq!(StackEnd::from_number(number as u64), end);
        }
    }
}
