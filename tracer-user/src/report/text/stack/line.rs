//! One line of a call path.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

use super::repeats::Block;
use crate::model::{Frame, Originals};
use crate::report::own::{hands_on, is_own};
use crate::report::text::layout::{Layout, PLAIN, fit_end, fit_middle};
use crate::report::text::telling::Tells;
use crate::report::{java, names, units};

/// Path components of a source file that are shown.
const PATH_COMPONENTS: usize = 2;

/// One or more frames in a row with the same name.
pub struct Line<'a> {
    /// The first of them, leaf first.
    pub frame: &'a Frame,
    /// Its name.
    pub label: Cow<'a, str>,
    /// How many frames in a row.
    pub repeated: usize,
    /// How many frames it stands for: with those of the repetitions of its block.
    pub frames: usize,
    /// Of the last line of a block that is repeated.
    pub block: Option<Block>,
    /// Whether it tells the path from those of other rows.
    pub tells: Tells,
}

impl<'a> Line<'a> {
    /// A frame.
    pub const fn new(frame: &'a Frame, label: Cow<'a, str>, tells: Tells) -> Self {
        Self {
            frame,
            label,
            repeated: 1,
            frames: 1,
            block: None,
            tells,
        }
    }

    /// The caller has the same name.
    pub fn repeat(&mut self, tells: Tells) {
        self.repeated += 1;
        self.frames += 1;
        self.tells = self.tells.max(tells);
    }

    /// Whether it is of the program itself, and asks for memory for itself.
    pub fn is_own(&self) -> bool {
        is_own(self.frame) && self.asks()
    }

    /// Whether it asks for memory for itself, as far as names tell.
    pub fn asks(&self) -> bool {
        !hands_on(self.frame)
    }

    /// Whether its name stands for several.
    pub fn is_several(&self) -> bool {
        let originals = self.frame.originals.as_ref();
        originals.is_some_and(|originals| originals.count > 1)
    }

    /// Adds it, after `indent` spaces.
    pub fn render(&self, text: &mut String, indent: usize, layout: &Layout, interest: bool) {
        let place = self.place();
        let mut suffix = String::new();
        if self.repeated > 1 {
            suffix.push_str(&format!(" (×{})", self.repeated));
        }
        if let Some(names) = self.frame.originals.as_deref().and_then(several_names) {
            suffix.push_str(&names);
        }
        if self.frame.inlined {
            suffix.push_str(" (inlined)");
        }
        let room = layout.width - indent;
        let place_width = place.width().min((room / 2).saturating_sub(suffix.width()));
        let name_width = room.saturating_sub(place_width + suffix.width() + 2);
        let name = self.name(name_width);
        let place = if place_width == 0 {
            String::new()
        } else {
            fit_end(&place, place_width)
        };
        let (strong, faint) = (if interest { layout.strong } else { PLAIN }, layout.faint);
        text.push_str(&format!(
            "{:indent$}{strong}{name}{strong:#}{faint}{suffix}",
            ""
        ));
        let gap = if place_width == 0 { "" } else { "  " };
        text.push_str(&format!("{gap}{place}{faint:#}\n"));
        if let Some(Block { lines, times }) = self.block {
            let note = format!("{:indent$}(these {lines} × {times})", "");
            layout.line(text, layout.faint, &note);
        }
    }

    /// The label, made to fit.
    fn name(&self, width: usize) -> String {
        if self.frame.origin.is_java() {
            fit_middle(&java::shorten(&self.label, width), width)
        } else {
            fit_middle(&self.label, width)
        }
    }

    /// Where the code is: source line, else module; for a frame without a
    /// name the reason. With the offset where that alone tells paths apart.
    fn place(&self) -> String {
        if self.frame.function.is_none() {
            let reason = self.frame.reason.as_deref().unwrap_or("no name");
            let address = self
                .frame
                .module
                .is_none()
                .then(|| format!("{:#x}, ", self.frame.address));
            return format!("({}{})", address.unwrap_or_default(), names::clean(reason));
        }
        let offset = self
            .frame
            .module_offset
            .filter(|_| self.tells == Tells::ByOffset);
        let offset = offset.map(|offset| format!("+{offset:#x}"));
        let offset = offset.unwrap_or_default();
        match (names::place(self.frame), &self.frame.module) {
            (Some(place), _) if offset.is_empty() => short_path(&place).into(),
            (Some(place), _) => format!("{} {offset}", short_path(&place)),
            (None, Some(module)) => format!("({}{offset})", names::clean(names::base(module))),
            (None, None) => String::new(),
        }
    }
}

/// How many names a line's name stands for; nothing of a single one.
fn several_names(originals: &Originals) -> Option<String> {
    let at_least = if originals.lower_bound {
        "at least "
    } else {
        ""
    };
    let count = units::grouped(originals.count);
    (originals.count > 1).then(|| format!(" ({at_least}{count} names)"))
}

/// The last components of a path.
fn short_path(path: &str) -> &str {
    let start = path
        .rmatch_indices('/')
        .nth(PATH_COMPONENTS - 1)
        .map_or(0, |(index, _)| index + 1);
    &path[start..]
}
