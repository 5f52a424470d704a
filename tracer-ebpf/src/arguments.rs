//! Where a call's arguments are at a probe: in their own registers at the
//! function's first instruction, elsewhere at a probe behind it. A probe's
//! attach cookie carries this to the kernel side. Pure, so that both sides
//! have one layout.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of arguments and bytes of the cookie are small"
)]

use crate::call::Function;
use crate::operand::Register;

/// Arguments that are read, at most: `mmap` and `mremap` want four.
pub const MAX_ARGUMENTS: usize = 4;

/// Bytes of code between a function's first instruction and a probe, fewer than.
pub const MAX_CODE: u64 = 1 << CODE_BITS;

/// Bytes between the stack pointer at a probe and that at entry, fewer than.
pub const MAX_STACK: u64 = WORD << STACK_BITS;

/// Bytes of a word of the stack.
const WORD: u64 = 8;

// A cookie, from its lowest bit: the function's number, whether no other probed
// function runs within a call of it, whether the kernel single-steps the instruction, a
// place for each argument, how many words the stack pointer was moved, how many bytes
// of code were passed.
const FUNCTION_BITS: u32 = 8;
const LAST_AT: u32 = FUNCTION_BITS - 2;
const STEPPED_AT: u32 = FUNCTION_BITS - 1;
const PLACE_BITS: u32 = 8;
const STACK_BITS: u32 = 10;
const CODE_BITS: u32 = 14;

const PLACES_AT: u32 = FUNCTION_BITS;
const STACK_AT: u32 = PLACES_AT + PLACE_BITS * MAX_ARGUMENTS as u32;
const CODE_AT: u32 = STACK_AT + STACK_BITS;

const _: () = assert!(CODE_AT + CODE_BITS == 64, "all of it is one word");

/// The first place that is a word of the stack. Those below are words of
/// `pt_regs`.
const STACK_PLACES: u8 = 0x20;

/// Words below the stack pointer that can be meant: the red zone's.
const RED_WORDS: i64 = 16;

/// Where an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the register in which it was handed over.
    Own,
    /// In another register.
    Register(Register),
    /// In memory, so many bytes above the stack pointer (or below it).
    Stack(i64),
}

/// Where the arguments of a call are at a probe of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arguments(u64);

impl Arguments {
    /// At a function's first instruction.
    pub const AT_ENTRY: Self = {
        let mut word = 0;
        let mut index = 0;
        while index < MAX_ARGUMENTS {
            word |= (own(index) as u64) << place_at(index);
            index += 1;
        }
        Self(word)
    };

    /// The same, found in other places.
    #[must_use]
    pub fn with(self, index: usize, place: Place) -> Option<Self> {
        if index >= MAX_ARGUMENTS {
            return None;
        }
        let byte = match place {
            Place::Own => own(index),
            Place::Register(register) => (register.offset() / WORD).to_le_bytes()[0],
            Place::Stack(bytes) if bytes % WORD as i64 == 0 => {
                let word = bytes / WORD as i64 + RED_WORDS + i64::from(STACK_PLACES);
                let byte = u8::try_from(word).ok()?;
                if byte < STACK_PLACES {
                    return None;
                }
                byte
            }
            Place::Stack(_) => return None,
        };
        let mask = (1 << PLACE_BITS) - 1;
        let others = self.0 & !(mask << place_at(index));
        Some(Self(others | u64::from(byte) << place_at(index)))
    }

    /// The same behind so many bytes of code that moved the stack pointer down
    /// by `stack` bytes; `None` if that is too much.
    #[must_use]
    pub const fn behind(self, code: u64, stack: u64) -> Option<Self> {
        if code >= MAX_CODE || stack >= MAX_STACK || !stack.is_multiple_of(WORD) {
            return None;
        }
        let places = self.0 & ((1 << STACK_AT) - 1);
        Some(Self(places | (stack / WORD) << STACK_AT | code << CODE_AT))
    }

    /// As a probe's cookie. `None` stands for `free`; see [`Self::is_last`] and
    /// [`Self::is_stepped`].
    pub fn cookie(self, function: Option<Function>, is_last: bool, is_stepped: bool) -> u64 {
        self.0
            | function.map_or(0, |function| function as u64)
            | u64::from(is_last) << LAST_AT
            | u64::from(is_stepped) << STEPPED_AT
    }

    /// What a cookie says of arguments.
    #[inline(always)]
    pub const fn of_cookie(cookie: u64) -> Self {
        Self(cookie >> FUNCTION_BITS << FUNCTION_BITS)
    }

    /// The function that a cookie names.
    #[inline(always)]
    pub const fn function(cookie: u64) -> Option<Function> {
        Function::from_number(cookie & ((1 << LAST_AT) - 1))
    }

    /// Whether a cookie is of a function within whose calls no other probed function
    /// runs.
    #[inline(always)]
    pub const fn is_last(cookie: u64) -> bool {
        cookie >> LAST_AT & 1 != 0
    }

    /// 1 if a cookie's probe is on an instruction that the kernel single-steps, else 0.
    #[inline(always)]
    pub const fn is_stepped(cookie: u64) -> u64 {
        cookie >> STEPPED_AT & 1
    }

