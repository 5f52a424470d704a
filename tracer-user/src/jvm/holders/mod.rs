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
mod natives;
mod roots;
mod sample;
mod spaces;
mod walk;
mod window;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::chains::{Names, Way};
use self::classes::{Classes, Form, Role, Sizes};
use self::graph::{Graph, Root};
use self::handles::Handles;
use self::natives::Pointers;
use self::roots::Threads;
use self::sample::Samples;
use self::walk::{Block, Object, Walker};
use self::window::Window;
use super::Jvm;
use super::collections::Collections;
use super::fields::Fields;
use super::flags;
use super::klass::well_known;
use crate::model::{Holders, Link};
use crate::process::clock::thread_cpu_ns;
use crate::process::pagemap::PageMap;

pub use self::chains::{GLOBAL, cut, link, merge, push};
pub use self::handles::Handle;

/// More classes are not searched for at once.
pub const MAX_CLASSES: usize = 16;
/// How often it is begun again after a collection.
const TRIES: u32 = 20;
/// The time for a GiB of heap, all tries together, on one core; and that for the smallest.
const PER_GIB: Duration = Duration::from_secs(2);
const LEAST: Duration = Duration::from_secs(5);
/// Time between two tries while a collection runs.
const PAUSE: Duration = Duration::from_millis(5);

/// How often that is waited for.
const WAITS: u32 = 1000;

/// What is said where objects were found that no root leads to.
const NOT_LOOKED_AT: &str = "stacks of virtual threads and of threads that run, narrow pointers on stacks, and local \
     handles of native code that has called Java are not looked at; weak, soft and phantom \
     references and weak handles hold nothing; an object that is garbage already has no holder";

/// Who holds the objects of classes, by names as [`class_name`](super::klass::class_name)
/// writes them; in their order. If it cannot be told, all say why. `whose` tells who has
/// handles, root first, and what these are called then.
pub fn search(jvm: &Jvm, classes: &[String], whose: &Whose<'_>) -> Vec<Holders> {
    match tries(jvm, &|search| search.run(classes)) {
        Ok(found) => told(found, whose),
        Err(problem) => vec![
            Holders {
                unsearched: vec![format!("{problem:#}")],
                ..Holders::default()
            };
            classes.len()
        ],
    }
}

/// The links of those that have handles, by handle.
pub type Whose<'a> = dyn Fn(&[Handle]) -> HashMap<Handle, Vec<Link>> + 'a;

/// What was found of a class: the ways to its objects, and what else is said.
struct Found {
    ways: Vec<Way>,
    /// Without chains.
    holders: Holders,
}

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

/// Processor time of this thread since a moment.
fn spent(begin: u64) -> Duration {
    Duration::from_nanos(thread_cpu_ns().saturating_sub(begin))
}

/// One search.
struct Search<'a> {
    jvm: &'a Jvm,
    walker: Walker<'a>,
    spaces: Vec<spaces::Space>,
    threads: Threads,
    handles: Handles,
    graph: Graph,
    /// Nodes of it whose handles were looked up.
    looked_up: usize,
    /// Processor time of this thread when the first try began, nanoseconds.
    begin: u64,
    limit: Duration,
    /// Whether time was up.
    is_late: bool,
    /// Whether no collection has run since it began.
    is_valid: &'a dyn Fn() -> bool,
}

impl<'a> Search<'a> {
    fn begin(jvm: &'a Jvm, begin: u64, is_valid: &'a dyn Fn() -> bool) -> Result<Self> {
        let (fields, memory) = (Fields(&jvm.structs), &jvm.memory);
        let spaces = spaces::read(fields, memory)?;
        let threads = Threads::of(jvm)?;
        let handles = Handles::read(fields, memory, threads.addresses());
        let unused = spaces::unused(fields, memory, threads.addresses())?;
        let class = well_known(fields, memory, "Class")?;
        let mirror = roots::mirror_of(fields, memory, class)?;
        let sizes = Sizes::of(fields, memory, (mirror, class))?;
        let [narrow] = flags::are_on(fields, memory, ["UseCompressedOops"])?;
        let pages = PageMap::open(&jvm.process).context("cannot open its page map")?;
        let ranges = spaces.iter().map(|space| space.start..space.end);
        let resident = window::resident(&pages, ranges).context("cannot read its page map")?;
        let window = Window::new(memory, resident);
        let gib = window.resident() as f64 / f64::from(1 << 30);
        Ok(Self {
            jvm,
            limit: LEAST.max(PER_GIB.mul_f64(gib)),
            walker: Walker::new(window, Classes::of(fields, memory)?, sizes, narrow, unused),
            spaces,
            threads,
            handles,
            graph: Graph::new(),
            looked_up: 0,
            begin,
            is_late: false,
            is_valid,
        })
    }

