//! HotSpot's code cache: from a return address in it to the way up the stack.
//!
//! Sources: HotSpot's own stack walker and heap of code
//! (`src/hotspot/cpu/x86/frame_x86.cpp`, `share/memory/heap.cpp`,
//! `share/code/codeBlob.hpp`), and the tables that libjvm.so exports for
//! debuggers, from which user space takes all offsets.

use crate::rule::Rule;
use crate::stack::StackEnd;

/// JVMs that are traced at the same time; 0 is none.
pub const MAX_VMS: u32 = 64;

/// Parts of a code cache.
pub const MAX_HEAPS: usize = 4;

/// Steps back in a segment map. One leads at most 254 segments back, and what
/// was freed and joined may take more steps than its size asks for.
const MAX_HOPS: u32 = 64;

/// Frames have fewer words than this: 32 KiB.
const MAX_WORDS: u32 = (1 << Code::WORDS_BITS) - 1;

/// What the first compiler's stubs have instead, those of barriers among them
/// (`StubAssembler::no_frame_size`, -1): they begin by setting a frame pointer.
const NO_FRAME_SIZE: u32 = u32::MAX;

/// One part of a code cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CodeHeap {
    /// First address.
    pub start: u64,
    /// First address after what is reserved.
    pub end: u64,
    /// Where its segment map is: a byte for each segment, 0 where a block
    /// begins, otherwise how far to go back towards that, 0xff if it is free.
    pub segments: u64,
}

/// What the kernel side knows of a JVM, in the terms of `gHotSpotVMStructs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Vm {
    /// First address of the code cache.
    pub start: u64,
    /// First address after what is reserved for it.
    pub end: u64,
    /// The interpreter's code.
    pub interpreter_start: u64,
    /// First address after it.
    pub interpreter_end: u64,
    /// Where Java code returns to, in the stub that calls it from native code.
    pub call_stub_return: u64,
    /// Where the deepest frame of a virtual thread that is on the stack
    /// returns to; 0 if this JVM has none, or it is not known.
    pub return_barrier: u64,
    /// Its parts; those that are not there are empty.
    pub heaps: [CodeHeap; MAX_HEAPS],
    /// log2 of a segment's bytes.
    pub segment_bits: u32,
    /// Bytes of a `HeapBlock`, which stands before each blob.
    pub block_header: u32,
    /// Offset of its `_used`, a byte.
    pub block_used: u32,
    /// Offset of its `_length`, in segments; the lower half if it has two.
    pub block_length: u32,
    /// Offset of `CodeBlob::_frame_size`, an `int`, in words.
    pub frame_size: u32,
    /// Offset of `nmethod::_compile_id`, an `int`.
    pub compile_id: u32,
    /// Offset of where an nmethod says its deoptimisation handler is.
    pub deopt_handler: u32,
    /// The same for method handle calls; 0 if there is none.
    pub deopt_mh_handler: u32,
    /// 1 if these are addresses, 0 if they are `int`s from the blob on.
    pub deopt_is_address: u32,
    /// Offset of `nmethod::_orig_pc_offset`, an `int`: from the stack pointer
    /// on, where the return address was put that the handler's took the place
    /// of.
    pub original_pc: u32,
    /// Bytes from an interpreted frame's rbp to its bytecode pointer, below.
    pub bytecode_below: u32,
    /// 1 if user space is told of code that is freed, by [`Freed`].
    pub may_cache: u32,
    /// [`Freed`] at the time when nothing was cached.
    pub emptied: u64,
}

// SAFETY: repr(C), u64 fields, 12 u32 in a row and another u64: no padding,
// any bit pattern is valid.
unsafe impl crate::Record for Vm {}

const _: () = assert!(
    size_of::<Vm>() == 8 * (6 + 3 * MAX_HEAPS) + 4 * 12 + 8,
    "no padding"
);

/// How often a JVM has freed code.
pub type Freed = u64;

