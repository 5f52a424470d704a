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
mod natives;
mod roots;
mod sample;
mod spaces;
mod walk;
mod window;

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::chains::{Names, merge};
use self::classes::{Classes, Form, Role, Sizes};
use self::graph::{Graph, Root};
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
const NOT_LOOKED_AT: &str = "handles that native code has of Java objects, stacks of virtual threads and of threads \
     that run, and narrow pointers on stacks are not looked at; weak, soft and phantom references \
     hold nothing; an object that is garbage already has no holder";

/// Who holds the objects of classes, by names as [`class_name`](super::klass::class_name)
/// writes them; in their order. If it cannot be told, all say why.
pub fn search(jvm: &Jvm, classes: &[String]) -> Vec<Holders> {
    match tries(jvm, &|search| search.run(classes)) {
        Ok(holders) => holders,
        Err(problem) => vec![
            Holders {
                unsearched: vec![format!("{problem:#}")],
                ..Holders::default()
            };
            classes.len()
        ],
    }
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
    graph: Graph,
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
            graph: Graph::new(),
            begin,
            is_late: false,
            is_valid,
        })
    }

    fn run(&mut self, classes: &[String]) -> Result<Vec<Holders>> {
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
        let (links, is_complete) = self.links_to(&blocks, &sought)?;
        let mut links = links.into_iter();
        let of = |sample: &Vec<Object>| {
            let chains: Vec<_> = links.by_ref().take(sample.len()).collect();
            self.holders(chains, is_complete)
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
        let (links, _) = self.links_to(&blocks, &sought)?;
        for (place, links) in places.into_iter().zip(links) {
            if let Some(known) = all.get_mut(place) {
                *known = links;
            }
        }
        Ok(all)
    }

    /// The links from a root to each of the sought, and whether all were looked for that hold
    /// them.
    fn links_to(
        &mut self,
        blocks: &[Block],
        sought: &[usize],
    ) -> Result<(Vec<Option<Vec<Link>>>, bool)> {
        let is_complete = self.climb(blocks, sought);
        let mut links = self.links(&self.graph.ways(), sought);
        if links.iter().any(Option::is_none) {
            self.threads.add_stacks(self.jvm, &mut self.graph)?;
            let more = self.links(&self.graph.ways(), sought);
            for (known, found) in links.iter_mut().zip(more) {
                *known = known.take().or(found);
            }
        }
        Ok((links, is_complete))
    }

    /// Looks for holders until each of the sought has a root, or nothing more is found;
    /// whether that came within the limits.
    fn climb(&mut self, blocks: &[Block], sought: &[usize]) -> bool {
        let mut downwards = true;
        loop {
            let is_news = self.pass(blocks, downwards);
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

    fn links(&self, ways: &[Option<usize>], sought: &[usize]) -> Vec<Option<Vec<Link>>> {
        let names = Names {
            classes: &self.walker.classes,
            threads: self.threads.names(),
        };
        let of = |node: &usize| {
            let way = self.graph.way(ways, *node)?;
            Some(names.links(&self.graph, &way, *node))
        };
        sought.iter().map(of).collect()
    }

    fn holders(&self, chains: Vec<Option<Vec<Link>>>, is_complete: bool) -> Holders {
        let sampled = chains.len() as u64;
        let known: Vec<_> = chains.into_iter().flatten().collect();
        let undecided = sampled - known.len() as u64;
        let mut unsearched = Vec::new();
        if sampled == 0 {
            unsearched.push("none of its objects was found in the heap".to_owned());
        }
        if undecided > 0 {
            unsearched.push(NOT_LOOKED_AT.to_owned());
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
        Holders {
            sampled,
            lost: 0,
            undecided,
            chains: merge(known),
            unsearched,
            all_lost: None,
        }
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
