//! The call path of a finding in one line.

use std::borrow::Cow;

use crate::model::{Finding, Frame, Origin, Report};
use crate::report::brief::brief;
use crate::report::names;
use crate::report::own::{down_to_own, is_own};

/// Names of a path that are shown, the deepest.
const MAX_NAMES: usize = 6;
/// Functions of the program itself that are shown where libraries have the deepest ones.
const PROGRAMS: usize = 2;
/// What stands for names that are left out.
const GAP: &str = "…";

/// The path of a finding, root first: the program's own words in it, the deepest of them;
/// or the deepest names, if it has none of its own. `None` if it is about no path.
pub fn line(report: &Report, finding: &Finding) -> Option<String> {
    if finding.path.is_empty() {
        return None;
    }
    let first = finding.sites.first();
    let site = first.and_then(|id| report.sites.iter().find(|site| site.id == *id));
    let own = site.and_then(|site| {
        let frames = names::drawn_frames(site);
        own_words(&frames[..finding.path.len().min(frames.len())])
    });
    Some(own.unwrap_or_else(|| deepest(&finding.path)))
}

/// The deepest names of a path.
pub fn deepest(path: &[String]) -> String {
    let from = path.len().saturating_sub(MAX_NAMES);
    let names = path[from..].iter();
    let shown: Vec<_> = names
        .map(|name| brief(&names::clean(name)).into_owned())
        .collect();
    let shown = shown.join(" > ");
    match from {
        0 => shown,
        _ => format!("{GAP} > {shown}"),
    }
}

/// The program's own functions of a path, if there are any.
fn own_words(frames: &[Frame]) -> Option<String> {
    let own = |is_it: fn(&Frame) -> bool, most: usize| {
        let indices = (0..frames.len()).rev();
        let found = indices.filter(move |at| is_own(&frames[*at]) && is_it(&frames[*at]));
        found.take(most)
    };
    let mut shown: Vec<usize> = own(|_| true, MAX_NAMES - PROGRAMS).collect();
    let programs = own(is_programs, MAX_NAMES).filter(|at| !shown.contains(at));
    let programs: Vec<usize> = programs.take(PROGRAMS).collect();
    shown.extend(programs);
    // Of a stripped program who asks has no name.
    let asks = down_to_own(frames).and_then(|length| length.checked_sub(1));
    shown.extend(asks.filter(|at| frames[*at].function.is_none()));
    shown.sort_unstable();
    let first = *shown.first()?;
    let mut words: Vec<Cow<'_, str>> = Vec::new();
    // Before the first one only what is the program's own is worth a word.
    if frames[..first].iter().any(is_own) {
        words.push(GAP.into());
    }
    let mut next = first;
    for at in shown {
        if at > next {
            words.push(GAP.into());
        }
        let label = names::label(&frames[at]);
        let label = brief(&label).into_owned();
        // A function that calls itself is one.
        if words.last().is_none_or(|last| *last != label) {
            words.push(label.into());
        }
        next = at + 1;
    }
    Some(words.join(" > "))
}

/// Whether it is of the program itself, not of a library.
const fn is_programs(frame: &Frame) -> bool {
    frame.origin.is_java()
        || frame.origin.is_script()
        || matches!(frame.origin, Origin::Program | Origin::Jit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn words(frames: &[Frame]) -> Option<String> {
        own_words(frames)
    }

    #[test]
    fn who_asks_in_a_stripped_program_is_shown_without_a_name() {
        let frame = |function: Option<&str>, address: u64| Frame {
            function: function.map(Into::into),
            module: Some("/usr/lib/chromium/chromium".into()),
            module_offset: Some(address),
            origin: Origin::Program,
            address,
            ..Frame::default()
        };
        let mut frames = vec![frame(Some("ChromeMain"), 1)];
        frames.extend((2..9).map(|at| frame(None, at)));
        let said = words(&frames).unwrap_or_default();
        assert_eq!(said, "ChromeMain > … > chromium+0x8");
    }

    #[test]
    fn runtimes_are_left_out_and_gaps_marked() {
        let program = |name| sample::program(name, "a.cpp", 1, 1);
        let library = |name| sample::library(name, 2);
        let frames = [
            library("__libc_start_main"),
            program("main"),
            program("serve"),
            library("start_thread"),
            program("accept_one(int)"),
            program("std::make_shared<Session>(int)"),
            program("Session::Session(int)"),
            library("malloc"),
        ];
        let expected = "main > serve > … > accept_one(int) > … > Session::Session(int)";
        assert_eq!(words(&frames).as_deref(), Some(expected));
        assert_eq!(words(&frames[..1]), None);
    }

    #[test]
    fn the_program_is_named_where_a_library_is_deep() {
        let library = |name: &str| Frame {
            module: Some("/usr/lib/libsqlite3.so.0".into()),
            ..sample::library(name, 2)
        };
        let mut frames = vec![
            sample::program("main", "a.c", 1, 1),
            sample::program("lookup", "a.c", 1, 1),
        ];
        frames.extend(["prepare", "parse", "parse", "select", "create", "grow"].map(library));
        let expected = "main > lookup > … > parse > select > create > grow";
        assert_eq!(words(&frames).as_deref(), Some(expected));
    }

    #[test]
    fn without_own_words_the_deepest_names_are_shown() {
        let names = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned);
        assert_eq!(deepest(&names), "… > b > c > d > e > f > g");
        assert_eq!(deepest(&names[..2]), "a > b");
    }
}
