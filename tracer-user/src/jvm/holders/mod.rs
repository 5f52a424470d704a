//! Who holds the objects of a class: ways from roots to a sample of them.
//!
//! The heap is read from outside, without stopping the VM and without touching what is not
//! in memory. First all objects are gone through once, to find the sample and where blocks
//! begin; then again and again, up and down in turn, for pointers to what is sought: who
//! points to it is sought from then on. A list is found in one go, whichever way it runs, if
//! its objects are in order. All is believed only if no collection ran meanwhile, since that
//! moves objects.
//!
//! `referent` of weak, soft and phantom references holds nothing.

mod chains;
mod classes;
mod graph;
mod handles;
mod loading;
mod natives;
mod roots;
mod sample;
mod search;
mod spaces;
mod walk;
mod window;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::chains::Way;
use self::search::{Found, LEAST, Search, spent};
use super::Jvm;
use super::collections::Collections;
use super::fields::Fields;
use crate::model::{Holders, Link};
use crate::process::clock::thread_cpu_ns;

pub use self::chains::{GLOBAL, cut, link, merge, push};
pub use self::handles::Handle;
pub use self::search::{Loaders, MAX_CLASSES};

/// How often it is begun again after a collection.
const TRIES: u32 = 20;
/// Time between two tries while a collection runs.
const PAUSE: Duration = Duration::from_millis(5);

/// How often that is waited for.
const WAITS: u32 = 1000;

/// Who holds the objects of classes, by names as [`class_name`](super::klass::class_name)
/// writes them; in their order. If it cannot be told, all say why. `whose` tells who has
/// handles, root first, and what these are called then.
pub fn search_classes(jvm: &Jvm, classes: &[String], whose: &Whose<'_>) -> Vec<Holders> {
    match tries(jvm, &|search| search.run(classes)) {
        Ok(found) => told(found, whose),
        Err(problem) => not_told(&problem, classes.len()),
    }
}

/// The links of those that have handles, by handle.
pub type Whose<'a> = dyn Fn(&[Handle]) -> HashMap<Handle, Vec<Link>> + 'a;

/// Adds who has the handles that ways begin with.
fn told(found: Vec<Found>, whose: &Whose<'_>) -> Vec<Holders> {
    let ways = found.iter().flat_map(|it| &it.ways);
    let mut handles: Vec<Handle> = ways.filter_map(|way| way.handle).collect();
    handles.sort_unstable();
    handles.dedup();
    let known = match handles.is_empty() {
        true => HashMap::new(),
        false => whose(&handles),
    };
    let links = |way: Way| {
        let by = way.handle.and_then(|handle| known.get(&handle));
        // They end with the handle itself.
        let rest = way.links.into_iter().skip(usize::from(by.is_some()));
        by.cloned().into_iter().flatten().chain(rest).collect()
    };
    let all = found.into_iter().map(|found| Holders {
        chains: merge(found.ways.into_iter().map(links).collect()),
        ..found.holders
    });
    all.collect()
}

/// Who holds class loaders and hidden classes, in their order: of each so many that were made last.
pub fn search_loaders(jvm: &Jvm, loaders: &[Loaders<'_>], whose: &Whose<'_>) -> Vec<Holders> {
    match tries(jvm, &|search| search.run_loaders(loaders)) {
        Ok(found) => told(found, whose),
        Err(problem) => not_told(&problem, loaders.len()),
    }
}

fn not_told(problem: &anyhow::Error, count: usize) -> Vec<Holders> {
    let holders = Holders {
        unsearched: vec![format!("{problem:#}")],
        ..Holders::default()
    };
    vec![holders; count]
}

/// The links from a root to the `long` field that has an address in each of these pieces of native
/// memory, which do not overlap; `None` where no object has one, or no root of it was found.
///
/// # Errors
/// Fails if the heap cannot be read, or is collected at each try.
pub fn search_natives(jvm: &Jvm, pieces: &[Range<u64>]) -> Result<Vec<Option<Vec<Link>>>> {
    tries(jvm, &|search| search.run_natives(pieces))
}

/// Searches until no collection runs meanwhile.
fn tries<T>(jvm: &Jvm, run: &dyn Fn(&mut Search<'_>) -> Result<T>) -> Result<T> {
    let fields = Fields(&jvm.structs);
    let collections = Collections::of(fields, &jvm.memory)?;
    let collections = collections.context("it has no heap yet")?;
    let begin = thread_cpu_ns();
    let mut limit = LEAST;
    let (mut tried, mut waited) = (0, 0);
    while tried < TRIES && waited < WAITS && spent(begin) < limit {
        let Some(before) = collections.count(&jvm.memory)? else {
            waited += 1;
            std::thread::sleep(PAUSE);
            continue;
        };
        tried += 1;
        let is_valid = || matches!(collections.count(&jvm.memory), Ok(Some(now)) if now == before);
        let searched = Search::begin(jvm, begin, &is_valid).and_then(|mut search| {
            limit = search.limit;
            run(&mut search)
        });
        if is_valid() {
            return searched;
        }
    }
    bail!(
        "it collected garbage during each of {tried} searches through its heap, which moves objects"
    )
}
