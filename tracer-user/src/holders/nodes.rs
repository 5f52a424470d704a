//! Pieces of memory that pointers may lead to, found by address.

use std::ops::Range;

use super::places::Places;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A traced live block, by the index of its site.
    Traced(u32),
    /// A block that is in use and not traced.
    Chunk,
}

/// A piece of memory: addresses from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// What it is.
    pub what: What,
}

/// A page, as a power of two: the filter has a bit for each.
const PAGE_BITS: u32 = 12;
/// Bits of the filter, as a power of two: 1 MiB.
const FILTER_BITS: u32 = 23;

/// What a heap may grow by while it is searched, bytes.
const GROWTH: u64 = 16 << 20;

/// All nodes of a process, by address; none overlaps another.
#[derive(Debug, Default)]
pub struct Nodes {
    places: Places,
    nodes: Vec<Node>,
    /// From the first one's start to the last one's end: what is text or a small number is not
    /// within.
    span: Range<u64>,
    filter: Vec<u64>,
    /// Where allocators have theirs, in order; and from the first one's start to the last one's end.
    heaps: Vec<Range<u64>>,
    around: Range<u64>,
}

impl Nodes {
    /// In any order. Of two that overlap the second is left out; a traced block comes before
    /// a chunk.
    pub fn new(traced: Vec<Node>, chunks: Vec<Node>) -> Self {
        let traced = disjoint(traced);
        let mut nodes = chunks;
        sort(&mut nodes);
        let mut next = &traced[..];
        nodes.retain(|chunk| {
            while let [first, others @ ..] = next
                && first.end <= chunk.start
            {
                next = others;
            }
            next.first().is_none_or(|first| first.start >= chunk.end)
        });
        nodes.extend(&traced);
        let nodes = disjoint(nodes);
        let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
        for node in &nodes {
            note(&mut filter, node);
        }
        let starts: Vec<u64> = nodes.iter().map(|node| node.start).collect();
        let end = nodes.last().map_or(0, |node| node.end);
        Self {
            places: Places::new(&starts),
            nodes,
            span: starts.first().copied().unwrap_or_default()..end,
            filter,
            heaps: Vec::new(),
            around: 0..0,
        }
    }

    /// The same where allocators whose blocks are all listed have memory: more may have been
    /// allocated since, there and a little behind.
    #[must_use]
    pub fn within(mut self, heaps: &[Range<u64>]) -> Self {
        let grown = |heap: &Range<u64>| heap.start..heap.end.saturating_add(GROWTH);
        let mut all: Vec<_> = heaps.iter().map(grown).collect();
        all.sort_unstable_by_key(|heap| heap.start);
        let mut heaps: Vec<Range<u64>> = Vec::new();
        for heap in all {
            match heaps.last_mut() {
                Some(last) if heap.start <= last.end => last.end = last.end.max(heap.end),
                _ => heaps.push(heap),
            }
        }
        let first = heaps.first().map_or(0, |heap| heap.start);
        let last = heaps.last().map_or(0, |heap| heap.end);
        (self.heaps, self.around) = (heaps, first..last);
        self
    }

    /// Whether an address is where such an allocator may have a block by now.
    pub fn is_in_heaps(&self, address: u64) -> bool {
        if !self.around.contains(&address) {
            return false;
        }
        let after = self.heaps.partition_point(|heap| heap.start <= address);
        let heap = after.checked_sub(1).and_then(|at| self.heaps.get(at));
        heap.is_some_and(|heap| heap.contains(&address))
    }

