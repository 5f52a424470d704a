//! Marking: which nodes words lead to, from areas on.

use std::ops::Range;

use super::budget::Budget;
use super::memory::{Memory, length};
use super::nodes::Nodes;
use super::reader::Reader;
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

/// What was found.
#[derive(Debug, Default)]
pub struct Marks {
    /// Of each node.
    marks: Vec<Option<Mark>>,
    /// Nodes whose words are to be read next.
    queue: Vec<u32>,
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

    /// Takes a word that was found.
    pub fn take(&mut self, nodes: &Nodes, word: u64, mark: Mark) {
        let Some(node) = nodes.find(word) else {
            return;
        };
        let Ok(number) = u32::try_from(node) else {
            return;
        };
        // That it leads to itself does not hold it.
        if mark.holder == Holder::Node(number) {
            return;
        }
        if let Some(known @ None) = self.marks.get_mut(node) {
            *known = Some(mark);
            self.queue.push(number);
        }
    }

    /// Reads areas, in this order, and then all that they lead to, as far as pages are in
    /// memory.
    pub fn spread(
        &mut self,
        nodes: &Nodes,
        areas: &[Range<u64>],
        (memory, present): (&dyn Memory, &PageSet),
        budget: &mut Budget,
    ) {
        let mut reader = Reader::new(memory);
        for (number, area) in (0..).zip(areas) {
            for run in present.runs(area) {
                let run = run.start.max(area.start)..run.end.min(area.end);
                self.add(&mut reader, nodes, run, Holder::Area(number), budget);
            }
        }
        self.read_all(&mut reader, nodes);
        // All that are as far from a root, in order of addresses: so neighbours are read at once,
        // and which of two ways of the same length is told does not depend on chance.
        while !self.queue.is_empty() {
            let mut level = std::mem::take(&mut self.queue);
            level.sort_unstable();
            let mut last = (u64::MAX, false);
            for number in level {
                let node = nodes.all().get(number as usize);
                let range = node.map_or(0..0, |node| node.start..node.end);
                for run in in_memory(present, range, &mut last) {
                    self.add(&mut reader, nodes, run, Holder::Node(number), budget);
                }
            }
            self.read_all(&mut reader, nodes);
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
    }

    fn take_all(&mut self, nodes: &Nodes, bytes: &[u8], start: u64, holder: Holder) {
        let (words, _) = bytes.as_chunks();
        for (at, word) in (start..).step_by(8).zip(words) {
            let word = u64::from_le_bytes(*word);
            self.take(nodes, word, Mark { holder, word: at });
        }
    }
}

/// The parts of a range that are in memory. Most ranges are within a page, often the `last` one
/// that was looked at.
fn in_memory(present: &PageSet, range: Range<u64>, last: &mut (u64, bool)) -> Vec<Range<u64>> {
    if range.is_empty() {
        return Vec::new();
    }
    if range.start / PAGE == (range.end - 1) / PAGE {
        let page = range.start / PAGE;
        if last.0 != page {
            *last = (page, present.has(range.start));
        }
        return match last.1 {
            true => vec![range],
            false => Vec::new(),
        };
    }
    let runs = present.runs(&range).into_iter();
    runs.map(|run| run.start.max(range.start)..run.end.min(range.end))
        .collect()
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
        let mut budget = Budget::new(time);
        let area = BASE..BASE + 32;
        marks.spread(nodes, &[area], (memory, &present), &mut budget);
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
        let mut budget = Budget::new(Duration::MAX);
        let area = BASE..BASE + 32;
        marks.spread(&nodes, &[area], (&memory, &present), &mut budget);
        assert!(marks.of(2).is_some() && marks.of(1).is_some());
        assert_eq!(marks.left, 64);
    }
}
