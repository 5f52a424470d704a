//! How text is laid out: width, styles, marks for inexact numbers.

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::table::{Sort, TableArgs};
use crate::model::Site;

/// Columns when the width is not known.
const DEFAULT_WIDTH: usize = 100;
/// Rows of a table when nobody asks for more.
pub const ROWS: usize = 10;
/// Text is cut rather than laid out below this width.
const MIN_WIDTH: usize = 20;
/// The style of a plain line.
pub const PLAIN: Style = Style::new();

/// How to lay text out.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Rows of the table.
    pub top: usize,
    /// Whether rows that hold little and do not grow are among them.
    pub small_rows: bool,
    /// The order of the rows.
    pub sort: Sort,
    /// Whether all frames of a call path are shown.
    pub all_frames: bool,
    /// Columns.
    pub width: usize,
    /// For headings and the frame to look at first.
    pub strong: Style,
    /// For what is read second.
    pub faint: Style,
    /// For losses.
    pub warning: Style,
}

impl Layout {
    /// A layout of `top` rows and `width` columns (100 if not known).
    pub fn new(top: usize, width: Option<usize>, colour: bool) -> Self {
        let style = |style| if colour { style } else { Style::new() };
        Self {
            top,
            small_rows: false,
            sort: Sort::default(),
            all_frames: false,
            width: width
                .filter(|width| *width > 0)
                .unwrap_or(DEFAULT_WIDTH)
                .max(MIN_WIDTH),
            strong: style(Style::new().bold()),
            faint: style(Style::new().dimmed()),
            warning: style(AnsiColor::Yellow.on_default()),
        }
    }

    /// The same with the rows that were asked for.
    #[must_use]
    pub fn with(self, table: &TableArgs) -> Self {
        Self {
            top: table.top.unwrap_or(ROWS),
            small_rows: table.top.is_some(),
            sort: table.sort,
            all_frames: table.all_frames,
            ..self
        }
    }

    /// The same with all that there is: every row, every frame.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self {
            top: usize::MAX,
            small_rows: true,
            all_frames: true,
            ..self
        }
    }

    /// Adds words as lines of at most the layout's width, each after
    /// `indent` spaces.
    pub fn prose(&self, text: &mut String, style: Style, indent: usize, words: &str) {
        self.wrap(text, style, indent, words.split_whitespace(), " ");
    }

    /// Adds items separated by ` · ` as lines of at most the layout's width;
    /// an item is broken only if it does not fit a line.
    pub fn items(&self, text: &mut String, style: Style, indent: usize, items: &[String]) {
        self.wrap(text, style, indent, items.iter().map(String::as_str), " · ");
    }

    /// Adds one line, cut if it is too wide.
    pub fn line(&self, text: &mut String, style: Style, line: &str) {
        let line = fit(line, self.width);
        text.push_str(&format!("{style}{line}{style:#}\n"));
    }

    fn wrap<'a>(
        &self,
        text: &mut String,
        style: Style,
        indent: usize,
        pieces: impl Iterator<Item = &'a str>,
        separator: &str,
    ) {
        let width = self.width - indent;
        let mut line = String::new();
        for piece in pieces {
            if !line.is_empty() && line.width() + separator.width() + piece.width() > width {
                self.line(text, style, &format!("{:indent$}{line}", ""));
                line.clear();
            }
            if !line.is_empty() {
                line.push_str(separator);
            }
            line.push_str(piece);
        }
        if !line.is_empty() {
            self.line(text, style, &format!("{:indent$}{line}", ""));
        }
    }
}

/// Marks on numbers that a lost event may have touched.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// For numbers that can only be too small.
    pub at_least: &'static str,
    /// For numbers that can be off either way.
    pub about: &'static str,
}

impl Marks {
    /// Marks for exact numbers (none), or for numbers touched by a loss.
    pub fn new(lower_bound: bool) -> Self {
        if lower_bound {
            Self {
                at_least: "≥",
                about: "~",
            }
        } else {
            Self {
                at_least: "",
                about: "",
            }
        }
    }

    /// Marks for a site's numbers.
    pub fn of(site: &Site) -> Self {
        Self::new(site.lower_bound).or_estimates(site.is_estimate())
    }

    /// The same, or marks for estimates.
    pub fn or_estimates(self, are_estimates: bool) -> Self {
        match are_estimates && self.about.is_empty() {
            true => Self {
                at_least: "~",
                about: "~",
            },
            false => self,
        }
    }
}

/// Cuts text at the end so that it takes at most `width` columns.
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let mut cut = take(text.chars(), width.saturating_sub(1));
    cut.push('…');
    cut
}

/// Cuts text in its middle so that it takes at most `width` columns: a long
/// C++ name tells itself by both of its ends.
pub fn fit_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let room = width.saturating_sub(1);
    let head = take(text.chars(), room / 2);
    format!("{head}…{}", take_back(text, room - head.width()))
}

/// Cuts text at its start so that it takes at most `width` columns.
pub fn fit_end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    format!("…{}", take_back(text, width.saturating_sub(1)))
}

fn take(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    characters
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

fn take_back(text: &str, width: usize) -> String {
    take(text.chars().rev(), width).chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_count_columns_not_characters() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit_end("/a/long/path", 6), "…/path");
        assert_eq!(fit_middle("std::vector<int>::push_back", 11), "std::…_back");
    }

    #[test]
    fn items_break_between_items() {
        let layout = Layout::new(1, Some(20), false);
        let mut text = String::new();
        let items = ["aaaa".to_string(), "bbbb".into(), "cccccc".into()];
        layout.items(&mut text, Style::new(), 2, &items);
        assert_eq!(text, "  aaaa · bbbb\n  cccccc\n");
    }
}
