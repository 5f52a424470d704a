//! One search through a heap, while no collection runs.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};

use super::chains::{Names, Way, link};
use super::classes::{Class, ClassId, Classes, Form, Role, Sizes};
use super::graph::{self, Graph, Root};
use super::handles::Handles;
use super::loading::Loading;
use super::natives::Pointers;
use super::roots::Threads;
use super::sample::{SAMPLED, Samples};
use super::spaces::{self, Space};
use super::walk::{Block, Object, Place, Walker};
use super::window::{Window, resident};
use crate::jvm::Jvm;
use crate::jvm::class_loaders::{self, Entry};
use crate::jvm::fields::Fields;
use crate::jvm::flags;
use crate::jvm::klass::{mirror_of, well_known};
use crate::model::java_native::LoaderKind;
use crate::model::{Holders, Link, LinkKind};
use crate::process::clock::thread_cpu_ns;
use crate::process::pagemap::PageMap;

/// More classes are not searched for at once.
pub const MAX_CLASSES: usize = 16;
/// The time for a GiB of heap, all tries together, on one core; and that for the smallest.
const PER_GIB: Duration = Duration::from_secs(2);
pub const LEAST: Duration = Duration::from_secs(5);
/// What is said where objects were found that no root leads to.
const NOT_LOOKED_AT: &str = "stacks of virtual threads and of threads that run, narrow pointers on stacks, and local \
     handles of native code that has called Java are not looked at; weak, soft and phantom \
     references and weak handles hold nothing; an object that is garbage already has no holder";

/// What was found of a class.
pub struct Found {
    /// The ways to its objects.
    pub ways: Vec<Way>,
    /// Without chains.
    pub holders: Holders,
}

/// Class loaders, or hidden classes, that are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Loaders<'a> {
    /// What they are.
    pub kind: LoaderKind,
    /// Their class.
    pub class: &'a str,
    /// How many of them, those that were made last.
    pub count: u64,
}

impl Loaders<'_> {
    /// Some of them, as far apart as can be.
    fn sample(&self, entries: &[Entry], walker: &mut Walker<'_>) -> Vec<Object> {
        let all = entries
            .iter()
            .filter(|entry| entry.kind == self.kind && entry.class == self.class);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let all: Vec<_> = all.take(count).collect();
        let step = all.len().div_ceil(SAMPLED).max(1);
        let some = all.iter().step_by(step);
        some.filter_map(|entry| walker.object(entry.object))
            .collect()
    }

    /// What is at the end of the ways to them.
    fn link(&self) -> Link {
        let kind = match self.kind {
            LoaderKind::ClassLoader => LinkKind::ClassLoader,
            LoaderKind::HiddenClass => LinkKind::JavaObject,
        };
        link(kind, self.class.to_owned())
    }
}

/// One search.
pub struct Search<'a> {
    jvm: &'a Jvm,
    walker: Walker<'a>,
    spaces: Vec<Space>,
    threads: Threads,
    handles: Handles,
    graph: Graph,
    /// Nodes of it whose handles were looked up.
    looked_up: usize,
    /// What keeps classes, if these or their loaders are asked for: else they are roots.
    loading: Option<Loading>,
    /// Processor time of this thread when the first try began, nanoseconds.
    begin: u64,
    /// Processor time that all searches together may take.
    pub limit: Duration,
    /// Whether time was up.
    is_late: bool,
    /// Whether no collection has run since it began.
    is_valid: &'a dyn Fn() -> bool,
}

