//! A call path, most important frame first.

mod choice;
mod line;
mod repeats;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::layout::Layout;
use super::telling::Tells;
use crate::model::{Frame, StackEnd};
use crate::report::own::{is_own, owner};
use crate::report::{names, units};

use line::Line;

/// Lines that a call path may take, unless all frames are asked for.
const MAX_LINES: usize = 7;
/// The same of one that needs no attention.
const FEW_LINES: usize = 3;
/// Owners of left out frames that are named.
const MAX_OWNERS: usize = 3;

/// A call path as lines, leaf first: the program's own functions, and what tells it from
/// the paths of other rows; repetitions once, and the rest counted.
#[derive(Debug, Clone)]
pub struct Stack<'a> {
    /// Root first.
    frames: &'a [Frame],
    /// Why it ends at the root, if known.
    end: Option<StackEnd>,
    lines: usize,
    /// Of each frame, whether it tells the path from those of other rows; empty if there
    /// are none to tell it from.
    tells: Vec<Tells>,
    /// The row above that has all frames but those that tell the two apart.
    like: Option<String>,
}

impl<'a> Stack<'a> {
    /// The path of these frames, root first, and why it ends at the root, if that is known.
    pub const fn new(frames: &'a [Frame], end: Option<StackEnd>) -> Self {
        Self {
            frames,
            end,
            lines: MAX_LINES,
            tells: Vec::new(),
            like: None,
        }
    }

    /// The same in few lines, if it needs no attention.
    #[must_use]
    pub fn in_few_lines(self, few: bool) -> Self {
        Self {
            lines: if few { FEW_LINES } else { MAX_LINES },
            ..self
        }
    }

    /// Root first.
    pub const fn frames(&self) -> &'a [Frame] {
        self.frames
    }

    /// Says of each frame whether it tells the path from those of other rows, and which row
    /// above has all others, if any.
    pub fn set_tells(&mut self, tells: Vec<Tells>, like: Option<String>) {
        self.tells = tells;
        self.like = like;
    }

    /// The number of the row above that has all frames but those that tell the two apart.
    pub fn like(&self) -> Option<&str> {
        self.like.as_deref()
    }

    /// What was said of each frame.
    #[cfg(test)]
    pub fn tells(&self) -> &[Tells] {
        &self.tells
    }

    /// Adds the lines, each after `indent` spaces. The leaf-most frame of the
    /// program's own code stands out.
    pub fn render(&self, text: &mut String, indent: usize, layout: &Layout) {
        let lines = repeats::fold(self.lines());
        if let Some(like) = self.like.as_deref().filter(|_| !layout.all_frames) {
            difference(text, &lines, like, indent, layout);
            return;
        }
        let interest = choice::culprit(&lines).filter(|line| lines[*line].is_own());
        let shown = match layout.all_frames {
            true => (0..lines.len()).collect(),
            false => choice::shown(&lines, self.lines),
        };
        let mut next = 0;
        for index in shown.into_iter().chain([lines.len()]) {
            if index > next {
                let hidden = left_out(&lines[next..index], next == 0);
                layout.line(text, layout.faint, &format!("{:indent$}{hidden}", ""));
            }
            if let Some(line) = lines.get(index) {
                line.render(text, indent, layout, interest == Some(index));
            }
            next = index + 1;
        }
        if let Some(end) = self.end_note() {
            layout.line(text, layout.faint, &format!("{:indent$}{end}", ""));
        }
    }

    /// Leaf first, frames in a row with the same name once.
    fn lines(&self) -> Vec<Line<'a>> {
        let mut lines: Vec<Line<'a>> = Vec::new();
        for (index, frame) in self.frames.iter().enumerate().rev() {
            let label = names::label(frame);
            let tells = self.tells.get(index).copied().unwrap_or_default();
            match lines.last_mut() {
                Some(last) if frame.function.is_some() && last.label == label => {
                    last.repeat(tells);
                }
                _ => lines.push(Line::new(frame, label, tells)),
            }
        }
        lines
    }

    fn end_note(&self) -> Option<String> {
        let end = self.end?;
        let meaning = end.meaning()?;
        Some(if end == StackEnd::StartByFramePointers {
            format!("({meaning})")
        } else {
            format!("(the stack ends here: {meaning})")
        })
    }
}

/// Adds what tells a path from that of a row above.
fn difference(text: &mut String, lines: &[Line<'_>], like: &str, indent: usize, layout: &Layout) {
    let (shown, others) = choice::telling(lines);
    for line in shown {
        lines[line].render(text, indent, layout, false);
    }
    let rest = match others {
        0 => format!("… otherwise as row {like}"),
        1 => format!("… 1 more frame differs; otherwise as row {like}"),
        _ => format!("… {others} more frames differ; otherwise as row {like}"),
    };
    layout.line(text, layout.faint, &format!("{:indent$}{rest}", ""));
}

/// What stands for lines that are left out: how many frames, and whose they are. The leaf
/// is named, since it says in what way memory was asked for.
fn left_out(lines: &[Line<'_>], is_leaf: bool) -> String {
    let count: u64 = lines.iter().map(|line| line.frames as u64).sum();
    let whose = owners(lines).map(|owners| format!(" of {owners}"));
    let whose = whose.unwrap_or_default();
    match lines.first().filter(|_| is_leaf && count > 1) {
        Some(leaf) => format!(
            "{}, and {}{whose}",
            without_parameters(&leaf.label),
            units::counted(count - 1, "more frame")
        ),
        None if whose.is_empty() => format!("… {}", units::counted(count, "more frame")),
        None => format!("… {}{whose}", units::counted(count, "frame")),
    }
}

/// A function's name without its parameters.
fn without_parameters(name: &str) -> &str {
    match name.split_once('(') {
        Some((plain, _)) if !plain.is_empty() => plain,
        _ => name,
    }
}

/// Whose frames these are, if none is the program's own.
fn owners(lines: &[Line<'_>]) -> Option<String> {
    if lines.iter().any(|line| is_own(line.frame)) {
        return None;
    }
    let mut owners: Vec<Cow<'_, str>> = Vec::new();
    for line in lines {
        let owner = owner(line.frame);
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    if owners.len() > MAX_OWNERS {
        owners.truncate(MAX_OWNERS - 1);
        owners.push("others".into());
    }
    let last = owners.pop()?;
    Some(match owners.is_empty() {
        true => last.into_owned(),
        false => format!("{} and {last}", owners.join(", ")),
    })
}
