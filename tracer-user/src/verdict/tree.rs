//! Which nodes of the call tree a growth is told of: the deepest ones that have most of it.
//! So a leak that is spread over a hundred leaves is one, and two that have `main` in
//! common are two.

use std::cmp::Ordering;

/// One path of the tree, and how much it grows.
#[derive(Debug, Clone)]
pub struct Branch<'a> {
    /// Names, root first.
    pub path: Vec<&'a str>,
    /// How many of the names there are down to the last that is the program's own and no
    /// library's: what a library does for one call of it is one thing, in as many functions of
    /// its own as it likes. 0 if that says nothing.
    pub own: usize,
    /// How many of the names, from the root on, are of no function: why the stack ends there.
    pub cut: usize,
    /// By how much it grows, in any unit.
    pub weight: f64,
    /// The site.
    pub site: usize,
}

/// A node, and all that grows below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// How many names of their paths the sites have in common.
    pub depth: usize,
    /// The sites, heaviest first.
    pub sites: Vec<usize>,
    /// What they grow by together.
    pub weight: f64,
}

/// A part of all growth that is worth a node of its own.
const WORTH: f64 = 0.01;
/// A node is told by its children if these parts of it have so much of its growth.
const MOST: f64 = 0.8;
/// ... and are not more than this.
const FEW: usize = 8;

/// The nodes that growth is told of, heaviest first: each branch is below one at most.
pub fn nodes(mut branches: Vec<Branch<'_>>) -> Vec<Node> {
    branches.sort_by(|a, b| a.path.cmp(&b.path));
    let all: f64 = branches.iter().map(|branch| branch.weight).sum();
    let mut found = Vec::new();
    let mut open = vec![(&branches[..], 0)];
    open.retain(|(branches, _)| !branches.is_empty());
    while let Some((branches, depth)) = open.pop() {
        let children = children(branches, depth);
        if let [(child, true)] = children[..] {
            open.push((child, depth + 1));
            continue;
        }
        let weight = sum(branches);
        if branches.iter().all(|it| (1..=depth).contains(&it.own)) {
            found.push(node(branches, depth, weight));
            continue;
        }
        let worth = children
            .iter()
            .filter(|(child, _)| sum(child) >= WORTH * all);
        let worth: Vec<_> = worth.collect();
        let told: f64 = worth.iter().map(|(child, _)| sum(child)).sum();
        let goes_on = worth.iter().any(|(_, goes_on)| *goes_on);
        if goes_on && worth.len() <= FEW && told >= MOST * weight {
            open.extend(worth.iter().map(|(child, goes_on)| match goes_on {
                true => (*child, depth + 1),
                false => (*child, depth),
            }));
            continue;
        }
        // That their stacks end for one reason is nothing that they have in common.
        if depth > 0 && branches.iter().all(|it| depth <= it.cut) {
            let mut rest: Vec<Branch> = Vec::new();
            for (child, goes_on) in children {
                match goes_on && sum(child) >= WORTH * all {
                    true => open.push((child, depth + 1)),
                    false => rest.extend(child.iter().cloned()),
                }
            }
            if !rest.is_empty() {
                found.push(node(&rest, depth, sum(&rest)));
            }
            continue;
        }
        found.push(node(branches, depth, weight));
    }
    found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    found
}

/// Branches that have the next name in common, and whether they have one: those that
/// end here are together.
fn children<'b, 'a>(branches: &'b [Branch<'a>], depth: usize) -> Vec<(&'b [Branch<'a>], bool)> {
    let next = |branch: &Branch<'a>| branch.path.get(depth).copied();
    let runs = branches.chunk_by(|one, other| next(one) == next(other));
    runs.map(|run| {
        (
            run,
            run.first().is_some_and(|branch| next(branch).is_some()),
        )
    })
    .collect()
}

