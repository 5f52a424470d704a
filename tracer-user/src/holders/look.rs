//! One look at who holds the blocks of a process.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::areas::{self, Area, Kind};
use super::budget::{Allowance, Budget};
use super::heaps::Heaps;
use super::jemalloc;
use super::mark::{Holder, Marks};
use super::memory::{Memory, ProcessMemory, Words, word};
use super::nodes::{Node, Nodes, What};
use super::nptl::Layout;
use super::segments::ends_of;
use super::threads::Threads;
use super::way::{Class, RawLink, Seen, Way};
use super::young::Young;
use crate::process::clock::thread_cpu_ns;
use crate::process::code::CodeSpace;
use crate::process::handle::ProcessHandle;
use crate::process::mappings::{self, Mapping, MappingKind};
use crate::process::maps::FileId;
use crate::process::pagemap::PageMap;
use crate::process::resident::{MAX_CHUNKS, PageSet, Residents};

/// What asking the kernel for pages may take; 1 GiB takes 20 to 60 ms.
const PAGES: Duration = Duration::from_secs(3);
/// How often an allocator's blocks are listed again, and how often after each time words are looked
/// at again that led to nothing that was known.
const LISTED: usize = 4;
const AGAIN: usize = 4;
/// Links of a way that are kept, words of it that are looked at again, and nodes that all
/// ways of a look go through.
const MAX_LINKS: usize = 8;
const MAX_WORDS: usize = 16;
const MAX_STEPS: u64 = 8 << 20;

/// A traced live block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Its address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// The index of its site.
    pub site: u32,
    /// When it was allocated, nanoseconds of `CLOCK_MONOTONIC`: no other block at that
    /// address has the same.
    pub time: u64,
}

/// A block, for as long as it lives.
pub type Key = (u64, u64);

/// What is to be looked at.
pub struct Job {
    /// The process.
    pub process: ProcessHandle,
    /// Its code, and its files.
    pub code: Arc<CodeSpace>,
    /// Where a JVM keeps its objects.
    pub java_heap: Option<Range<u64>>,
    /// Whether they can be named: else they are not searched.
    pub searches_java: bool,
    /// All traced live blocks.
    pub blocks: Vec<Traced>,
    /// Those of them whose holders are asked for.
    pub wanted: HashSet<Key>,
    /// Processor time that both looks may take.
    pub allowed: Allowance,
    /// What the look before saw.
    pub before: Option<Look>,
    /// Whether nobody waits for it any more: then it is cut off.
    pub is_off: Arc<AtomicBool>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Look {
    /// Of each block that was asked for and is live.
    pub seen: HashMap<Key, Seen>,
    /// Blocks whose way, as the look before saw it, is there still.
    pub kept: HashSet<Key>,
    /// What the look before saw.
    pub before: HashMap<Key, Seen>,
    /// All traced blocks that nothing leads to, whether asked for or not; `None` if the search
    /// was cut off.
    pub unreached: Option<HashSet<Key>>,
    /// Those of them that nothing led to before.
    pub lost: Option<Vec<Traced>>,
    /// What was not searched, and why.
    pub unsearched: Vec<String>,
    /// Bytes that were read, and processor time that it took, with the look before.
    pub read: u64,
    pub time: Duration,
}

impl Job {
    /// Looks.
    ///
    /// # Errors
    /// Fails if the process is gone, or may not be read.
    pub fn run(self) -> io::Result<Look> {
        let begin = thread_cpu_ns();
        // What is done before anything is marked counts; how much there is shows later.
        let mut budget = Budget::new(Duration::MAX, Arc::clone(&self.is_off));
        let mappings = mappings::read(&self.process)?;
        let map = PageMap::open(&self.process)?;
        let deadline = Instant::now() + PAGES;
        let pages = Residents::read(&map, &mappings, deadline, &mut MAX_CHUNKS.clone())?;
        let memory = ProcessMemory::new(self.process.pid());
        let file = self.process.open_proc("mem")?;
        let mut words = Words::new(&memory, &pages.present);
        let layout = Layout::of(&self.code);
        let threads = Threads::read(
            &self.process,
            &mappings,
            &mut words,
            &pages.present,
            layout.as_ref(),
        );
        let heaps = self.heaps(&memory, &file, (&mappings, &pages.present), &threads);
        let is_full = heaps.is_full;
        let nodes = Nodes::new(self.blocks.iter().map(node).collect(), heaps.chunks);
        let nodes = nodes.within(&heaps.known);
        let mut known = self.known(&nodes, &heaps.known, &threads);
        let unknown = heaps.unknown.into_iter();
        known.extend(unknown.map(|range| Area::new(range, Kind::Heap)));
        let areas = areas::cut(&mappings, known, &ends_of(&self.code));
        let scene = Scene {
            memory: &memory,
            present: &pages.present,
            mappings: &mappings,
            threads: &threads,
            nodes: &nodes,
            areas: &areas,
        };
        let mut marks = scene.mark(self.allowed, &mut budget);
        self.look_again(&scene, (&file, &map), &mut marks, &mut budget)?;
        let mut look = Look {
            unreached: self.unreached(&nodes, &marks),
            seen: scene.ways(&marks, &self),
            unsearched: self.unsearched(&marks, &pages, is_full),
            read: marks.read,
            ..Look::default()
        };
        if let Some(before) = self.before {
            look.kept = scene.kept(&before);
            look.lost = lost(
                &self.blocks,
                look.unreached.as_ref(),
                before.unreached.as_ref(),
            );
            look.before = before.seen;
            look.read += before.read;
            look.time = before.time;
        }
        look.time += Duration::from_nanos(thread_cpu_ns().saturating_sub(begin));
        // Its id may be another's, if it is gone.
        self.process.open_proc("maps")?;
        Ok(look)
    }

