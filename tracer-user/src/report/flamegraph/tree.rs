//! Call paths merged into a tree.

use std::collections::HashMap;

use crate::model::name::{Name, Names};
use crate::model::sampling::rounded;
use crate::model::{Frame, Origin, Site, Verdict};
use crate::report::{names, units};

/// Live memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Amount {
    /// Bytes (or what a foreign profile counts).
    pub bytes: u64,
    /// Blocks.
    pub count: u64,
    /// The variance of the bytes, if they are an estimate.
    pub variance: f64,
}

impl Amount {
    /// What is exact.
    pub fn exact(bytes: u64, count: u64) -> Self {
        Self {
            bytes,
            count,
            variance: 0.0,
        }
    }

    /// What is live of a site.
    pub fn live(site: &Site) -> Self {
        Self {
            variance: site.errors.map_or(0.0, |errors| errors.live_bytes.powi(2)),
            ..Self::exact(site.live_bytes, site.live_count)
        }
    }

    /// ` ± 1.02 MiB`, the standard error; nothing if it is exact.
    pub fn error(self) -> String {
        match self.variance > 0.0 {
            true => format!(" ± {}", units::bytes(rounded(self.variance.sqrt().ceil()))),
            false => String::new(),
        }
    }

    /// The sum; saturates.
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            count: self.count.saturating_add(other.count),
            variance: self.variance + other.variance,
        }
    }
}

/// All call paths that share a prefix, at that prefix's last frame.
///
/// A tree has as many nodes as all paths have frames, if they have nothing in
/// common: so a node is small, and everything in it is shared.
#[derive(Debug, Clone)]
pub struct Node {
    /// The frame's name.
    pub label: Name,
    /// The file of its code.
    module: Name,
    /// The code of the merged frames, and the weight of each kind; none for
    /// the root, processes and threads.
    code: Option<(Code, u64)>,
    /// Further kinds of code.
    codes: Vec<(Code, u64)>,
    file: Option<Name>,
    line: Option<u32>,
    /// Live memory of all paths through here in the earlier report; zero
    /// where only one report is drawn.
    pub before: Amount,
    /// Live memory of all paths through here.
    pub after: Amount,
    /// How wide it is drawn: for each path the larger of before and after.
    pub weight: u64,
    /// What was said of the paths, as far as they are judged.
    pub verdicts: Verdicts,
    /// The child that was added last, and the sibling that was added before
    /// this node; 0 is none.
    child: u32,
    sibling: u32,
}

/// Bytes by what was said of their call paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Of those that leak.
    pub leak: u64,
    /// Of those that grow, and may leak.
    pub growing: u64,
    /// Of those that do not grow: plateaus, start-up, batches and churn.
    pub calm: u64,
}

impl Verdicts {
    /// Those of one path.
    pub fn of(verdict: Option<Verdict>, bytes: u64) -> Self {
        let mut verdicts = Self::default();
        match verdict {
            Some(Verdict::Leak) => verdicts.leak = bytes,
            Some(Verdict::Growing) => verdicts.growing = bytes,
            Some(_) => verdicts.calm = bytes,
            None => {}
        }
        verdicts
    }

    fn add(&mut self, other: Self) {
        self.leak = self.leak.saturating_add(other.leak);
        self.growing = self.growing.saturating_add(other.growing);
        self.calm = self.calm.saturating_add(other.calm);
    }
}

/// What kind of code a frame is. The same Java method may be interpreted on
/// one path, compiled on the next, and inlined on a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Where it comes from.
    pub origin: Origin,
    /// Inlined into its caller.
    pub inlined: bool,
}

