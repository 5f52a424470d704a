//! Reads a flight recording: of its format, what samples of old objects need.
//!
//! The file is the target's. Nothing in it is believed: lengths are bounded by its bytes, what
//! refers to each other in a circle by a number of steps, and what is kept by numbers.

mod bytes;
mod chunk;
mod types;

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use self::chunk::{Chunk, Record, Value};

/// The event.
const EVENT: &str = "jdk.OldObjectSample";
/// More samples are not read: a JVM has 256, if it is not told otherwise.
const MAX_SAMPLES: usize = 1 << 14;
/// Steps of a chain, and of all together. A JVM writes 200, and how many it leaves out.
const MAX_CHAIN: usize = 1000;
const MAX_STEPS: usize = 1 << 20;
/// A static field, in its modifiers.
const STATIC: u64 = 8;

/// Why a recording is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It does not begin as one.
    NoRecording,
    /// Its format has another major version than 2.
    Version(u64),
    /// Something goes beyond its end.
    CutOff,
    /// Something in it cannot be.
    Malformed,
    /// It has more than is kept.
    TooMuch,
}

/// An object that the JVM sampled when it was allocated, and that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its class, as the VM writes it: `a/b/C`, `[J`.
    pub class: Rc<str>,
    /// Who holds it, from the object to the root. Empty of an object that a root holds itself.
    pub chain: Vec<Step>,
    /// Where the chain begins; none if no way was found.
    pub root: Option<GcRoot>,
}

/// An object that holds the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its class, as the VM writes it.
    pub class: Rc<str>,
    /// What the JVM says of it: `Thread Name: main`, `Class Name: a.b.C`.
    pub description: Option<Rc<str>>,
    /// By what.
    pub place: Place,
    /// How many objects are left out between it and the one before.
    pub left_out: u64,
}

/// By what an object holds another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An element of an array.
    Element,
    /// A field.
    Field {
        /// Its name.
        name: Rc<str>,
        /// Whether it is a class's.
        is_static: bool,
    },
    /// It is not told, as where objects are left out.
    Unknown,
}

/// What holds the last object of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRoot {
    /// Such as `Threads`.
    pub system: String,
    /// Such as `Stack Variable`.
    pub kind: String,
    /// Such as `Thread Name: main`.
    pub description: Option<String>,
}

/// What was found in a recording.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Of all classes.
    pub all: u64,
    /// Of those that were asked for.
    pub asked: Vec<Sample>,
    /// Whether the JVM follows weak references, too: that of JDK 8 and 11 does.
    pub follows_weak: bool,
}

/// The samples that were written last, of classes that are `wanted`.
///
/// # Errors
/// Says what it is about a recording that cannot be read.
pub fn samples(file: &[u8], wanted: &dyn Fn(&str) -> bool) -> Result<Samples, Broken> {
    let (mut rest, mut last) = (file, None);
    while !rest.is_empty() {
        let (chunk, behind) = Chunk::read(rest, EVENT)?;
        rest = behind;
        // Somebody else's recording may have had others written before.
        if !chunk.events.is_empty() || last.is_none() {
            last = Some(chunk);
        }
    }
    let chunk = last.ok_or(Broken::NoRecording)?;
    Reader::of(&chunk).samples(wanted)
}

struct Reader<'a> {
    chunk: &'a Chunk<'a>,
    /// Names and descriptions, by the places of what has them.
    texts: HashMap<(u64, usize), Option<Rc<str>>>,
    steps: usize,
}

impl<'a> Reader<'a> {
    fn of(chunk: &'a Chunk<'a>) -> Self {
        Self {
            chunk,
            texts: HashMap::new(),
            steps: MAX_STEPS,
        }
    }

