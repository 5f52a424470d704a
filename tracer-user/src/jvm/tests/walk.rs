//! A thread's Java stack, walked while the thread is blocked: words as the
//! kernel side makes them.

use crate::jvm::Jvm;
use crate::jvm::code_cache::Blob;
use crate::jvm::fields::Fields;
use crate::jvm::memory::TargetMemory;

/// Longer stacks are walked in circles.
const MAX_FRAMES: usize = 2000;

/// Words in an interpreted frame, from its frame pointer.
const METHOD: i64 = -3;
const SENDER_SP: i64 = -1;

/// In the frame of the stub that calls Java code.
const CALL_WRAPPER: i64 = -6;

/// Where a frame is.
#[derive(Debug, Clone, Copy)]
struct Registers {
    sp: u64,
    pc: u64,
    fp: u64,
}

pub(super) struct Walk<'a> {
    jvm: &'a Jvm,
    /// Frames that will be deoptimised when they are returned to.
    pub(super) deoptimised: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(jvm: &'a Jvm) -> Self {
        Walk {
            jvm,
            deoptimised: 0,
        }
    }

    /// The words of all Java frames of a thread, innermost first.
    pub(super) fn words(&mut self, thread: u64) -> Vec<u64> {
        let mut words = Vec::new();
        let mut at = self.anchor(thread + self.base("JavaThread", "_anchor"));
        while let Some(frame) = at {
            assert!(words.len() < MAX_FRAMES, "{words:x?}");
            at = if frame.pc == self.jvm.places.call_stub_return {
                let wrapper = self.slot(frame.fp, CALL_WRAPPER);
                self.anchor(wrapper + self.base("JavaCallWrapper", "_anchor"))
            } else if self.jvm.places.interpreter.contains(&frame.pc) {
                words.push(self.interpreted(frame));
                Some(Registers {
                    sp: self.slot(frame.fp, SENDER_SP),
                    pc: self.slot(frame.fp, 1),
                    fp: self.slot(frame.fp, 0),
                })
            } else {
                let (word, next) = self.compiled(frame);
                words.push(word);
                Some(next)
            };
        }
        words
    }

    fn anchor(&self, address: u64) -> Option<Registers> {
        let field = |name| {
            let offset = self.base("JavaFrameAnchor", name);
            self.jvm.memory.u64(address + offset).unwrap()
        };
        let sp = field("_last_Java_sp");
        let pc = match field("_last_Java_pc") {
            0 if sp != 0 => self.slot(sp, -1),
            pc => pc,
        };
        let fp = field("_last_Java_fp");
        (sp != 0).then_some(Registers { sp, pc, fp })
    }

    fn interpreted(&self, frame: Registers) -> u64 {
        let slot = self.jvm.layout.interpreter.bcp_slot;
        let (method, bcp) = (
            self.slot(frame.fp, METHOD),
            self.slot(frame.fp, slot.into()),
        );
        0b0100 << 60 | (bcp & 0xffff) << 44 | method >> 3
    }

    fn compiled(&mut self, frame: Registers) -> (u64, Registers) {
        let Jvm {
            memory,
            layout,
            places,
            ..
        } = self.jvm;
        let blob = Blob::at(memory, layout, &places.heaps, frame.pc).unwrap();
        let frame_words = layout.blob.frame_size.of(&blob.header).unwrap();
        assert!(frame_words > 0, "{frame:x?}");
        let handler = |place: crate::jvm::layout::Position| place.of(blob.start, &blob.header);
        let handlers = [
            handler(layout.nmethod.deopt_handler),
            layout.nmethod.deopt_mh_handler.and_then(handler),
        ];
        let pc = if handlers.contains(&Some(frame.pc)) {
            self.deoptimised += 1;
            let offset = layout.nmethod.orig_pc_offset.of(&blob.header).unwrap();
            memory.u64(frame.sp.wrapping_add_signed(offset)).unwrap()
        } else {
            frame.pc
        };
        let id = layout.nmethod.compile_id.of(&blob.header).unwrap_or(0);
        let word = 0b0010 << 60 | (id.cast_unsigned() & 0x1fff) << 47 | pc;
        let sp = frame.sp + 8 * frame_words.cast_unsigned();
        let next = Registers {
            sp,
            pc: self.slot(sp, -1),
            fp: self.slot(sp, -2),
        };
        (word, next)
    }

    fn slot(&self, base: u64, slot: i64) -> u64 {
        let address = base.wrapping_add_signed(8 * slot);
        self.jvm.memory.u64(address).unwrap()
    }

    fn base(&self, kind: &'static str, name: &'static str) -> u64 {
        Fields(&self.jvm.structs)
            .offset(&[(kind, name)])
            .unwrap()
            .into()
    }
}
