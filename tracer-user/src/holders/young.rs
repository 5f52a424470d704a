//! Blocks that were allocated while memory was searched. The first element of a list may be one: no
//! block that was known led to the others then, and all of the list would seem to be lost.

use std::collections::HashSet;
use std::ops::Range;

use super::memory::{Memory, Words};
use super::nodes::{Node, Nodes};
use crate::process::resident::PageSet;

/// Bytes of such blocks that are read, all together: 64 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// Blocks that were not there when the nodes were listed.
pub struct Young<'a> {
    words: Words<'a>,
    /// In order.
    blocks: Vec<Range<u64>>,
    /// Those that were gone through.
    seen: HashSet<usize>,
    /// Bytes that may still be read.
    room: u64,
}

impl<'a> Young<'a> {
    /// Those of an allocator's blocks that are none of the nodes; `present` is what is in memory by
    /// now.
    pub fn new(
        nodes: &Nodes,
        chunks: &[Node],
        (memory, present): (&'a dyn Memory, &'a PageSet),
    ) -> Self {
        let is_known = |chunk: &&Node| {
            let known = nodes.find(chunk.start).and_then(|at| nodes.all().get(at));
            known.is_some_and(|known| known.start == chunk.start)
        };
        let young = chunks.iter().filter(|chunk| !is_known(chunk));
        let mut blocks: Vec<_> = young.map(|chunk| chunk.start..chunk.end).collect();
        blocks.sort_unstable_by_key(|block| block.start);
        Self {
            words: Words::new(memory, present),
            blocks,
            seen: HashSet::new(),
            room: MAX_BYTES,
        }
    }

    fn find(&self, address: u64) -> Option<usize> {
        let after = self.blocks.partition_point(|block| block.start <= address);
        let at = after.checked_sub(1)?;
        self.blocks.get(at)?.contains(&address).then_some(at)
    }

    /// The nodes that a word leads to through such blocks alone, which count once.
    pub fn lead(&mut self, nodes: &Nodes, word: u64) -> Vec<usize> {
        let mut led = Vec::new();
        let mut todo: Vec<usize> = self.find(word).into_iter().collect();
        while let Some(at) = todo.pop() {
            let Some(block) = self.blocks.get(at).filter(|_| self.seen.insert(at)) else {
                continue;
            };
            let block = block.start.next_multiple_of(8)..block.end / 8 * 8;
            let Some(room) = self.room.checked_sub(block.end.saturating_sub(block.start)) else {
                continue;
            };
            self.room = room;
            for place in block.step_by(8) {
                let word = self.words.get(place).unwrap_or(0);
                match nodes.find(word) {
                    Some(node) => led.push(node),
                    None => todo.extend(self.find(word)),
                }
            }
        }
        led
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Written;
    use super::super::nodes::What;
    use super::*;
    use crate::process::pagemap::PAGE;

    #[test]
    fn young_blocks_lead_to_older_ones_once() {
        let base = 16 * PAGE;
        let node = |number: u64| Node {
            start: base + number * 32,
            end: base + number * 32 + 24,
            what: What::Chunk,
        };
        let mut memory = Written::new(base..base + PAGE);
        // 3 is young and leads to 4, which is too; that leads to 1 and back.
        memory.put(node(3).start + 8, node(4).start);
        memory.put(node(4).start, node(1).start + 4);
        memory.put(node(4).start + 16, node(3).start);
        let present = memory.present();
        let nodes = Nodes::new(Vec::new(), vec![node(1), node(2)]);
        let chunks = [node(4), node(1), node(3)];
        let mut young = Young::new(&nodes, &chunks, (&memory, &present));
        let led = [node(2).start, node(3).start + 8, node(4).start];
        let led = led.map(|word| young.lead(&nodes, word));
        assert_eq!(led, [vec![], vec![0], vec![]]);
    }
}
