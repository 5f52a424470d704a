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

#[cfg(test)]
mod tests {
    use tracer_ebpf::rule::{Base, Kind, Saved};

    use super::*;
    use crate::origins::{Door, Likeness};

    #[test]
    fn functions_with_nothing_between_them_are_one_range() {
        let ranges = vec![0x40..0x4b, 0x10..0x1c, 0x20..0x30, 0x60..0x65];
        assert_eq!(
            merged(ranges.clone(), vec![0, 0x70]),
            [0x10..0x30, 0x40..0x4b, 0x60..0x65]
        );
        // A short function stands in the gap.
        let all = [0x10..0x1c, 0x20..0x30, 0x40..0x4b, 0x60..0x65];
        assert_eq!(merged(ranges, vec![0x1c]), all);
        let nested = vec![0x10..0x40, 0x18..0x20, 0x60..0x65];
        assert_eq!(merged(nested, Vec::new()), [0x10..0x40, 0x60..0x65]);
    }

    #[test]
    fn doors_are_cut_out_of_what_was_asked_for() {
        let lost = Saved::Lost;
        let by_stack = Rule::new(Kind::Sp, 32, Base::Cfa, Saved::At(-16), lost).unwrap();
        let by_frame = Rule::new(Kind::Bp, 16, Base::Cfa, Saved::Same, lost).unwrap();
        let file = InFile {
            modules: vec![Likeness::Same],
            doors: vec![
                Door {
                    range: 0x1100..0x1120,
                    rule: by_stack,
                },
                Door {
                    range: 0x1fe0..0x2040,
                    rule: by_frame,
                },
            ],
            ..InFile::default()
        };
        let found = parts(&(0x1000..0x2000), &file);
        let ranges: Vec<_> = found.iter().map(|(range, _)| range.clone()).collect();
        assert_eq!(
            ranges,
            [
                0x1000..0x1100,
                0x1100..0x1120,
                0x1120..0x1fe0,
                0x1fe0..0x2000
            ]
        );
        let kinds: Vec<_> = found
            .iter()
            .map(|(_, origin)| (origin.kind, origin.offset, origin.saved))
            .collect();
        let asked = (kind::ASKED, 0, 0);
        let doors = [(kind::BY_STACK, 24, -8), (kind::BY_FRAME, 8, 0)];
        assert_eq!(kinds, [asked, doors[0], asked, doors[1]]);
        // A door is nobody's code.
        assert!(file.has(0x10ff) && !file.has(0x1100) && file.has(0x1120));
        let other = InFile {
            modules: vec![Likeness::Other],
            functions: vec![0x1800..0x1900, 0x1f00..0x2100],
            doors: Vec::new(),
            ..file
        };
        let found = parts(&(0x1000..0x2000), &other);
        let ranges: Vec<_> = found.iter().map(|(range, _)| range.clone()).collect();
        assert_eq!(ranges, [0x1800..0x1900, 0x1f00..0x2000]);
    }
}
