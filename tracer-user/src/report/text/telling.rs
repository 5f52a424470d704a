//! Which frames tell the call path of a row from those of the others.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::table::Row;
use crate::model::Frame;
use crate::report::names;
use crate::report::own::is_own;

/// Whether, and by what, a frame tells a path from others that have the same functions of
/// the program in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tells {
    /// All of them have it.
    #[default]
    Nothing,
    /// They have the same function and line, at another address.
    ByOffset,
    /// Not all of them have this function and line.
    ByName,
}

/// A function and a line.
type Place<'a> = (Cow<'a, str>, Option<&'a str>, Option<u32>);

fn place(frame: &Frame) -> Place<'_> {
    (names::label(frame), frame.file.as_deref(), frame.line)
}

/// What tells two places of the same line apart; nothing of Java's, which move.
fn offset(frame: &Frame) -> u64 {
    match frame.origin.is_java() {
        true => 0,
        false => frame.module_offset.unwrap_or(frame.address),
    }
}

/// Looks at all rows of a table, and says of each frame whether it tells its row's path
/// from those of other rows. Of rows with the same functions of the program only the first
/// shows them all.
pub fn mark(rows: &mut [Row<'_>]) {
    let mut alike: HashMap<Vec<Cow<'_, str>>, Vec<usize>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let own = row.stack.frames().iter().filter(|frame| is_own(frame));
        let own = own.map(names::label).collect();
        alike.entry(own).or_default().push(index);
    }
    let several = alike.into_iter().filter(|(_, rows)| rows.len() > 1);
    let of_each = |(own, alike): (Vec<Cow<'_, str>>, Vec<usize>)| {
        let first = alike[0];
        // Without functions in common there is nothing to refer to.
        let like = rows[first].number().filter(|_| !own.is_empty());
        let each = compare(rows, &alike).into_iter();
        each.map(|(row, tells)| (row, tells, like.clone().filter(|_| row != first)))
            .collect::<Vec<_>>()
    };
    for (row, tells, like) in several.flat_map(of_each).collect::<Vec<_>>() {
        rows[row].stack.set_tells(tells, like);
    }
}

/// Of rows that are alike, what each of their frames tells.
fn compare(rows: &[Row<'_>], alike: &[usize]) -> Vec<(usize, Vec<Tells>)> {
    let mut places: HashMap<Place<'_>, usize> = HashMap::new();
    let mut exact: HashMap<(Place<'_>, u64), usize> = HashMap::new();
    for row in alike {
        let frames = rows[*row].stack.frames().iter();
        let once: HashSet<_> = frames.clone().map(place).collect();
        once.into_iter()
            .for_each(|place| *places.entry(place).or_default() += 1);
        let once: HashSet<_> = frames.map(|frame| (place(frame), offset(frame))).collect();
        once.into_iter()
            .for_each(|place| *exact.entry(place).or_default() += 1);
    }
    let of = |frame: &Frame| {
        let place = place(frame);
        match () {
            () if places[&place] < alike.len() => Tells::ByName,
            () if exact[&(place, offset(frame))] < alike.len() => Tells::ByOffset,
            () => Tells::Nothing,
        }
    };
    let each = alike.iter();
    each.map(|row| (*row, rows[*row].stack.frames().iter().map(of).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Stack;
    use super::*;
    use crate::report::sample;

    fn tells(paths: [&[Frame]; 2]) -> [Vec<Tells>; 2] {
        let row = |frames| Row {
            cells: vec![],
            notes: vec![],
            stack: Stack::new(frames, None),
        };
        let mut rows = paths.map(row);
        mark(&mut rows);
        rows.map(|row| row.stack.tells().to_vec())
    }

    #[test]
    fn what_only_one_of_two_paths_has_tells_them_apart() {
        let main = sample::program("main", "main.cpp", 9, 1);
        let one = [main.clone(), sample::library("strdup", 2)];
        let other = [main.clone(), sample::library("asprintf", 2)];
        let expected = vec![Tells::Nothing, Tells::ByName];
        assert_eq!(tells([&one, &other]), [expected.clone(), expected]);
        let moved = [main, sample::library("strdup", 7)];
        let expected = vec![Tells::Nothing, Tells::ByOffset];
        assert_eq!(tells([&one, &moved]), [expected.clone(), expected]);
    }

    #[test]
    fn a_row_like_one_above_shows_what_is_different() {
        use super::super::Layout;
        use super::super::table::{Cell, Table};
        let main = sample::program("main", "main.cpp", 9, 1);
        let libc = |name| sample::library(name, 2);
        let one = [main.clone(), libc("strdup")];
        let other = [main, libc("asprintf"), libc("grow")];
        let row = |(number, frames)| Row {
            cells: vec![Cell::new("#", number), Cell::new("LIVE", "7")],
            notes: vec![],
            stack: Stack::new(frames, None),
        };
        let mut text = String::new();
        let rows = [(" 1", &one[..]), (" 2", &other[..])].map(row);
        Table::new(rows).render(&mut text, &Layout::new(10, Some(60), false));
        let expected = [
            " #  LIVE",
            " 1  7",
            "    strdup  (libc.so.6)",
            "    main  leaky/main.cpp:9",
            " 2  7",
            "    grow  (libc.so.6)",
            "    asprintf  (libc.so.6)",
            "    … otherwise as row 1",
            "",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn paths_of_other_functions_need_no_more() {
        let one = [sample::program("main", "main.cpp", 9, 1)];
        let other = [sample::program("work", "main.cpp", 9, 1)];
        assert_eq!(tells([&one, &other]), [vec![], vec![]]);
    }
}
