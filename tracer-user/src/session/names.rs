//! Names of Java's, Python's and JavaScript's frames, read soon after their stacks are first seen: code
//! is compiled anew, and classes and functions are unloaded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracer_ebpf::frame::Frame;
use tracer_ebpf::site::Site;

use super::jvms::Jvms;
use super::script_names::ScriptNames;
use super::told_codes::ToldCodes;
use crate::javascript::JavaScriptNames;
use crate::jvm::frames::{FrameKind, JavaFrame, Named};
use crate::jvm::told_code::Code;
use crate::jvm::unnamed::Unnamed;
use crate::kernel::object::Object;
use crate::python::PythonNames;
use crate::tables::Tables;
use crate::targets::images::Images;

/// How often is looked whether a JVM told of code: it may tell a moment after
/// the code ran.
const LOOKS: u8 = 3;

/// Words that have names by what was told, at most.
const MAX_TOLD: usize = 1 << 18;

/// What the texts of all names may take, bytes: they are read from the target's
/// memory, and may be as many as there are frames.
const MAX_TEXTS: usize = 192 << 20;

/// What a text takes besides itself, bytes.
const TEXT: usize = 48;

/// How often is looked whether anything is known of a process's code, and whether a function
/// is where it was last, until a function of a script language stays without a name.
const SCRIPT_LOOKS: u8 = 50;

/// How often at one that has no name of its own: what it is called may have been moved while
/// it was read.
const NAMELESS_LOOKS: u8 = 4;

/// What is known of a site's functions of script languages.
enum Known {
    /// All that there is.
    All,
    /// Some have no names of their own.
    Nameless,
    /// One may have a name later.
    Some,
}

impl Known {
    /// How often to look again, after so many looks less.
    fn looks(self, left: u8) -> u8 {
        match self {
            Self::All => 0,
            Self::Nameless => left.min(NAMELESS_LOOKS),
            Self::Some => left,
        }
    }
}

/// What names are read from.
pub struct Sources<'a> {
    /// Java VMs.
    pub jvms: &'a mut Jvms,
    /// What they told of their code.
    pub codes: &'a ToldCodes,
    /// Interpreters of Python.
    pub pythons: &'a mut ScriptNames<PythonNames>,
    /// V8.
    pub javascripts: &'a mut ScriptNames<JavaScriptNames>,
    /// The processes.
    pub images: &'a Images,
    /// What is known of their code's files.
    pub tables: &'a Tables,
}

impl Sources<'_> {
    /// The name of a word of a script language's; `None` if it may have one later.
    fn script(&mut self, image: u64, word: u64, is_last: bool) -> Option<Named> {
        let (images, tables) = (self.images, self.tables);
        if Frame::of(word).is_python() {
            return self.pythons.name(image, word, images, tables);
        }
        let named = self.javascripts.name(image, word, images, tables)?;
        // One that was moved is found when it runs again; where it was there may be nothing.
        let is_gone = matches!(named, Err(Unnamed::NoJavaScript | Unnamed::NoScriptProcess));
        let may_be_found = is_gone && !is_last;
        (!may_be_found).then_some(named)
    }
}

/// Names of the Java, Python and JavaScript frames of sites.
#[derive(Default)]
pub struct SiteNames {
    /// By the index of the site: such words of it, each with its names.
    sites: HashMap<u32, Vec<(u64, Named)>>,
    /// All sites before this one have been looked at.
    next: u32,
    /// Code that could not be named from memory, but that the JVM had told of:
    /// by site and word.
    told: HashMap<(u32, u64), Arc<Code>>,
    /// Sites with code that has no name yet, and how often is looked again.
    unnamed: Vec<(u32, u8)>,
    /// Sites with functions of script languages that may have names later, and how often is
    /// looked again.
    waiting: Vec<(u32, u8)>,
    texts: Texts,
}

