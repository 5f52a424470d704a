//! Profiles as one call tree, in which paths of equal names are one and the values of
//! several profiles are added up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, Result};
use prost::Message;

use super::proto;
use super::read::Reader;
use crate::report::names;

/// Values that a node has at most, side by side.
pub const COLUMNS: usize = 2;
/// The node that stands for all.
const ROOT: u32 = 0;

/// A node: a call path by its last function.
#[derive(Debug, Default)]
struct Node {
    parent: u32,
    name: u32,
    /// What is of this path itself.
    own: [i64; COLUMNS],
}

/// A call tree. A node stands after its parent.
#[derive(Debug)]
pub struct Tree {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    nodes: Vec<Node>,
    /// By parent and name.
    children: HashMap<(u32, u32), u32>,
}

/// A call tree as it is told. A node is an index into `parents`, `functions` and each of
/// `values`; the first is the root, and all others stand after their parent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// All functions.
    pub names: Vec<String>,
    /// The caller of each node; the root is its own.
    pub parents: Vec<u32>,
    /// Index into `names` of each node.
    pub functions: Vec<u32>,
    /// For each column, what there is at each node and at all that it calls.
    pub values: [Vec<i64>; COLUMNS],
    /// Nodes that are left out: the smallest. Their values are in those of their callers.
    pub left_out: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            names: vec![String::new()],
            numbers: HashMap::new(),
            nodes: vec![Node::default()],
            children: HashMap::new(),
        }
    }
}