    fn run(&mut self, classes: &[String]) -> Result<Vec<Found>> {
        let mut samples = Samples::new(classes);
        let (is_valid, begin, limit) = (self.is_valid, self.begin, self.limit);
        let blocks = self
            .walker
            .survey(&self.spaces, &mut |walker, objects, is_eden| {
                samples.add(&walker.classes, objects, is_eden);
                is_valid() && spent(begin) < limit
            });
        let samples = samples.take();
        let mut sought = Vec::new();
        for object in samples.iter().flatten() {
            let root = self.root(object);
            let index = self.graph.add(object.address, Some(object.class), root);
            sought.extend(index.map(|index| index as usize));
        }
        let (ways, is_complete) = self.ways_to(&blocks, &sought)?;
        let mut ways = ways.into_iter();
        let of = |sample: &Vec<Object>| {
            let ways: Vec<_> = ways.by_ref().take(sample.len()).collect();
            self.found(ways, is_complete)
        };
        Ok(samples.iter().map(of).collect())
    }

    fn run_natives(&mut self, pieces: &[Range<u64>]) -> Result<Vec<Option<Vec<Link>>>> {
        let mut pointers = Pointers::new(pieces);
        let (is_valid, begin, limit) = (self.is_valid, self.begin, self.limit);
        let mut longs = Vec::new();
        let blocks = self.walker.survey(&self.spaces, &mut |walker, objects, _| {
            for object in objects {
                walker.longs(object, &mut longs);
                pointers.add(object, &longs);
            }
            is_valid() && spent(begin) < limit
        });
        let (mut places, mut sought) = (Vec::new(), Vec::new());
        let found = pointers.take(&self.walker.classes);
        for (place, (piece, pointers)) in pieces.iter().zip(found).enumerate() {
            for (object, field) in pointers {
                if let Some(node) = self.graph.add(piece.start, None, None) {
                    let root = self.root(&object);
                    let holder = (object.address, Some(object.class), root);
                    let field = walk::Place::Long(field);
                    self.graph.hold(holder, field, piece.start);
                    if places.last() != Some(&place) {
                        places.push(place);
                        sought.push(node as usize);
                    }
                }
            }
        }
        let mut all = vec![None; pieces.len()];
        let (ways, _) = self.ways_to(&blocks, &sought)?;
        for (place, way) in places.into_iter().zip(ways) {
            if let Some(known) = all.get_mut(place) {
                *known = way.map(|way| way.links);
            }
        }
        Ok(all)
    }

    /// The way from a root to each of the sought, and whether all were looked for that hold
    /// them.
    fn ways_to(&mut self, blocks: &[Block], sought: &[usize]) -> Result<(Vec<Option<Way>>, bool)> {
        let is_complete = self.climb(blocks, sought);
        let mut ways = self.ways(&self.graph.ways(), sought);
        if ways.iter().any(Option::is_none) {
            self.threads.add_stacks(self.jvm, &mut self.graph)?;
            let more = self.ways(&self.graph.ways(), sought);
            for (known, found) in ways.iter_mut().zip(more) {
                *known = known.take().or(found);
            }
        }
        Ok((ways, is_complete))
    }

    /// Adds the handles of what has come to be sought.
    fn add_handles(&mut self) {
        while let Some(node) = self.graph.nodes.get(self.looked_up).copied() {
            self.looked_up += 1;
            let handle = self.handles.of(node.address);
            if let Some((slot, scope)) = handle.filter(|_| node.root.is_none()) {
                let root = (slot, None, Some(Root::Handle(scope)));
                self.graph.hold(root, walk::Place::Element, node.address);
            }
        }
    }

