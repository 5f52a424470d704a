//! Calls in flight: which probed function is outermost, and when a call that
//! never returned must not be believed any longer.

use crate::block::Block;
use crate::site::NO_SITE;
use crate::volatile::opaque;

/// The probed functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Function {
    /// `malloc(size)`
    Malloc = 1,
    /// `calloc(count, size)`
    Calloc = 2,
    /// `realloc(old, size)`
    Realloc = 3,
    /// `reallocarray(old, count, size)`
    Reallocarray = 4,
    /// `posix_memalign(result, alignment, size)`
    PosixMemalign = 5,
    /// `aligned_alloc(alignment, size)`
    AlignedAlloc = 6,
    /// `memalign(alignment, size)`
    Memalign = 7,
    /// `valloc(size)`
    Valloc = 8,
    /// `pvalloc(size)`
    Pvalloc = 9,
    /// `mmap(address, length, protection, flags, file, offset)`
    Mmap = 10,
    /// `munmap(address, length)`
    Munmap = 11,
    /// `mremap(old, old_length, length, flags, new)`
    Mremap = 12,
    /// `operator new(size)`, which throws where `malloc` returns null
    New = 13,
    /// `mi_new_n(count, size)`, which throws
    NewCount = 14,
    /// `mi_new_realloc(old, size)`, which throws
    NewRealloc = 15,
    /// `reallocf(old, size)`, which frees the old block also if it fails
    Reallocf = 16,
    /// `xallocx(block, size, extra, flags)`, which moves nothing and returns the
    /// block's real size
    Xallocx = 17,
    /// `__rust_realloc(old, old_size, alignment, size)`
    RustRealloc = 18,
    /// `mi_heap_calloc(heap, count, size)`
    HeapCalloc = 19,
    /// `mi_heap_realloc(heap, old, size)`
    HeapRealloc = 20,
    /// `mi_heap_recalloc(heap, old, count, size)`
    HeapReallocarray = 21,
    /// `apr_palloc(arena, size)`: the object is freed with its arena
    ArenaAlloc = 22,
    /// `apr_pvsprintf(arena, format, arguments)`, whose result is a string: its size is
    /// known when it returns
    ArenaString = 23,
    /// `apr_pool_create_ex(result, …)`, which allocates nothing but the arena
    ArenaMake = 24,
    /// `erts_alcu_alloc(kind, allocator, size)`
    CarrierAlloc = 25,
    /// `erts_alcu_realloc(kind, allocator, old, size)`
    CarrierRealloc = 26,
}

impl Function {
    /// Whether it maps or unmaps memory, which is no block.
    #[inline(always)]
    pub const fn changes_mappings(self) -> bool {
        matches!(self, Self::Mmap | Self::Munmap | Self::Mremap)
    }

    /// All functions, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 26] = [
        Self::Malloc,
        Self::Calloc,
        Self::Realloc,
        Self::Reallocarray,
        Self::PosixMemalign,
        Self::AlignedAlloc,
        Self::Memalign,
        Self::Valloc,
        Self::Pvalloc,
        Self::Mmap,
        Self::Munmap,
        Self::Mremap,
        Self::New,
        Self::NewCount,
        Self::NewRealloc,
        Self::Reallocf,
        Self::Xallocx,
        Self::RustRealloc,
        Self::HeapCalloc,
        Self::HeapRealloc,
        Self::HeapReallocarray,
        Self::ArenaAlloc,
        Self::ArenaString,
        Self::ArenaMake,
        Self::CarrierAlloc,
        Self::CarrierRealloc,
    ];

    /// The function of a number, as attach cookies carry it.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Malloc,
            2 => Self::Calloc,
            3 => Self::Realloc,
            4 => Self::Reallocarray,
            5 => Self::PosixMemalign,
            6 => Self::AlignedAlloc,
            7 => Self::Memalign,
            8 => Self::Valloc,
            9 => Self::Pvalloc,
            10 => Self::Mmap,
            11 => Self::Munmap,
            12 => Self::Mremap,
            13 => Self::New,
            14 => Self::NewCount,
            15 => Self::NewRealloc,
            16 => Self::Reallocf,
            17 => Self::Xallocx,
            18 => Self::RustRealloc,
            19 => Self::HeapCalloc,
            20 => Self::HeapRealloc,
            21 => Self::HeapReallocarray,
            22 => Self::ArenaAlloc,
            23 => Self::ArenaString,
            24 => Self::ArenaMake,
            25 => Self::CarrierAlloc,
            26 => Self::CarrierRealloc,
            _ => return None,
        })
    }

    /// Whether an exception may be thrown through this function. It would meet
    /// the kernel's trampoline in place of the return address, and end the
    /// program: such a function gets no return probe.
    pub const fn may_throw(self) -> bool {
        number_may_throw(self as u32)
    }

    /// Whether a call of it that is too small to be followed may be left out whole.
    /// What it calls itself is asked for as much, so that is left out too.
    #[inline(always)]
    pub const fn may_go_unheard(self) -> bool {
        matches!(self, Self::Malloc | Self::Calloc | Self::Realloc)
    }

    /// Whether it is given a block that it may move or free.
    pub const fn takes_old(self) -> bool {
        matches!(
            self,
            Self::Realloc
                | Self::Reallocarray
                | Self::NewRealloc
                | Self::Reallocf
                | Self::RustRealloc
                | Self::HeapRealloc
                | Self::HeapReallocarray
                | Self::CarrierRealloc
        )
    }

    /// Whether it hands out an object of an arena, which is freed with the arena.
    pub const fn is_arenas(self) -> bool {
        matches!(self, Self::ArenaAlloc | Self::ArenaString)
    }

    /// Whether this function may end in a jump to `inner`, or in one to a
    /// function that does, so that it runs on the same return-address slot. Known
    /// of glibc (reallocarray, realloc of null, memalign of a small alignment) and
    /// musl (its memalign family).
    pub const fn may_tail_call(self, inner: Self) -> bool {
        match self {
            Self::Reallocarray => matches!(inner, Self::Realloc | Self::Malloc),
            Self::Realloc | Self::Calloc => matches!(inner, Self::Malloc),
            Self::AlignedAlloc | Self::Memalign | Self::Valloc | Self::Pvalloc => matches!(
                inner,
                Self::Malloc | Self::AlignedAlloc | Self::Memalign | Self::PosixMemalign
            ),
            _ => false,
        }
    }
}

