//! Marking: which nodes words lead to, from areas on.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::budget::Budget;
use super::ends::{Beside, is_end};
use super::memory::{Memory, Words, length};
use super::nodes::Nodes;
use super::reader::Reader;
use super::young::Young;
use crate::process::pagemap::PAGE;
use crate::process::resident::PageSet;

/// Where a pointer to a node was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// In an area, by its number.
    Area(u32),
    /// In another node, by its index.
    Node(u32),
}

/// The first pointer to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// What holds it.
    pub holder: Holder,
    /// The address of the word; 0 if it was in a register.
    pub word: u64,
}

/// Words that are looked up together.
const AT_ONCE: usize = 256;

/// A word that may lead to a node.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    word: u64,
    beside: Beside,
    mark: Mark,
}

/// More words that lead astray are not kept, 24 bytes each.
const MAX_ASTRAY: usize = 1 << 20;

/// A word into a heap that led to no block when it was read: to one that is free, or to one that was
/// allocated meanwhile.
#[derive(Debug, Clone, Copy)]
struct Astray {
    word: u64,
    mark: Mark,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Marks {
    /// Of each node.
    marks: Vec<Option<Mark>>,
    /// Nodes whose words are to be read next.
    queue: Vec<u32>,
    /// Words that are to be looked up.
    candidates: Vec<Candidate>,
    /// Words that lead astray, and whether there are more than are kept.
    astray: Vec<Astray>,
    pub has_more_astray: bool,
    /// Words that lead to nodes, but rather are ends of the blocks before: the first of each node.
    ends: HashMap<u32, Mark>,
    /// Nodes that have such a mark, since nothing else leads to them.
    by_end: HashSet<u32>,
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that could not be read any more, or that the budget was not enough for.
    pub left: u64,
    /// Whether the budget was enough.
    pub is_whole: bool,
}

impl Marks {
    /// No node has a mark yet.
    pub fn new(nodes: &Nodes) -> Self {
        Self {
            marks: vec![None; nodes.all().len()],
            is_whole: true,
            ..Self::default()
        }
    }

    /// The mark of a node.
    pub fn of(&self, node: usize) -> Option<Mark> {
        self.marks.get(node).copied().flatten()
    }

    /// Whether the mark of a node may be the end of the block before it.
    pub fn is_by_end(&self, node: usize) -> bool {
        u32::try_from(node).is_ok_and(|node| self.by_end.contains(&node))
    }

    /// Looks up the words that wait for it. What one lookup reads is rarely in the cache, so all is
    /// asked for before any of it is used.
    fn take_candidates(&mut self, nodes: &Nodes) {
        let mut candidates = std::mem::take(&mut self.candidates);
        let touched = candidates.iter().map(|it| nodes.touch(it.word));
        std::hint::black_box(touched.fold(0, |sum, it| sum ^ it));
        let mut found = [None; AT_ONCE];
        for (found, candidate) in found.iter_mut().zip(&candidates) {
            *found = nodes.find(candidate.word);
        }
        let marked = found.iter().flatten().map(|node| self.of(*node).is_some());
        std::hint::black_box(marked.fold(false, |sum, it| sum ^ it));
        for (node, candidate) in found.into_iter().zip(candidates.drain(..)) {
            match node {
                Some(node) => self.take(nodes, node, candidate),
                None => self.stray(nodes, candidate.word, candidate.mark),
            }
        }
        self.candidates = candidates;
    }

    /// Takes a word that leads to a node.
    fn take(&mut self, nodes: &Nodes, node: usize, candidate: Candidate) {
        let Ok(number) = u32::try_from(node) else {
            return;
        };
        let mark = candidate.mark;
        // That it leads to itself does not hold it.
        if mark.holder == Holder::Node(number) {
            return;
        }
        let Some(known @ None) = self.marks.get_mut(node) else {
            return;
        };
        if is_end(nodes, node, candidate.word, candidate.beside) {
            self.ends.entry(number).or_insert(mark);
            return;
        }
        *known = Some(mark);
        self.queue.push(number);
    }

    /// Keeps a word that leads to no node, if it may lead to what is younger.
    fn stray(&mut self, nodes: &Nodes, word: u64, mark: Mark) {
        if !nodes.is_in_heaps(word) {
            return;
        }
        self.has_more_astray |= self.astray.len() >= MAX_ASTRAY;
        if !self.has_more_astray {
            self.astray.push(Astray { word, mark });
        }
    }