/// Reads the target's memory, anywhere.
pub trait Anywhere {
    /// A byte.
    fn byte(&mut self, address: u64) -> Option<u8>;
    /// Four bytes.
    fn int(&mut self, address: u64) -> Option<u32>;
    /// Eight bytes.
    fn long(&mut self, address: u64) -> Option<u64>;
}

/// What is at an address of a code cache, in a word.
///
/// ```text
///  63    53 52            32 31           29 28            16 15           0
/// +--------+----------------+-------------+-+----------------+--------------+
/// |        | original pc at | deoptimised | | compile id, 13 | frame words  |
/// +--------+----------------+-------------+-+----------------+--------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Code(pub u64);

impl Code {
    /// The stub that calls Java code, after its call.
    pub const CALL_STUB: Self = Self(MAX_WORDS as u64);

    const WORDS_BITS: u32 = 12;
    const DEOPTIMISED: u64 = 1 << 31;
    const ID_SHIFT: u32 = 16;
    const ORIGINAL_SHIFT: u32 = 32;
    const ORIGINAL_BITS: u32 = 20;

    /// The code of a blob whose frames have so many words.
    #[inline(always)]
    pub const fn of_blob(words: u64, id: u64) -> Self {
        Self(words & MAX_WORDS as u64 | (id & (crate::frame::IDS - 1)) << Self::ID_SHIFT)
    }

    /// Words of the frame, with the return address.
    #[inline(always)]
    pub const fn words(self) -> u64 {
        self.0 & MAX_WORDS as u64
    }

    /// The compile id of the method, modulo [`crate::frame::IDS`].
    #[inline(always)]
    pub const fn id(self) -> u64 {
        self.0 >> Self::ID_SHIFT & (crate::frame::IDS - 1)
    }

    /// Bytes above the stack pointer where the return address is that a
    /// deoptimisation replaced, if one did.
    #[inline(always)]
    pub const fn original(self) -> Option<u64> {
        if self.0 & Self::DEOPTIMISED == 0 {
            return None;
        }
        Some(self.0 >> Self::ORIGINAL_SHIFT)
    }

    #[inline(always)]
    const fn deoptimised(self, original: u64) -> Self {
        Self(self.0 | Self::DEOPTIMISED | original << Self::ORIGINAL_SHIFT)
    }

    /// How to go up from it. Blobs without a frame size are stubs, which keep
    /// frame pointers if they have a frame at all.
    #[inline(always)]
    pub const fn rule(self) -> Rule {
        match self.words() {
            0 => Rule::FRAME_POINTER,
            words if words == MAX_WORDS as u64 => Rule::CALL_STUB,
            words => Rule::java(words),
        }
    }
}

impl Vm {
    /// Whether the interpreter's code has an address.
    #[inline(always)]
    pub const fn is_interpreter(&self, address: u64) -> bool {
        address.wrapping_sub(self.interpreter_start)
            < self.interpreter_end.wrapping_sub(self.interpreter_start)
    }

    /// The code at an address.
    ///
    /// # Errors
    /// [`StackEnd::JavaCode`] if there is none, or it cannot be read;
    /// [`StackEnd::Continuation`] for what a virtual thread's frames return to.
    #[inline(always)]
    pub fn code(&self, pc: u64, memory: &mut impl Anywhere) -> Result<Code, StackEnd> {
        if pc == self.call_stub_return {
            return Ok(Code::CALL_STUB);
        }
        if pc == self.return_barrier {
            return Err(StackEnd::Continuation);
        }
        let blob = self.blob(pc, memory).ok_or(StackEnd::JavaCode)?;
        self.code_of(blob, pc, memory).ok_or(StackEnd::JavaCode)
    }