/// [`Function::may_throw`] of a function's number.
#[inline(always)]
const fn number_may_throw(number: u32) -> bool {
    number >= Function::New as u32 && number <= Function::NewRealloc as u32
}

/// The outermost call of a thread, from its entry to its return.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// A [`Function`], or 0 while no call is in flight.
    pub function: u32,
    /// Index of the site, [`crate::site::NO_SITE`] if it is not counted, or
    /// [`crate::site::LOST_SITE`].
    pub site: u32,
    /// Address of the return-address slot: the stack pointer at entry.
    pub slot: u64,
    /// The word that stood there at entry, if the call ends at a return
    /// instruction; 0 if it ends at a return probe.
    pub back: u64,
    /// Bytes asked for.
    pub size: u64,
    /// posix_memalign's result pointer, and that of a call that makes an arena; the arena
    /// that an object is of; mmap's and mremap's flags.
    pub argument: u64,
    /// Time of the entry, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The block that realloc was given; taken out of the live map until the
    /// outcome is known. Its site is [`crate::site::NO_SITE`] if it is not
    /// followed.
    pub old: Block,
    /// Its address, 0 if there is none.
    pub old_address: u64,
    /// How many inner calls were left out because of this one.
    pub inner: u64,
    /// See [`Block::certain`].
    pub certain: u32,
    /// Where the function begins, the lower half of its address.
    pub start: u32,
}

impl Call {
    /// The block that it is asked for.
    #[inline(always)]
    pub const fn block(&self) -> Block {
        Block {
            size: self.size,
            time: self.time,
            site: self.site,
            certain: self.certain,
        }
    }

    /// Notes a call that was just entered, in place of the one before. Its
    /// site is not known yet.
    #[inline(always)]
    pub fn begin(&mut self, (function, start): (Function, u32), slot: u64, back: u64, time: u64) {
        self.function = function as u32;
        self.start = start;
        self.site = NO_SITE;
        self.slot = slot;
        self.back = back;
        self.time = time;
        // Of two zeros in a row the compiler would make a call of memset, byte by byte.
        self.old_address = opaque(0) as u64;
        self.inner = 0;
    }

    /// Whether an exception may end it.
    #[inline(always)]
    pub const fn may_throw(&self) -> bool {
        number_may_throw(self.function)
    }

    /// Whether the word at its slot says that the call is active: the kernel's
    /// trampoline, or the return address itself if it is left alone.
    #[inline(always)]
    pub const fn is_active_with(&self, word: u64) -> bool {
        is_trampoline(word) || (word != 0 && word == self.back)
    }
}

/// What an entry means, given the call that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// No call is in flight: this one is outermost.
    Outermost,
    /// Inside the call in flight: not counted.
    Nested,
    /// The call in flight ended without a return: it is lost, and this one is
    /// outermost.
    Stale,
    /// The call in flight ended by an exception, so that it has allocated
    /// nothing, or it goes on as this one by a jump. This one takes its place.
    Instead,
}