    /// Looks again at the words that led astray: where they led to a block that is `young`, and where
    /// they lead by now; and reads all that this leads to. Whether any has changed, or led on.
    pub fn look_again(
        &mut self,
        nodes: &Nodes,
        young: &mut Young<'_>,
        (memory, present): (&dyn Memory, &PageSet),
        budget: &mut Budget,
    ) -> bool {
        let mut astray = std::mem::take(&mut self.astray);
        astray.sort_unstable_by_key(|it| it.mark.word);
        let mut words = Words::new(memory, present);
        let mut has_news = false;
        for it in &mut astray {
            if budget.is_over() {
                self.is_whole = false;
                break;
            }
            let before = it.word;
            // Of a register nothing newer is known.
            it.word = words
                .get(it.mark.word)
                .filter(|_| it.mark.word > 0)
                .unwrap_or(before);
            let mut led = young.lead(nodes, before);
            if it.word != before {
                has_news = true;
                led.extend(nodes.find(it.word));
                led.extend(young.lead(nodes, it.word));
            }
            for node in led {
                if let Some(known @ None) = self.marks.get_mut(node) {
                    *known = Some(it.mark);
                    self.queue.extend(u32::try_from(node));
                    has_news = true;
                }
            }
        }
        self.astray = astray;
        let mut reader = Reader::new(memory);
        self.follow(&mut reader, nodes, present, budget);
        has_news
    }

    /// Gives nodes that nothing else leads to the marks that may be ends.
    fn take_ends(&mut self) {
        for (number, mark) in std::mem::take(&mut self.ends) {
            if let Some(known @ None) = self.marks.get_mut(number as usize) {
                *known = Some(mark);
                self.by_end.insert(number);
                self.queue.push(number);
            }
        }
    }

    /// Reads areas, in this order, and then all that they lead to, as far as pages are in
    /// memory: first of those that are all `in_use`, so many, and then of the others. What
    /// may be left over holds only what nothing else does.
    pub fn spread(
        &mut self,
        nodes: &Nodes,
        (areas, in_use): (&[Range<u64>], usize),
        (memory, present): (&dyn Memory, &PageSet),
        budget: &mut Budget,
    ) {
        let mut reader = Reader::new(memory);
        let numbered: Vec<(u32, &Range<u64>)> = (0..).zip(areas).collect();
        let (first, others) = numbered.split_at(in_use.min(areas.len()));
        for part in [first, others] {
            for (number, area) in part {
                for run in present.runs(area) {
                    let run = run.start.max(area.start)..run.end.min(area.end);
                    self.add(&mut reader, nodes, run, Holder::Area(*number), budget);
                }
            }
            self.read_all(&mut reader, nodes);
            self.follow(&mut reader, nodes, present, budget);
        }
        // What was not read may have better pointers.
        while self.is_whole && !self.ends.is_empty() {
            self.take_ends();
            self.follow(&mut reader, nodes, present, budget);
        }
    }

    /// Reads the nodes that have got marks, and all that these lead to.
    fn follow(
        &mut self,
        reader: &mut Reader<'_>,
        nodes: &Nodes,
        present: &PageSet,
        budget: &mut Budget,
    ) {
        // All that are as far from a root, in order of addresses: so neighbours are read at once,
        // and which of two ways of the same length is told does not depend on chance.
        while !self.queue.is_empty() {
            let mut level = std::mem::take(&mut self.queue);
            level.sort_unstable();
            let mut last = (u64::MAX, false);
            for number in level {
                let node = nodes.all().get(number as usize);
                let range = node.map_or(0..0, |node| node.start..node.end);
                in_memory(present, range, &mut last, |run| {
                    self.add(reader, nodes, run, Holder::Node(number), budget);
                });
            }
            self.read_all(reader, nodes);
        }
    }

    /// Adds a run to what is read next; one that is long comes in pieces.
    fn add(
        &mut self,
        reader: &mut Reader<'_>,
        nodes: &Nodes,
        run: Range<u64>,
        holder: Holder,
        budget: &mut Budget,
    ) {
        let mut at = run.start.next_multiple_of(8);
        let end = run.end / 8 * 8;
        while at < end {
            if budget.is_over() {
                self.is_whole = false;
                self.left += end - at;
                return;
            }
            at = reader.add(at..end, holder);
            if reader.is_full() {
                self.read_all(reader, nodes);
            }
        }
    }

    /// Reads what waits, and takes its words.
    fn read_all(&mut self, reader: &mut Reader<'_>, nodes: &Nodes) {
        reader.read(|piece, bytes, holder| {
            self.read += bytes.len() as u64;
            // What is missing was unmapped meanwhile.
            self.left += (length(piece) - bytes.len()) as u64;
            self.take_all(nodes, bytes, piece.start, holder);
        });
        self.take_candidates(nodes);
    }

