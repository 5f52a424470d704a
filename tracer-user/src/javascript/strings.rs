//! V8's strings.

use tracer_ebpf::v8::{Layout, object, small};

use super::names::Objects;
use crate::jvm::memory::TargetMemory;
use crate::jvm::unnamed::Unnamed;
use crate::unwind::StringLayout;

/// Characters of a name that are read; of a longer one the first.
const MAX_CHARACTERS: u32 = 1024;

/// Strings that a name is made of are no more: others are cut.
const MAX_PARTS: usize = 64;

/// Strings that stand for one another, at most.
const MAX_HOPS: usize = 16;

/// Where characters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Characters {
    /// The first of them.
    pub address: u64,
    /// How many.
    pub length: u32,
    /// Whether each has one byte, and not two.
    pub is_narrow: bool,
}

/// What a string is.
enum Kept {
    /// Its characters, in one place.
    Whole(Characters),
    /// Two strings, one after the other.
    Cons(u64, u64),
}

/// Strings of a process.
pub struct Strings<'a> {
    pub memory: &'a dyn TargetMemory,
    pub layout: &'a Layout,
    pub strings: &'a StringLayout,
}

impl Strings<'_> {
    /// The text of a string by its word: the first [`MAX_CHARACTERS`].
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn text(&self, word: u64) -> Result<String, Unnamed> {
        let mut text = Vec::new();
        let mut left = vec![word];
        let mut is_cut = false;
        for _ in 0..MAX_PARTS {
            let Some(word) = left.pop() else {
                return Ok(decoded(&text, is_cut));
            };
            match self.kept(word)? {
                Kept::Cons(first, second) => left.extend([second, first]),
                Kept::Whole(part) => {
                    let room = MAX_CHARACTERS as usize - text.len();
                    let units = self.units(part, room)?;
                    is_cut |= units.len() < part.length as usize;
                    text.extend(units);
                }
            }
        }
        Ok(decoded(&text, true))
    }

    /// Where the characters of a string are, if that is one place.
    ///
    /// # Errors
    /// It cannot be read, is none, or is in pieces.
    pub fn characters(&self, word: u64) -> Result<Characters, Unnamed> {
        match self.kept(word)? {
            Kept::Whole(characters) => Ok(characters),
            Kept::Cons(..) => Err(Unnamed::NoJavaScript),
        }
    }

    /// Whether a word is a string.
    pub fn is_string(&self, word: u64) -> bool {
        object(word)
            .and_then(|at| self.kind(at).ok())
            .is_some_and(|kind| kind & self.strings.not_string == 0)
    }

    fn kind(&self, address: u64) -> Result<u32, Unnamed> {
        let kind = self.layout.kind_of(address, &mut Objects(self.memory));
        kind.ok_or(Unnamed::NoJavaScript)
    }

    /// What a string is, whatever stands for it.
    fn kept(&self, word: u64) -> Result<Kept, Unnamed> {
        let (mut word, mut from, mut length) = (word, 0_u32, None);
        for _ in 0..MAX_HOPS {
            let at = object(word).ok_or(Unnamed::NoJavaScript)?;
            let kind = self.kind(at)?;
            let strings = self.strings;
            if kind & strings.not_string != 0 {
                return Err(Unnamed::NoJavaScript);
            }
            let all = self.memory.u32(at.wrapping_add(strings.length))?;
            let wanted = *length.get_or_insert(all);
            let field = |offset: u64| self.memory.u64(at.wrapping_add(offset));
            let form = kind & strings.representation;
            let is_narrow = kind & strings.one_byte != 0;
            let whole = |address: u64| {
                let into = u64::from(from) * if is_narrow { 1 } else { 2 };
                Kept::Whole(Characters {
                    address: address.wrapping_add(into),
                    length: wanted,
                    is_narrow,
                })
            };
            if form == strings.sequential {
                return Ok(whole(at.wrapping_add(strings.characters)));
            } else if form == strings.external {
                return Ok(whole(field(strings.resource + 8)?));
            } else if form == strings.thin {
                word = field(strings.actual)?;
            } else if form == strings.sliced {
                let more = small(field(strings.parent.1)?).ok_or(Unnamed::NoJavaScript)?;
                from = from.checked_add(more).ok_or(Unnamed::NoJavaScript)?;
                word = field(strings.parent.0)?;
            } else if form == strings.cons {
                let (first, second) = (field(strings.halves.0)?, field(strings.halves.1)?);
                // One that was made whole has all in its first half.
                let rest = object(second).ok_or(Unnamed::NoJavaScript)?;
                if self.memory.u32(rest.wrapping_add(strings.length))? == 0 {
                    word = first;
                } else if from == 0 {
                    return Ok(Kept::Cons(first, second));
                } else {
                    return Err(Unnamed::NoJavaScript);
                }
            } else {
                return Err(Unnamed::NoJavaScript);
            }
        }
        Err(Unnamed::NoJavaScript)
    }

    /// The first characters, UTF-16: as many as there is room for.
    fn units(&self, from: Characters, room: usize) -> Result<Vec<u16>, Unnamed> {
        let length = room.min(from.length as usize);
        if from.is_narrow {
            let bytes = self.memory.vec(from.address, length)?;
            return Ok(bytes.into_iter().map(u16::from).collect());
        }
        let bytes = self.memory.vec(from.address, 2 * length)?;
        let pairs = bytes.chunks_exact(2);
        Ok(pairs
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect())
    }
}

fn decoded(units: &[u16], is_cut: bool) -> String {
    let mut text = String::from_utf16_lossy(units);
    if is_cut {
        text.push('…');
    }
    text
}