impl Node {
    fn new(label: Name, module: Name) -> Self {
        Self {
            label,
            module,
            code: None,
            codes: Vec::new(),
            file: None,
            line: None,
            before: Amount::default(),
            after: Amount::default(),
            weight: 0,
            verdicts: Verdicts::default(),
            child: 0,
            sibling: 0,
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

    /// The kind of code that most of the memory went through; `None` for the
    /// root, processes and threads.
    pub fn code(&self) -> Option<Code> {
        let heaviest = self.codes().rev().max_by_key(|(_, weight)| *weight);
        heaviest.map(|(code, _)| *code)
    }

    /// The kinds of code and the weight of each, the first that came first.
    pub fn codes(&self) -> impl DoubleEndedIterator<Item = &(Code, u64)> + Clone {
        self.code.iter().chain(&self.codes)
    }

    fn add_code(&mut self, frame: &Frame, weight: u64) {
        let code = Code {
            origin: frame.origin,
            inlined: frame.inlined,
        };
        let Some(first) = &mut self.code else {
            self.code = Some((code, weight));
            return;
        };
        let mut known = std::iter::once(first).chain(&mut self.codes);
        match known.find(|(other, _)| *other == code) {
            Some((_, sum)) => *sum = sum.saturating_add(weight),
            None => self.codes.push((code, weight)),
        }
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
pub struct Tree {
    /// The root is first; a parent comes before its children.
    nodes: Vec<Node>,
    /// Children by parent, label and module.
    children: HashMap<(usize, usize, usize), u32>,
    texts: Names,
}

impl Default for Tree {
    fn default() -> Self {
        let mut texts = Names::default();
        Self {
            nodes: vec![Node::new(texts.keep("all"), texts.keep(""))],
            children: HashMap::new(),
            texts,
        }
    }
}

impl Tree {
    /// Adds a call path (root first) below its process and thread, as far as
    /// these are named.
    pub fn add(&mut self, roots: &[String], frames: &[Frame], before: Amount, after: Amount) {
        self.add_judged(roots, frames, (before, after), Verdicts::default());
    }

    /// The same of what was live before and after, with what was said of the path.
    pub fn add_judged(
        &mut self,
        roots: &[String],
        frames: &[Frame],
        (before, after): (Amount, Amount),
        verdicts: Verdicts,
    ) {
        let mut at = 0;
        self.nodes[at].add(before, after);
        self.nodes[at].verdicts.add(verdicts);
        for root in roots {
            (at, _) = self.child(at, root, "");
            self.nodes[at].add(before, after);
            self.nodes[at].verdicts.add(verdicts);
        }
        for frame in frames {
            let (label, module) = names::key(frame);
            let is_new;
            (at, is_new) = self.child(at, &label, module);
            let node = &mut self.nodes[at];
            if is_new {
                (node.file, node.line) = (frame.file.clone(), frame.line);
            }
            node.merge_place(frame);
            node.add_code(frame, before.bytes.max(after.bytes));
            node.add(before, after);
            node.verdicts.add(verdicts);
        }
    }

    /// The child of a node, and whether it is new.
    fn child(&mut self, parent: usize, label: &str, module: &str) -> (usize, bool) {
        let (label, module) = (self.texts.keep(label), self.texts.keep(module));
        // A report has fewer frames than that.
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let key = (parent, label.id(), module.id());
        let index = *self.children.entry(key).or_insert(next);
        if index != next {
            return (index as usize, false);
        }
        let mut node = Node::new(label, module);
        node.sibling = std::mem::replace(&mut self.nodes[parent].child, next);
        self.nodes.push(node);
        (index as usize, true)
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
    pub fn children(&self, index: usize) -> Vec<usize> {
        let first = self.nodes[index].child as usize;
        let next = |index: &usize| Some(self.nodes[*index].sibling as usize);
        let siblings = std::iter::successors(Some(first), next);
        let mut children: Vec<usize> = siblings.take_while(|index| *index > 0).collect();
        let name = |index: &usize| {
            let node = &self.nodes[*index];
            (node.label.as_str(), node.module.as_str())
        };
        children.sort_by(|one, other| name(one).cmp(&name(other)));
        children
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
        let amount = |bytes| Amount::exact(bytes, 1);
        let mut tree = Tree::default();
        tree.add(&[], &[main, leaf("a")], amount(5), amount(7));
        tree.add(&[], &[later, leaf("b")], amount(9), amount(2));
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
            .into_iter()
            .map(|child| tree.nodes()[child].label.as_str())
            .collect();
        assert_eq!(labels, ["a", "b"]);
        assert_eq!(tree.root().after.count, 2);
    }

    #[test]
    fn a_method_is_one_box_however_it_was_run() {
        let mut tree = Tree::default();
        let mut add = |origin, inlined, bytes| {
            let mut frame = sample::java("com.acme.Cart.add", "Cart.java", 7, origin);
            frame.inlined = inlined;
            tree.add(&[], &[frame], Amount::default(), Amount::exact(bytes, 1));
        };
        add(Origin::Interpreted, false, 10);
        add(Origin::C1, false, 20);
        add(Origin::C2, true, 15);
        add(Origin::C2, true, 15);
        let cart = &tree.nodes()[1];
        let expected = Code {
            origin: Origin::C2,
            inlined: true,
        };
        assert_eq!(cart.code(), Some(expected));
        let weights: Vec<_> = cart.codes().map(|(_, weight)| *weight).collect();
        assert_eq!(weights, [10, 20, 30]);
        assert_eq!((tree.nodes().len(), tree.root().code()), (2, None));
    }

    #[test]
    fn the_same_name_in_another_module_is_another_frame() {
        let mut tree = Tree::default();
        let one = Amount::exact(1, 1);
        tree.add(&[], &[sample::program("init", "a.cpp", 1, 1)], one, one);
        tree.add(&[], &[sample::library("init", 2)], one, one);
        assert_eq!(tree.children(0).len(), 2);
    }
}
