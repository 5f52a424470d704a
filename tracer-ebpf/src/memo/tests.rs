//! Random stacks by random tables: a memo that believes itself must be right.

use super::*;
use crate::frame;
use crate::limits::MAX_FRAMES;
use crate::rule::{Base, Kind, Rule, Saved};
use crate::site::SiteKey;
use crate::stack::{Found, MAX_PARTS, StackEnd, Target, Walk, WalkState};
use crate::step::Memory;

const STACK: u64 = 0x7ffd_1000_0000;
const CODE: u64 = 0x40_0000;
const WORDS_OF_STACK: u64 = 1200;
const WALKER: Walker = Walker {
    image: 11,
    group: 12,
    thread: 13,
};
const EPOCH: u64 = 5;
const SITE: u32 = 77;

/// xorshift64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn saved(&mut self, slots: &[i32]) -> Saved {
        match self.below(4) {
            0 => Saved::Same,
            1 => Saved::Lost,
            _ => Saved::At(self.of(slots)),
        }
    }

    /// Any rule but one that ends a stack.
    fn rule(&mut self) -> Rule {
        let kind = self.of(&[
            Kind::Sp,
            Kind::Sp,
            Kind::Sp,
            Kind::Bp,
            Kind::Bp,
            Kind::Bx,
            Kind::DerefSp,
            Kind::DerefBp,
            Kind::Plt,
            Kind::FramePointer,
        ]);
        let (base, slots): (_, &[i32]) = match kind {
            Kind::DerefBp => (Base::Bp, &[0, -8, 8]),
            Kind::DerefSp => (Base::Sp, &[0, 8, 16]),
            _ => (Base::Cfa, &[-16, -24, -32]),
        };
        let offset = 8 * self.of(&[1, 2, 3, 5, 40, 120]);
        Rule::new(kind, offset, base, self.saved(slots), self.saved(slots)).unwrap()
    }

    /// Some word: one that may lead a walk on, more often than not.
    fn word(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(1 << 40),
            1 => STACK + 8 * self.below(WORDS_OF_STACK),
            _ => CODE + (self.below(PAGES) << 12) + 1 + self.below(3),
        }
    }
}

/// Pages of code; each has one rule. At the first, threads begin.
const PAGES: u64 = 24;

#[derive(Clone)]
struct Stack<'table> {
    table: &'table [Rule],
    words: Vec<u64>,
    memo: Memo,
    notes: Notes,
}

impl Memory for Stack<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let index = address.checked_sub(STACK)? / 8;
        self.words.get(index as usize).copied()
    }

    /// As if every other word were not at hand.
    fn near(&self, address: u64) -> Option<u64> {
        let index = address.checked_sub(STACK)? / 8;
        let word = self.words.get(index as usize).copied();
        word.filter(|_| index % 5 != 0)
    }
}

impl Target for Stack<'_> {
    fn find(&mut self, at: Registers, exact: u64) -> Result<Found, StackEnd> {
        let page = at.ip.wrapping_sub(CODE) >> 12;
        let rule = *self.table.get(page as usize).ok_or(StackEnd::NoMapping)?;
        let word = frame::in_file(7, at.ip - CODE, exact);
        Ok(Found { rule, word })
    }

    fn place(&mut self, address: u64, exact: u64) -> u64 {
        frame::native(address, exact)
    }

    fn original(&mut self, _: u64) -> Option<u64> {
        None
    }

    const NOTES: bool = true;

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }
}

