//! One row a leak: what is generated has many names, and gets one.
//!
//! A script engine makes a class for each text, a proxy one for each bean; the call paths
//! through them differ in names that mean nothing to anybody. Here such names become one
//! ([`rules`], [`numbers`], [`asked`]), and call paths whose frames then have the same names
//! become one site ([`merge`]), as do those whose code has no name and was made anew
//! ([`moved`]). What a frame was called is in its [`Originals`](crate::model::Originals).

pub mod asked;
mod code;
pub mod merge;
mod moved;
mod names;
mod numbers;
mod rules;
mod saved;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

pub use asked::Asked;
pub use names::Rules;
pub use saved::{frames_mut, group_report, group_saved};

use self::code::Code;
use self::names::file_of;
use self::numbers::Numbers;
use crate::model::name::{Name, Names};
use crate::model::{By, Frame, Originals};

/// The names of a report, or of several that are compared, and what becomes of each.
pub struct Groups<'a> {
    rules: &'a Rules,
    numbers: Numbers,
    /// By name, and by the kind of code, since a name's form means something in one kind.
    known: IdMap<Known>,
    /// By a function's name and a file's: the file, kept as names are, and what it becomes.
    files: HashMap<(usize, usize), (Name, Option<Name>)>,
    texts: Names,
}

/// By what tells a name from others, which nobody chooses.
type IdMap<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// The hash of a name's id.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, id: u64) {
        // Of an odd number that is far from others, as Fibonacci hashing takes it; the map
        // goes by the upper bits and by the lower ones.
        let spread = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What tells a name in one kind of code: ids are addresses, whose lower bits are zero.
fn key(name: &Name, code: Code) -> u64 {
    name.id() as u64 | code as u64
}

/// A name, and what becomes of it.
struct Known {
    /// Kept, so that no other gets its id.
    name: Name,
    /// What the rules make of it.
    ruled: Option<(String, By)>,
    /// What becomes of it at last, once it was asked for.
    grouped: Option<Option<Grouped>>,
}

/// The name that a function gets.
#[derive(Clone)]
struct Grouped {
    name: Name,
    originals: Arc<Originals>,
}

impl<'a> Groups<'a> {
    /// Nothing is known yet.
    pub fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            numbers: Numbers::default(),
            known: IdMap::default(),
            files: HashMap::new(),
            texts: Names::default(),
        }
    }

    /// How many of the names that were made had to be cut.
    pub fn cut(&self) -> u64 {
        self.texts.cut()
    }

    /// Looks at the names of frames. All have to be looked at before any changes: whether
    /// a name is one of many shows only then.
    pub fn learn<'f>(&mut self, frames: impl IntoIterator<Item = &'f Frame>) {
        for frame in frames {
            let Some(name) = &frame.function else {
                continue;
            };
            let code = Code::of(frame);
            self.known.entry(key(name, code)).or_insert_with(|| {
                let ruled = self.rules.apply(name, code);
                let plain = ruled.as_ref().map_or(&**name, |(plain, _)| plain);
                self.numbers.learn(plain, code);
                Known {
                    name: name.clone(),
                    ruled,
                    grouped: None,
                }
            });
        }
    }

    /// Gives a frame that was looked at the name that it has in common with others.
    pub fn apply(&mut self, frame: &mut Frame) {
        let Some(name) = &frame.function else {
            return;
        };
        let code = Code::of(frame);
        let Some(known) = self.known.get_mut(&key(name, code)) else {
            return;
        };
        if known.grouped.is_none() {
            known.grouped = Some(known.group(&self.numbers, &mut self.texts, code));
        }
        let Some(Some(grouped)) = &known.grouped else {
            return;
        };
        if let Some(file) = &frame.file {
            let ids = (name.id(), file.id());
            let (_, follows) = self.files.entry(ids).or_insert_with(|| {
                let follows = file_of(name, &grouped.name, file);
                let follows = follows.map(|file| self.texts.intern(&file));
                (file.clone(), follows)
            });
            frame.file = follows.clone().or_else(|| frame.file.take());
        }
        // What a saved report has of it is older.
        frame.originals = Some(match frame.originals.take() {
            None => Arc::clone(&grouped.originals),
            Some(older) => Arc::new(Originals {
                by: older.by.max(grouped.originals.by),
                ..(*older).clone()
            }),
        });
        frame.function = Some(grouped.name.clone());
    }
}

impl Known {
    fn group(&self, numbers: &Numbers, texts: &mut Names, code: Code) -> Option<Grouped> {
        let plain = self.ruled.as_ref().map(|(plain, by)| (plain.as_str(), *by));
        let without = numbers.without(plain.map_or(&*self.name, |(plain, _)| plain), code);
        let (name, by) = match (&without, plain) {
            (Some(without), None) => (without.as_str(), By::Numbers),
            (Some(without), Some((_, by))) => (without.as_str(), by.max(By::Numbers)),
            (None, Some(plain)) => plain,
            (None, None) => return None,
        };
        Some(Grouped {
            name: texts.intern(name),
            originals: Arc::new(Originals::one(self.name.clone(), by)),
        })
    }
}
