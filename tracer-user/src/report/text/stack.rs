//! A call path, most important frame first.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::iter::zip;

use unicode_width::UnicodeWidthStr;

use super::layout::{Layout, PLAIN, fit_end, fit_middle};
use crate::model::{Frame, Originals, StackEnd};
use crate::report::{java, names, units};

/// Lines of a stack before it is collapsed.
const MAX_LINES: usize = 14;
/// Lines kept at the leaf of a collapsed stack.
const LEAF_LINES: usize = 8;
/// Lines kept at the root of a collapsed stack.
const ROOT_LINES: usize = 3;
/// Lines of a repeated block, at most: a filter chain's round, a recursive parser's.
const MAX_BLOCK: usize = 16;
/// Path components of a source file that are shown.
const PATH_COMPONENTS: usize = 2;

/// A call path as lines: leaf first, recursion and long middles collapsed.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    /// Root first.
    pub frames: &'a [Frame],
    /// Why it ends at the root, if known.
    pub end: Option<StackEnd>,
}

/// One or more frames in a row with the same name.
struct Line<'a> {
    frame: &'a Frame,
    label: Cow<'a, str>,
    repeated: usize,
    /// How many frames it stands for: with those of the repetitions of its block.
    frames: usize,
    /// Of the last line of a block that is repeated.
    block: Option<Block>,
}

/// Lines that follow one another several times, as in mutual recursion.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Block {
    lines: usize,
    times: usize,
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

impl<'a> Stack<'a> {
    /// Adds the lines, each after `indent` spaces. The leaf-most frame of the
    /// program's own code stands out.
    pub fn render(&self, text: &mut String, indent: usize, layout: &Layout) {
        let lines = self.lines();
        let interest = lines.iter().position(|line| java::is_own_code(line.frame));
        let shown = shown(
            lines.len(),
            [interest, lines.iter().position(Line::is_several)],
        );
        let mut next = 0;
        for index in shown {
            if index > next {
                let hidden: usize = lines[next..index].iter().map(|line| line.frames).sum();
                layout.line(
                    text,
                    layout.faint,
                    &format!("{:indent$}… {hidden} more frames", ""),
                );
            }
            lines[index].render(text, indent, layout, interest == Some(index));
            next = index + 1;
        }
        if let Some(end) = self.end_note() {
            layout.line(text, layout.faint, &format!("{:indent$}{end}", ""));
        }
    }

