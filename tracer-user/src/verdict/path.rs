//! Call paths by the names of their functions, root first.

use crate::model::{Frame, Site};
use crate::report::names;
use crate::report::own::own_part;

/// The names of frames.
pub fn labels(frames: &[Frame]) -> Vec<String> {
    let label = |frame| names::label(frame).into_owned();
    frames.iter().map(label).collect()
}

/// The same down to the last of the program's own functions: by which of an allocator's
/// functions, and at which of its lines, that asks for memory does not tell leaks apart.
pub fn own(frames: &[Frame]) -> Vec<String> {
    labels(own_part(frames))
}

/// The same of a site, as numbers that names have for this run.
pub fn hashes(site: &Site) -> Vec<u64> {
    let frames = names::drawn_frames(site);
    let number = |frame: &Frame| match (&frame.function, &frame.file) {
        // Functions of two files may have one name, and of one file many none.
        (Some(name), Some(file)) if frame.origin.is_script() => {
            let line = match names::is_anonymous(frame) {
                true => u64::from(frame.line.unwrap_or(0)),
                false => 0,
            };
            name.text_hash() ^ file.text_hash().rotate_left(1) ^ line << 32
        }
        (Some(name), _) => name.text_hash(),
        (None, _) => frame.address,
    };
    own_part(&frames).iter().map(number).collect()
}

/// A site at the end of its path.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// Its [`hashes`].
    pub path: Vec<u64>,
    /// Its index.
    pub site: usize,
}

impl Leaf {
    /// The site with this index.
    pub fn of(sites: &[Site], index: usize) -> Self {
        Self {
            path: hashes(&sites[index]),
            site: index,
        }
    }
}

/// What is below a node of the call tree.
#[derive(Debug, PartialEq, Eq)]
pub enum Branch<'a> {
    /// A site that ends there, or has a way of its own from there on.
    Site(usize),
    /// Several that go on alike.
    Node(&'a [Leaf]),
}

/// How many names lead to the node where these leaves part, and what is below it. The leaves
/// are in order, and have `depth` names in common at least.
pub fn branches(leaves: &[Leaf], mut depth: usize) -> (usize, Vec<Branch<'_>>) {
    let next = |leaf: &Leaf, depth: usize| leaf.path.get(depth).copied();
    while let [first, .., last] = leaves
        && next(first, depth).is_some()
        && next(first, depth) == next(last, depth)
    {
        depth += 1;
    }
    let mut branches = Vec::new();
    for run in leaves.chunk_by(|one, other| next(one, depth) == next(other, depth)) {
        if run.len() == 1 || next(&run[0], depth).is_none() {
            branches.extend(run.iter().map(|leaf| Branch::Site(leaf.site)));
        } else {
            branches.push(Branch::Node(run));
        }
    }
    (depth, branches)
}

/// The names that all paths begin with; none if there is no path.
pub fn common(mut paths: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut common = paths.next().unwrap_or_default();
    for path in paths {
        let same = common.iter().zip(&path).take_while(|(a, b)| a == b);
        let length = same.count();
        common.truncate(length);
    }
    common
}