    /// Where nothing leads to a block, what was allocated meanwhile may.
    fn look_again(
        &self,
        scene: &Scene<'_>,
        (file, map): (&File, &PageMap),
        marks: &mut Marks,
        budget: &mut Budget,
    ) -> io::Result<()> {
        for _ in 0..LISTED {
            if !marks.is_whole || self.all_are_reached(scene, marks) {
                break;
            }
            let (chunks, present) = self.chunks_now(scene, file, map)?;
            let now = (scene.memory as &dyn Memory, &present);
            let then = (scene.memory as &dyn Memory, scene.present);
            let mut young = Young::new(scene.nodes, &chunks, now);
            if !marks.look_again(scene.nodes, &mut young, then, budget) {
                break;
            }
            for _ in 1..AGAIN {
                let is_done = self.all_are_reached(scene, marks);
                if is_done || !marks.look_again(scene.nodes, &mut young, then, budget) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn all_are_reached(&self, scene: &Scene<'_>, marks: &Marks) -> bool {
        let blocks = self.blocks.iter();
        let mut nodes = blocks.filter_map(|block| scene.nodes.find(block.start));
        nodes.all(|node| marks.of(node).is_some())
    }

    /// The allocators' blocks by now, and what is in memory.
    fn chunks_now(
        &self,
        scene: &Scene<'_>,
        file: &File,
        map: &PageMap,
    ) -> io::Result<(Vec<Node>, PageSet)> {
        let mappings = mappings::read(&self.process)?;
        let deadline = Instant::now() + PAGES;
        let pages = Residents::read(map, &mappings, deadline, &mut MAX_CHUNKS.clone())?;
        let seen = (&mappings[..], &pages.present);
        let heaps = self.heaps(scene.memory, file, seen, scene.threads);
        Ok((heaps.chunks, pages.present))
    }

    /// What is known of all allocators' heaps.
    fn heaps(
        &self,
        memory: &ProcessMemory,
        file: &File,
        seen: (&[Mapping], &PageSet),
        threads: &Threads,
    ) -> Heaps {
        let most = self.allowed.blocks;
        let mut heaps = Heaps::read(memory, file, seen, most);
        let room = most.saturating_sub(heaps.chunks.len());
        heaps.add(jemalloc::read(memory, seen, &threads.ranges(), room));
        heaps
    }

    /// What is known of memory beside mappings.
    fn known(&self, nodes: &Nodes, heaps: &[Range<u64>], threads: &Threads) -> Vec<Area> {
        // Chunks are in what is known of heaps.
        let traced = nodes.all().iter().filter(|node| node.what != What::Chunk);
        let blocks = traced.map(|node| node.start..node.end);
        let nothing = heaps.iter().cloned().chain(blocks).map(Area::none);
        let java = self.java_heap.iter().map(|heap| Area {
            range: heap.clone(),
            kind: self.searches_java.then_some(Kind::Java),
        });
        nothing.chain(java).chain(threads.areas()).collect()
    }

    fn unreached(&self, nodes: &Nodes, marks: &Marks) -> Option<HashSet<Key>> {
        let is_lost = |block: &&Traced| {
            let node = nodes.find(block.start);
            node.is_some_and(|node| marks.of(node).is_none())
        };
        let lost = self.blocks.iter().filter(is_lost);
        (marks.is_whole && !marks.has_more_astray).then(|| lost.map(key).collect())
    }

    fn unsearched(&self, marks: &Marks, pages: &Residents, is_full: bool) -> Vec<String> {
        let mut said = Vec::new();
        if !marks.is_whole {
            let all = marks.read + marks.left;
            said.push(format!(
                "{} of {} bytes: the processor time of --holders-budget was used up",
                marks.left, all
            ));
        }
        if marks.has_more_astray {
            said.push("all words that lead to free memory: there are too many".to_owned());
        }
        if !pages.is_whole {
            said.push("some pages: there are too many".to_owned());
        }
        if is_full {
            said.push(format!(
                "the bounds of all blocks from before the run: there are more than {}",
                self.allowed.blocks
            ));
        }
        match pages.swapped.bytes() {
            0 => {}
            bytes => said.push(format!("{bytes} bytes in swap space")),
        }
        if self.java_heap.is_some() && !self.searches_java {
            said.push("the Java heap".to_owned());
        }
        said
    }
}

const fn key(block: &Traced) -> Key {
    (block.start, block.time)
}

/// The blocks that nothing led to in two looks, if both were whole.
fn lost(
    blocks: &[Traced],
    now: Option<&HashSet<Key>>,
    before: Option<&HashSet<Key>>,
) -> Option<Vec<Traced>> {
    let (now, before) = (now?, before?);
    let is_lost = |block: &&Traced| now.contains(&key(block)) && before.contains(&key(block));
    Some(blocks.iter().filter(is_lost).copied().collect())
}

fn node(block: &Traced) -> Node {
    Node {
        start: block.start,
        // A pointer to a block without bytes is one to it.
        end: block.start.saturating_add(block.size.max(1)),
        what: What::Traced(block.site),
    }
}

/// A process as it was found.
struct Scene<'a> {
    memory: &'a ProcessMemory,
    present: &'a PageSet,
    mappings: &'a [Mapping],
    threads: &'a Threads,
    nodes: &'a Nodes,
    areas: &'a [(Range<u64>, Kind)],
}

impl Scene<'_> {
    fn mark(&self, allowed: Allowance, budget: &mut Budget) -> Marks {
        let ranges: Vec<_> = self.areas.iter().map(|(range, _)| range.clone()).collect();
        let nodes = self.nodes.all().iter().map(|node| node.end - node.start);
        let areas = ranges
            .iter()
            .map(|area| self.present.with(self.present, area));
        let bytes = areas.chain(nodes).fold(0, u64::saturating_add);
        budget.set(allowed.of_look(bytes));
        let mut marks = Marks::new(self.nodes);
        let in_use = self
            .areas
            .iter()
            .take_while(|(_, it)| it.is_in_use())
            .count();
        let areas = (&ranges[..], in_use);
        marks.spread(self.nodes, areas, (self.memory, self.present), budget);
        marks
    }

    /// How each block that is asked for was seen.
    fn ways(&self, marks: &Marks, job: &Job) -> HashMap<Key, Seen> {
        let mut words = Words::new(self.memory, self.present);
        let mut steps = MAX_STEPS;
        let blocks = job.blocks.iter();
        let wanted = blocks.filter(|block| job.wanted.contains(&(block.start, block.time)));
        let seen = wanted.map(|block| {
            let node = self.nodes.find(block.start);
            let seen = match node {
                Some(node) if marks.of(node).is_some() => self
                    .way(marks, node, &mut words, &mut steps)
                    .map_or(Seen::Unknown, Seen::Reached),
                Some(_) if marks.is_whole && !marks.has_more_astray => Seen::Unreached,
                _ => Seen::Unknown,
            };
            ((block.start, block.time), seen)
        });
        seen.collect()
    }

    /// The way to a node, from the node to its root; `None` if it is too long.
    fn way(
        &self,
        marks: &Marks,
        node: usize,
        words: &mut Words<'_>,
        steps: &mut u64,
    ) -> Option<Way> {
        let mut way = Way {
            links: Vec::new(),
            words: Vec::new(),
        };
        let mut at = node;
        loop {
            *steps = steps.checked_sub(1)?;
            let mark = marks.of(at)?;
            let target = self.nodes.all().get(at)?;
            let step = (mark.word, target.start..target.end);
            if marks.is_by_end(at) {
                push(&mut way, RawLink::End);
            }
            match mark.holder {
                Holder::Area(number) => {
                    let (_, kind) = self.areas.get(number as usize)?;
                    way.links.push((self.root(kind, &step), 1));
                    way.words.push(step);
                    way.links.reverse();
                    return Some(way);
                }
                Holder::Node(holder) => {
                    if way.words.len() < MAX_WORDS {
                        way.words.push(step);
                    }
                    at = holder as usize;
                    self.add_link(&mut way, (at, mark.word), words)?;
                }
            }
        }
    }

    /// Adds a node to a way, by its word that leads on, or counts it if it is like the one before.
    fn add_link(
        &self,
        way: &mut Way,
        (at, place): (usize, u64),
        words: &mut Words<'_>,
    ) -> Option<()> {
        let node = self.nodes.all().get(at)?;
        let size = node.end - node.start;
        match (way.links.last_mut(), node.what) {
            (Some((RawLink::Block(site, _), count)), What::Traced(same)) if *site == same => {
                *count += 1;
            }
            (Some((RawLink::Chunk(of, _), count)), What::Chunk) if *of == size => *count += 1,
            _ => {
                let class = self.class(words.get(node.start.next_multiple_of(8)));
                let class = class.map(|(file, table)| Class {
                    file,
                    table,
                    at: place.saturating_sub(node.start),
                });
                let link = match node.what {
                    What::Traced(site) => RawLink::Block(site, class),
                    What::Chunk => RawLink::Chunk(size, class),
                };
                push(way, link);
            }
        }
        Some(())
    }

    /// Where in a file's constant data a word leads to: to a table of virtual functions, if
    /// an object begins with it.
    fn class(&self, word: Option<u64>) -> Option<(FileId, u64)> {
        let word = word?;
        let after = self.mappings.partition_point(|it| it.range.start <= word);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        let is_constant = mapping.kind == MappingKind::File && !mapping.is_writable;
        (is_constant && mapping.range.contains(&word)).then_some((mapping.file, word))
    }

    /// What a root is, by the place of the word that leads on, and what that leads to.
    fn root(&self, kind: &Kind, (place, to): &(u64, Range<u64>)) -> RawLink {
        let place = *place;
        match kind {
            Kind::Data(at) => match areas::file_of(self.mappings, *at) {
                Some(file) => RawLink::Data(file, place),
                None => RawLink::Mapping(String::new()),
            },
            Kind::Thread(number) | Kind::Running(number) => {
                let link = self.threads.link(*number, place);
                link.unwrap_or_else(|| RawLink::Mapping(String::new()))
            }
            Kind::Heap => RawLink::Heap,
            Kind::Java => RawLink::Java(to.clone()),
            Kind::Mapping(at) => {
                let mapping = self.mappings.get(*at);
                RawLink::Mapping(mapping.map(|it| it.name.clone()).unwrap_or_default())
            }
        }
    }

    /// Which blocks are held as a look before saw it.
    fn kept(&self, before: &Look) -> HashSet<Key> {
        let leads = |(place, to): &(u64, Range<u64>)| match word(self.memory, self.present, *place)
        {
            Some(word) => to.contains(&word),
            None => false,
        };
        let kept = before.seen.iter().filter(|(_, seen)| match seen {
            Seen::Reached(way) => way.words.iter().all(leads),
            Seen::Unreached | Seen::Unknown => false,
        });
        kept.map(|(key, _)| *key).collect()
    }
}

/// Adds a link to a way; what is in the middle of a long one is left out.
fn push(way: &mut Way, link: RawLink) {
    if way.links.len() == MAX_LINKS {
        way.links.pop();
    }
    way.links.push((link, 1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::file::ModuleFiles;

    /// A variable that holds a block.
    static HELD: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

    fn job(blocks: &[Traced], before: Option<Look>) -> Job {
        let mut files = ModuleFiles::new();
        let code = CodeSpace::attach(std::process::id(), 0, &mut files).unwrap();
        Job {
            process: ProcessHandle::open(std::process::id()).unwrap(),
            code: Arc::new(code),
            java_heap: None,
            searches_java: false,
            blocks: blocks.to_vec(),
            wanted: blocks.iter().map(|it| (it.start, it.time)).collect(),
            allowed: Allowance::per_gib(Duration::from_secs(1000)),
            before,
            is_off: Arc::default(),
        }
    }

    /// An address that nothing in this process has, but for what is put there.
    fn traced(page: u64, site: u32) -> Traced {
        Traced {
            start: 0x1234_5600_0000 + page * 4096,
            size: 64,
            site,
            time: 1,
        }
    }

    #[test]
    fn a_variable_of_this_program_holds_until_it_is_changed() {
        let held = traced(1, 1);
        HELD.store(held.start + 8, std::sync::atomic::Ordering::SeqCst);
        let first = job(&[held], None).run().unwrap();
        let second = job(&[held], Some(first)).run().unwrap();
        let key = (held.start, 1);
        assert!(second.kept.contains(&key));
        let Some(Seen::Reached(way)) = second.seen.get(&key) else {
            panic!("{:?}", second.seen);
        };
        let place = &raw const HELD as u64;
        assert!(
            matches!(way.links[..], [(RawLink::Data(_, at), 1)] if at == place),
            "{way:?}"
        );
        HELD.store(0, std::sync::atomic::Ordering::SeqCst);
        let third = job(&[held], Some(second)).run().unwrap();
        assert!(!third.kept.contains(&key));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = ProcessHandle::open(child.id()).unwrap();
        // It ends with its input.
        child.wait().unwrap();
        let job = Job {
            process,
            ..job(&[], None)
        };
        assert!(job.run().is_err());
    }
}
