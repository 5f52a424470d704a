//! Which characters of a name a reader can see, and tell from others.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Marks on one character, at most: Vietnamese takes two, Hebrew and Tibetan
/// three or four. More of them grow over the lines above and below.
const MARKS: u32 = 4;

/// What has no look of its own: control and format characters, private ones and
/// those that are none (yet), those that Unicode wants ignored where they are
/// not known (from joiners and direction overrides to letters that fill a
/// place), spaces of other widths than the usual one, and the braille pattern
/// without a dot.
const HIDDEN: &str = r"[\p{C}\p{DI}\p{Zl}\p{Zp}[\p{Zs}--\x20]\u{2800}]";

/// What is drawn on the character before it.
const MARK: &str = r"\p{M}";

/// A set of characters: sorted ranges, both ends included.
struct Set(Vec<(char, char)>);

impl Set {
    /// The set of a pattern, by the tables of the regex crate.
    fn of(pattern: &str) -> Self {
        match regex_syntax::parse(pattern).map(|parsed| parsed.into_kind()) {
            Ok(HirKind::Class(Class::Unicode(class))) => {
                let ranges = class.ranges().iter();
                Self(ranges.map(|range| (range.start(), range.end())).collect())
            }
            // The patterns are constants, and the tests look at all characters.
            _ => Self(vec![('\0', char::MAX)]),
        }
    }

    fn has(&self, c: char) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= c);
        after > 0 && c <= self.0[after - 1].1
    }
}

static HIDDEN_SET: LazyLock<Set> = LazyLock::new(|| Set::of(HIDDEN));
static MARK_SET: LazyLock<Set> = LazyLock::new(|| Set::of(MARK));

/// Reads a name from its beginning, and says of each character whether it is
/// to be shown.
pub struct Reader {
    /// Marks since the last other character.
    marks: u32,
}

impl Reader {
    /// At the beginning, where there is nothing that a mark could be on.
    pub fn new() -> Self {
        Self { marks: MARKS }
    }

    /// Whether the next character is to be shown.
    pub fn shows(&mut self, c: char) -> bool {
        if is_plain(c) {
            self.marks = 0;
            return true;
        }
        if HIDDEN_SET.has(c) {
            self.marks = 0;
            return false;
        }
        if MARK_SET.has(c) {
            self.marks = self.marks.saturating_add(1);
            return self.marks <= MARKS;
        }
        self.marks = 0;
        true
    }
}

/// Printable ASCII, as nearly all names are.
pub fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~')
}

/// Replaces everything that could steer a terminal or reorder a line, or that
/// cannot be seen at all, so that two names would look the same, by `�`.
pub fn clean(name: &str) -> Cow<'_, str> {
    // As nearly all names are, and looked at in words.
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(name);
    }
    let mut reader = Reader::new();
    if name.chars().all(|c| reader.shows(c)) {
        return Cow::Borrowed(name);
    }
    let mut reader = Reader::new();
    let shown = name
        .chars()
        .map(|c| if reader.shows(c) { c } else { '\u{FFFD}' });
    Cow::Owned(shown.collect())
}

/// The same for each line of a text of ours, in which names are clean already: it keeps its lines.
pub fn clean_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(clean).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthChar;

    use super::*;

    #[test]
    fn a_text_keeps_its_lines_and_nothing_else_that_is_hidden() {
        assert_eq!(
            clean_lines("one\n two\u{7}\r\n"),
            "one\n two\u{FFFD}\u{FFFD}\n"
        );
    }

    fn is_shown(c: char) -> bool {
        let mut reader = Reader::new();
        reader.shows('a') && reader.shows(c)
    }

    /// Every character there is, judged by others: the terminal's width of it,
    /// and the standard library.
    #[test]
    fn what_takes_no_place_is_not_shown() {
        let unassigned = Set::of(r"\p{Cn}");
        let (mut hidden, mut letters) = (0, 0);
        for c in '\0'..=char::MAX {
            let takes_none = c.width().unwrap_or(0) == 0;
            // Some letters, and a caret of Devanagari, are drawn on others.
            // Letters that are not drawn are in the other test's list.
            let is_on_others = MARK_SET.has(c) || c.is_alphabetic() || c == '\u{A8FA}';
            if takes_none && !is_on_others {
                assert!(!is_shown(c), "{:x} takes no place", u32::from(c));
                hidden += 1;
            }
            if c.is_control() || (c.is_whitespace() && c != ' ') {
                assert!(!is_shown(c), "{:x}", u32::from(c));
            }
            // Where the tables are of another Unicode than the library's, there
            // may be letters that they do not know.
            if c.is_alphanumeric() && c.width() != Some(0) && !unassigned.has(c) {
                let is_filler = matches!(c, '\u{115F}' | '\u{3164}' | '\u{FFA0}');
                assert_eq!(is_shown(c), !is_filler, "{:x}", u32::from(c));
                letters += 1;
            }
        }
        // The tags and variation selectors alone are over 300.
        assert!(hidden > 4_000, "{hidden}");
        assert!(letters > 130_000, "{letters}");
    }

    /// `Default_Ignorable_Code_Point` as the standard lists it, which says that
    /// the list stays.
    #[test]
    fn what_is_ignored_by_default_is_not_shown() {
        let ranges = [
            ('\u{00AD}', '\u{00AD}'),
            ('\u{034F}', '\u{034F}'),
            ('\u{061C}', '\u{061C}'),
            ('\u{115F}', '\u{1160}'),
            ('\u{17B4}', '\u{17B5}'),
            ('\u{180B}', '\u{180F}'),
            ('\u{200B}', '\u{200F}'),
            ('\u{202A}', '\u{202E}'),
            ('\u{2060}', '\u{206F}'),
            ('\u{3164}', '\u{3164}'),
            ('\u{FE00}', '\u{FE0F}'),
            ('\u{FEFF}', '\u{FEFF}'),
            ('\u{FFA0}', '\u{FFA0}'),
            ('\u{FFF0}', '\u{FFF8}'),
            ('\u{1BCA0}', '\u{1BCA3}'),
            ('\u{1D173}', '\u{1D17A}'),
            ('\u{E0000}', '\u{E0FFF}'),
        ];
        for (start, end) in ranges {
            for c in start..=end {
                assert!(!is_shown(c), "{:x}", u32::from(c));
            }
        }
    }

    #[test]
    fn scripts_stay_as_they_are() {
        for name in [
            "größe<T>(日本)",
            "हिन्दी_स्थान",
            "ภาษาไทย",
            "العربية",
            "שָׁלוֹם",
            "tie\u{302}\u{301}ng_vie\u{323}\u{302}t",
            "தமிழ்",
            "한국어",
            "\u{1112}\u{1161}\u{11ab}",
            "བསྒྲུབས",
            "ελληνικά",
            "λ→∀🦀",
        ] {
            let mut reader = Reader::new();
            for c in name.chars() {
                assert!(reader.shows(c), "{:x} of {name}", u32::from(c));
            }
        }
    }

    #[test]
    fn marks_need_something_to_be_on_and_end() {
        let mut reader = Reader::new();
        assert!(!reader.shows('\u{301}'));
        assert!(reader.shows('a'));
        for _ in 0..MARKS {
            assert!(reader.shows('\u{301}'));
        }
        for _ in 0..100 {
            assert!(!reader.shows('\u{301}'));
        }
        assert!(reader.shows('b') && reader.shows('\u{301}'));
    }
}
