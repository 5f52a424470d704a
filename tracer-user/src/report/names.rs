//! Names from the target, made safe and short.
//!
//! Symbols, paths and process names are the target's own bytes. Nothing of
//! them reaches a terminal, a folded line or a drawing before [`clean`].

use std::borrow::Cow;

use super::units;
use crate::model::{Frame, Origin, Process, Report, Site, Thread};
pub use crate::visible::clean;

/// What stands for a frame of which nothing is known.
pub const UNKNOWN: &str = "[unknown]";

/// The last component of a path or pseudo name.
pub fn base(path: &str) -> &str {
    path.rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap_or(path)
}

/// What a frame is called: its function, else `module+0xoffset`, else
/// [`UNKNOWN`]. The same call path has the same labels in every run. What each file of Python has,
/// `<module>` and `<lambda>`, has the file's name, and what has no name in JavaScript its place.
pub fn label(frame: &Frame) -> Cow<'_, str> {
    let function = frame.function.as_ref().filter(|name| !name.is_empty());
    match (function, &frame.module, frame.module_offset) {
        (Some(function), ..) if frame.origin == Origin::Python && function.starts_with('<') => {
            let file = frame.file.as_deref().map_or(UNKNOWN, base);
            format!("{} ({})", clean(function), clean(file)).into()
        }
        (Some(function), ..) if is_anonymous(frame) => {
            let place = place(frame).unwrap_or_else(|| UNKNOWN.to_owned());
            format!("{} ({})", clean(function), base(&place)).into()
        }
        (Some(function), ..) => clean(function),
        (None, Some(module), Some(offset)) => format!("{}+{offset:#x}", clean(base(module))).into(),
        (None, Some(module), None) if module.starts_with('[') => clean(module),
        (None, Some(module), None) => format!("[{}]", clean(base(module))).into(),
        (None, None, _) => UNKNOWN.into(),
    }
}

/// Whether it is a function of JavaScript that has no name.
pub fn is_anonymous(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    frame.origin == Origin::JavaScript && function.starts_with('(')
}

/// The frames to draw, root first: a stack that ends early stands on a frame
/// that says why, so that its lowest function does not seem a thread's start.
pub fn drawn_frames(site: &Site) -> Cow<'_, [Frame]> {
    let Some(meaning) = site.stack_end.meaning() else {
        return Cow::Borrowed(&site.frames);
    };
    let end = Frame {
        function: Some(format!("[{meaning}]").into()),
        ..Frame::default()
    };
    let frames = site.frames.iter().cloned();
    Cow::Owned(std::iter::once(end).chain(frames).collect())
}

/// `file:line` if the frame has it.
pub fn place(frame: &Frame) -> Option<String> {
    let file = clean(frame.file.as_deref()?);
    Some(match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file.into_owned(),
    })
}

/// What tells one frame of a call path from another, in every run: its
/// [`label`] and the name of its file.
pub fn key(frame: &Frame) -> (Cow<'_, str>, &str) {
    let module = frame
        .module
        .as_deref()
        .map(|module| base(module).trim_end_matches(" (deleted)"));
    (label(frame), module.unwrap_or_default())
}

/// `[name tid=7]`, as other Java profilers write it: the root of a thread's
/// call paths.
pub fn thread(thread: &Thread) -> String {
    match clean(&thread.name) {
        name if name.is_empty() => format!("[tid={}]", thread.id),
        name => format!("[{name} tid={}]", thread.id),
    }
}

/// What a site's call path is drawn on: its process, if there are several,
/// and its thread, if they are told apart.
pub fn roots(report: &Report, site: &Site) -> Vec<String> {
    let several = report.processes.len() > 1;
    let process = several.then(|| process_of(report, site.process));
    let thread = site.thread.as_ref().map(thread);
    process.into_iter().chain(thread).collect()
}

/// `name (pid)`, or `name (12 processes)` of several, with the executable's name
/// when there is no short name.
pub fn process(process: &Process) -> String {
    let name = if process.name.is_empty() {
        base(&process.executable)
    } else {
        &process.name
    };
    match process.processes {
        0 | 1 => format!("{} ({})", clean(name), process.pid),
        several => format!("{} ({} processes)", clean(name), units::grouped(several)),
    }
}

/// [`process`] by its id.
pub fn process_with(report: &Report, pid: u32) -> String {
    let found = report.processes.iter().find(|process| process.pid == pid);
    found.map_or_else(|| format!("process {pid}"), process)
}

/// [`process`] by index; an index without an entry is an unknown process.
pub fn process_of(report: &Report, index: usize) -> String {
    report
        .processes
        .get(index)
        .map_or_else(|| UNKNOWN.into(), process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(clean("\x1b]0;owned\x07"), "\u{FFFD}]0;owned\u{FFFD}");
        assert_eq!(clean("a\u{9b}31mb"), "a\u{FFFD}31mb");
        assert_eq!(clean("x\u{202E}y\nz"), "x\u{FFFD}y\u{FFFD}z");
        assert!(matches!(clean("größe<T>(日本)"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_each_file_of_python_has_is_told_apart() {
        let frame = |function: &str| Frame {
            function: Some(function.into()),
            file: Some("/srv/shop/cart.py".into()),
            origin: Origin::Python,
            ..Frame::default()
        };
        assert_eq!(label(&frame("<module>")), "<module> (cart.py)");
        assert_eq!(
            label(&frame("Cart.add.<locals>.<lambda>")),
            "Cart.add.<locals>.<lambda>"
        );
    }

    #[test]
    fn names_that_differ_look_different() {
        // Zero widths, a filler, a tag, a variation selector, an odd space.
        for unseen in [
            '\u{200B}',
            '\u{200C}',
            '\u{200D}',
            '\u{2060}',
            '\u{AD}',
            '\u{3164}',
            '\u{E0041}',
            '\u{FE0F}',
            '\u{2064}',
            '\u{17B4}',
            '\u{A0}',
            '\u{2800}',
        ] {
            let name = format!("fr{unseen}ee");
            assert_eq!(clean(&name), "fr\u{FFFD}ee", "{:x}", u32::from(unseen));
        }
        assert_eq!(clean("\u{301}a\u{301}"), "\u{FFFD}a\u{301}");
    }

    #[test]
    fn a_frame_without_a_name_is_called_by_its_place() {
        let mut frame = Frame {
            address: 0x7f00_1234,
            ..Frame::default()
        };
        assert_eq!(label(&frame), "[unknown]");
        frame.module = Some("/usr/lib/libfoo.so.1".into());
        assert_eq!(label(&frame), "[libfoo.so.1]");
        frame.module_offset = Some(0x1234);
        assert_eq!(label(&frame), "libfoo.so.1+0x1234");
        frame.function = Some("foo".into());
        assert_eq!(label(&frame), "foo");
    }

    #[test]
    fn a_thread_is_called_by_its_name_and_number() {
        let of = |name: &str| {
            thread(&Thread {
                id: 7,
                name: name.into(),
            })
        };
        assert_eq!(of("pool-1"), "[pool-1 tid=7]");
        assert_eq!(of(""), "[tid=7]");
        assert_eq!(of("a\x1bb"), "[a\u{FFFD}b tid=7]");
    }

    #[test]
    fn base_names() {
        assert_eq!(base("/usr/lib/libc.so.6"), "libc.so.6");
        assert_eq!(base("[vdso]"), "[vdso]");
        assert_eq!(base("/"), "/");
    }
}
