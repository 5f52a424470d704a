//! The whole call path, with the names that functions had.

use super::{INDENT, section};
use crate::model::{Frame, Site, StackEnd};
use crate::report::text::{Layout, PLAIN, Stack};
use crate::report::{names, units};

/// Adds all frames, leaf first, and what generated names stand for.
pub fn render(text: &mut String, site: &Site, layout: &Layout) {
    section(text, "The whole call path, leaf first", layout);
    frames(text, &site.frames, site.stack_end, layout);
    let several = site.frames.iter().rev().filter_map(originals);
    let several: Vec<String> = several.collect();
    if several.is_empty() {
        return;
    }
    section(text, "Names that are one here", layout);
    for line in several {
        layout.prose(text, PLAIN, INDENT, &line);
    }
}

/// Adds all frames of a path, leaf first.
pub fn frames(text: &mut String, frames: &[Frame], end: StackEnd, layout: &Layout) {
    let mut whole = *layout;
    whole.all_frames = true;
    Stack::new(frames, Some(end)).render(text, INDENT, &whole);
}

/// What a frame was called, if its name stands for others.
fn originals(frame: &Frame) -> Option<String> {
    let originals = frame.originals.as_deref()?;
    let known: Vec<_> = originals
        .names
        .iter()
        .map(|name| names::clean(name))
        .collect();
    let others = originals.count.saturating_sub(known.len() as u64);
    let at_least = if originals.lower_bound {
        "at least "
    } else {
        ""
    };
    let others = match others {
        0 if originals.lower_bound => ", and maybe others".to_owned(),
        0 => String::new(),
        others => format!(", and {at_least}{} others", units::grouped(others)),
    };
    Some(format!(
        "{}: {}{others}",
        names::label(frame),
        known.join(", ")
    ))
}
