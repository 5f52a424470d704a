//! Ranges of files, as an image has them mapped.

use std::ops::Range;

use tracer_ebpf::origin::{MAX_ASKED, MAX_ORIGINS, Origin, kind};
use tracer_ebpf::rule::Rule;

use super::InFile;
use crate::process::code::CodeMapping;

/// Compilers begin functions at multiples of 16: what is between two is filling, if it is
/// no more than this, and no function is known to begin there.
const FILLING: u64 = 15;

/// Sorted, and those in one that have nothing between them; `others` is where other
/// functions begin.
pub fn merged(mut ranges: Vec<Range<u64>>, mut others: Vec<u64>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    others.sort_unstable();
    let is_filling = |gap: Range<u64>| {
        let next = others.partition_point(|start| *start < gap.start);
        gap.end - gap.start <= FILLING && others.get(next).is_none_or(|start| *start >= gap.end)
    };
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if range.start <= last.end || is_filling(last.end..range.start) => {
                last.end = last.end.max(range.end);
            }
            _ => all.push(range),
        }
    }
    all
}

/// The ranges of an image, by what of each mapped file was asked for; sorted.
///
/// # Errors
/// If there are too many: how many were asked for.
pub fn in_image<'a>(
    code: impl Iterator<Item = (&'a CodeMapping, &'a InFile)>,
) -> Result<Vec<Origin>, usize> {
    let mut origins = Vec::new();
    let mut asked = 0;
    for (mapping, file) in code {
        let range = &mapping.range;
        let first = range.file_offset.0;
        let whole = first..first.saturating_add(range.end.0 - range.start.0);
        let begin = origins.len();
        for part in parts(&whole, file) {
            let origin = Origin {
                start: range.start.0.wrapping_add(part.0.start - first),
                end: range.start.0.wrapping_add(part.0.end - first),
                ..part.1
            };
            match origins[begin..].last_mut().or(None::<&mut Origin>) {
                Some(last) if last.end == origin.start && is_alike(last, &origin) => {
                    last.end = origin.end;
                }
                _ => origins.push(origin),
            }
        }
        let asked_here = |it: &&Origin| it.kind == kind::ASKED;
        asked += origins[begin..].iter().filter(asked_here).count();
    }
    origins.sort_unstable_by_key(|origin| origin.start);
    // Nobody need know where a door leads if nothing was asked for.
    if asked == 0 {
        return Ok(Vec::new());
    }
    match asked <= MAX_ASKED + doors_of(&origins) && origins.len() <= MAX_ORIGINS {
        true => Ok(origins),
        false => Err(asked),
    }
}

/// Doors cut a file that was asked for into parts.
fn doors_of(origins: &[Origin]) -> usize {
    let doors = origins.iter().filter(|it| it.kind != kind::ASKED);
    doors.count()
}

fn is_alike(one: &Origin, other: &Origin) -> bool {
    (one.kind, one.offset, one.saved) == (other.kind, other.offset, other.saved)
}

/// The parts of a mapping, bytes in the file, in their order: doors, and between them what
/// was asked for.
fn parts(whole: &Range<u64>, file: &InFile) -> Vec<(Range<u64>, Origin)> {
    let within = |range: &Range<u64>| range.start.max(whole.start)..range.end.min(whole.end);
    let doors = file
        .doors
        .iter()
        .map(|door| (within(&door.range), door.rule));
    let doors: Vec<_> = doors.filter(|(range, _)| !range.is_empty()).collect();
    let asked = match file.is_asked() {
        true => vec![whole.clone()],
        false => file.functions.iter().map(within).collect(),
    };
    let mut parts: Vec<_> = doors
        .iter()
        .map(|(range, rule)| (range.clone(), door(*rule)))
        .collect();
    for mut range in asked {
        for (door, _) in &doors {
            if door.start >= range.end || door.end <= range.start {
                continue;
            }
            if range.start < door.start {
                parts.push((range.start..door.start, Origin::default()));
            }
            range.start = door.end;
        }
        if range.start < range.end {
            parts.push((range, Origin::default()));
        }
    }
    parts.sort_unstable_by_key(|(range, _)| range.start);
    parts
}

/// How the kernel side finds the return address of a door, by the rule for its frame.
fn door(rule: Rule) -> Origin {
    // The return address is right below the CFA.
    let offset = rule.offset().wrapping_sub(8);
    let saved = match rule.bp().is_same() {
        true => 0,
        false => rule.bp().offset().wrapping_add(8),
    };
    Origin {
        kind: match rule.register() {
            0 => kind::BY_STACK,
            _ => kind::BY_FRAME,
        },
        // Rules have offsets below 64 MiB.
        offset: i32::try_from(offset.cast_signed()).unwrap_or(0),
        saved: saved.cast_signed(),
        ..Origin::default()
    }
}