    /// Where the blob begins that has an address.
    #[inline(always)]
    fn blob(&self, pc: u64, memory: &mut impl Anywhere) -> Option<u64> {
        let mut heap = self.heaps[0];
        let mut index = 1;
        while index < MAX_HEAPS {
            if self.heaps[index].start <= pc && pc < self.heaps[index].end {
                heap = self.heaps[index];
            }
            index += 1;
        }
        if pc < heap.start || pc >= heap.end {
            return None;
        }
        let bits = self.segment_bits & 31;
        let mut segment = (pc - heap.start) >> bits;
        let mut hops = 0;
        loop {
            let back = memory.byte(heap.segments.wrapping_add(segment))?;
            if back == 0 {
                break;
            }
            hops += 1;
            if back == 0xff || u64::from(back) > segment || hops > MAX_HOPS {
                return None;
            }
            segment -= u64::from(back);
        }
        let block = heap.start.wrapping_add(segment << bits);
        let used = memory.byte(block.wrapping_add(self.block_used as u64))?;
        let length = memory.int(block.wrapping_add(self.block_length as u64))?;
        if used == 0 || pc.wrapping_sub(block) >= u64::from(length) << bits {
            return None;
        }
        Some(block.wrapping_add(self.block_header as u64))
    }

    #[inline(always)]
    fn code_of(&self, blob: u64, pc: u64, memory: &mut impl Anywhere) -> Option<Code> {
        let field = |offset: u32| blob.wrapping_add(offset as u64);
        let words = match memory.int(field(self.frame_size))? {
            NO_FRAME_SIZE => 0,
            words if words >= MAX_WORDS => return None,
            words => words,
        };
        let id = memory.int(field(self.compile_id))?;
        let code = Code::of_blob(u64::from(words), u64::from(id));
        if words == 0 {
            return Some(code);
        }
        let handler = self.handler(blob, self.deopt_handler, memory)?;
        let mh_handler = match self.deopt_mh_handler {
            0 => 0,
            offset => self.handler(blob, offset, memory)?,
        };
        if pc != handler && pc != mh_handler {
            return Some(code);
        }
        let original = memory.int(field(self.original_pc))?;
        if original >> Code::ORIGINAL_BITS != 0 || original & 7 != 0 {
            return None;
        }
        Some(code.deoptimised(u64::from(original)))
    }

    #[inline(always)]
    fn handler(&self, blob: u64, offset: u32, memory: &mut impl Anywhere) -> Option<u64> {
        let field = blob.wrapping_add(offset as u64);
        if self.deopt_is_address != 0 {
            return memory.long(field);
        }
        Some(blob.wrapping_add(u64::from(memory.int(field)?)))
    }
}

/// One entry of the cache of code by address, in one word, so that it is
/// never half written. It is believed only as long as its JVM has not freed
/// any code since.
///
/// ```text
///  63      51 50       39 38        22 21      16 15           0
/// +----------+-----------+------------+----------+--------------+
/// | id, 13   | words, 12 | freed, 17  | VM, 6    | offset >> 16 |
/// +----------+-----------+------------+----------+--------------+
/// ```
pub mod cached {
    use super::{Code, Freed};

    /// Entries, a power of two: 512 KiB.
    pub const ENTRIES: u32 = 1 << INDEX_BITS;

    const INDEX_BITS: u32 = 16;
    const VM_SHIFT: u32 = 16;
    const FREED_SHIFT: u32 = 22;
    const FREED_BITS: u32 = 17;
    const WORDS_SHIFT: u32 = 39;
    const ID_SHIFT: u32 = 51;

    /// So often code may be freed until the cache must be emptied: then the
    /// count of an old entry would pass for a new one.
    pub const EMPTY_AFTER: Freed = 1 << (FREED_BITS - 1);

    /// Where the code at an offset in a JVM's code cache is kept, which is
    /// smaller than 4 GiB.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is below ENTRIES")]
    pub const fn index(vm: u32, offset: u64) -> u32 {
        let rest = (offset >> INDEX_BITS | (vm as u64) << VM_SHIFT)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 48;
        ((offset ^ rest) & (ENTRIES as u64 - 1)) as u32
    }

    /// What an entry ends with.
    #[inline(always)]
    pub const fn tag(vm: u32, offset: u64, freed: Freed) -> u64 {
        offset >> INDEX_BITS & 0xffff
            | (vm as u64) << VM_SHIFT
            | (freed & ((1 << FREED_BITS) - 1)) << FREED_SHIFT
    }

    /// Numbers of JVMs are below this.
    pub const VMS: u32 = 1 << (FREED_SHIFT - VM_SHIFT);