    /// Where an argument is. `index` is less than [`MAX_ARGUMENTS`].
    #[inline(always)]
    pub const fn place(self, index: usize) -> Place {
        let byte = (self.0 >> place_at(index)) as u8;
        if byte == own(index) {
            return Place::Own;
        }
        match Register::from_word(byte) {
            Some(register) => Place::Register(register),
            None => {
                let word = byte as i64 - STACK_PLACES as i64 - RED_WORDS;
                Place::Stack(word * WORD as i64)
            }
        }
    }

    /// Bytes by which the stack pointer was moved down since the entry.
    #[inline(always)]
    pub const fn stack(self) -> u64 {
        (self.0 >> STACK_AT & ((1 << STACK_BITS) - 1)) * WORD
    }

    /// Bytes of code from the function's first instruction to the probe.
    #[inline(always)]
    pub const fn code(self) -> u64 {
        self.0 >> CODE_AT
    }
}

impl Default for Arguments {
    fn default() -> Self {
        Self::AT_ENTRY
    }
}

/// Those of a function's arguments that its entry probe reads.
pub const fn read_at_entry(function: Function) -> &'static [usize] {
    match function {
        Function::Malloc | Function::Valloc | Function::Pvalloc | Function::New => &[0],
        Function::Calloc
        | Function::NewCount
        | Function::Realloc
        | Function::NewRealloc
        | Function::Reallocf
        | Function::Xallocx
        | Function::Munmap => &[0, 1],
        Function::HeapCalloc | Function::HeapRealloc => &[1, 2],
        Function::RustRealloc => &[0, 3],
        Function::Reallocarray => &[0, 1, 2],
        Function::HeapReallocarray => &[1, 2, 3],
        Function::ArenaAlloc => &[0, 1],
        Function::ArenaString | Function::ArenaMake => &[0],
        Function::CarrierAlloc => &[2],
        Function::CarrierRealloc => &[2, 3],
        Function::PosixMemalign => &[0, 2],
        Function::AlignedAlloc | Function::Memalign => &[1],
        Function::Mmap | Function::Mremap => &[0, 1, 2, 3],
    }
}

/// The place of an argument's own register: rdi, rsi, rdx and rcx follow each
/// other in `pt_regs`, from word 14 down.
#[inline(always)]
const fn own(index: usize) -> u8 {
    14 - index as u8
}

#[inline(always)]
const fn place_at(index: usize) -> u32 {
    PLACES_AT + PLACE_BITS * index as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(word: u8) -> Place {
        Place::Register(Register::from_word(word).unwrap())
    }

    #[test]
    fn at_entry_all_are_in_their_own_registers() {
        let at_entry = Arguments::AT_ENTRY;
        for index in 0..MAX_ARGUMENTS {
            assert_eq!(at_entry.place(index), Place::Own);
        }
        assert_eq!((at_entry.stack(), at_entry.code()), (0, 0));
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let places = [
            register(13),
            Place::Stack(-128),
            Place::Stack(1640),
            Place::Own,
        ];
        let mut packed = Arguments::AT_ENTRY;
        for (index, place) in places.into_iter().enumerate() {
            packed = packed.with(index, place).unwrap();
        }
        let packed = packed.behind(MAX_CODE - 1, MAX_STACK - 8).unwrap();
        for (function, is_stepped) in [
            (None, false),
            (None, true),
            (Some(Function::Malloc), false),
            (Some(Function::CarrierRealloc), true),
        ] {
            let cookie = packed.cookie(function, false, is_stepped);
            assert_eq!(Arguments::function(cookie), function);
            assert_eq!(Arguments::is_stepped(cookie), u64::from(is_stepped));
            let read = Arguments::of_cookie(cookie);
            assert_eq!(read, packed);
            assert!(!Arguments::is_last(cookie));
            let last = packed.cookie(function, true, is_stepped);
            assert!(Arguments::is_last(last));
            assert_eq!(Arguments::is_stepped(last), u64::from(is_stepped));
            assert_eq!(Arguments::function(last), function);
            assert_eq!(Arguments::of_cookie(last), read);
            for (index, place) in places.into_iter().enumerate() {
                assert_eq!(read.place(index), place);
            }
            assert_eq!((read.stack(), read.code()), (MAX_STACK - 8, MAX_CODE - 1));
        }
    }

    #[test]
    fn a_register_of_its_own_is_own() {
        for index in 0..MAX_ARGUMENTS {
            let word = 14 - u8::try_from(index).unwrap();
            let packed = Arguments::AT_ENTRY.with(index, register(word)).unwrap();
            assert_eq!(packed, Arguments::AT_ENTRY);
        }
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let at_entry = Arguments::AT_ENTRY;
        assert_eq!(at_entry.with(0, Place::Stack(-136)), None);
        assert_eq!(at_entry.with(0, Place::Stack(1664)), None);
        assert_eq!(at_entry.with(0, Place::Stack(4)), None);
        assert_eq!(at_entry.with(MAX_ARGUMENTS, Place::Own), None);
        assert_eq!(at_entry.behind(MAX_CODE, 0), None);
        assert_eq!(at_entry.behind(0, MAX_STACK), None);
        assert_eq!(at_entry.behind(0, 12), None);
    }

    #[test]
    fn every_function_reads_arguments_that_have_room() {
        for function in Function::ALL {
            let read = read_at_entry(function);
            assert!(!read.is_empty() && read.iter().all(|index| *index < MAX_ARGUMENTS));
        }
    }
}
