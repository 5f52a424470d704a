//! What leads to a sample of objects: those that point to them, and so on, up to roots. It
//! has a bound, and never is the graph of a whole heap.

use std::collections::{HashMap, HashSet};

use super::classes::ClassId;
use super::handles::Scope;
use super::walk::Place;

/// More objects are not kept.
pub const MAX_NODES: usize = 1 << 18;
/// More holders of one object are not kept, but roots always are.
const MAX_HOLDERS: u32 = 32;
/// More pointers are not kept.
const MAX_EDGES: usize = 1 << 20;
/// Bits of the filter, a power of two.
const FILTER: usize = 1 << 20;

/// What need not be held by anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// A static field, by its class and index.
    Static(usize, u32),
    /// A living thread, by its index in a list of them.
    Thread(usize),
    /// A class loader of that class.
    Loader(usize),
    /// A class, as an object.
    Mirror(usize),
    /// A handle that native code has.
    Handle(Scope),
    /// The stack of a thread, by its index.
    Stack(usize),
}

/// An object, or a root.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Where it is; of a static field the field's address.
    pub address: u64,
    /// Its class; of a stack none.
    pub class: Option<ClassId>,
    /// What root it is.
    pub root: Option<Root>,
    holders: u32,
}

/// A pointer from one node to another.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// Who points.
    pub from: u32,
    /// To what.
    pub to: u32,
    /// Where in it.
    pub place: Place,
}

/// What was found.
pub struct Graph {
    /// All objects and roots; the sample comes first.
    pub nodes: Vec<Node>,
    /// All pointers.
    pub edges: Vec<Edge>,
    by_address: HashMap<u64, u32>,
    /// The pointers' ends: each pass comes to all of them again.
    known: HashSet<(u32, u32)>,
    filter: Vec<u64>,
    /// Whether anything was left out.
    pub is_full: bool,
}

impl Graph {
    /// Nothing is sought yet.
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            edges: Vec::new(),
            by_address: HashMap::new(),
            known: HashSet::new(),
            filter: vec![0; FILTER / 64],
            is_full: false,
        }
    }

    /// Whether something that points here is sought.
    pub fn is_sought(&self, address: u64) -> bool {
        let (word, bit) = place(address);
        self.filter[word] & bit != 0
            && self
                .by_address
                .get(&address)
                .and_then(|index| self.nodes.get(*index as usize))
                .is_some_and(|node| node.root.is_none())
    }

    /// Adds an object, whose holders are sought from now on if it is no root; its index, if
    /// there is room.
    pub fn add(&mut self, address: u64, class: Option<ClassId>, root: Option<Root>) -> Option<u32> {
        if let Some(known) = self.by_address.get(&address) {
            return Some(*known);
        }
        let index = u32::try_from(self.nodes.len()).ok()?;
        if self.nodes.len() >= MAX_NODES {
            self.is_full = true;
            return None;
        }
        self.nodes.push(Node {
            address,
            class,
            root,
            holders: 0,
        });
        self.by_address.insert(address, index);
        if root.is_none() {
            let (word, bit) = place(address);
            self.filter[word] |= bit;
        }
        Some(index)
    }

    /// Notes that an object or root points to one that is sought. Whether that is news.
    pub fn hold(
        &mut self,
        (address, class, root): (u64, Option<ClassId>, Option<Root>),
        at: Place,
        to: u64,
    ) -> bool {
        let Some(to) = self.by_address.get(&to).copied() else {
            return false;
        };
        let known = self.by_address.get(&address);
        if known.is_some_and(|from| self.known.contains(&(*from, to))) {
            return false;
        }
        let held = &mut self.nodes[to as usize];
        if root.is_none() && held.holders >= MAX_HOLDERS || self.edges.len() >= MAX_EDGES {
            self.is_full = true;
            return false;
        }
        held.holders += 1;
        let is_new = !self.by_address.contains_key(&address);
        let Some(from) = self.add(address, class, root) else {
            return false;
        };
        let edge = Edge {
            from,
            to,
            place: at,
        };
        self.edges.push(edge);
        self.known.insert((from, to));
        is_new
    }

    /// For each node the pointer by which a shortest way from a root comes to it.
    pub fn ways(&self) -> Vec<Option<usize>> {
        let mut out: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, edge) in self.edges.iter().enumerate() {
            out[edge.from as usize].push(index);
        }
        let mut roots: Vec<_> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((node.root?, node.address, index)))
            .collect();
        roots.sort_unstable();
        let mut ways = vec![None; self.nodes.len()];
        let mut layer: Vec<usize> = roots.into_iter().map(|(_, _, index)| index).collect();
        while !layer.is_empty() {
            let mut next = Vec::new();
            for edge in layer.iter().flat_map(|node| &out[*node]) {
                let to = self.edges[*edge].to as usize;
                if ways[to].is_none() && self.nodes[to].root.is_none() {
                    ways[to] = Some(*edge);
                    next.push(to);
                }
            }
            layer = next;
        }
        ways
    }

    /// The pointers from a root to a node, root first, by what [`ways`](Self::ways) says;
    /// none if no root is known.
    pub fn way(&self, ways: &[Option<usize>], node: usize) -> Option<Vec<Edge>> {
        let (mut at, mut edges) = (node, Vec::new());
        while self.nodes.get(at)?.root.is_none() {
            let edge = self.edges.get((*ways.get(at)?)?)?;
            edges.push(*edge);
            at = edge.from as usize;
        }
        edges.reverse();
        Some(edges)
    }
}