    /// The number of the JVM of an entry.
    #[expect(clippy::cast_possible_truncation, reason = "a field is cut out")]
    pub const fn vm(entry: u64) -> u32 {
        (entry >> VM_SHIFT) as u32 & (VMS - 1)
    }

    /// The code in an entry, if it is that of `tag`.
    #[inline(always)]
    pub const fn code(entry: u64, tag: u64) -> Option<Code> {
        if entry & ((1 << WORDS_SHIFT) - 1) != tag {
            return None;
        }
        let words = entry >> WORDS_SHIFT;
        Some(Code::of_blob(words, entry >> ID_SHIFT))
    }

    /// The entry of code; a deoptimised frame's has no room.
    #[inline(always)]
    pub const fn entry(tag: u64, code: Code) -> Option<u64> {
        if code.original().is_some() {
            return None;
        }
        Some(tag | code.words() << WORDS_SHIFT | code.id() << ID_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const CACHE: u64 = 0x7f00_0000_0000;
    const MAP: u64 = 0x7f11_0000_0000;

    /// Memory of single bytes.
    #[derive(Default)]
    struct Bytes(HashMap<u64, u8>);

    impl Bytes {
        fn put(&mut self, address: u64, bytes: &[u8]) {
            for (address, byte) in (address..).zip(bytes) {
                self.0.insert(address, *byte);
            }
        }
    }

    impl Anywhere for Bytes {
        fn byte(&mut self, address: u64) -> Option<u8> {
            self.0.get(&address).copied()
        }

        fn int(&mut self, address: u64) -> Option<u32> {
            let mut bytes = [0; 4];
            for (address, byte) in (address..).zip(&mut bytes) {
                *byte = self.byte(address)?;
            }
            Some(u32::from_le_bytes(bytes))
        }

        fn long(&mut self, address: u64) -> Option<u64> {
            let (low, high) = (self.int(address)?, self.int(address + 4)?);
            Some(u64::from(high) << 32 | u64::from(low))
        }
    }

    fn vm() -> Vm {
        let mut vm = Vm {
            start: CACHE,
            end: CACHE + 0x30_0000,
            segment_bits: 7,
            block_header: 16,
            block_used: 8,
            frame_size: 0x1c,
            compile_id: 0x130,
            deopt_handler: 0x80,
            deopt_is_address: 1,
            original_pc: 0x12c,
            ..Vm::default()
        };
        for (index, heap) in (0..).zip(&mut vm.heaps[..3]) {
            *heap = CodeHeap {
                start: CACHE + 0x10_0000 * index,
                end: CACHE + 0x10_0000 * (index + 1),
                segments: MAP + 0x1_0000 * index,
            };
        }
        vm
    }

    /// A block of 600 segments in the second heap, from segment 40 on.
    fn block(used: u8, segments: u8) -> (Bytes, u64) {
        let mut bytes = Bytes::default();
        for segment in 0..600u64 {
            let back = segment.min(u64::from(segments));
            bytes.put(
                MAP + 0x1_0000 + 40 + segment,
                &[u8::try_from(back).unwrap()],
            );
        }
        let block = CACHE + 0x10_0000 + 40 * 128;
        bytes.put(block, &600u64.to_le_bytes());
        bytes.put(block + 8, &[used]);
        let blob = block + 16;
        bytes.put(blob + 0x1c, &14u32.to_le_bytes());
        bytes.put(blob + 0x130, &(3 * 8192 + 99u32).to_le_bytes());
        bytes.put(blob + 0x80, &(blob + 0x2000).to_le_bytes());
        bytes.put(blob + 0x12c, &48u32.to_le_bytes());
        (bytes, blob)
    }

    #[test]
    fn the_blob_of_an_address_is_found() {
        let (mut bytes, blob) = block(1, 100);
        for pc in [blob + 0x200, blob + 0x1234, blob + 599 * 128] {
            let code = vm().code(pc, &mut bytes).unwrap();
            assert_eq!((code.words(), code.id()), (14, 99));
            assert_eq!(code.original(), None);
        }
    }

    #[test]
    fn stubs_without_a_size_have_frame_pointers() {
        let (mut bytes, blob) = block(1, 100);
        bytes.put(blob + 0x1c, &(-1i32).to_le_bytes());
        let code = vm().code(blob + 0x200, &mut bytes).unwrap();
        assert_eq!((code.words(), code.rule()), (0, Rule::FRAME_POINTER));
    }

    #[test]
    fn stubs_are_known_by_their_addresses() {
        let vm = Vm {
            call_stub_return: CACHE + 0x777,
            return_barrier: CACHE + 0x888,
            ..vm()
        };
        let mut bytes = Bytes::default();
        let code = vm.code(CACHE + 0x777, &mut bytes).unwrap();
        assert_eq!(code.rule(), Rule::CALL_STUB);
        let end = vm.code(CACHE + 0x888, &mut bytes);
        assert_eq!(end, Err(StackEnd::Continuation));
        assert_eq!(Code::of_blob(0, 5).rule(), Rule::FRAME_POINTER);
    }

    #[test]
    fn free_and_unknown_memory_has_no_code() {
        let (mut bytes, blob) = block(0, 100);
        assert_eq!(vm().code(blob + 0x200, &mut bytes), Err(StackEnd::JavaCode));
        let (mut bytes, blob) = block(1, 100);
        for pc in [
            CACHE - 1,
            CACHE + 0x30_0000,
            CACHE + 5,
            blob + 600 * 128,
            u64::MAX,
        ] {
            assert_eq!(vm().code(pc, &mut bytes), Err(StackEnd::JavaCode));
        }
        bytes.put(MAP + 0x1_0000 + 50, &[0xff]);
        let pc = CACHE + 0x10_0000 + 50 * 128;
        assert_eq!(vm().code(pc, &mut bytes), Err(StackEnd::JavaCode));
    }

    #[test]
    fn a_segment_map_that_leads_nowhere_is_left() {
        let (mut bytes, blob) = block(1, 1);
        let far = blob + 599 * 128;
        assert_eq!(vm().code(far, &mut bytes), Err(StackEnd::JavaCode));
        bytes.put(MAP + 0x1_0000, &[3]);
        let below = CACHE + 0x10_0000;
        assert_eq!(vm().code(below, &mut bytes), Err(StackEnd::JavaCode));
    }

    #[test]
    fn a_deoptimised_frame_says_where_its_address_went() {
        let (mut bytes, blob) = block(1, 100);
        let code = vm().code(blob + 0x2000, &mut bytes).unwrap();
        assert_eq!((code.original(), code.words()), (Some(48), 14));
        let by_offset = Vm {
            deopt_is_address: 0,
            ..vm()
        };
        bytes.put(blob + 0x80, &0x1800u32.to_le_bytes());
        let code = by_offset.code(blob + 0x1800, &mut bytes).unwrap();
        assert_eq!(code.original(), Some(48));
        let code = by_offset.code(blob + 0x2000, &mut bytes).unwrap();
        assert_eq!(code.original(), None);
    }

    #[test]
    fn a_cached_entry_belongs_to_one_address_of_one_state() {
        let tag = cached::tag(5, 0x1234_5678, 77);
        let code = Code::of_blob(14, 99);
        let entry = cached::entry(tag, code).unwrap();
        assert_eq!(cached::vm(entry), 5);
        assert_eq!(cached::code(entry, tag), Some(code));
        for other in (0..32).map(|bit| 0x1234_5678 ^ 1 << bit) {
            let same_place = cached::index(5, other) == cached::index(5, 0x1234_5678);
            assert!(!(same_place && cached::tag(5, other, 77) == tag), "{other}");
        }
        assert_eq!(cached::code(entry, cached::tag(6, 0x1234_5678, 77)), None);
        assert_eq!(cached::code(entry, cached::tag(5, 0x1234_5678, 78)), None);
        assert_eq!(cached::code(0, cached::tag(1, 0, 0)), None);
        assert_eq!(cached::entry(tag, code.deoptimised(8)), None);
    }
}
