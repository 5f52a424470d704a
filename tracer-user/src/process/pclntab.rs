//! Go's table of functions: which there are, how large their frames are, and what
//! they are called. The linker puts it into every program (`runtime.pclntab`),
//! also if it leaves symbols and debug information out.
//!
//! The formats of Go 1.18 and of 1.20 and later (`runtime/symtab.go`, `pcHeader`;
//! `runtime/runtime2.go`, `_func`; `debug/gosym/pclntab.go`). The file may be
//! anybody's: all is read piece by piece, and nothing is believed but what is
//! inside of the table.

use std::ops::{ControlFlow, Range};

use super::bytes::Bytes;
use super::symtab;
use super::window::{Window, places};

/// After the magic number's lowest byte: the rest of it, two zeros, the size of
/// the smallest instruction and that of a pointer.
const MAGIC_REST: [u8; 7] = [0xff, 0xff, 0xff, 0, 0, 1, 8];

/// Bytes of the table's head: the magic number, and eight words.
const HEAD: usize = 72;

/// More functions are not read; Kubernetes has a hundred thousand.
const MAX_FUNCTIONS: u64 = 4 << 20;

/// A table that is larger is not read.
const MAX_TABLE: u64 = 1 << 30;

/// Bytes read at once where the next wanted are most often the next.
const RUN: usize = 64 << 10;

/// Bytes read at once where they may be anywhere.
const SPOT: usize = 4096;

/// The bottom of each goroutine's stack: `nop; call runtime.goexit1; nop`.
const BOTTOM: &str = "runtime.goexit";
const BOTTOM_CALLS: &str = "runtime.goexit1";
const BOTTOM_CODE: [u8; 2] = [0x90, 0xe8];
const BOTTOM_SIZE: usize = 7;

/// Places that look like what is searched, and are looked at closer.
const MAX_CANDIDATES: usize = 1 << 16;

/// Names that are compared are shorter.
const MAX_COMPARED: usize = 64;

/// A part of a file with code: where it is in the file, its address as linked, and
/// its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodePart {
    pub offset: u64,
    pub address: u64,
    pub size: u64,
}

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Where it begins, bytes from the first one's code.
    pub start: u32,
    /// Where the next one begins.
    pub end: u32,
    /// Where its name is.
    pub name: u32,
    /// Where its frame's sizes are; 0 if they are not known.
    pub sizes: u32,
    /// What else is known of it.
    pub flags: u8,
}

impl Function {
    /// Whether it has no caller.
    pub const TOP: u8 = 1;
    /// Whether it changes the stack pointer as its frame's sizes do not say.
    pub const MOVES_STACK: u8 = 2;
    /// Whether it is written in assembly.
    pub const ASSEMBLY: u8 = 4;

    /// Whether one of these is so.
    pub fn is(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// The table of a file: where its parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pclntab {
    count: u64,
    /// Where the first function is, as linked; 0 if it does not say.
    text: u64,
    names: Range<u64>,
    sizes: Range<u64>,
    functions: Range<u64>,
    /// Where the flags are in a function's record.
    flags_at: usize,
}

impl Pclntab {
    /// The table of a file, whose `section` tells where one of that name is. In a file
    /// that can be anywhere older linkers put it among other data.
    pub fn find(bytes: &dyn Bytes, section: impl Fn(&str) -> Option<Range<u64>>) -> Option<Self> {
        let named = [".gopclntab", ".data.rel.ro.gopclntab"];
        if let Some(place) = named.into_iter().find_map(&section) {
            return Self::parse(bytes, place);
        }
        section(".go.buildinfo")?;
        Self::search(bytes, section(".data.rel.ro")?)
    }

    /// The table that begins a part of a file.
    pub fn parse(bytes: &dyn Bytes, place: Range<u64>) -> Option<Self> {
        let mut head = [0; HEAD];
        let size = place.end.checked_sub(place.start)?.min(MAX_TABLE);
        if bytes.fill(&mut head, place.start) < HEAD || head[1..8] != MAGIC_REST {
            return None;
        }
        let flags_at = match head[0] {
            0xf0 => 37,
            0xf1 => 41,
            _ => return None,
        };
        let word = |index: usize| {
            let at = 8 + 8 * index;
            let word = head[at..at + 8].first_chunk().copied();
            u64::from_le_bytes(word.unwrap_or_default())
        };
        let [count, text, names, units, sizes, functions] = [0, 2, 3, 4, 6, 7].map(word);
        let ordered = names <= units && units <= sizes && sizes <= functions && functions <= size;
        (ordered && count > 0 && count <= MAX_FUNCTIONS).then(|| Self {
            count,
            text,
            names: place.start + names..place.start + units,
            sizes: place.start + sizes..place.start + functions,
            functions: place.start + functions..place.start + size,
            flags_at,
        })
    }

    /// The first table somewhere in a part of a file: it is at a multiple of 8.
    pub fn search(bytes: &dyn Bytes, place: Range<u64>) -> Option<Self> {
        let size = place.end.saturating_sub(place.start).min(MAX_TABLE);
        places(bytes, (place.start, size), &MAGIC_REST)
            .take(MAX_CANDIDATES)
            .filter_map(|(rest, _)| rest.checked_sub(1))
            .filter(|start| start.is_multiple_of(8))
            .find_map(|start| Self::parse(bytes, start..place.end))
    }

    /// Hands on all functions, by their start, until one breaks.
    pub fn each(&self, bytes: &dyn Bytes, mut take: impl FnMut(Function) -> ControlFlow<()>) {
        let mut entries = Window::new(bytes, RUN);
        let mut records = Window::new(bytes, RUN);
        for index in 0..self.count {
            let Some((start, end, record)) = self.entry(&mut entries, index) else {
                return;
            };
            if start >= end {
                continue;
            }
            let function = self.function(&mut records, start, end, record);
            if let Some(function) = function
                && take(function).is_break()
            {
                return;
            }
        }
    }