/// Decides what an entry at stack pointer `slot` means, of a function that begins at
/// `start`.
///
/// `saved` reads the word at the slot of the call in flight. While that call
/// is active the word is the kernel's return trampoline, which starts a page,
/// or the return address, if no return probe replaces it; afterwards it is
/// whatever the stack was reused for.
#[inline(always)]
pub fn entry(
    in_flight: &Call,
    (function, start): (Function, u32),
    slot: u64,
    saved: impl FnOnce() -> Option<u64>,
) -> Entry {
    if in_flight.function == 0 {
        return Entry::Outermost;
    }
    let is_left = slot > in_flight.slot
        || (slot == in_flight.slot && !tail_call(in_flight.function, function));
    if !is_left && saved().is_some_and(|word| in_flight.is_active_with(word)) {
        return Entry::Nested;
    }
    // No function goes on as itself: it was called again, and its end was missed.
    let goes_on = slot == in_flight.slot
        && start != in_flight.start
        && goes_on_as(in_flight.function, function);
    if goes_on || number_may_throw(in_flight.function) {
        Entry::Instead
    } else {
        Entry::Stale
    }
}

/// Whether a return at stack pointer `stack` (one word above its slot) ends
/// the call in flight.
#[inline(always)]
pub const fn ends(in_flight: &Call, function: Function, stack: u64) -> bool {
    in_flight.function == function as u32 && in_flight.slot.wrapping_add(8) == stack
}

/// Whether a return instruction (or a jump that ends a call) which is about to
/// run at stack pointer `stack`, with `word` on top, ends the call in flight,
/// whichever function's it is: a tail call ends at another's.
#[inline(always)]
pub fn ends_before(in_flight: &Call, stack: u64, word: impl FnOnce() -> Option<u64>) -> bool {
    in_flight.function != 0
        && in_flight.slot == stack
        && word().is_some_and(|word| in_flight.is_active_with(word))
}

/// Whether the kernel wrote this return address: its trampoline is the first
/// instruction of a page of its own.
#[inline(always)]
pub const fn is_trampoline(word: u64) -> bool {
    word != 0 && word & 0xfff == 0
}

/// Whether a call on the slot of another is taken for its end: allocators with
/// names of their own make many functions of few, and a compiler's doors lead on to functions
/// that do the same.
#[inline(always)]
const fn goes_on_as(outer: u32, inner: Function) -> bool {
    let own = Function::New as u32;
    outer >= own || inner as u32 >= own || inner as u32 == outer
}

