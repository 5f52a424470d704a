//! V8's frames of JavaScript functions.
//!
//! V8 keeps rbp in all code that it makes, and in its built-in functions. A frame that runs a
//! function of JavaScript, whether interpreted or compiled by any of V8's compilers, has two
//! objects below the saved rbp: the function's context, where other frames have a small
//! number that says what they are, and the function. (V8's `src/execution/frame-constants.h`.)
//!
//! Objects are words with a tag: 01 in the lowest bits for an address, 0 for a number in the
//! upper half (`include/v8-internal.h`, without compressed pointers). An object begins with
//! its map, which says its type.
//!
//! The garbage collector moves all of them. What it does not change is the number that a
//! script has in its part of the process (isolate), and the number of a function in its
//! script: they are what a stack has.

use crate::frame;
use crate::java::{Anywhere, WINDOW_WORDS, read};

/// Functions that are kept, of all processes together: where each was last.
pub const MAX_FUNCTIONS: u32 = 1 << 14;

/// Where in V8's objects things are, bytes from an object's first one; and numbers of types.
/// All zero for a file without V8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Layout {
    /// The context in a frame, bytes below where rbp points to.
    pub context_below: u32,
    /// The function, likewise.
    pub function_below: u32,
    /// In a function what all its closures share (`SharedFunctionInfo`).
    pub shared: u32,
    /// In that the script.
    pub script: u32,
    /// In it the function's number in the script, four bytes.
    pub literal: u32,
    /// In a map the type of its objects, two bytes.
    pub kind: u32,
    /// In a script its source, a string.
    pub source: u32,
    /// In it its number.
    pub id: u32,
    /// In a string how many characters it has, four bytes.
    pub length: u32,
    /// The type of what closures share.
    pub shared_kind: u32,
    /// The type of scripts.
    pub script_kind: u32,
    /// Always zero.
    pub padding: u32,
}

// SAFETY: repr(C), twelve u32, any bit pattern is valid.
unsafe impl crate::Record for Layout {}

/// What tells a function from all others of a process, wherever its objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(C)]
pub struct Identity {
    /// The script's number in its isolate.
    pub script: u32,
    /// The function's in the script.
    pub literal: u32,
    /// How long the script's source is, characters: scripts of two isolates may have one
    /// number.
    pub length: u32,
    /// Always zero.
    pub padding: u32,
}

impl Identity {
    /// Its word on a stack. `seed` is the run's, so that a target cannot aim for collisions.
    #[inline(always)]
    pub const fn word(self, seed: u64) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let ids = (self.script as u64) << 32 | self.literal as u64;
        let hash = (seed ^ ids).wrapping_mul(ODD);
        let hash = (hash ^ hash >> 32 ^ self.length as u64).wrapping_mul(ODD);
        frame::javascript(hash ^ hash >> 29)
    }
}

/// A function, and where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Function {
    /// Address of what its closures share.
    pub shared: u64,
    /// What it is.
    pub identity: Identity,
}

// SAFETY: repr(C), fields fill all 24 bytes, any bit pattern is valid.
unsafe impl crate::Record for Function {}

/// Memory of a target, of which something is remembered.
pub trait Objects: Anywhere {
    /// Whether two maps are those of what closures share and of scripts: `look` says so, if it
    /// is not remembered.
    #[inline(always)]
    fn has_types(&mut self, _maps: [u64; 2], look: impl FnOnce(&mut Self) -> bool) -> bool {
        look(self)
    }
}

/// Processes of which is remembered which maps those are. V8 never moves them, nor frees them.
pub const MAX_TYPES: u32 = 1 << 8;

/// What stands for the two maps of a process image.
#[inline(always)]
pub const fn types_key(image: u64, maps: [u64; 2]) -> u64 {
    let mixed = (image ^ maps[0].rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32 ^ maps[1]).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    // An entry that is empty stands for none.
    mixed ^ mixed >> 29 | 1
}

/// A function of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Key {
    /// The process image.
    pub image: u64,
    /// The function's word.
    pub word: u64,
}

// SAFETY: repr(C), two u64, any bit pattern is valid.
unsafe impl crate::Record for Key {}

/// The function that a walk met last.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Met {
    /// Under which it is kept.
    pub key: Key,
    /// The function.
    pub function: Function,
}

