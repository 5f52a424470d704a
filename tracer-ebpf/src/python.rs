//! Python's frames, which CPython's interpreter keeps beside the stack.
//!
//! One call of `_PyEval_EvalFrameDefault` runs one or more of them: since 3.11 a Python
//! function that calls another one does not call C. So where a walk meets that function's
//! frame, the Python frames that it runs stand in its place.
//!
//! The thread's own state of the interpreter (`PyThreadState`) is where the C library keeps
//! it for CPython, by a key of `pthread_getspecific`: whether or not the thread has the
//! interpreter's lock. It is believed if it says that it is this thread's.
//!
//! Structures are those of CPython's headers: `Include/cpython/pystate.h`, `code.h` and
//! `frameobject.h`, `Include/internal/pycore_frame.h` and `pycore_runtime.h`.

use crate::frame;
use crate::java::{Anywhere, WINDOW_WORDS, read};
use crate::rule::{BX, Base, Rule};
use crate::step::Registers;
use crate::volatile::Volatile;

/// Code objects of lower addresses stand for why there is none: a [`Gap`] times 8.
pub const GAPS: u64 = 4096;

/// Where Python's frames are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Gap {
    /// The thread has no state of the interpreter where it should be.
    NoThread = 1,
    /// The state that is there is another thread's.
    OtherThread = 2,
    /// Memory could not be read.
    Unreadable = 3,
    /// The frames before this are not those of the C functions around them.
    Mismatch = 4,
}

impl Gap {
    /// Its word on a stack.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        frame::python(self as u64 * 8, 0)
    }

    /// The gap that stands for a code object, if one does.
    pub const fn of(code: u64) -> Option<Self> {
        match code / 8 {
            1 => Some(Self::NoThread),
            2 => Some(Self::OtherThread),
            3 => Some(Self::Unreadable),
            4 => Some(Self::Mismatch),
            _ => None,
        }
    }
}

/// Which Python frames a C frame of the interpreter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Shape {
    /// One (to 3.10).
    One = 0,
    /// Those up to one that is marked as entered from C; a `_PyCFrame` in the C frame
    /// says which is the first (3.11).
    Marked = 1,
    /// Those before one that is in the C frame itself; a `_PyCFrame` is, too (3.12).
    ShimAndCFrame = 2,
    /// The same without a `_PyCFrame` (3.13).
    Shim = 3,
}

/// Where in the structures of an interpreter things are, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Layout {
    /// `_PyRuntime`, from where the file's first byte would be in a process.
    pub runtime: u64,
    /// `autoTSSkey` in it.
    pub tss_key: u32,
    /// `thread_id` in a `PyThreadState`.
    pub thread_id: u32,
    /// In it the pointer to the newest `_PyCFrame`, or else to the newest frame.
    pub newest: u32,
    /// A [`Shape`].
    pub shape: u32,
    /// In a `_PyCFrame` the pointer to its frame.
    pub cframe_frame: u32,
    /// In it the pointer to the one before.
    pub cframe_previous: u32,
    /// In a frame the pointer to its code object.
    pub code: u32,
    /// In it the pointer to the frame that called it.
    pub previous: u32,
    /// In it the byte that says whether C called it.
    pub entry: u32,
    /// What that byte is then.
    pub entered: u32,
    /// In a code object its first line.
    pub first_line: u32,
    /// In it the pointer to its name, the qualified one if it has that, behind its line.
    pub name: u32,
    /// How much of a frame's beginning has all of this.
    pub frame_bytes: u32,
    /// And how much of a code object from the word on that its first line is in.
    pub code_bytes: u32,
}

// SAFETY: repr(C), a u64 and fourteen u32 without padding, any bit pattern is valid.
unsafe impl crate::Record for Layout {}

/// glibc's `struct pthread` for x86-64: `specific_1stblock`, an array of `seq` and `data`,
/// and the array of pointers to such blocks. The same from 2.4 on; what is read there is
/// checked.
const FIRST_BLOCK: u64 = 0x310;
const BLOCKS: u64 = 0x510;
const BLOCK_KEYS: u64 = 32;
const MAX_KEYS: u64 = 1024;