    /// All of them.
    pub fn all(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that ends where this one begins.
    pub fn right_before(&self, node: usize) -> Option<&Node> {
        let before = self.nodes.get(node.checked_sub(1)?)?;
        (before.end == self.nodes.get(node)?.start).then_some(before)
    }

    /// Whether an address may be in one: most words are none.
    pub fn may_have(&self, address: u64) -> bool {
        let bit = bit_of(address >> PAGE_BITS);
        let word = self.filter.get(bit / 64).copied().unwrap_or_default();
        self.span.contains(&address) && word & (1 << (bit % 64)) != 0
    }

    /// Reads what `find` will, and waits for none of it: what is read for many addresses, one
    /// after the other, comes from memory at the same time.
    pub fn touch(&self, address: u64) -> u64 {
        let guess = self.places.guess(address);
        let node = guess.and_then(|at| self.nodes.get(at));
        node.map_or(0, |node| node.start)
    }

    /// The node that an address is in.
    pub fn find(&self, address: u64) -> Option<usize> {
        if !self.may_have(address) {
            return None;
        }
        let is_above = |at: usize| self.nodes.get(at).is_none_or(|it| it.start > address);
        let at = self.places.up_to(address, is_above).checked_sub(1)?;
        (address < self.nodes.get(at)?.end).then_some(at)
    }
}

/// Enters a node's pages. Of one with more pages than bits all are set.
fn note(filter: &mut [u64], node: &Node) {
    let (first, last) = (node.start >> PAGE_BITS, (node.end - 1) >> PAGE_BITS);
    let most = first.saturating_add((1 << FILTER_BITS) - 1);
    for page in first..=last.min(most) {
        let bit = bit_of(page);
        if let Some(word) = filter.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower bits are the place"
)]
const fn bit_of(page: u64) -> usize {
    page as usize & ((1 << FILTER_BITS) - 1)
}

/// Sorted, without empty ones and those that begin within another.
fn disjoint(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.retain(|node| node.start < node.end);
    sort(&mut nodes);
    let mut end = 0;
    nodes.retain(|node| {
        let is_apart = node.start >= end;
        if is_apart {
            end = node.end;
        }
        is_apart
    });
    nodes
}

/// Allocators' blocks come in long runs that are in order: a stable sort makes use of these.
fn sort(nodes: &mut [Node]) {
    nodes.sort_by_key(|node| (node.start, node.end));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(start: u64, end: u64, what: What) -> Node {
        Node { start, end, what }
    }

    #[test]
    fn pointers_into_blocks_are_found_and_others_are_not() {
        let traced = vec![
            node(0x7000_0000, 0x7000_0010, What::Traced(1)),
            node(0x5000, 0x9000, What::Traced(2)),
        ];
        let nodes = Nodes::new(traced, Vec::new());
        let what = |address| nodes.find(address).map(|at| nodes.all()[at].what);
        assert_eq!(what(0x5000), Some(What::Traced(2)));
        assert_eq!(what(0x8fff), Some(What::Traced(2)));
        assert_eq!(what(0x9000), None, "one past the end");
        assert_eq!(what(0x4fff), None);
        assert_eq!(what(0x7000_000f), Some(What::Traced(1)));
        assert_eq!(what(0x7000_0010), None, "the same page");
        assert_eq!(what(0), None);
        assert_eq!(what(u64::MAX), None);
    }

    #[test]
    fn a_traced_block_comes_before_the_chunk_that_it_is_in() {
        let traced = vec![node(0x1010, 0x1018, What::Traced(7))];
        let chunks = vec![
            node(0x1010, 0x1028, What::Chunk),
            node(0x1030, 0x1048, What::Chunk),
        ];
        let nodes = Nodes::new(traced, chunks);
        let all: Vec<_> = nodes.all().iter().map(|it| (it.start, it.what)).collect();
        assert_eq!(all, [(0x1010, What::Traced(7)), (0x1030, What::Chunk)]);
    }

    #[test]
    fn where_allocators_have_memory_more_may_come() {
        let nodes = Nodes::new(Vec::new(), Vec::new());
        assert!(!nodes.is_in_heaps(0) && !nodes.is_in_heaps(0x5000));
        let heaps = [
            0x7000_0000..0x7100_0000,
            0x5000..0x6000,
            0x7050_0000..0x7060_0000,
        ];
        let nodes = nodes.within(&heaps);
        for (address, is_in) in [
            (0x4fff, false),
            (0x5000, true),
            (0x6000 + GROWTH - 1, true),
            (0x6000 + GROWTH, false),
            (0x70f0_0000, true),
            (u64::MAX, false),
        ] {
            assert_eq!(nodes.is_in_heaps(address), is_in, "{address:x}");
        }
    }

    #[test]
    fn hostile_sizes_are_bounded() {
        let all = node(16, u64::MAX, What::Traced(1));
        let nodes = Nodes::new(vec![all, all, node(5, 5, What::Chunk)], Vec::new());
        assert_eq!(nodes.all().len(), 1);
        assert_eq!(nodes.find(1 << 60), Some(0));
    }
}
