//! The blob at an address of a code cache, by the segment map before it.

use super::code::{Code, MAX_WORDS};
use super::{MAX_HEAPS, Vm};
use crate::stack::StackEnd;
use crate::volatile::opaque;

/// Steps back in a segment map. One leads at most 254 segments back, and what
/// was freed and joined may take more steps than its size asks for.
const MAX_HOPS: u32 = 64;

/// What the first compiler's stubs have instead, those of barriers among them
/// (`StubAssembler::no_frame_size`, -1): they begin by setting a frame pointer.
const NO_FRAME_SIZE: u32 = u32::MAX;

/// Reads the target's memory, anywhere.
pub trait Anywhere {
    /// A byte.
    fn byte(&mut self, address: u64) -> Option<u8>;
    /// Four bytes.
    fn int(&mut self, address: u64) -> Option<u32>;
    /// Eight bytes.
    fn long(&mut self, address: u64) -> Option<u64>;

    /// Reads the first `length` bytes of a window, whole words, or as many as there is room
    /// for. Whether all could be read.
    #[inline(always)]
    fn fill(&mut self, window: &mut [u64; WINDOW_WORDS], address: u64, length: u64) -> bool {
        for (word, at) in window.iter_mut().zip((0..length).step_by(8)) {
            let Some(read) = self.long(address.wrapping_add(at)) else {
                return false;
            };
            *word = read;
        }
        true
    }
}

/// Words that are read at once, at most.
pub const WINDOW_WORDS: usize = 10;

/// The word of a window that has this byte, which is its lowest then; 0 behind its end.
#[inline(always)]
pub fn read(window: &[u64; WINDOW_WORDS], offset: u32) -> u64 {
    let index = opaque((offset >> 3) as usize);
    if index >= WINDOW_WORDS {
        return 0;
    }
    window[index] >> (8 * (offset & 7))
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

#[cfg(test)]
mod tests {
    use super::super::CodeHeap;
    use super::*;
    use crate::rule::Rule;
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
}