/// [`Function::may_tail_call`] of a function's number.
#[inline(always)]
pub(crate) const fn tail_call(outer: u32, inner: Function) -> bool {
    use Function as F;
    const OUTER: [F; 7] = [
        F::Calloc,
        F::Realloc,
        F::Reallocarray,
        F::AlignedAlloc,
        F::Memalign,
        F::Valloc,
        F::Pvalloc,
    ];
    let mut index = 0;
    while index < OUTER.len() {
        if OUTER[index] as u32 == outer {
            return OUTER[index].may_tail_call(inner);
        }
        index += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAMPOLINE: u64 = 0x7fff_ffff_e000;
    const RETURN: u64 = 0x5555_4321;

    fn call(function: Function, slot: u64) -> Call {
        Call {
            function: function as u32,
            site: 0,
            slot,
            back: RETURN,
            size: 1,
            argument: 0,
            time: 0,
            old: Block::default(),
            old_address: 0,
            inner: 0,
            certain: 0,
            start: 1,
        }
    }

    fn decide(outer: Function, outer_slot: u64, inner: Function, slot: u64, word: u64) -> Entry {
        entry(&call(outer, outer_slot), (inner, 2), slot, || Some(word))
    }

    #[test]
    fn a_number_names_its_function() {
        for (number, function) in (1..).zip(Function::ALL) {
            assert_eq!(function as u64, number);
            assert_eq!(Function::from_number(number), Some(function));
        }
        assert_eq!(Function::from_number(0), None);
        assert_eq!(Function::from_number(Function::ALL.len() as u64 + 1), None);
    }

    #[test]
    fn nothing_in_flight_is_outermost() {
        let mut idle = call(Function::Malloc, 0x1000);
        idle.function = 0;
        assert_eq!(
            entry(&idle, (Function::Malloc, 1), 0x500, || None),
            Entry::Outermost
        );
    }

    #[test]
    fn a_deeper_call_under_an_active_one_is_nested() {
        assert_eq!(
            decide(
                Function::Calloc,
                0x1000,
                Function::Malloc,
                0xf00,
                TRAMPOLINE
            ),
            Entry::Nested
        );
    }

    #[test]
    fn a_deeper_call_after_longjmp_is_not_nested() {
        assert_eq!(
            decide(
                Function::PosixMemalign,
                0x1000,
                Function::Malloc,
                0xf00,
                0x5555_1234
            ),
            Entry::Stale
        );
    }

    #[test]
    fn a_shallower_call_shows_that_the_other_was_left() {
        assert_eq!(
            decide(
                Function::Malloc,
                0x1000,
                Function::Malloc,
                0x1100,
                TRAMPOLINE
            ),
            Entry::Stale
        );
    }

    #[test]
    fn a_tail_call_is_nested_and_a_repeated_call_is_not() {
        assert_eq!(
            decide(
                Function::Realloc,
                0x1000,
                Function::Malloc,
                0x1000,
                TRAMPOLINE
            ),
            Entry::Nested
        );
        assert_eq!(
            decide(
                Function::Malloc,
                0x1000,
                Function::Calloc,
                0x1000,
                TRAMPOLINE
            ),
            Entry::Stale
        );
        assert_eq!(
            decide(
                Function::PosixMemalign,
                0x1000,
                Function::Malloc,
                0x1000,
                TRAMPOLINE
            ),
            Entry::Stale
        );
    }

    /// A handler that calls again from the frame in which the exception was
    /// caught, and a function that goes on as another: the same to us.
    #[test]
    fn a_call_after_an_exception_is_outermost_and_nothing_is_lost() {
        for (slot, word) in [
            (0x1000, RETURN),
            (0x1000, TRAMPOLINE),
            (0x1100, RETURN),
            (0xf00, 0x5555_1234),
        ] {
            for inner in [Function::New, Function::Malloc] {
                let found = decide(Function::New, 0x1000, inner, slot, word);
                assert_eq!(found, Entry::Instead, "{slot:#x} {word:#x} {inner:?}");
            }
        }
        let jump = decide(
            Function::HeapReallocarray,
            0x1000,
            Function::HeapRealloc,
            0x1000,
            TRAMPOLINE,
        );
        assert_eq!(jump, Entry::Instead);
        let below = decide(Function::New, 0x1000, Function::Malloc, 0xf00, RETURN);
        assert_eq!(below, Entry::Nested);
    }

    /// Allocators' own functions, which go on as each other, and compilers' doors.
    #[test]
    fn a_function_that_is_called_again_has_missed_its_end() {
        for function in [Function::ArenaAlloc, Function::Malloc] {
            let in_flight = call(function, 0x1000);
            let again = |start| entry(&in_flight, (function, start), 0x1000, || Some(RETURN));
            assert_eq!(again(1), Entry::Stale);
            assert_eq!(again(2), Entry::Instead, "another one");
        }
    }

    #[test]
    fn a_call_whose_return_address_is_left_alone_is_believed_by_it() {
        assert_eq!(
            decide(Function::Calloc, 0x1000, Function::Malloc, 0xf00, RETURN),
            Entry::Nested
        );
        let mut replaced = call(Function::Calloc, 0x1000);
        replaced.back = 0;
        for word in [RETURN, 0] {
            let found = entry(&replaced, (Function::Malloc, 2), 0xf00, || Some(word));
            assert_eq!(found, Entry::Stale, "{word:#x}");
        }
    }

    #[test]
    fn a_return_instruction_ends_the_call_on_whose_slot_it_is() {
        let realloc = call(Function::Realloc, 0x1000);
        let ends = |stack, word| ends_before(&realloc, stack, || word);
        assert!(ends(0x1000, Some(RETURN)));
        assert!(
            ends(0x1000, Some(TRAMPOLINE)),
            "entered under a return probe"
        );
        assert!(!ends(0xf00, Some(RETURN)), "an inner call");
        assert!(!ends(0x1008, Some(RETURN)), "its caller");
        assert!(!ends(0x1000, Some(0x5555_1234)), "the stack was used again");
        assert!(!ends(0x1000, None));
        let mut none = realloc;
        none.function = 0;
        assert!(!ends_before(&none, 0x1000, || Some(RETURN)));
    }

    #[test]
    fn a_return_ends_only_its_own_call() {
        let realloc = call(Function::Realloc, 0x1000);
        assert!(ends(&realloc, Function::Realloc, 0x1008));
        assert!(
            !ends(&realloc, Function::Malloc, 0x1008),
            "a tail call returns first"
        );
        assert!(
            !ends(&realloc, Function::Realloc, 0xf08),
            "an inner call of the same name"
        );
    }
}
