//! Lines that follow one another several times, as in mutual recursion.

use std::cmp::Reverse;
use std::iter::zip;

use super::line::Line;

/// Lines of a repeated block, at most: a filter chain's round, a recursive parser's.
const MAX_BLOCK: usize = 16;

/// Lines that are repeated in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// How many lines it has.
    pub lines: usize,
    /// How often they come.
    pub times: usize,
}

impl Block {
    /// The one that begins with a line and stands for most; `None` if nothing is repeated.
    fn at(lines: &[Line<'_>]) -> Option<Self> {
        let same = |a: &Line<'_>, b: &Line<'_>| {
            a.frame.function.is_some() && a.label == b.label && a.repeated == b.repeated
        };
        let of = |length: usize| {
            let (block, rest) = lines.split_at(length);
            let is_again = |next: &&[Line<'_>]| {
                next.len() == length && zip(block, *next).all(|(one, other)| same(one, other))
            };
            Self {
                lines: length,
                times: 1 + rest.chunks(length).take_while(is_again).count(),
            }
        };
        let blocks = (2..=MAX_BLOCK.min(lines.len() / 2)).map(of);
        let repeated = blocks.filter(|block| block.times > 1);
        // Of those that stand for as many, the shortest.
        repeated.max_by_key(|block| (block.lines * block.times, Reverse(block.lines)))
    }
}

/// Leaves out repetitions of several lines.
pub fn fold(mut lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let mut at = 0;
    while at < lines.len() {
        let Some(block) = Block::at(&lines[at..]) else {
            at += 1;
            continue;
        };
        let end = at + block.lines;
        lines.drain(end..end + block.lines * (block.times - 1));
        for line in &mut lines[at..end] {
            line.frames *= block.times;
        }
        lines[end - 1].block = Some(block);
        at = end;
    }
    lines
}
