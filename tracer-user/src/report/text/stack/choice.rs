//! Which lines of a call path are shown.

use std::collections::BTreeSet;

use super::line::Line;
use crate::report::text::telling::Tells;

/// Lines of a path without any of the program's own.
const MAX_FOREIGN: usize = 3;

/// The line that asks for memory for itself, of the program's own if it has any, leaf first.
pub fn culprit(lines: &[Line<'_>]) -> Option<usize> {
    let own = lines.iter().position(Line::is_own);
    own.or_else(|| lines.iter().position(Line::asks))
}

/// The lines that are shown, at most so many with what stands for those left out, but for
/// the most important one. One line alone is never left out: what would stand for it takes
/// as much room.
pub fn shown(lines: &[Line<'_>], room: usize) -> BTreeSet<usize> {
    let mut shown = BTreeSet::new();
    for line in by_importance(lines) {
        shown.insert(line);
        if shown.len() > 1 && height(&shown, lines.len()) > room {
            shown.remove(&line);
        }
    }
    fill_gaps(&shown, lines.len())
}

/// The lines that are worth to be shown, most important first.
fn by_importance(lines: &[Line<'_>]) -> Vec<usize> {
    let those = |which: &dyn Fn(&Line<'_>) -> bool| -> Vec<usize> {
        let all = lines.iter().enumerate();
        all.filter(|(_, line)| which(line))
            .map(|(at, _)| at)
            .collect()
    };
    let own = those(&|line| line.is_own());
    let foreign = match own.is_empty() {
        true => those(&|line| line.asks()),
        false => Vec::new(),
    };
    let foreign = foreign.into_iter().take(MAX_FOREIGN);
    let (telling, _) = telling(lines);
    let telling = telling.into_iter().take(1);
    let several = those(&|line| line.is_several());
    let first = culprit(lines).into_iter().chain(telling).chain(several);
    first.chain(own).chain(foreign).collect()
}

/// Of the lines that tell the path from those of other rows two that say most, leaf first:
/// where it leaves the others, and what asks for memory in the end; and how many more frames
/// differ.
pub fn telling(lines: &[Line<'_>]) -> (Vec<usize>, usize) {
    let tells = |line: &usize| lines[*line].tells != Tells::Nothing;
    let all: Vec<usize> = (0..lines.len()).filter(tells).collect();
    let asks = all.iter().find(|line| lines[**line].asks()).or(all.first());
    let by_name = |line: &&usize| lines[**line].tells == Tells::ByName;
    let leaves = all.iter().rfind(by_name).or(all.last());
    let mut shown: Vec<usize> = asks.into_iter().chain(leaves).copied().collect();
    shown.sort_unstable();
    shown.dedup();
    let others = all.iter().filter(|line| !shown.contains(line));
    let others = others.map(|line| lines[*line].frames).sum();
    (shown, others)
}

/// Lines that these take, with one for each gap between them.
fn height(shown: &BTreeSet<usize>, count: usize) -> usize {
    let (mut height, mut next) = (0, 0);
    for line in shown {
        height += 1 + usize::from(*line > next);
        next = line + 1;
    }
    height + usize::from(next < count)
}

fn fill_gaps(shown: &BTreeSet<usize>, count: usize) -> BTreeSet<usize> {
    let mut filled = shown.clone();
    let mut next = 0;
    for line in shown.iter().copied().chain([count]) {
        if line == next + 1 {
            filled.insert(next);
        }
        next = line + 1;
    }
    filled
}
