//! Call paths merged into a tree.

use std::collections::BTreeMap;

use crate::report::model::{Frame, Origin};
use crate::report::names;

/// Live memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes (or what a foreign profile counts).
    pub bytes: u64,
    /// Blocks.
    pub count: u64,
}

impl Amount {
    /// The sum; saturates.
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            count: self.count.saturating_add(other.count),
        }
    }
}

/// All call paths that share a prefix, at that prefix's last frame.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// The frame's name.
    pub label: String,
    /// Where the code comes from; `None` for the root and for processes.
    pub origin: Option<Origin>,
    /// Inlined into its parent.
    pub inlined: bool,
    file: Option<String>,
    line: Option<u32>,
    /// Live memory of all paths through here in the earlier report; zero
    /// where only one report is drawn.
    pub before: Amount,
    /// Live memory of all paths through here.
    pub after: Amount,
    /// How wide it is drawn: for each path the larger of before and after.
    pub weight: u64,
    children: BTreeMap<(String, String), usize>,
}

impl Node {
    fn new(frame: &Frame, label: String) -> Self {
        Self {
            label,
            origin: Some(frame.origin),
            inlined: frame.inlined,
            file: frame.file.clone(),
            line: frame.line,
            ..Self::default()
        }
    }

    /// `file:line`, as far as all merged frames agree on it.
    pub fn place(&self) -> Option<String> {
        let frame = Frame {
            file: self.file.clone(),
            line: self.line,
            ..Frame::default()
        };
        names::place(&frame)
    }

    fn merge_place(&mut self, frame: &Frame) {
        if self.line != frame.line {
            self.line = None;
        }
        if self.file != frame.file {
            (self.file, self.line) = (None, None);
        }
    }

    fn add(&mut self, before: Amount, after: Amount) {
        self.before = self.before.plus(before);
        self.after = self.after.plus(after);
        self.weight = self.weight.saturating_add(before.bytes.max(after.bytes));
    }
}

/// Call paths merged from the root on. Frames merge by function and module.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The root is first; a parent comes before its children.
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node {
                label: "all".into(),
                ..Node::default()
            }],
        }
    }
}

impl Tree {
    /// Adds a call path (root first) below the process, if one is named.
    pub fn add(&mut self, process: Option<&str>, frames: &[Frame], before: Amount, after: Amount) {
        let mut at = 0;
        self.nodes[at].add(before, after);
        if let Some(process) = process {
            let key = (process.to_string(), String::new());
            at = self.child(at, key, || Node {
                label: process.into(),
                ..Node::default()
            });
            self.nodes[at].add(before, after);
        }
        for frame in frames {
            let key = names::key(frame);
            let label = key.0.clone();
            at = self.child(at, key, || Node::new(frame, label));
            self.nodes[at].merge_place(frame);
            self.nodes[at].add(before, after);
        }
    }

    fn child(&mut self, parent: usize, key: (String, String), new: impl FnOnce() -> Node) -> usize {
        let next = self.nodes.len();
        let index = *self.nodes[parent].children.entry(key).or_insert(next);
        if index == next {
            self.nodes.push(new());
        }
        index
    }

    /// The node that all paths go through.
    pub fn root(&self) -> &Node {
        &self.nodes[0]
    }

    /// All nodes, the root first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Indices of a node's children, by name.
    pub fn children(&self, index: usize) -> impl DoubleEndedIterator<Item = usize> {
        self.nodes[index].children.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn shared_prefixes_merge_and_sum() {
        let main = sample::program("main", "main.cpp", 90, 1);
        let later = sample::program("main", "main.cpp", 95, 2);
        let leaf = |name| sample::program(name, "a.cpp", 1, 3);
        let amount = |bytes| Amount { bytes, count: 1 };
        let mut tree = Tree::default();
        tree.add(None, &[main, leaf("a")], amount(5), amount(7));
        tree.add(None, &[later, leaf("b")], amount(9), amount(2));
        let main = &tree.nodes()[1];
        assert_eq!(
            (main.before.bytes, main.after.bytes, main.weight),
            (14, 9, 16)
        );
        assert_eq!(
            main.place().as_deref(),
            Some("/src/leaky/main.cpp"),
            "the lines differ"
        );
        let labels: Vec<_> = tree
            .children(1)
            .map(|child| &tree.nodes()[child].label)
            .collect();
        assert_eq!(labels, ["a", "b"]);
        assert_eq!(tree.root().after.count, 2);
    }

    #[test]
    fn the_same_name_in_another_module_is_another_frame() {
        let mut tree = Tree::default();
        let one = Amount { bytes: 1, count: 1 };
        tree.add(None, &[sample::program("init", "a.cpp", 1, 1)], one, one);
        tree.add(None, &[sample::library("init", 2)], one, one);
        assert_eq!(tree.children(0).count(), 2);
    }
}