    /// The name of a function, as far as the buffer has room.
    pub fn name<'b>(&self, bytes: &dyn Bytes, name: u32, buffer: &'b mut [u8]) -> &'b [u8] {
        symtab::string(bytes, &self.names, name.into(), buffer)
    }

    /// Whether that is a function's name.
    pub fn is_called(&self, bytes: &dyn Bytes, function: &Function, name: &str) -> bool {
        let mut buffer = [0; MAX_COMPARED];
        self.name(bytes, function.name, &mut buffer) == name.as_bytes()
    }

    /// Where all names are.
    pub fn names(&self) -> Range<u64> {
        self.names.clone()
    }

    /// Hands on the sizes of a function's frame: from which instruction on (bytes
    /// from the function's start) and until which, how many bytes are between the
    /// stack pointer and the return address.
    pub fn sizes(
        &self,
        sizes: &mut Window,
        function: &Function,
        mut take: impl FnMut(u32, u32, i32),
    ) {
        let length = function.end - function.start;
        let mut place = self.sizes.start + u64::from(function.sizes);
        let (mut at, mut size) = (0_u32, -1_i32);
        // Each step goes on by a byte of code at least.
        while at < length {
            let Some(change) = self.varint(sizes, &mut place) else {
                return;
            };
            if change == 0 && at > 0 {
                return;
            }
            let Some(step @ 1..) = self.varint(sizes, &mut place) else {
                return;
            };
            size = size.wrapping_add((change >> 1).cast_signed() ^ -(change & 1).cast_signed());
            let next = at.saturating_add(step).min(length);
            take(at, next, size);
            at = next;
        }
    }

    /// A reader for [`sizes`](Self::sizes).
    pub fn sizes_of<'a>(&self, bytes: &'a dyn Bytes) -> Window<'a> {
        Window::new(bytes, SPOT)
    }

    /// The address of the code that functions count from, as linked. It is proved by
    /// the code at the bottom of goroutines' stacks, which calls a function that the
    /// table has: the table of a file that can be anywhere does not tell.
    pub fn text(&self, bytes: &dyn Bytes, code: &[CodePart]) -> Option<u64> {
        let mut bottom = None;
        self.each(bytes, |function| {
            let is_it = function.is(Function::TOP) && self.is_called(bytes, &function, BOTTOM);
            if is_it {
                bottom = Some(u64::from(function.start));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let bottom = bottom?;
        let is_proved = |text: &u64| self.is_bottom(bytes, code, *text, bottom);
        if self.text != 0 && is_proved(&self.text) {
            return Some(self.text);
        }
        code.iter().find_map(|part| {
            places(bytes, (part.offset, part.size), &BOTTOM_CODE)
                .filter(|(_, code)| code[BOTTOM_SIZE - 1] == BOTTOM_CODE[0])
                .take(MAX_CANDIDATES)
                .filter_map(|(at, _)| (part.address + (at - part.offset)).checked_sub(bottom))
                .find(is_proved)
        })
    }

    /// Whether the code at the bottom of stacks is there if the first function is at
    /// `text`.
    fn is_bottom(&self, bytes: &dyn Bytes, code: &[CodePart], text: u64, bottom: u64) -> bool {
        let Some(address) = text.checked_add(bottom) else {
            return false;
        };
        let into = |part: &CodePart| {
            let into = address.checked_sub(part.address)?;
            (into < part.size).then(|| part.offset + into)
        };
        let mut found = [0; BOTTOM_SIZE];
        let Some(offset) = code.iter().find_map(into) else {
            return false;
        };
        if bytes.fill(&mut found, offset) < BOTTOM_SIZE || found[..2] != BOTTOM_CODE {
            return false;
        }
        let distance = found[2..6].first_chunk().copied().map(i32::from_le_bytes);
        let target = address
            .wrapping_add(6)
            .wrapping_add_signed(distance.unwrap_or_default().into())
            .wrapping_sub(text);
        self.at(bytes, target)
            .is_some_and(|function| self.is_called(bytes, &function, BOTTOM_CALLS))
    }

    /// The function that begins just there.
    fn at(&self, bytes: &dyn Bytes, start: u64) -> Option<Function> {
        let start = u32::try_from(start).ok()?;
        let mut entries = Window::new(bytes, SPOT);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let (first, end, record) = self.entry(&mut entries, middle)?;
            if first == start {
                return self.function(&mut Window::new(bytes, SPOT), first, end, record);
            }
            if first < start {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        None
    }

    /// Where a function begins, where the next one does, and where its record is.
    fn entry(&self, entries: &mut Window, index: u64) -> Option<(u32, u32, u32)> {
        let at = self.functions.start + 8 * index;
        let entry = entries.get(at, 12, self.functions.end)?;
        Some((number(entry, 0)?, number(entry, 8)?, number(entry, 4)?))
    }

    fn function(&self, records: &mut Window, start: u32, end: u32, at: u32) -> Option<Function> {
        let at = self.functions.start + u64::from(at);
        let record = records.get(at, self.flags_at + 1, self.functions.end)?;
        (number(record, 0)? == start).then_some(Function {
            start,
            end,
            name: number(record, 4)?,
            sizes: number(record, 16)?,
            flags: *record.get(self.flags_at)?,
        })
    }

    /// A number of up to 32 bits, seven in each byte.
    fn varint(&self, sizes: &mut Window, place: &mut u64) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *sizes.get(*place, 1, self.sizes.end)?.first()?;
            *place += 1;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
#[path = "pclntab/tests.rs"]
mod tests;