impl SiteNames {
    /// Names the frames of sites that are new.
    pub fn poll(&mut self, object: &Object, sources: &mut Sources<'_>) {
        self.look_for_scripts(object, sources);
        let mut next = self.next;
        for (index, site) in object.sites_from(self.next) {
            if index == next {
                next += 1;
            }
            if self.sites.contains_key(&index) {
                continue;
            }
            if has_script(&site) {
                let known = self.name_script(index, &site, sources, false);
                if let looks @ 1.. = known.looks(SCRIPT_LOOKS) {
                    self.waiting.push((index, looks));
                }
            } else if let Some(jvm) = sources.jvms.readable_mut(site.image) {
                let mut name = |word| match Frame::of(word) {
                    Frame::ClassName { .. } => told_class(object, word),
                    _ => jvm.name(word),
                };
                let words = java_words(&site).map(|word| (word, self.texts.bounded(name(word))));
                let words: Vec<_> = words.collect();
                if words
                    .iter()
                    .any(|(word, named)| is_unnamed_code(*word, named))
                {
                    self.unnamed.push((index, LOOKS));
                }
                self.sites.insert(index, words);
            }
        }
        self.next = next;
        self.name_by_told(object, sources.codes);
    }

    /// Looks again at functions that had no name yet.
    fn look_for_scripts(&mut self, object: &Object, sources: &mut Sources<'_>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain_mut(|(index, looks)| {
            let Some(site) = object.sites.get(*index).filter(has_script) else {
                return false;
            };
            let left = *looks - 1;
            let known = self.name_script(*index, &site, sources, left == 0);
            *looks = known.looks(left);
            *looks > 0
        });
        self.waiting = waiting;
    }

    /// Names the functions of script languages of a site, and what Java has in between; not
    /// if one may be found later, unless this `is_last`.
    fn name_script(
        &mut self,
        index: u32,
        site: &Site,
        sources: &mut Sources<'_>,
        is_last: bool,
    ) -> Known {
        let mut words = Vec::new();
        let mut known = Known::All;
        for word in own_words(site) {
            let named = match Frame::of(word).is_script() {
                true => sources.script(site.image, word, is_last),
                false => {
                    let jvm = sources.jvms.readable_mut(site.image);
                    Some(jvm.map_or(Err(Unnamed::NotJava), |jvm| jvm.name(word)))
                }
            };
            let Some(named) = named else {
                return Known::Some;
            };
            if is_nameless(&named) {
                known = Known::Nameless;
            }
            words.push((word, self.texts.bounded(named)));
        }
        self.sites.insert(index, words);
        known
    }

    /// Looks again at all code that has no name: there may be a new source.
    pub fn look_again(&mut self) {
        let has_unnamed = |words: &[(u64, Named)]| {
            let mut words = words.iter();
            words.any(|(word, named)| is_unnamed_code(*word, named))
        };
        let sites = self.sites.iter();
        let unnamed = sites.filter(|(_, words)| has_unnamed(words));
        self.unnamed = unnamed.map(|(index, _)| (*index, LOOKS)).collect();
    }

    /// The second source of names: what JVMs told of their code.
    fn name_by_told(&mut self, object: &Object, codes: &ToldCodes) {
        let (sites, told) = (&self.sites, &mut self.told);
        self.unnamed.retain_mut(|(index, looks)| {
            let (Some(words), Some(site)) = (sites.get(index), object.sites.get(*index)) else {
                return false;
            };
            let mut is_whole = true;
            for (word, named) in words {
                if is_unnamed_code(*word, named) && !told.contains_key(&(*index, *word)) {
                    let code = codes.find(&site, *word).filter(|_| told.len() < MAX_TOLD);
                    is_whole &= code.is_some();
                    told.extend(code.map(|code| ((*index, *word), Arc::clone(code))));
                }
            }
            *looks -= 1;
            !is_whole && *looks > 0
        });
    }

    /// Forgets a site, whose index another will have.
    pub fn forget(&mut self, site: u32) {
        if self.sites.remove(&site).is_some() {
            self.told.retain(|(index, _), _| *index != site);
            self.unnamed.retain(|(index, _)| *index != site);
        }
        self.waiting.retain(|(index, _)| *index != site);
        self.next = self.next.min(site);
    }

    /// The names of the words of a site that was seen from one moment to
    /// another, in their order; `None` for native frames and for what was
    /// never named.
    pub fn of(&self, site: u32, words: &[u64], seen: (u64, u64)) -> Vec<Option<Named>> {
        let Some(known) = self.sites.get(&site) else {
            return Vec::new();
        };
        let name = |word: &u64| {
            let (_, named) = known.iter().find(|(known, _)| known == word)?;
            let told = match named {
                Ok(_) => None,
                Err(_) => self.told.get(&(site, *word)),
            };
            Some(match told.filter(|code| code.was_there(seen.0, seen.1)) {
                Some(code) => Ok([code.frame.clone()].into()),
                None => named.clone(),
            })
        };
        words.iter().map(name).collect()
    }
}