    fn lines(&self) -> Vec<Line<'a>> {
        let mut lines: Vec<Line<'a>> = Vec::new();
        for frame in self.frames.iter().rev() {
            let label = names::label(frame);
            match lines.last_mut() {
                Some(last) if frame.function.is_some() && last.label == label => last.repeated += 1,
                _ => lines.push(Line {
                    frame,
                    label,
                    repeated: 1,
                    frames: 1,
                    block: None,
                }),
            }
        }
        for line in &mut lines {
            line.frames = line.repeated;
        }
        fold(lines)
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

/// Leaves out repetitions of several lines.
fn fold(mut lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
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

/// Which lines of a stack are shown: the leaf, the root, and where the
/// program's own code begins, and that which was generated.
fn shown(count: usize, interest: [Option<usize>; 2]) -> BTreeSet<usize> {
    if count <= MAX_LINES {
        return (0..count).collect();
    }
    let interest = interest.into_iter().flatten();
    let around = interest.flat_map(|line| [line, line + 1]);
    (0..LEAF_LINES)
        .chain(count - ROOT_LINES..count)
        .chain(around)
        .filter(|line| *line < count)
        .collect()
}

impl Line<'_> {
    fn render(&self, text: &mut String, indent: usize, layout: &Layout, interest: bool) {
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

    /// Whether its name stands for several.
    fn is_several(&self) -> bool {
        let originals = self.frame.originals.as_ref();
        originals.is_some_and(|originals| originals.count > 1)
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
    /// name the reason.
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
        match (names::place(self.frame), &self.frame.module) {
            (Some(place), _) => short_path(&place).into(),
            (None, Some(module)) => format!("({})", names::clean(names::base(module))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn lines(frames: &[Frame], end: Option<StackEnd>) -> Vec<String> {
        let mut text = String::new();
        Stack { frames, end }.render(&mut text, 2, &Layout::new(1, Some(60), false));
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn leaf_first_with_places() {
        let mut inlined = sample::program("make()", "make.h", 3, 0x40_2000);
        inlined.inlined = true;
        let frames = [
            sample::program("main", "main.cpp", 9, 0x40_1000),
            inlined,
            sample::library("strdup", 1),
        ];
        let expected = [
            "  strdup  (libc.so.6)",
            "  make() (inlined)  leaky/make.h:3",
            "  main  leaky/main.cpp:9",
        ];
        assert_eq!(lines(&frames, Some(StackEnd::Start)), expected);
    }

    #[test]
    fn a_frame_without_a_name_says_why() {
        let known = Frame {
            module: Some("/opt/libz.so.1".into()),
            module_offset: Some(0x4321),
            reason: Some("no symbol table".into()),
            ..Frame::default()
        };
        let unknown = Frame {
            address: 0x7f12,
            ..Frame::default()
        };
        let expected = [
            "  libz.so.1+0x4321  (no symbol table)",
            "  [unknown]  (0x7f12, no name)",
            "  (the stack ends here: the next return address is none)",
        ];
        assert_eq!(
            lines(&[unknown, known], Some(StackEnd::BadReturn)),
            expected
        );
    }

    #[test]
    fn a_long_stack_keeps_leaf_root_and_the_programs_own_code() {
        let mut frames: Vec<Frame> = (0..40)
            .map(|n| sample::library(&format!("lib{n}"), n))
            .collect();
        frames[20] = sample::program("interesting()", "a.cpp", 1, 0x40_0000);
        let lines = lines(&frames, None);
        assert_eq!(lines[0], "  lib39  (libc.so.6)");
        assert_eq!(lines[8], "  … 11 more frames");
        assert_eq!(lines[9], "  interesting()  leaky/a.cpp:1");
        assert_eq!(lines[11], "  … 16 more frames");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("  lib0  (libc.so.6)")
        );
    }

    #[test]
    fn java_packages_are_shortened_before_anything_is_cut() {
        use crate::model::Origin;
        let name = "com.acme.warehouse.shipping.OrderBook.addOrder";
        let java = |name| sample::java(name, "OrderBook.java", 7, Origin::C1);
        let frames = [
            java("java.lang.Thread.run"),
            java(name),
            java("com.acme.warehouse.shipping.containers.ExceedinglyLongClassName.addOrder"),
        ];
        assert_eq!(
            lines(&frames, None),
            [
                "  c.a.w.s.c.Exceeding…ngClassName.addOrder  OrderBook.java:7",
                "  c.a.w.shipping.OrderBook.addOrder  OrderBook.java:7",
                "  java.lang.Thread.run  OrderBook.java:7",
            ]
        );
    }

    #[test]
    fn recursion_takes_one_line() {
        let frames: Vec<Frame> = (0..50).map(|n| sample::library("walk", n)).collect();
        assert_eq!(lines(&frames, None), ["  walk (×50)  (libc.so.6)"]);
    }

    #[test]
    fn what_is_repeated_in_turn_is_one_block() {
        let names = |names: &str| -> Vec<Frame> {
            let names = names.split(' ').zip(1..);
            names.map(|(name, n)| sample::library(name, n)).collect()
        };
        let shown = |frames: &str| -> Vec<String> {
            let lines = lines(&names(frames), None);
            let plain = lines.iter().map(|it| it.replace("  (libc.so.6)", ""));
            plain.map(|line| line.trim().to_owned()).collect()
        };
        assert_eq!(
            shown("main a b a b a b leaf"),
            ["leaf", "b", "a", "(these 2 × 3)", "main"]
        );
        assert_eq!(
            shown("main a a b a a b c"),
            ["c", "b", "a (×2)", "(these 2 × 2)", "main"]
        );
        assert_eq!(shown("main a b c a"), ["a", "c", "b", "a", "main"]);
        assert_eq!(
            shown("x a b c a b c a b y"),
            ["y", "b", "a", "c", "(these 3 × 2)", "b", "a", "x"],
            "what is left of a round stays"
        );
        // What a block stands for is hidden with it.
        let deep = format!("main a b c d {} o p q r s t u v", "f g ".repeat(20).trim());
        assert!(
            shown(&deep).iter().any(|it| it == "… 42 more frames"),
            "{:?}",
            shown(&deep)
        );
    }

    #[test]
    fn a_name_that_stands_for_others_is_shown_however_deep_it_is() {
        let mut frames: Vec<Frame> = (0..40)
            .map(|n| sample::library(&format!("lib{n}"), n))
            .collect();
        let made = |count| Originals {
            count,
            ..Originals::one("made7".into(), crate::model::By::Asked)
        };
        frames[20].originals = Some(std::sync::Arc::new(made(1)));
        assert_eq!(lines(&frames, None)[8], "  … 29 more frames");
        frames[20].originals = Some(std::sync::Arc::new(made(7)));
        assert_eq!(lines(&frames, None)[9], "  lib20 (7 names)  (libc.so.6)");
    }

    #[test]
    fn a_name_that_stands_for_others_says_for_how_many() {
        let frame = |count, lower_bound| Frame {
            originals: Some(std::sync::Arc::new(Originals {
                count,
                lower_bound,
                ..Originals::one("Script17.run".into(), crate::model::By::Numbers)
            })),
            ..sample::java("Script*.run", "", 0, crate::model::Origin::C1)
        };
        let shown = [frame(1, false), frame(1_700, false), frame(1_700, true)];
        let shown = shown.map(|frame| lines(&[frame], None).remove(0));
        assert_eq!(
            shown,
            [
                "  Script*.run",
                "  Script*.run (1,700 names)",
                "  Script*.run (at least 1,700 names)"
            ]
        );
    }
}