impl Tree {
    /// Adds the values of a sample type of a profile, which is not compressed, to a column;
    /// `sign` is 1 or -1.
    ///
    /// # Errors
    /// It is no profile, refers to what it does not contain, or has no such sample type.
    pub fn add(&mut self, bytes: &[u8], kind: &str, column: usize, sign: i64) -> Result<()> {
        let profile = proto::Profile::decode(bytes)?;
        let reader = Reader::new(&profile)?;
        let value = reader.sample_type(kind);
        let value = value.with_context(|| format!("the profile has no {kind}"))?;
        let mut known = HashMap::new();
        for sample in &profile.sample {
            let amount = sample.value.get(value).context("a sample lacks a value")?;
            if *amount == 0 {
                continue;
            }
            let mut node = ROOT;
            for (depth, id) in sample.location_id.iter().enumerate().rev() {
                let place = (*id, depth == 0);
                let functions = match known.entry(place) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(self.functions(&reader, place)?),
                };
                for name in functions {
                    node = self.child(node, *name)?;
                }
            }
            let own = &mut self.nodes[node as usize].own[column];
            *own = own.saturating_add(amount.saturating_mul(sign));
        }
        Ok(())
    }

    /// The functions at a location, outermost first.
    fn functions(&mut self, reader: &Reader<'_>, (id, leaf): (u64, bool)) -> Result<Vec<u32>> {
        let mut frames = Vec::new();
        reader.add_location(&mut frames, id, leaf)?;
        let labels = frames.iter().map(names::label);
        labels.map(|label| self.name(&label)).collect()
    }

    fn name(&mut self, name: &str) -> Result<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = u32::try_from(self.names.len())?;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }

    fn child(&mut self, parent: u32, name: u32) -> Result<u32> {
        let next = u32::try_from(self.nodes.len())?;
        let child = *self.children.entry((parent, name)).or_insert(next);
        if child == next {
            self.nodes.push(Node {
                parent,
                name,
                own: [0; COLUMNS],
            });
        }
        Ok(child)
    }

    /// What there is at a path, root first, and at all that it calls; 0 where there is none.
    pub fn at(&self, path: &[String]) -> [i64; COLUMNS] {
        let mut node = ROOT;
        for name in path {
            let child = self.numbers.get(name);
            match child.and_then(|name| self.children.get(&(node, *name))) {
                Some(child) => node = *child,
                None => return [0; COLUMNS],
            }
        }
        let sums = self.sums(|own| own);
        sums[node as usize]
    }

    /// For each node the sum of what is made of its own values and of those below it.
    fn sums(&self, of: impl Fn([i64; COLUMNS]) -> [i64; COLUMNS]) -> Vec<[i64; COLUMNS]> {
        let mut sums: Vec<_> = self.nodes.iter().map(|node| of(node.own)).collect();
        for index in (1..self.nodes.len()).rev() {
            let below = sums[index];
            let sum = &mut sums[self.nodes[index].parent as usize];
            for (sum, below) in sum.iter_mut().zip(below) {
                *sum = sum.saturating_add(below);
            }
        }
        sums
    }

    /// What is to be told of it: at most so many nodes, the largest, and none at which there
    /// is nothing.
    pub fn told(&self, most: usize) -> Told {
        let sums = self.sums(|own| own);
        // A caller has at least as much of it as what it calls.
        let sizes = self.sums(|own| own.map(i64::saturating_abs));
        let size = |node: &usize| sizes[*node].iter().copied().fold(0, i64::saturating_add);
        let mut kept: Vec<usize> = (0..self.nodes.len())
            .filter(|node| *node == 0 || size(node) > 0)
            .collect();
        let all = kept.len();
        kept.sort_by_key(|node| (std::cmp::Reverse(size(node)), *node));
        kept.truncate(most.max(1));
        kept.sort_unstable();
        self.tell(&kept, &sums, all - kept.len())
    }

    fn tell(&self, kept: &[usize], sums: &[[i64; COLUMNS]], left_out: usize) -> Told {
        let mut told = Told {
            left_out,
            ..Told::default()
        };
        let mut places = vec![0; self.nodes.len()];
        let mut numbers = HashMap::new();
        for (place, index) in (0..).zip(kept) {
            let node = &self.nodes[*index];
            places[*index] = place;
            told.parents.push(places[node.parent as usize]);
            let next = u32::try_from(told.names.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(node.name).or_insert(next);
            if number == next {
                told.names.push(self.names[node.name as usize].clone());
            }
            told.functions.push(number);
            for (values, sum) in told.values.iter_mut().zip(sums[*index]) {
                values.push(sum);
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::model::Report;
    use crate::report::pprof::{INUSE_SPACE, write};
    use crate::report::sample;

    fn profile(report: &Report) -> Vec<u8> {
        let (mut file, mut bytes) = (Vec::new(), Vec::new());
        write(report, &mut file).unwrap();
        let mut unpacked = GzDecoder::new(file.as_slice());
        unpacked.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn path(report: &Report, site: usize) -> Vec<String> {
        let frames = report.sites[site].frames.iter();
        frames.map(|it| names::label(it).into_owned()).collect()
    }

    fn signed(bytes: u64) -> i64 {
        i64::try_from(bytes).unwrap()
    }

    #[test]
    fn all_bytes_are_at_the_root_and_each_path_has_its_own() {
        let report = sample::report();
        let mut tree = Tree::default();
        tree.add(&profile(&report), INUSE_SPACE, 0, 1).unwrap();
        let all: u64 = report.sites.iter().map(|site| site.live_bytes).sum();
        assert_eq!(tree.at(&[]), [signed(all), 0]);
        let first = path(&report, 0);
        assert_eq!(tree.at(&first)[0], signed(report.sites[0].live_bytes));
        let told = tree.told(1000);
        assert_eq!(told.values[0][0], signed(all));
        assert_eq!(told.left_out, 0);
        for (node, parent) in told.parents.iter().enumerate().skip(1) {
            assert!((*parent as usize) < node, "{node} stands before {parent}");
        }
        assert!(tree.add(b"no", INUSE_SPACE, 0, 1).is_err());
        assert!(tree.add(&profile(&report), "goroutines", 0, 1).is_err());
    }

    #[test]
    fn a_range_is_what_came_and_may_be_below_zero() {
        let before = sample::report();
        let mut after = before.clone();
        after.sites[0].live_bytes += 7919;
        let gone = after.sites.remove(1);
        let mut tree = Tree::default();
        tree.add(&profile(&after), INUSE_SPACE, 1, 1).unwrap();
        tree.add(&profile(&before), INUSE_SPACE, 1, -1).unwrap();
        assert_eq!(tree.at(&path(&before, 0)), [0, 7919]);
        assert_eq!(tree.at(&path(&before, 1)), [0, -signed(gone.live_bytes)]);
        assert_eq!(tree.at(&["nobody".to_owned()]), [0, 0]);
        // What has not changed is not told.
        let told = tree.told(1000);
        let changed = [path(&before, 0), path(&before, 1)].concat();
        let unchanged = path(&before, 2);
        assert!(unchanged.iter().any(|name| !changed.contains(name)));
        for name in &told.names[1..] {
            assert!(changed.contains(name), "{name} of {told:?}");
        }
    }

    #[test]
    fn beyond_the_bound_the_smallest_are_left_out_and_counted() {
        let report = sample::report();
        let mut tree = Tree::default();
        tree.add(&profile(&report), INUSE_SPACE, 0, 1).unwrap();
        let all = tree.told(1000);
        let few = tree.told(4);
        assert_eq!(few.parents.len(), 4);
        assert_eq!(few.left_out, all.parents.len() - 4);
        assert_eq!(few.values[0][0], all.values[0][0]);
        for (node, parent) in few.parents.iter().enumerate().skip(1) {
            assert!((*parent as usize) < node, "a caller was left out");
        }
    }
}