/// The texts of names that are kept, each counted once.
struct Texts {
    /// Where they are.
    known: HashSet<usize>,
    /// Bytes that are left.
    left: usize,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            left: MAX_TEXTS,
        }
    }
}

impl Texts {
    /// A name, if there is room for it.
    fn bounded(&mut self, named: Named) -> Named {
        let frames = named?;
        let parts = |frame: &JavaFrame| {
            let parts = [&frame.class, &frame.method, &frame.signature, &frame.file];
            parts.map(|part| part.as_ref().map(Arc::clone))
        };
        let texts = frames.iter().flat_map(parts).flatten();
        // What is kept stays where it is.
        let places = texts.map(|text| (text.as_ptr().addr(), text.len() + TEXT));
        let new: HashMap<usize, usize> = places
            .filter(|(place, _)| !self.known.contains(place))
            .collect();
        let left = self.left.checked_sub(new.values().sum());
        self.left = left.ok_or(Unnamed::NoRoom)?;
        self.known.extend(new.into_keys());
        Ok(frames)
    }
}

/// Whether a word is of code that memory had no name for.
fn is_unnamed_code(word: u64, named: &Named) -> bool {
    named.is_err() && matches!(Frame::of(word), Frame::Compiled { .. })
}

/// The class of an object that the VM told of.
fn told_class(object: &Object, word: u64) -> Named {
    let name = object.usdt.class_name(word).ok_or(Unnamed::NoRoom)?;
    let told = JavaFrame::of_told_class(&name).ok_or(Unnamed::NotAClass)?;
    Ok([told].into())
}

fn words(site: &Site) -> impl Iterator<Item = u64> {
    site.frames.iter().take(site.depth as usize).copied()
}

fn java_words(site: &Site) -> impl Iterator<Item = u64> {
    words(site).filter(|word| Frame::of(*word).is_java())
}

/// Those that an address does not name.
fn own_words(site: &Site) -> impl Iterator<Item = u64> {
    words(site).filter(|word| Frame::of(*word).is_java() || Frame::of(*word).is_script())
}

/// Whether it is a function of JavaScript without a name of its own, or of no file.
fn is_nameless(named: &Named) -> bool {
    let frames = named.iter().flat_map(|frames| frames.iter());
    let mut scripts = frames.filter(|frame| frame.kind == FrameKind::JavaScript);
    scripts.any(|it| it.file.is_none() || it.line.is_none() || it.is_anonymous())
}

fn has_script(site: &Site) -> bool {
    words(site).any(|word| Frame::of(word).is_script())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_within_a_budget_and_counted_once() {
        let mut texts = Texts {
            left: 10_000,
            ..Texts::default()
        };
        let frame = |class: &str| JavaFrame::told(class.to_owned(), "run".to_owned(), None);
        let one: Arc<[JavaFrame]> = [frame(&"x".repeat(5_000))].into();
        for _ in 0..100 {
            assert!(texts.bounded(Ok(Arc::clone(&one))).is_ok());
        }
        let another: Arc<[JavaFrame]> = [frame(&"y".repeat(5_000))].into();
        assert_eq!(texts.bounded(Ok(another)).unwrap_err(), Unnamed::NoRoom);
        assert!(texts.bounded(Ok([frame("short")].into())).is_ok());
    }
}