impl Stack<'_> {
    /// Walks, and remembers what can be.
    fn walk(&mut self, at: Registers) -> (Walk, Vec<u64>) {
        self.memo.begin(WALKER, at);
        self.notes.begin(at.sp);
        let mut frames = [0; MAX_FRAMES];
        let mut state = WalkState::default();
        let first = frame::in_file(7, at.ip - CODE, 0);
        state.begin((at, Rule::ENTRY), first, (1, 2), &mut frames);
        let end = (0..MAX_PARTS).find_map(|_| state.part(self, &mut frames));
        let walk = state.finish(end.unwrap_or(StackEnd::TooDeep), (3, 0));
        if self.notes.is_whole() && walk.end == StackEnd::Start && !walk.is_local {
            self.notes.fill(STRIDE);
            *self.memo.words_mut() = *self.notes.words();
            self.memo.finish(&self.notes, EPOCH, SITE);
        }
        (walk, frames[..walk.depth as usize].to_vec())
    }

    /// What the memo says of a stack, of which parts of `length` words are read.
    fn recall(&self, words: &[u64], (walker, at, epoch): (Walker, Registers, u64)) -> Option<u32> {
        if !self.memo.is_of(walker, at, epoch) {
            return None;
        }
        let answer = self.compare_words(words, at);
        // What is near is compared in another way, which must agree.
        let first = (at.sp - STACK) as usize / 8;
        if self.memo.reach() <= WINDOW_BYTES as u64 && first + WINDOW_BYTES / 8 <= words.len() {
            let window = words[first..first + WINDOW_BYTES / 8].try_into().unwrap();
            assert_eq!(self.memo.is_same(window), answer.is_some());
        }
        answer
    }

    fn compare_words(&self, words: &[u64], at: Registers) -> Option<u32> {
        let (mut index, mut start) = (0, at.sp);
        loop {
            let first = (start - STACK) as usize / 8;
            let length = (words.len() - first).min(WINDOW_BYTES / 8);
            let mut window = [0; WINDOW_BYTES / 8];
            window[..length].copy_from_slice(&words[first..first + length]);
            match self
                .memo
                .compare(index, (start, 8 * length as u64), &window)
            {
                Compared::Same => index += 1,
                Compared::Elsewhere => start = self.memo.address(index),
                Compared::Differs => return None,
                Compared::All => return Some(self.memo.site()),
            }
        }
    }

    /// The words that the walk went by, as places in the stack.
    fn used(&self) -> Vec<usize> {
        let words = &self.memo.words[..self.memo.count.get() as usize];
        let from = (self.memo.sp.get() - STACK) / 8;
        let places = words
            .iter()
            .map(|word| (from + (word >> VALUE_BITS)) as usize);
        places.collect()
    }
}

/// Writes a stack that leads from frame to frame, as far as there is room.
fn build(random: &mut Random, table: &[Rule], words: &mut [u64], at: &mut Registers) {
    let (mut rule, mut here) = (Rule::ENTRY, *at);
    let put = |words: &mut [u64], address: u64, value: u64| {
        let index = address.wrapping_sub(STACK) / 8;
        if let Some(word) = words.get_mut(index as usize) {
            *word = value;
        }
    };
    for depth in 0.. {
        let register = [here.sp, here.bp, here.bx][rule.register()];
        let mut cfa = register.wrapping_add(rule.offset());
        if rule.is_in_memory() {
            let target = here.sp + 8 * (1 + random.below(30));
            put(words, cfa, target);
            cfa = target;
        }
        if rule.is_plt() && here.ip & 15 >= 11 {
            cfa += 8;
        }
        if cfa <= here.sp || cfa > here.sp + 400 * 8 || cfa > STACK + 8 * (WORDS_OF_STACK - 60) {
            break;
        }
        let base = [here.sp, here.bp, 0, cfa][rule.base()];
        let above = |random: &mut Random| cfa + 8 * random.below(9);
        for (slot, is_bp) in [(rule.bp(), true), (rule.bx(), false)] {
            let value = above(random);
            if !slot.is_same() && !slot.is_lost() {
                put(words, base.wrapping_add(slot.offset()), value);
                let register = if is_bp { &mut here.bp } else { &mut here.bx };
                *register = value;
            }
        }
        let page = if depth > 3 && random.below(12) == 0 {
            0
        } else {
            1 + random.below(PAGES - 1)
        };
        here.ip = CODE + (page << 12) + 1 + random.below(15);
        put(words, cfa - 8, here.ip);
        here.sp = cfa;
        rule = table[page as usize];
        if page == 0 {
            break;
        }
    }
}

fn start(random: &mut Random) -> Registers {
    let sp = STACK + 8 * random.below(20);
    let mut register = || sp + 8 * random.below(12);
    Registers {
        ip: CODE + 0x1000,
        sp,
        bp: register(),
        bx: register(),
    }
}

/// What the tests found, so that none passes because nothing was remembered.
#[derive(Default)]
struct Tally {
    remembered: u64,
    far: u64,
    by_registers: u64,
    changed_and_right: u64,
    missed: u64,
}

/// Asks the memo of a stack that has changed.
fn try_changed(stack: &Stack<'_>, words: Vec<u64>, at: Registers, key: SiteKey, tally: &mut Tally) {
    let answer = stack.recall(&words, (WALKER, at, EPOCH));
    let mut fresh = Stack {
        words,
        ..stack.clone()
    };
    let (truth, _) = fresh.walk(at);
    if answer.is_some() {
        assert_eq!((truth.key, truth.end), (key, StackEnd::Start));
        tally.changed_and_right += 1;
    } else {
        tally.missed += 1;
    }
}