/// The filter's word and bit of an address: objects begin each 8 bytes.
const fn place(address: u64) -> (usize, u64) {
    let hash = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let bit = hash as usize % FILTER;
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_from_a_root_is_found() {
        let mut graph = Graph::new();
        let sample = graph.add(0x100, None, None).unwrap() as usize;
        assert!(graph.is_sought(0x100) && !graph.is_sought(0x108));
        // Held by a list of three from a thread, and by another object of a static field.
        for (from, to) in [(0x200, 0x100), (0x208, 0x200), (0x300, 0x100)] {
            assert!(graph.hold((from, None, None), Place::Element, to));
        }
        let ways = graph.ways();
        assert!(graph.way(&ways, sample).is_none());
        graph.hold((0x400, None, Some(Root::Thread(0))), Place::Field(0), 0x208);
        let ways = graph.ways();
        assert_eq!(graph.way(&ways, sample).unwrap().len(), 3);
        graph.hold((0x500, None, Some(Root::Loader(0))), Place::Field(0), 0x300);
        let ways = graph.ways();
        let way = graph.way(&ways, sample).unwrap();
        let root = graph.nodes[way[0].from as usize].root;
        assert_eq!((way.len(), root), (2, Some(Root::Loader(0))));
        assert!(!graph.is_sought(0x500), "nobody asks who holds a root");
    }

    #[test]
    fn circles_end_and_many_holders_are_left_out_but_for_roots() {
        let mut graph = Graph::new();
        let sample = graph.add(0x100, None, None).unwrap() as usize;
        graph.hold((0x100, None, None), Place::Element, 0x100);
        for holder in 1..100 {
            graph.hold((0x1000 + 8 * holder, None, None), Place::Element, 0x100);
        }
        assert!(graph.is_full && graph.edges.len() == 32);
        graph.hold((0x1008, None, None), Place::Element, 0x100);
        assert_eq!(graph.edges.len(), 32, "it is known already");
        assert!(graph.way(&graph.ways(), sample).is_none());
        graph.hold((0x900, None, Some(Root::Mirror(0))), Place::Element, 0x100);
        assert_eq!(graph.way(&graph.ways(), sample).unwrap().len(), 1);
    }
}