    /// Looks for holders until each of the sought has a root, or nothing more is found;
    /// whether that came within the limits.
    fn climb(&mut self, blocks: &[Block], sought: &[usize]) -> bool {
        let mut downwards = true;
        loop {
            let is_news = self.pass(blocks, downwards);
            self.add_handles();
            let ways = self.graph.ways();
            let has_root = |node: &usize| self.graph.way(&ways, *node).is_some();
            if sought.iter().all(has_root) {
                return true;
            }
            match is_news {
                None => return false,
                Some(false) => return !self.graph.is_full,
                Some(true) => downwards = !downwards,
            }
        }
    }

    /// Goes through all objects once; whether there was news. None if time is up or a
    /// collection ran.
    fn pass(&mut self, blocks: &[Block], downwards: bool) -> Option<bool> {
        let (mut objects, mut is_news) = (Vec::new(), false);
        for index in 0..blocks.len() {
            self.is_late = spent(self.begin) >= self.limit;
            if self.is_late || !(self.is_valid)() {
                return None;
            }
            let index = if downwards {
                blocks.len() - 1 - index
            } else {
                index
            };
            self.walker.block(*blocks.get(index)?, &mut objects);
            if downwards {
                objects.reverse();
            }
            for object in &objects {
                is_news |= self.look(object);
            }
        }
        Some(is_news)
    }

    /// Notes what an object holds; whether that is news.
    fn look(&mut self, object: &Object) -> bool {
        let mut found = Vec::new();
        let graph = &self.graph;
        let is_sought = |address| graph.is_sought(address);
        self.walker.references(object, &is_sought, &mut found);
        let mut is_news = false;
        for (place, to) in found {
            let holder = match place {
                walk::Place::Static(class, index) => {
                    let root = Root::Static(class.index(), index);
                    // Its field's address is within the mirror: no object begins there.
                    let field = object.address + 1 + u64::from(index);
                    (field, Some(object.class), Some(root))
                }
                _ => (object.address, Some(object.class), self.root(object)),
            };
            is_news |= self.graph.hold(holder, place, to);
        }
        is_news
    }

    /// What root an object is.
    fn root(&mut self, object: &Object) -> Option<Root> {
        let class = self.walker.classes.get(object.class)?;
        match class.role {
            Role::Thread => self.threads.index_of(object.address).map(Root::Thread),
            Role::Loader => Some(Root::Loader(object.class.index())),
            Role::Plain if class.form == Form::Mirror => {
                let of = self.walker.mirrored(object);
                Some(Root::Mirror(of.unwrap_or(object.class).index()))
            }
            Role::Plain => None,
        }
    }

    fn ways(&self, ways: &[Option<usize>], sought: &[usize]) -> Vec<Option<Way>> {
        let names = Names {
            classes: &self.walker.classes,
            threads: self.threads.names(),
        };
        let of = |node: &usize| {
            let way = self.graph.way(ways, *node)?;
            Some(names.way(&self.graph, &way, *node))
        };
        sought.iter().map(of).collect()
    }

    fn found(&self, ways: Vec<Option<Way>>, is_complete: bool) -> Found {
        let sampled = ways.len() as u64;
        let ways: Vec<_> = ways.into_iter().flatten().collect();
        let undecided = sampled - ways.len() as u64;
        let mut unsearched = Vec::new();
        if sampled == 0 {
            unsearched.push("none of its objects was found in the heap".to_owned());
        }
        if undecided > 0 {
            unsearched.push(NOT_LOOKED_AT.to_owned());
            unsearched.extend(self.handles.problem.clone());
            if !is_complete {
                unsearched.push(self.bound());
            }
            if self.walker.classes.unread > 0 {
                unsearched.push(format!(
                    "the fields of {} classes could not be read",
                    self.walker.classes.unread
                ));
            }
        }
        let holders = Holders {
            sampled,
            undecided,
            unsearched,
            ..Holders::default()
        };
        Found { ways, holders }
    }

    /// What bound the search has come to.
    fn bound(&self) -> String {
        match self.is_late {
            false => format!(
                "of objects with very many holders some are left out, and no more than {} objects \
                 are followed",
                graph::MAX_NODES
            ),
            true => format!(
                "the search ended after {:.1} s of processor time: it has 2 for each GiB of the \
                 heap, and no less than 5",
                spent(self.begin).as_secs_f64()
            ),
        }
    }
}