    fn take_all(&mut self, nodes: &Nodes, bytes: &[u8], start: u64, holder: Holder) {
        let (words, _) = bytes.as_chunks();
        for ((at, bytes), place) in words.iter().enumerate().zip((start..).step_by(8)) {
            let word = u64::from_le_bytes(*bytes);
            if !nodes.may_have(word) {
                let mark = Mark {
                    holder,
                    word: place,
                };
                self.stray(nodes, word, mark);
                continue;
            }
            self.candidates.push(Candidate {
                word,
                beside: Beside::of(words, at),
                mark: Mark {
                    holder,
                    word: place,
                },
            });
            if self.candidates.len() == AT_ONCE {
                self.take_candidates(nodes);
            }
        }
    }
}

/// Tells the parts of a range that are in memory. Most ranges are within a page, often the `last`
/// one that was looked at.
fn in_memory(
    present: &PageSet,
    range: Range<u64>,
    last: &mut (u64, bool),
    mut tell: impl FnMut(Range<u64>),
) {
    if range.is_empty() {
        return;
    }
    let page = range.start / PAGE;
    if page != (range.end - 1) / PAGE {
        for run in present.runs(&range) {
            tell(run.start.max(range.start)..run.end.min(range.end));
        }
        return;
    }
    if last.0 != page {
        *last = (page, present.has(range.start));
    }
    if last.1 {
        tell(range);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::memory::tests::Written;
    use super::super::nodes::{Node, What};
    use super::*;

    const BASE: u64 = 16 * PAGE;

    fn nodes(count: u64) -> Nodes {
        let node = |number| Node {
            start: BASE + number * 32,
            end: BASE + number * 32 + 24,
            what: What::Traced(0),
        };
        Nodes::new((1..=count).map(node).collect(), Vec::new())
    }

    fn marked(memory: &Written, nodes: &Nodes, time: Duration) -> Marks {
        let mut marks = Marks::new(nodes);
        let present = memory.present();
        let mut budget = Budget::new(time, std::sync::Arc::default());
        let area = BASE..BASE + 32;
        marks.spread(nodes, (&[area], 1), (memory, &present), &mut budget);
        marks
    }

    fn holders(marks: &Marks, count: usize) -> Vec<Option<Holder>> {
        let marks = (0..count).map(|node| marks.of(node).map(|it| it.holder));
        marks.collect()
    }

    #[test]
    fn marks_spread_from_areas_and_cycles_hold_nothing() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        let at = |node: u64| BASE + node * 32;
        // The area leads into the first, the first to the second, which is a list.
        memory.put(BASE + 8, at(1) + 5);
        memory.put(at(1) + 16, at(2));
        memory.put(at(2), at(1));
        // A cycle, one that leads to itself, and a pointer one past the end.
        memory.put(at(3), at(4));
        memory.put(at(4), at(3));
        memory.put(at(5), at(5));
        memory.put(BASE, at(6) + 24);
        let nodes = nodes(6);
        let marks = marked(&memory, &nodes, Duration::MAX);
        let expected = [
            Some(Holder::Area(0)),
            Some(Holder::Node(0)),
            None,
            None,
            None,
            None,
        ];
        assert_eq!(holders(&marks, 6), expected);
        assert_eq!(marks.of(0).unwrap().word, BASE + 8);
        assert!(marks.is_whole && marks.left == 0);
    }

    /// A list whose first element came after the nodes were listed, and one whose first element
    /// was taken off meanwhile.
    #[test]
    fn what_may_be_left_over_holds_what_nothing_else_does() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        let at = |node: u64| BASE + node * 32;
        // The list of the first area, whose third element a word of the second leads to, too.
        memory.put(BASE, at(1));
        memory.put(at(1), at(2));
        memory.put(at(2), at(3));
        memory.put(BASE + 16, at(3));
        memory.put(BASE + 24, at(4));
        let nodes = nodes(4);
        let areas = [BASE..BASE + 16, BASE + 16..BASE + 32];
        let present = memory.present();
        let found = |in_use| {
            let mut marks = Marks::new(&nodes);
            let mut budget = Budget::new(Duration::MAX, std::sync::Arc::default());
            marks.spread(&nodes, (&areas, in_use), (&memory, &present), &mut budget);
            [marks.of(2), marks.of(3)].map(|mark| mark.unwrap().holder)
        };
        assert_eq!(found(1), [Holder::Node(1), Holder::Area(1)]);
        assert_eq!(found(2), [Holder::Area(1), Holder::Area(1)]);
    }