impl<'a> Search<'a> {
    /// Reads what the VM says of its heap, its threads and its handles. `begin` is the processor
    /// time of this thread when the first search began, nanoseconds.
    ///
    /// # Errors
    /// Fails if the VM does not tell, or cannot be read.
    pub fn begin(jvm: &'a Jvm, begin: u64, is_valid: &'a dyn Fn() -> bool) -> Result<Self> {
        let (fields, memory) = (Fields(&jvm.structs), &jvm.memory);
        let spaces = spaces::read(fields, memory)?;
        let threads = Threads::of(jvm)?;
        let handles = Handles::read(fields, memory, threads.addresses());
        let unused = spaces::unused(fields, memory, threads.addresses())?;
        let class = well_known(fields, memory, "Class")?;
        let mirror = mirror_of(fields, memory, class)?;
        let sizes = Sizes::of(fields, memory, (mirror, class))?;
        let [narrow] = flags::are_on(fields, memory, ["UseCompressedOops"])?;
        let pages = PageMap::open(&jvm.process).context("cannot open its page map")?;
        let ranges = spaces.iter().map(|space| space.start..space.end);
        let resident = resident(&pages, ranges).context("cannot read its page map")?;
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
            loading: None,
            begin,
            is_late: false,
            is_valid,
        })
    }

    /// Who holds the objects of classes of these names, in their order.
    ///
    /// # Errors
    /// Fails if stacks cannot be read.
    pub fn run(&mut self, classes: &[String]) -> Result<Vec<Found>> {
        let mut samples = Samples::new(classes);
        let (is_valid, begin, limit) = (self.is_valid, self.begin, self.limit);
        let blocks = self
            .walker
            .survey(&self.spaces, &mut |walker, objects, is_eden| {
                samples.add(&walker.classes, objects, is_eden);
                is_valid() && spent(begin) < limit
            });
        let samples = samples.take();
        let mut found: Vec<Found> = samples.iter().map(|_| not_searched()).collect();
        let (of_loading, others) = self.chosen(&samples);
        if !others.is_empty() {
            self.run_chosen(&blocks, (&samples, &others), &mut found)?;
        }
        if !of_loading.is_empty() {
            let entries = class_loaders::entries(self.jvm)?;
            (self.graph, self.looked_up) = (Graph::new(), 0);
            self.loading = Some(Loading::of(&entries));
            self.run_chosen(&blocks, (&samples, &of_loading), &mut found)?;
        }
        Ok(found)
    }

    fn run_chosen(
        &mut self,
        blocks: &[Block],
        (samples, chosen): (&[Vec<Object>], &[usize]),
        found: &mut [Found],
    ) -> Result<()> {
        let samples: Vec<_> = chosen.iter().map(|at| &samples[*at]).collect();
        for (at, of_class) in chosen.iter().zip(self.run_samples(blocks, &samples)?) {
            found[*at] = of_class;
        }
        Ok(())
    }

    /// The samples that are searched for: those of classes and class loaders, and those of others, the
    /// first ones. Class loaders tell more than what they drag along, and come before all others.
    fn chosen(&self, samples: &[Vec<Object>]) -> (Vec<usize>, Vec<usize>) {
        let is =
            |at: &usize, what: fn(&Class) -> bool| self.class_of(&samples[*at]).is_some_and(what);
        let is_loader = |at: &usize| is(at, |class| class.role == Role::Loader);
        let (mut order, others): (Vec<_>, Vec<_>) = (0..samples.len()).partition(is_loader);
        order.extend(others);
        order.truncate(MAX_CLASSES);
        order
            .into_iter()
            .partition(|at| is_loader(at) || is(at, |class| class.form == Form::Mirror))
    }

    fn class_of(&self, sample: &[Object]) -> Option<&Class> {
        self.walker.classes.get(sample.first()?.class)
    }

    fn run_samples(&mut self, blocks: &[Block], samples: &[&Vec<Object>]) -> Result<Vec<Found>> {
        let mut sought = Vec::new();
        for object in samples.iter().copied().flatten() {
            let root = self.root(object);
            let index = self.graph.add(object.address, Some(object.class), root);
            sought.extend(index.map(|index| index as usize));
        }
        let (ways, is_complete) = self.ways_to(blocks, &sought)?;
        let mut ways = ways.into_iter();
        let of = |sample: &&Vec<Object>| {
            let ways: Vec<_> = ways.by_ref().take(sample.len()).collect();
            self.found(ways, is_complete)
        };
        Ok(samples.iter().map(of).collect())
    }

    /// As [`search_loaders`](super::search_loaders) says.
    ///
    /// # Errors
    /// Fails if these or stacks cannot be read.
    pub fn run_loaders(&mut self, loaders: &[Loaders<'_>]) -> Result<Vec<Found>> {
        let (is_valid, begin, limit) = (self.is_valid, self.begin, self.limit);
        let blocks = self.walker.survey(&self.spaces, &mut |_, _, _| {
            is_valid() && spent(begin) < limit
        });
        let entries = class_loaders::entries(self.jvm)?;
        let samples: Vec<Vec<Object>> = loaders
            .iter()
            .map(|loaders| loaders.sample(&entries, &mut self.walker))
            .collect();
        self.loading = Some(Loading::of(&entries));
        let mut found = self.run_samples(&blocks, &samples.iter().collect::<Vec<_>>())?;
        for (found, loaders) in found.iter_mut().zip(loaders) {
            found
                .ways
                .iter_mut()
                .for_each(|way| way.links.push(loaders.link()));
        }
        Ok(found)
    }

    /// As [`search_natives`](super::search_natives) says.
    ///
    /// # Errors
    /// Fails if stacks cannot be read.
    pub fn run_natives(&mut self, pieces: &[Range<u64>]) -> Result<Vec<Option<Vec<Link>>>> {
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
                    let field = Place::Long(field);
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
                self.graph.hold(root, Place::Element, node.address);
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
        if let Some(loading) = &mut self.loading {
            let class = loading.mirror_of(self.jvm, &mut self.walker, object);
            let class = class.filter(|class| self.graph.is_sought(*class));
            found.extend(class.map(|class| (Place::Class, class)));
        }
        let mut is_news = false;
        for (place, to) in found {
            let holder = match place {
                Place::Static(class, index) if self.is_lasting(class) => {
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
            Role::Loader => {
                let is_root = self.loading.is_none() || Loading::is_own(&class.name);
                is_root.then_some(Root::Loader(object.class.index()))
            }
            Role::Plain if class.form == Form::Mirror => {
                let of = self.walker.mirrored(object).unwrap_or(object.class);
                self.is_lasting(of).then_some(Root::Mirror(of.index()))
            }
            Role::Plain => None,
        }
    }

    /// Whether a class needs nobody who holds it.
    fn is_lasting(&mut self, class: ClassId) -> bool {
        let loading = self.loading.as_mut();
        loading.is_none_or(|loading| loading.is_lasting(self.jvm, &mut self.walker, class))
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

/// What is said of a class for which there was no room.
fn not_searched() -> Found {
    let unsearched = vec![format!(
        "it is not among the first {MAX_CLASSES} classes that grow"
    )];
    Found {
        ways: Vec::new(),
        holders: Holders {
            unsearched,
            ..Holders::default()
        },
    }
}

/// Processor time of this thread since a moment.
pub fn spent(begin: u64) -> Duration {
    Duration::from_nanos(thread_cpu_ns().saturating_sub(begin))
}