/// An object's address.
#[inline(always)]
pub const fn object(word: u64) -> Option<u64> {
    match word & 3 {
        1 => Some(word.wrapping_sub(1)),
        _ => None,
    }
}

/// A small number; not of what is none.
#[inline(always)]
pub const fn small(word: u64) -> Option<u32> {
    match word & 0xffff_ffff {
        0 => Some((word >> 32) as u32),
        _ => None,
    }
}

/// How many bytes have the words of two offsets, whole words.
#[inline(always)]
const fn behind(one: u32, other: u32) -> u32 {
    (greater(one, other) | 7) + 1
}

#[inline(always)]
const fn greater(one: u32, other: u32) -> u32 {
    if one > other { one } else { other }
}

/// The lower half of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what is wanted")]
const fn low(word: u64) -> u32 {
    word as u32
}

impl Layout {
    /// Whether there is V8.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.shared_kind != 0
    }

    /// Whether all that a walk reads of an object is in a window.
    pub const fn is_near(&self) -> bool {
        let most = greater(
            self.below(),
            greater(self.shared_bytes(), self.script_bytes()),
        );
        most as usize <= 8 * WINDOW_WORDS
    }

    /// How much is read below rbp.
    #[inline(always)]
    const fn below(&self) -> u32 {
        greater(self.context_below, self.function_below)
    }

    /// How much is read of what closures share.
    #[inline(always)]
    const fn shared_bytes(&self) -> u32 {
        behind(self.script, self.literal)
    }

    /// How much of a script.
    #[inline(always)]
    const fn script_bytes(&self) -> u32 {
        behind(self.source, self.id)
    }

    /// The function of the frame whose rbp is `bp`; `None` if it runs none that a script has.
    /// A window is for what is read meanwhile.
    #[inline(always)]
    pub fn function(
        &self,
        bp: u64,
        window: &mut [u64; WINDOW_WORDS],
        memory: &mut impl Objects,
    ) -> Option<Function> {
        let below = self.below();
        if !memory.fill(window, bp.wrapping_sub(below.into()), below.into()) {
            return None;
        }
        object(read(window, below - self.context_below))?;
        let closure = object(read(window, below - self.function_below))?;
        if !memory.fill(window, closure.wrapping_add(self.shared.into()), 8) {
            return None;
        }
        let shared = object(read(window, 0))?;
        let identity = self.identity(shared, window, memory)?;
        Some(Function { shared, identity })
    }

    /// What a function is by what its closures share; `None` if that is something else.
    #[inline(always)]
    pub fn identity(
        &self,
        shared: u64,
        window: &mut [u64; WINDOW_WORDS],
        memory: &mut impl Objects,
    ) -> Option<Identity> {
        if !memory.fill(window, shared, self.shared_bytes().into()) {
            return None;
        }
        let (map, literal) = (read(window, 0), low(read(window, self.literal)));
        let script = object(read(window, self.script))?;
        if !memory.fill(window, script, self.script_bytes().into()) {
            return None;
        }
        // Of V8's own functions there is no script.
        let maps = [map, read(window, 0)];
        if !memory.has_types(maps, |memory| self.has_types(maps, memory)) {
            return None;
        }
        let source = object(read(window, self.source))?;
        let script = small(read(window, self.id))?;
        let word = u64::from(self.length & !7);
        if !memory.fill(window, source.wrapping_add(word), 8) {
            return None;
        }
        Some(Identity {
            script,
            literal,
            length: low(read(window, self.length & 7)),
            padding: 0,
        })
    }

    #[inline(always)]
    fn has_types(&self, [shared, script]: [u64; 2], memory: &mut impl Anywhere) -> bool {
        self.kind(shared, memory) == Some(self.shared_kind)
            && self.kind(script, memory) == Some(self.script_kind)
    }

    /// The type of an object.
    #[inline(always)]
    pub fn kind_of(&self, address: u64, memory: &mut impl Anywhere) -> Option<u32> {
        self.kind(memory.long(address)?, memory)
    }

    /// The type of a map's objects.
    #[inline(always)]
    fn kind(&self, map: u64, memory: &mut impl Anywhere) -> Option<u32> {
        let map = object(map)?;
        Some(memory.int(map.wrapping_add(self.kind.into()))? & 0xffff)
    }
}

#[cfg(test)]
mod tests;