fn try_stack(random: &mut Random, tally: &mut Tally) {
    let mut table: Vec<Rule> = (0..PAGES).map(|_| random.rule()).collect();
    table[0] = Rule::END;
    let mut words: Vec<u64> = (0..WORDS_OF_STACK).map(|_| random.word()).collect();
    let mut at = start(random);
    build(random, &table, &mut words, &mut at);
    let mut stack = Stack {
        table: &table,
        words: words.clone(),
        memo: Memo::default(),
        notes: Notes::default(),
    };
    let (walk, _) = stack.walk(at);
    if stack.memo.epoch.get() == 0 {
        assert_eq!(stack.recall(&words, (WALKER, at, EPOCH)), None);
        return;
    }
    assert_eq!(stack.recall(&words, (WALKER, at, EPOCH)), Some(SITE));
    let used = stack.used();
    tally.remembered += 1;
    tally.far += u64::from(used.iter().any(|at| *at > WINDOW_BYTES / 8 + 20));
    tally.by_registers += u64::from(stack.memo.registers.get() != 0);
    for place in 0..words.len() {
        let mut changed = words.clone();
        changed[place] = random.word();
        let is_used = used.contains(&place) && changed[place] != words[place];
        let before = tally.changed_and_right;
        try_changed(&stack, changed, at, walk.key, tally);
        assert!(
            !is_used || tally.changed_and_right == before,
            "word {place}"
        );
        assert!(used.contains(&place) || tally.changed_and_right > before);
    }
    for _ in 0..16 {
        let mut changed = words.clone();
        for _ in 0..=random.below(3) {
            changed[random.below(WORDS_OF_STACK) as usize] = random.word();
        }
        let other = start(random);
        let pick = |random: &mut Random, one, other| if random.below(2) == 0 { one } else { other };
        let at = Registers {
            ip: at.ip,
            sp: at.sp,
            bp: pick(random, at.bp, other.bp),
            bx: pick(random, at.bx, other.bx),
        };
        try_changed(&stack, changed, at, walk.key, tally);
    }
    let elsewhere = [
        (
            WALKER,
            Registers {
                ip: at.ip + 1,
                ..at
            },
            EPOCH,
        ),
        (
            WALKER,
            Registers {
                sp: at.sp + 8,
                ..at
            },
            EPOCH,
        ),
        (WALKER, at, EPOCH + 1),
        (Walker { image: 1, ..WALKER }, at, EPOCH),
        (Walker { group: 1, ..WALKER }, at, EPOCH),
        (
            Walker {
                thread: 1,
                ..WALKER
            },
            at,
            EPOCH,
        ),
    ];
    for changed in elsewhere {
        assert_eq!(stack.recall(&words, changed), None);
    }
}

#[test]
fn a_memo_that_believes_itself_is_right() {
    let (mut random, mut tally) = (Random(0x1234_5678_9abc_def1), Tally::default());
    let stacks = if cfg!(miri) { 20 } else { 20_000 };
    for _ in 0..stacks {
        try_stack(&mut random, &mut tally);
    }
    if !cfg!(miri) {
        assert!(tally.remembered > 200, "{}", tally.remembered);
        assert!(tally.far > 20, "{}", tally.far);
        assert!(tally.by_registers > 20, "{}", tally.by_registers);
        assert!(tally.missed > 2000, "{}", tally.missed);
        assert!(tally.changed_and_right > 50_000);
    }
}

#[test]
fn words_are_compared_where_they_are() {
    let at = Registers {
        ip: CODE,
        sp: STACK,
        bp: 0,
        bx: 0,
    };
    let (mut memo, mut notes) = (Memo::default(), Notes::default());
    memo.begin(WALKER, at);
    notes.begin(STACK);
    for word in 0..WORDS as u64 {
        notes.add_word(STACK + 8 * word, CODE + word);
    }
    *memo.words_mut() = *notes.words();
    memo.finish(&notes, EPOCH, SITE);
    let window = [CODE; WINDOW_BYTES / 8];
    let compare = |index, bytes| memo.compare(index, (STACK, bytes), &window);
    assert_eq!(compare(0, 2048), Compared::Same);
    assert_eq!(compare(9, 2048), Compared::Differs);
    assert_eq!(compare(9, 72), Compared::Elsewhere);
    assert_eq!(compare(WORDS as u64, 2048), Compared::All);
    assert_eq!(memo.address(3), STACK + 24);
}

#[test]
fn places_are_within_a_set() {
    let mut met = [0; MEMOS as usize];
    for caller in 0..1000 {
        met[place(STACK, CODE + 5 * caller) as usize] += 1;
    }
    assert!(met.iter().all(|times| *times > 10), "{met:?}");
}
