//! Names that many frames share.
//!
//! A report has millions of frames and far fewer names, and a target chooses
//! how long these are. So a name is kept once, within a budget in bytes, and
//! frames hold references to it.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde::{Serialize, Serializer};

/// A name longer than this, in bytes, is cut wherever it comes from.
pub const MAX_NAME: usize = 16 << 10;

/// What all names of one report may take, bytes.
pub const MAX_NAMES: usize = 128 << 20;

/// What a name takes besides its text, bytes: the record, and its place in the
/// set.
const RECORD: usize = 96;

/// As long as any name fits at all, this much of it is kept, bytes.
const SHORTEST: usize = 64;

/// How many names of the length that is allowed at the moment would use up
/// what is left, when that is no longer plenty.
const SHARE: usize = 4096;

/// What a cut name ends with.
pub const ELLIPSIS: char = '…';

/// A text that is kept once; a copy is a reference.
#[derive(Clone)]
pub struct Name(Arc<Shared>);

struct Shared {
    /// So that long names are compared and looked up without being read.
    hash: u64,
    /// See [`Name::written`].
    written: usize,
    text: Box<str>,
}

impl Name {
    /// What tells it from all other names of its [`Names`], as long as these
    /// live.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// A hash of its text, with a random seed of this process.
    pub fn text_hash(&self) -> u64 {
        self.0.hash
    }

    /// Bytes of it as JSON has it, where quotes and backslashes take two.
    pub fn written(&self) -> usize {
        self.0.written
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<T: AsRef<str>> From<T> for Name {
    fn from(text: T) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let text = text.as_ref();
        Name(Arc::new(Shared {
            hash: STATE.hash_one(text),
            written: text.len()
                + text
                    .bytes()
                    .filter(|byte| matches!(byte, b'"' | b'\\'))
                    .count(),
            text: text.into(),
        }))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash && self.0.text == other.0.text)
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

/// Names, each once, within a budget of bytes. When that runs low, new names
/// are cut, the shorter the less is left; at the end nothing is left of them.
pub struct Names {
    known: HashSet<Known>,
    limit: usize,
    used: usize,
    cut: u64,
    /// Stands for every name that there is no room for.
    none: Name,
}

/// A name that is found by its text.
#[derive(PartialEq, Eq)]
struct Known(Name);

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl std::borrow::Borrow<str> for Known {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new(MAX_NAMES)
    }
}

impl Names {
    /// Whether half of the room is used, or names were cut.
    pub fn is_half_full(&self) -> bool {
        self.cut > 0 || self.used * 2 >= self.limit
    }

    /// Keeps names within so many bytes.
    pub fn new(limit: usize) -> Self {
        Names {
            known: HashSet::new(),
            limit,
            used: 0,
            cut: 0,
            none: ELLIPSIS.to_string().into(),
        }
    }

    /// How many names were cut because there were so many, or so long ones.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// The one name with this text, or with as much of it as there is room for.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(Known(name)) = self.known.get(text) {
            return name.clone();
        }
        let Some(room) = self.room() else {
            self.cut += 1;
            return self.none.clone();
        };
        if text.len() <= room {
            return self.add(text);
        }
        self.cut += 1;
        let short = shortened(text, room);
        match self.known.get(short.as_str()) {
            Some(Known(name)) => name.clone(),
            None => self.add(&short),
        }
    }

    /// The one name with this text, whatever room it takes: for texts that are
    /// made of names within a budget.
    pub fn keep(&mut self, text: &str) -> Name {
        match self.known.get(text) {
            Some(Known(name)) => name.clone(),
            None => self.add(text),
        }
    }

    fn add(&mut self, text: &str) -> Name {
        let name = Name::from(text);
        self.used += text.len() + RECORD;
        self.known.insert(Known(name.clone()));
        name
    }

    /// How long a new name may be, bytes. Half of the budget is for names of
    /// any length, half for the beginnings of what comes then.
    fn room(&self) -> Option<usize> {
        let left = self.limit.checked_sub(self.used)?;
        if left < SHORTEST + RECORD {
            return None;
        }
        let plenty = left.saturating_sub(self.limit / 2);
        Some((plenty / SHARE).clamp(SHORTEST, MAX_NAME))
    }
}

/// The beginning of a text and an ellipsis, together at most `room` bytes.
pub fn shortened(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(room.saturating_sub(ELLIPSIS.len_utf8()));
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one() {
        let mut names = Names::default();
        let one = names.intern("malloc");
        assert_eq!(one.id(), names.intern("malloc").id());
        assert_eq!(one, Name::from("malloc"), "from elsewhere, it is equal too");
        assert_ne!(one, names.intern("free"));
        assert_eq!(names.cut(), 0);
    }

    #[test]
    fn a_budget_of_bytes_is_kept_by_names_of_any_length() {
        for length in [1, 60, 1_000, 16_000] {
            let mut names = Names::new(1 << 20);
            let kept: Vec<Name> = (0..20_000)
                .map(|number| names.intern(&format!("{number:06}{}", "x".repeat(length))))
                .collect();
            let mut distinct: Vec<&str> = kept.iter().map(|name| &**name).collect();
            distinct.sort_unstable();
            distinct.dedup();
            let bytes: usize = distinct.iter().map(|name| name.len() + RECORD).sum();
            assert!(bytes <= (1 << 20) + 100, "{bytes} of names of {length}");
            assert!(
                names.cut() > 0 && distinct.len() > 4_000,
                "{}",
                distinct.len()
            );
            assert_eq!(&kept[19_999][..], "…");
        }
    }

    #[test]
    fn letters_are_cut_whole() {
        assert_eq!(shortened("größer", 6), "gr…");
        assert_eq!(shortened("größer", 8), "größer");
        assert_eq!(shortened("größer", 7), "grö…");
    }
}