fn sum(branches: &[Branch<'_>]) -> f64 {
    branches.iter().map(|branch| branch.weight).sum()
}

fn node(branches: &[Branch<'_>], depth: usize, weight: f64) -> Node {
    let mut sorted: Vec<_> = branches.iter().collect();
    sorted.sort_by(|a, b| {
        let order = b.weight.total_cmp(&a.weight);
        order.then_with(|| match a.site < b.site {
            true => Ordering::Less,
            false => Ordering::Greater,
        })
    });
    Node {
        depth,
        sites: sorted.iter().map(|branch| branch.site).collect(),
        weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(branches: &[(&'static str, f64)]) -> Vec<(usize, Vec<usize>)> {
        let branches = branches.iter().enumerate();
        let branches = branches.map(|(site, (path, weight))| Branch {
            path: path.split(' ').collect(),
            own: 0,
            cut: 0,
            weight: *weight,
            site,
        });
        let nodes = nodes(branches.collect());
        nodes.into_iter().map(|it| (it.depth, it.sites)).collect()
    }

    #[test]
    fn one_path_is_told_whole() {
        assert_eq!(found(&[("main serve keep malloc", 5.0)]), [(4, vec![0])]);
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn two_leaks_are_two_and_little_ones_are_left() {
        let nodes = found(&[
            ("main serve keep malloc", 50.0),
            ("main poll cache malloc", 45.0),
            ("main log malloc", 0.5),
        ]);
        assert_eq!(nodes, [(4, vec![0]), (4, vec![1])]);
    }

    #[test]
    fn a_leak_of_many_leaves_is_one() {
        let names: Vec<String> = (0..100)
            .map(|leaf| format!("main pack f{leaf} malloc"))
            .collect();
        let branches = names.iter().enumerate().map(|(site, name)| Branch {
            path: name.split(' ').collect(),
            own: 0,
            cut: 0,
            weight: 1.0,
            site,
        });
        let nodes = nodes(branches.collect());
        assert_eq!((nodes.len(), nodes[0].depth), (1, 2));
        assert_eq!(nodes[0].sites.len(), 100);
    }

    #[test]
    fn what_a_library_does_for_one_caller_is_one() {
        let paths = [
            "main accept new session",
            "main accept new buffer",
            "main accept shake",
        ];
        let branch = |(site, path): (usize, &&'static str)| Branch {
            path: path.split(' ').collect(),
            own: 2,
            cut: 0,
            weight: 10.0,
            site,
        };
        let of_one = |others: &[Branch<'static>]| {
            let branches = paths.iter().enumerate().map(branch);
            nodes(branches.chain(others.iter().cloned()).collect())
        };
        let found = of_one(&[]);
        assert_eq!(
            (found.len(), found[0].depth, found[0].sites.len()),
            (1, 2, 3)
        );
        // Another caller's are another finding.
        let found = of_one(&[Branch {
            path: vec!["main", "poll", "new"],
            own: 2,
            cut: 0,
            weight: 10.0,
            site: 3,
        }]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn stacks_that_end_for_one_reason_have_nothing_in_common() {
        let names: Vec<String> = (0..20).map(|leaf| format!("[no] f{leaf}")).collect();
        let branches = |cut: usize| {
            let branches = names.iter().enumerate().map(|(site, name)| Branch {
                path: name.split(' ').collect(),
                own: 0,
                cut,
                // The last ones are little.
                weight: if site < 15 { 10.0 } else { 0.1 },
                site,
            });
            nodes(branches.collect())
        };
        assert_eq!(branches(0).len(), 1);
        let found = branches(1);
        let sizes: Vec<usize> = found.iter().map(|it| it.sites.len()).collect();
        assert_eq!(sizes, [vec![1; 15], vec![5]].concat());
        assert_eq!((found[0].depth, found[15].depth), (2, 1));
    }

    #[test]
    fn a_path_that_ends_where_another_goes_on_is_one_of_two() {
        let nodes = found(&[("main work", 50.0), ("main work more", 50.0)]);
        assert_eq!(nodes.len(), 2, "{nodes:?}");
        // Two that are the same end together.
        assert_eq!(
            found(&[("main a", 2.0), ("main a", 3.0)]),
            [(2, vec![1, 0])]
        );
    }
}