    fn samples(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Samples, Broken> {
        if self.chunk.events.len() > MAX_SAMPLES {
            return Err(Broken::TooMuch);
        }
        let events = self.chunk.events.iter();
        let events = events.map(|(of, at)| self.chunk.record(*of, *at));
        let events = events.collect::<Result<Vec<_>, Broken>>()?;
        // All that are written at a time have the same time.
        let time = |event: &Record<'_>| event.number("startTime");
        let last = events.iter().map(time).max();
        let mut samples = Samples {
            follows_weak: self.chunk.is_old,
            ..Samples::default()
        };
        for event in events.iter().filter(|event| Some(time(event)) == last) {
            samples.all += 1;
            let Some(object) = self.chunk.follow(event.get("object"))? else {
                continue;
            };
            let class = self.named(object.get("type"))?;
            if let Some(class) = class.filter(|class| wanted(class)) {
                let chain = self.chain(&object)?;
                let root = self.root(event.get("root"))?;
                samples.asked.push(Sample { class, chain, root });
            }
        }
        Ok(samples)
    }

    fn chain(&mut self, object: &Record<'a>) -> Result<Vec<Step>, Broken> {
        let mut chain = Vec::new();
        let mut referrer = object.get("referrer");
        while let Some(reference) = self.chunk.follow(referrer)? {
            let Some(holder) = self.chunk.follow(reference.get("object"))? else {
                break;
            };
            self.steps = self.steps.checked_sub(1).ok_or(Broken::TooMuch)?;
            if chain.len() >= MAX_CHAIN {
                return Err(Broken::TooMuch);
            }
            chain.push(Step {
                class: self.named(holder.get("type"))?.unwrap_or_default(),
                description: self.chunk.text(holder.get("description"))?.map(Rc::from),
                place: self.held_by(&reference)?,
                left_out: reference.number("skip"),
            });
            referrer = holder.get("referrer");
        }
        Ok(chain)
    }

    fn held_by(&mut self, reference: &Record<'a>) -> Result<Place, Broken> {
        if let Some(place) = self.chunk.place(reference.get("field")) {
            let field = self.chunk.record(place.0, place.1)?;
            let is_static = field.number("modifiers") & STATIC != 0;
            let name = self.cached(place, field.get("name"))?;
            return Ok(name.map_or(Place::Unknown, |name| Place::Field { name, is_static }));
        }
        Ok(match self.chunk.follow(reference.get("array"))? {
            Some(_) => Place::Element,
            None => Place::Unknown,
        })
    }

    /// The name of a class.
    fn named(&mut self, class: Option<Value<'a>>) -> Result<Option<Rc<str>>, Broken> {
        let Some(place) = self.chunk.place(class) else {
            return Ok(None);
        };
        let class = self.chunk.record(place.0, place.1)?;
        self.cached(place, class.get("name"))
    }

    fn cached(
        &mut self,
        place: (u64, usize),
        name: Option<Value<'a>>,
    ) -> Result<Option<Rc<str>>, Broken> {
        if let Some(known) = self.texts.get(&place) {
            return Ok(known.clone());
        }
        let name: Option<Rc<str>> = self.chunk.text(name)?.map(Rc::from);
        self.texts.insert(place, name.clone());
        Ok(name)
    }

    fn root(&self, root: Option<Value<'a>>) -> Result<Option<GcRoot>, Broken> {
        let Some(root) = self.chunk.follow(root)? else {
            return Ok(None);
        };
        Ok(Some(GcRoot {
            system: self.chunk.text(root.get("system"))?.unwrap_or_default(),
            kind: self.chunk.text(root.get("type"))?.unwrap_or_default(),
            description: self.chunk.text(root.get("description"))?,
        }))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecording => write!(f, "what the JVM wrote is no flight recording"),
            Self::Version(version) => write!(
                f,
                "the JVM's flight recording has version {version} of its format: 2 is known"
            ),
            Self::CutOff => write!(f, "the JVM's flight recording is cut off"),
            Self::Malformed => write!(f, "the JVM's flight recording is of an unknown form"),
            Self::TooMuch => write!(f, "the JVM's flight recording has more than is read"),
        }
    }
}

impl std::error::Error for Broken {}

#[cfg(test)]
mod tests;