/// Where a walk is in Python's frames.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Walk {
    /// The number of the interpreter's file; 0 if none was met.
    pub file: Volatile,
    /// Where that file's first byte would be.
    pub origin: Volatile,
    /// The C frame that was met last: its stack pointer,
    pub low: Volatile,
    /// and where its caller's frame begins.
    pub high: Volatile,
    /// 1 if the C frame was met just now.
    pub is_new: Volatile,
    /// 1 if there may be more Python frames that it runs.
    pub is_pending: Volatile,
    /// The word of its place, which stands for it if it runs none; 0 if it stands already.
    pub own: Volatile,
    /// The thread's state was looked for.
    begun: Volatile,
    /// The next frame.
    frame: Volatile,
    /// The next `_PyCFrame`.
    cframe: Volatile,
    /// Why there are no frames, a word; 0 if there are some.
    gap: Volatile,
}

impl Walk {
    /// A walk begins.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.begun.set(0);
        self.is_pending.set(0);
    }

    /// A C frame of the interpreter was met, by `rule` in its code, and `word` is that of
    /// its place in the file.
    #[inline(always)]
    pub fn enter(&mut self, at: Registers, rule: Rule, word: u64) {
        let (file, offset) = frame::place_in_file(word).unwrap_or((0, 0));
        self.own.set(word);
        self.file.set(u64::from(file));
        self.origin.set(at.ip.wrapping_sub(offset));
        self.low.set(at.sp);
        let register = rule.register();
        let from = if register == BX {
            at.bx
        } else if register == Base::Bp as usize {
            at.bp
        } else {
            at.sp
        };
        self.high.set(from.wrapping_add(rule.offset()));
        self.is_new.set(1);
        self.is_pending.set(1);
    }

    /// The word of the next Python frame that the C frame runs, or of why it is not
    /// known; its own word if it runs none, and 0 if there are no more. `thread` is the
    /// thread pointer; what is read takes the place of what is in `window`.
    #[inline(always)]
    pub fn next(
        &mut self,
        layout: &Layout,
        thread: impl FnOnce() -> u64,
        window: &mut [u64; WINDOW_WORDS],
        memory: &mut impl Anywhere,
    ) -> u64 {
        let word = match self.step(layout, thread, window, memory) {
            Some(word) => word,
            None => self.fail(Gap::Unreadable),
        };
        if word == 0 {
            return self.take_own();
        }
        self.own.set(0);
        word
    }

    /// The word that stands for the C frame, if nothing stands for it yet.
    #[inline(always)]
    pub fn take_own(&mut self) -> u64 {
        let own = self.own.get();
        self.own.set(0);
        own
    }

    #[inline(always)]
    fn step(
        &mut self,
        layout: &Layout,
        thread: impl FnOnce() -> u64,
        window: &mut [u64; WINDOW_WORDS],
        memory: &mut impl Anywhere,
    ) -> Option<u64> {
        if self.is_new.get() != 0 {
            self.is_new.set(0);
            if self.begun.get() == 0 {
                self.begun.set(1);
                self.gap.set(0);
                match find_state(layout, self.origin.get(), thread(), memory) {
                    Ok(state) => {
                        let newest = memory.long(state.wrapping_add(layout.newest.into()))?;
                        self.frame.set(newest);
                        self.cframe.set(newest);
                    }
                    Err(gap) => return Some(self.fail(gap)),
                }
            }
            if self.gap.get() != 0 {
                self.is_pending.set(0);
                return Some(self.gap.get());
            }
            if layout.has_cframe() && !self.open(layout, memory)? {
                self.is_pending.set(0);
                return Some(0);
            }
        }
        self.frame(layout, window, memory)
    }

    /// Looks whether the next `_PyCFrame` is in the C frame: otherwise that runs no Python
    /// frame, as at its very end.
    #[inline(always)]
    fn open(&mut self, layout: &Layout, memory: &mut impl Anywhere) -> Option<bool> {
        let cframe = self.cframe.get();
        if !self.has(cframe) {
            return Some(false);
        }
        let frame = memory.long(cframe.wrapping_add(layout.cframe_frame.into()))?;
        self.frame.set(frame);
        let before = memory.long(cframe.wrapping_add(layout.cframe_previous.into()))?;
        self.cframe.set(before);
        Some(true)
    }

    /// Whether an address is in the C frame.
    #[inline(always)]
    fn has(&self, address: u64) -> bool {
        address.wrapping_sub(self.low.get()) < self.high.get().wrapping_sub(self.low.get())
    }

    #[inline(always)]
    fn frame(
        &mut self,
        layout: &Layout,
        window: &mut [u64; WINDOW_WORDS],
        memory: &mut impl Anywhere,
    ) -> Option<u64> {
        let frame = self.frame.get();
        if frame == 0 {
            self.is_pending.set(0);
            return Some(0);
        }
        if !memory.fill(window, frame, layout.frame_bytes.into()) {
            return None;
        }
        self.frame.set(read(window, layout.previous));
        if layout.shape == Shape::One as u32 {
            self.is_pending.set(0);
        } else if read(window, layout.entry) & 0xff == u64::from(layout.entered) {
            self.is_pending.set(0);
            if layout.has_shim() {
                return Some(match self.has(frame) {
                    true => 0,
                    false => self.fail(Gap::Mismatch),
                });
            }
        }
        let code = read(window, layout.code);
        let start = layout.first_line & !7;
        let from = code.wrapping_add(start.into());
        if !memory.fill(window, from, layout.code_bytes.into()) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it has 32 bits")]
        let line = read(window, layout.first_line.wrapping_sub(start)) as u32;
        let name = read(window, layout.name.wrapping_sub(start));
        Some(frame::python(code, check(name, line)))
    }

    /// All that comes has no Python frames.
    #[inline(always)]
    fn fail(&mut self, gap: Gap) -> u64 {
        self.is_pending.set(0);
        self.gap.set(gap.word());
        gap.word()
    }
}

