//! Pointers one past the end. Where blocks have nothing between them, as jemalloc's, the end of
//! one is the start of the next: a vector that is full has the address of its neighbour, which it
//! does not hold.

use super::nodes::Nodes;

/// Whether a word that leads to a node is rather the end of the block right before it: the words
/// beside it are a start and ends of that block, as in `{begin, end, capacity}` of a vector, or
/// places in it, as in `{current, first, last}` of a deque's iterator.
pub fn is_end(nodes: &Nodes, node: usize, word: u64, beside: Beside) -> bool {
    let Some(block) = nodes.right_before(node).filter(|it| it.end == word) else {
        return false;
    };
    let is_in = |word: u64| (block.start..block.end).contains(&word);
    let Beside {
        two_before,
        before,
        behind,
    } = beside;
    match is_in(before) {
        true => is_in(two_before) || two_before == word || behind == word,
        false => before == word && is_in(two_before),
    }
}

/// The words beside one; 0 where nothing was read.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    two_before: u64,
    before: u64,
    behind: u64,
}

impl Beside {
    /// Those of a word, by its index.
    pub fn of(words: &[[u8; 8]], at: usize) -> Self {
        let word = |at: Option<usize>| {
            let word = at.and_then(|at| words.get(at)).copied();
            u64::from_le_bytes(word.unwrap_or_default())
        };
        Self {
            two_before: word(at.checked_sub(2)),
            before: word(at.checked_sub(1)),
            behind: word(at.checked_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::nodes::{Node, What};
    use super::*;

    /// Three blocks that follow one another, and one behind a header.
    fn nodes() -> Nodes {
        let node = |(start, end)| Node {
            start,
            end,
            what: What::Chunk,
        };
        let ranges = [
            (0x1000, 0x1200),
            (0x1200, 0x1400),
            (0x1400, 0x1600),
            (0x1610, 0x1800),
        ];
        Nodes::new(Vec::new(), ranges.map(node).to_vec())
    }

    fn ends(words: &[u64]) -> Vec<bool> {
        let nodes = nodes();
        let bytes: Vec<[u8; 8]> = words.iter().map(|it| it.to_le_bytes()).collect();
        let ends = words.iter().enumerate().map(|(at, word)| {
            let node = nodes.find(*word);
            node.is_some_and(|node| is_end(&nodes, node, *word, Beside::of(&bytes, at)))
        });
        ends.collect()
    }

    #[test]
    fn ends_of_vectors_and_iterators_are_told_from_pointers() {
        for (words, expected) in [
            // A vector that is full, and one that has room.
            (&[0x1000, 0x1200, 0x1200][..], &[false, true, true][..]),
            (&[0x1000, 0x1010, 0x1200], &[false, false, true]),
            // An iterator of a deque, whose first element is the current one, or is not.
            (&[0x1000, 0x1000, 0x1200], &[false, false, true]),
            (&[0x1100, 0x1000, 0x1200], &[false, false, true]),
            // An array of neighbours, and a pair.
            (&[0x1000, 0x1200, 0x1400], &[false, false, false]),
            (&[0x1200, 0x1000], &[false, false]),
            (&[7, 0x1200, 0x1200], &[false, false, false]),
            // A pointer into the neighbour, and one to a block that has none.
            (&[0x1000, 0x1208, 0x1208], &[false, false, false]),
            (&[0x1400, 0x1610, 0x1610], &[false, false, false]),
        ] {
            assert_eq!(ends(words), expected, "{words:x?}");
        }
    }
}