    #[test]
    fn what_came_meanwhile_leads_on() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        let at = |node: u64| BASE + node * 32;
        memory.put(BASE, at(8));
        memory.put(at(8), at(1));
        memory.put(at(1), at(2));
        memory.put(BASE + 8, at(9));
        memory.put(at(3), at(4));
        let heap = BASE..BASE + PAGE;
        let nodes = nodes(4).within(std::slice::from_ref(&heap));
        let mut marks = marked(&memory, &nodes, Duration::MAX);
        assert_eq!(holders(&marks, 4), [None; 4]);
        memory.put(BASE + 8, at(3));
        let young = Node {
            start: at(8),
            end: at(8) + 24,
            what: What::Chunk,
        };
        let present = memory.present();
        let mut young = Young::new(&nodes, &[young], (&memory, &present));
        let mut budget = Budget::new(Duration::MAX, std::sync::Arc::default());
        let seen = (&memory as &dyn Memory, &present);
        assert!(marks.look_again(&nodes, &mut young, seen, &mut budget));
        let expected = [
            Some(Holder::Area(0)),
            Some(Holder::Node(0)),
            Some(Holder::Area(0)),
            Some(Holder::Node(2)),
        ];
        assert_eq!(holders(&marks, 4), expected);
        assert_eq!(marks.of(0).unwrap().word, BASE);
        assert!(!marks.look_again(&nodes, &mut young, seen, &mut budget));
    }

    #[test]
    fn the_shortest_way_is_the_one() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        let at = |node: u64| BASE + node * 32;
        memory.put(BASE, at(1));
        memory.put(BASE + 8, at(4));
        memory.put(at(1), at(2));
        memory.put(at(2), at(3));
        memory.put(at(4), at(3));
        let marks = marked(&memory, &nodes(4), Duration::MAX);
        assert_eq!(marks.of(2).unwrap().holder, Holder::Node(3));
    }

    #[test]
    fn an_end_holds_the_neighbour_if_nothing_else_does() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        let at = |number: u64| BASE + 32 + number * 32;
        let node = |number| Node {
            start: at(number),
            end: at(number) + 32,
            what: What::Traced(0),
        };
        // Two vectors that are full. The neighbour of the first one's buffer is held by nothing
        // else, that of the second one's by a block that is read later.
        for (word, number) in [(0, 1), (1, 2), (2, 2), (4, 3), (5, 4), (6, 4)] {
            memory.put(BASE + word * 8, at(number));
        }
        memory.put(at(1), at(4));
        memory.put(at(2), at(5));
        let nodes = Nodes::new((1..=5).map(node).collect(), Vec::new());
        let mut marks = Marks::new(&nodes);
        let mut budget = Budget::new(Duration::MAX, std::sync::Arc::default());
        let area = BASE..at(1);
        let present = memory.present();
        marks.spread(&nodes, (&[area], 1), (&memory, &present), &mut budget);
        let expected = [
            Some(Holder::Area(0)),
            Some(Holder::Area(0)),
            Some(Holder::Area(0)),
            Some(Holder::Node(0)),
            Some(Holder::Node(1)),
        ];
        assert_eq!(holders(&marks, 5), expected);
        let by_end = (0..5).map(|node| marks.is_by_end(node));
        assert_eq!(
            by_end.collect::<Vec<_>>(),
            [false, true, false, false, false]
        );
    }

    #[test]
    fn a_budget_ends_it_and_what_is_left_is_said() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        memory.put(BASE, BASE + 32);
        let marks = marked(&memory, &nodes(1), Duration::ZERO);
        assert!(!marks.is_whole);
        assert_eq!((marks.of(0), marks.left, marks.read), (None, 32, 0));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        memory.put(BASE, BASE + 2 * PAGE);
        memory.put(BASE + 8, BASE + 32);
        memory.put(BASE + 32, BASE + 64);
        let gone = Node {
            start: BASE + 2 * PAGE,
            end: BASE + 2 * PAGE + 64,
            what: What::Traced(0),
        };
        let others = nodes(2).all().to_vec();
        let nodes = Nodes::new(others.into_iter().chain([gone]).collect(), Vec::new());
        let mut present = memory.present();
        assert!(present.insert(&(BASE..BASE + 4 * PAGE)));
        let mut marks = Marks::new(&nodes);
        let mut budget = Budget::new(Duration::MAX, std::sync::Arc::default());
        let area = BASE..BASE + 32;
        marks.spread(&nodes, (&[area], 1), (&memory, &present), &mut budget);
        assert!(marks.of(2).is_some() && marks.of(1).is_some());
        assert_eq!(marks.left, 64);
    }
}
