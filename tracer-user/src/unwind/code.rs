//! A module's machine code, read piece by piece, and where calls may end in
//! it. Nothing is disassembled: whatever might be a call counts as one.

use std::ops::Range;

use memchr::{memchr2_iter, memmem};
use tracer_ebpf::callsite::{CALL_BYTES, ends_in_call};

use super::Segment;
use crate::process::bytes::Bytes;

/// Bytes read at a time.
const WINDOW: u64 = 1 << 20;

/// Bytes looked at in one piece, at most.
const PIECE: u64 = WINDOW / 2;

/// Bytes in front of the wanted ones that are read as well.
const BEFORE: u64 = 4096;

/// The opcode of a call by distance.
const NEAR: u8 = 0xe8;

/// The opcode of a call by register or memory, among others.
const INDIRECT: u8 = 0xff;

/// The code of all executable segments.
pub struct Code<'a> {
    bytes: &'a dyn Bytes,
    segments: Vec<Segment>,
    /// Whether the loader changes the targets of calls.
    is_relocated: bool,
    window: Vec<u8>,
    /// The address of the window's first byte.
    start: u64,
}

impl<'a> Code<'a> {
    /// The code of these segments, which are sorted by address.
    pub fn new(bytes: &'a dyn Bytes, segments: Vec<Segment>, is_relocated: bool) -> Self {
        Code {
            bytes,
            segments,
            is_relocated,
            window: Vec::new(),
            start: 0,
        }
    }

    /// Whether one of the bytes from `start` to `end` may be the last one of a
    /// call. They must be in one segment. If they cannot be read, they may.
    pub fn may_end_calls(&mut self, start: u64, end: u64) -> bool {
        let Some(segment) = self.segment(start) else {
            return false;
        };
        // One byte more than the longest call, to read whole words.
        let margin = CALL_BYTES as u64 + 1;
        if start < segment.address.0.saturating_add(margin) {
            return true;
        }
        let mut at = start;
        while at < end {
            let next = end.min(at.saturating_add(PIECE));
            let first = at - margin;
            if !self.load(first, next) || self.has_call(first..next, CALL_BYTES + 1) {
                return true;
            }
            at = next;
        }
        false
    }

    /// The code of a part of a segment, of at most half a MiB.
    pub fn bytes(&mut self, range: Range<u64>) -> Option<&[u8]> {
        self.load(range.start, range.end)
            .then(|| self.loaded(range))
    }

    /// Where a sequence of bytes begins in a part of a segment.
    pub fn find(&mut self, range: Range<u64>, wanted: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        let length = wanted.len() as u64;
        let finder = memmem::Finder::new(wanted);
        let mut at = range.start;
        while at + length <= range.end {
            let next = range.end.min(at + PIECE);
            let Some(bytes) = self.bytes(at..next) else {
                break;
            };
            found.extend(finder.find_iter(bytes).map(|offset| at + offset as u64));
            if next == range.end {
                break;
            }
            at = next - (length - 1);
        }
        found
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        let after = self
            .segments
            .partition_point(|segment| segment.address.0 <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (address < segment.end()).then_some(segment)
    }

    /// Makes the window hold this code; says whether it does.
    fn load(&mut self, start: u64, end: u64) -> bool {
        let holds =
            |code: &Self| code.start <= start && end - code.start <= code.window.len() as u64;
        if holds(self) {
            return true;
        }
        let Some(&segment) = self.segment(start) else {
            return false;
        };
        let first = start.saturating_sub(BEFORE).max(segment.address.0);
        let length = (segment.end() - first).min(WINDOW);
        self.window.resize(usize::try_from(length).unwrap_or(0), 0);
        self.start = first;
        let offset = segment.offset.0 + (first - segment.address.0);
        let filled = self.bytes.fill(&mut self.window, offset);
        self.window.truncate(filled);
        holds(self)
    }

    fn loaded(&self, range: Range<u64>) -> &[u8] {
        let offset = |address: u64| usize::try_from(address - self.start).unwrap_or(usize::MAX);
        self.window
            .get(offset(range.start)..offset(range.end))
            .unwrap_or_default()
    }

    /// Whether a call may end in a loaded part, from its byte `from` on.
    fn has_call(&self, range: Range<u64>, from: usize) -> bool {
        let base = range.start;
        let code = self.loaded(range);
        memchr2_iter(NEAR, INDIRECT, code).any(|opcode| {
            if code[opcode] == NEAR {
                let last = opcode + 4;
                return last >= from && last < code.len() && self.is_target(base, code, opcode);
            }
            let ends = (opcode + 1).max(from)..(opcode + CALL_BYTES).min(code.len());
            is_indirect_call(code, opcode) && ends.into_iter().any(|last| is_end(code, last))
        })
    }

    /// Whether the call at `opcode`, all of which is there, goes to code of
    /// this module: others go through registers or memory.
    fn is_target(&self, base: u64, code: &[u8], opcode: usize) -> bool {
        let Some(distance) = code[opcode + 1..].first_chunk() else {
            return true;
        };
        let distance = i64::from(i32::from_le_bytes(*distance));
        let next = base + opcode as u64 + 5;
        self.is_relocated || self.segment(next.wrapping_add_signed(distance)).is_some()
    }
}

/// Whether the byte after the opcode makes it a call (`ff /2`).
fn is_indirect_call(code: &[u8], opcode: usize) -> bool {
    code.get(opcode + 1).is_none_or(|modes| modes >> 3 & 7 == 2)
}

/// Whether a call may end with this byte.
fn is_end(code: &[u8], last: usize) -> bool {
    let word = (last + 1)
        .checked_sub(8)
        .and_then(|first| code.get(first..)?.first_chunk());
    word.is_none_or(|word| ends_in_call(u64::from_le_bytes(*word) >> 8))
}
