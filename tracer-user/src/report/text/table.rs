//! A table whose rows carry notes and a stack.

use unicode_width::UnicodeWidthStr;

use super::layout::{Layout, fit};
use super::stack::Stack;
use super::telling;

/// Columns before the notes and the stack of a row.
const INDENT: usize = 4;
/// Columns between two columns.
const GAP: usize = 2;

/// One value of a row. All rows have the same headers in the same order,
/// most important first.
#[derive(Debug)]
pub struct Cell {
    /// What the value is.
    pub header: &'static str,
    /// The value.
    pub value: String,
}

impl Cell {
    /// A cell.
    pub fn new(header: &'static str, value: impl Into<String>) -> Self {
        Self {
            header,
            value: value.into(),
        }
    }
}

/// One row.
#[derive(Debug)]
pub struct Row<'a> {
    /// Its values. The last header's column is aligned to the left, the
    /// others to the right.
    pub cells: Vec<Cell>,
    /// Facts in the lines below.
    pub notes: Vec<String>,
    /// Its call path.
    pub stack: Stack<'a>,
}

/// A table.
#[derive(Debug)]
pub struct Table<'a> {
    /// Its rows.
    rows: Vec<Row<'a>>,
}

impl<'a> Table<'a> {
    /// A table of these rows.
    pub fn new(rows: impl IntoIterator<Item = Row<'a>>) -> Self {
        Self {
            rows: rows.into_iter().collect(),
        }
    }

    /// Adds the table; an empty table adds nothing. Columns that do not fit
    /// the width are listed among the row's notes. Unless all frames are shown, those are that
    /// tell rows apart, and a row that refers to one above follows it at once, with the notes
    /// that differ.
    pub fn render(mut self, text: &mut String, layout: &Layout) {
        if !layout.all_frames {
            telling::mark(&mut self.rows);
        }
        let Some(first) = self.rows.first() else {
            return;
        };
        let widths = self.widths();
        let shown = columns_that_fit(&widths, layout.width);
        let headers = first.cells.iter().map(|cell| cell.header);
        layout.line(text, layout.faint, &aligned(headers.take(shown), &widths));
        for (index, row) in self.rows.iter().enumerate() {
            let like = self.like(row).filter(|_| !layout.all_frames);
            if index > 0 && like.is_none() {
                text.push('\n');
            }
            let values = row.cells.iter().map(|cell| cell.value.as_str());
            layout.line(text, layout.strong, &aligned(values.take(shown), &widths));
            let mut notes = row.notes(shown);
            notes.retain(|note| like.is_none_or(|like| !like.notes.contains(note)));
            layout.items(text, layout.faint, INDENT, &notes);
            row.stack.render(text, INDENT, layout);
        }
        text.push('\n');
    }

    /// The row above that this one refers to.
    fn like(&self, row: &Row<'_>) -> Option<&Row<'a>> {
        let number = row.stack.like()?;
        let mut rows = self.rows.iter();
        rows.find(|other| other.number().as_deref() == Some(number))
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(row.cells.len().max(widths.len()), 0);
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.header.width()).max(cell.value.width());
            }
        }
        widths
    }
}

impl Row<'_> {
    /// What the row is called, in a table whose rows have numbers.
    pub fn number(&self) -> Option<String> {
        let first = self.cells.first().filter(|cell| cell.header == "#");
        let number = first.map(|cell| cell.value.trim().to_owned());
        number.filter(|number| !number.is_empty())
    }

    fn notes(&self, shown: usize) -> Vec<String> {
        let hidden = self.cells.iter().skip(shown);
        hidden
            .map(|cell| format!("{} {}", cell.header.to_lowercase(), cell.value))
            .chain(self.notes.iter().cloned())
            .collect()
    }
}

/// How many leading columns fit `width`.
fn columns_that_fit(widths: &[usize], width: usize) -> usize {
    let mut used = 0;
    widths
        .iter()
        .enumerate()
        .take_while(|(index, column)| {
            used += **column + if *index > 0 { GAP } else { 0 };
            used <= width
        })
        .count()
}

fn aligned<'a>(values: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (value, width)) in values.zip(widths).enumerate() {
        let value = fit(value, *width);
        let padding = width - value.width();
        let last = index + 1 == widths.len();
        let gap = if index > 0 { GAP } else { 0 };
        line.push_str(&" ".repeat(gap + if last { 0 } else { padding }));
        line.push_str(&value);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: &str) -> String {
        let stack = Stack::new(&[], None);
        let cells = vec![
            Cell::new("#", "1"),
            Cell::new("LIVE", value),
            Cell::new("FREED", "0%"),
        ];
        let rows = vec![Row {
            cells,
            notes: vec!["exact".into()],
            stack,
        }];
        let mut text = String::new();
        Table::new(rows).render(&mut text, &Layout::new(1, Some(20), false));
        text
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_value() {
        assert_eq!(
            table("12,345"),
            "#    LIVE  FREED\n1  12,345  0%\n    exact\n\n"
        );
    }

    #[test]
    fn a_column_that_does_not_fit_becomes_a_note() {
        let text = table("123,456,789");
        assert_eq!(
            text,
            "#         LIVE\n1  123,456,789\n    freed 0% · exact\n\n"
        );
    }
}