impl Layout {
    #[inline(always)]
    const fn has_cframe(&self) -> bool {
        self.shape == Shape::Marked as u32 || self.shape == Shape::ShimAndCFrame as u32
    }

    #[inline(always)]
    const fn has_shim(&self) -> bool {
        self.shape == Shape::Shim as u32 || self.shape == Shape::ShimAndCFrame as u32
    }
}

/// What tells code objects apart that had the same address one after the other: 16 bits of
/// where the name is and of the first line.
#[inline(always)]
pub const fn check(name: u64, first_line: u32) -> u64 {
    let mixed = (name ^ (first_line as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> 48
}

/// The address of the thread's `PyThreadState`.
#[inline(always)]
fn find_state(
    layout: &Layout,
    origin: u64,
    thread: u64,
    memory: &mut impl Anywhere,
) -> Result<u64, Gap> {
    let runtime = origin.wrapping_add(layout.runtime);
    // `Py_tss_t`: whether there is a key, and the key.
    let key = memory
        .long(runtime.wrapping_add(layout.tss_key.into()))
        .ok_or(Gap::Unreadable)?;
    let (is_there, key) = (key & 0xffff_ffff, key >> 32);
    if is_there == 0 || key >= MAX_KEYS || thread == 0 {
        return Err(Gap::NoThread);
    }
    let block = if key < BLOCK_KEYS {
        thread.wrapping_add(FIRST_BLOCK)
    } else {
        let slot = BLOCKS + key / BLOCK_KEYS * 8;
        memory
            .long(thread.wrapping_add(slot))
            .ok_or(Gap::Unreadable)?
    };
    let data = block.wrapping_add(key % BLOCK_KEYS * 16 + 8);
    let state = memory.long(data).ok_or(Gap::NoThread)?;
    if state == 0 {
        return Err(Gap::NoThread);
    }
    match memory.long(state.wrapping_add(layout.thread_id.into())) {
        Some(owner) if owner == thread => Ok(state),
        _ => Err(Gap::OtherThread),
    }
}

#[cfg(test)]
mod tests;
