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
use crate::java::Anywhere;

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

impl Layout {
    /// Whether there is V8.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.shared_kind != 0
    }

    /// The function of the frame whose rbp is `bp`; `None` if it runs none that a script has.
    #[inline(always)]
    pub fn function(&self, bp: u64, memory: &mut impl Anywhere) -> Option<Function> {
        object(memory.long(bp.wrapping_sub(self.context_below.into()))?)?;
        let closure = object(memory.long(bp.wrapping_sub(self.function_below.into()))?)?;
        let shared = object(memory.long(closure.wrapping_add(self.shared.into()))?)?;
        let identity = self.identity(shared, memory)?;
        Some(Function { shared, identity })
    }

    /// What a function is by what its closures share; `None` if that is something else.
    #[inline(always)]
    pub fn identity(&self, shared: u64, memory: &mut impl Anywhere) -> Option<Identity> {
        if self.kind_of(shared, memory)? != self.shared_kind {
            return None;
        }
        let script = object(memory.long(shared.wrapping_add(self.script.into()))?)?;
        // Of V8's own functions there is no script.
        if self.kind_of(script, memory)? != self.script_kind {
            return None;
        }
        let source = object(memory.long(script.wrapping_add(self.source.into()))?)?;
        Some(Identity {
            script: small(memory.long(script.wrapping_add(self.id.into()))?)?,
            literal: memory.int(shared.wrapping_add(self.literal.into()))?,
            length: memory.int(source.wrapping_add(self.length.into()))?,
            padding: 0,
        })
    }

    /// The type of an object.
    #[inline(always)]
    pub fn kind_of(&self, address: u64, memory: &mut impl Anywhere) -> Option<u32> {
        let map = object(memory.long(address)?)?;
        Some(memory.int(map.wrapping_add(self.kind.into()))? & 0xffff)
    }
}

#[cfg(test)]
mod tests;
