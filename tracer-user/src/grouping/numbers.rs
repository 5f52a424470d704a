//! Numbers that nobody has written: those of a class that is one of many.
//!
//! `Script17` may be anybody's name. Where a report has ten and more classes whose names
//! differ in the number at one place alone, they were made.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::code::Code;

/// So many different numbers at one place of a name show that it is generated: more than
/// people give to classes that stand in one path at one line each.
pub const MANY: usize = 10;

/// The numbers that were seen, by what stands around them.
#[derive(Debug, Default)]
pub struct Numbers {
    /// What stands before (with stars for numbers) and behind a number; the numbers, until
    /// they are many.
    seen: HashMap<(String, String), HashSet<String>>,
}

impl Numbers {
    /// Looks at a name.
    pub fn learn(&mut self, name: &str, code: Code) {
        for place in Places::of(name, code) {
            let seen = self.seen.entry(place.around).or_default();
            if seen.len() < MANY {
                seen.insert(name[place.number].to_owned());
            }
        }
    }

    /// The name with a star for each number that is one of many; `None` if there is none.
    pub fn without(&self, name: &str, code: Code) -> Option<String> {
        let mut plain = String::new();
        let mut copied = 0;
        for place in Places::of(name, code) {
            let seen = self.seen.get(&place.around);
            if seen.is_some_and(|seen| seen.len() >= MANY) {
                plain.push_str(&name[copied..place.number.start]);
                plain.push('*');
                copied = place.number.end;
            }
        }
        if copied == 0 {
            return None;
        }
        plain.push_str(&name[copied..]);
        Some(plain)
    }
}

/// A number in a name.
struct Place {
    number: Range<usize>,
    around: (String, String),
}

/// The numbers of a name that may be generated.
struct Places<'a> {
    name: &'a str,
    /// Where the next one is searched.
    at: usize,
    /// Where they end.
    end: usize,
    /// What was passed, with stars for numbers.
    before: String,
    /// What ends the word that a number is in.
    borders: &'static [u8],
}

/// Names are compared no deeper: what is made from a number is near the beginning, and a
/// name may be 16 KiB of numbers.
const MAX_PLACES: usize = 16;

impl<'a> Places<'a> {
    fn of(name: &'a str, code: Code) -> impl Iterator<Item = Place> + 'a {
        let (range, borders): (_, &[u8]) = match code {
            Code::Java => (0..class_end(name), b".$"),
            Code::Jit => (file_in(name), b"/:"),
            Code::Native | Code::Script | Code::Unknown => (0..0, b""),
        };
        Places {
            name,
            at: range.start,
            end: range.end,
            before: name[..range.start].to_owned(),
            borders,
        }
        .take(MAX_PLACES)
    }

    /// The next number: digits, or a word of hexadecimal ones.
    fn next_number(&self) -> Option<Range<usize>> {
        let bytes = &self.name.as_bytes()[..self.end];
        let is_in_word = |at: usize| bytes[at].is_ascii_alphanumeric();
        let mut at = self.at;
        while at < self.end {
            let begins = is_in_word(at) && (at == 0 || !is_in_word(at - 1));
            if begins && let Some(length) = hexadecimal(&bytes[at..]) {
                return Some(at..at + length);
            }
            if bytes[at].is_ascii_digit() {
                let digits = bytes[at..].iter().take_while(|it| it.is_ascii_digit());
                return Some(at..at + digits.count());
            }
            at += 1;
        }
        None
    }

    /// Whether a number is one that javac gives: `Foo$1.run`, `Foo$1Local.run`.
    fn is_nested(&self, number: &Range<usize>) -> bool {
        let is_decimal = self.name[number.clone()]
            .bytes()
            .all(|it| it.is_ascii_digit());
        let is_behind_dollar = self.name[..number.start].ends_with('$');
        self.borders.contains(&b'$') && is_decimal && is_behind_dollar
    }
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            let bytes = self.name.as_bytes();
            let number = self.next_number()?;
            self.before.push_str(&self.name[self.at..number.start]);
            let before = self.before.clone();
            self.before.push('*');
            self.at = number.end;
            if self.is_nested(&number) {
                continue;
            }
            let is_border = |at: &usize| self.borders.contains(&bytes[*at]);
            let word = (number.end..self.end).find(is_border).unwrap_or(self.end);
            return Some(Place {
                around: (before, self.name[number.end..word].to_owned()),
                number,
            });
        }
    }
}

/// A shorter word of letters and digits may be one of somebody's.
const MIN_HEXADECIMAL: usize = 6;

/// The length of the word at the beginning, if it is a hexadecimal number: its digits in one
/// case, and not letters alone.
fn hexadecimal(bytes: &[u8]) -> Option<usize> {
    let length = bytes
        .iter()
        .take_while(|it| it.is_ascii_alphanumeric())
        .count();
    let word = &bytes[..length];
    let is_number = length >= MIN_HEXADECIMAL
        && word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_digit)
        && !(word.iter().any(u8::is_ascii_lowercase) && word.iter().any(u8::is_ascii_uppercase));
    is_number.then_some(length)
}

/// Where the class ends in `package.Class.method`.
fn class_end(name: &str) -> usize {
    name.rfind('.').unwrap_or(0)
}

/// The file in a name of Node's or Python's perf maps, without the place in it:
/// `JS:*run /app/a.js:10:5`, `py::run:/app/a.py`.
fn file_in(name: &str) -> Range<usize> {
    const JS: [&str; 5] = ["JS:", "LazyCompile:", "Function:", "Script:", "Eval:"];
    let start = if JS.iter().any(|head| name.starts_with(head)) {
        name.find(' ').map(|space| space + 1)
    } else {
        let function = name.strip_prefix("py::");
        function.and_then(|it| Some(it.find(':')? + "py::".len() + 1))
    };
    let Some(start) = start else { return 0..0 };
    let is_place = |letter: char| letter == ':' || letter.is_ascii_digit();
    let file = name[start..].trim_end_matches(is_place);
    start..start + file.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(names: &[String], code: Code) -> Vec<String> {
        let mut numbers = Numbers::default();
        for name in names {
            numbers.learn(name, code);
        }
        let plain = names.iter().map(|name| {
            let without = numbers.without(name, code);
            without.unwrap_or_else(|| name.clone())
        });
        let distinct: HashSet<String> = plain.collect();
        let mut distinct: Vec<String> = distinct.into_iter().collect();
        distinct.sort();
        distinct
    }

    fn series(name: &str, count: usize) -> Vec<String> {
        let number = |number: usize| name.replace('#', &number.to_string());
        (0..count).map(number).collect()
    }

    #[test]
    fn a_number_is_left_out_if_the_class_is_one_of_many() {
        let all = |name| plain(&series(name, MANY), Code::Java);
        for (name, expected) in [
            ("Script#.run", "Script*.run"),
            ("a.log4j.Script#$Part.run", "a.log4j.Script*$Part.run"),
            ("a.gen#.Script.run", "a.gen*.Script.run"),
            ("a.Made#Rule.run", "a.Made*Rule.run"),
        ] {
            assert_eq!(all(name), [expected]);
            let few = series(name, MANY - 1);
            assert_eq!(plain(&few, Code::Java).len(), few.len(), "{name}");
        }
        // Each method of the class is known by all others.
        let mut names = series("Script#.run", MANY);
        names.push("Script7.compile".into());
        names.push("Script8$Part.compile".into());
        let expected = ["Script*$Part.compile", "Script*.compile", "Script*.run"];
        assert_eq!(plain(&names, Code::Java), expected);
    }

    #[test]
    fn a_word_of_hexadecimal_digits_is_a_number() {
        let of = |name: &str, step: u32| -> Vec<String> {
            let number = |number: u32| format!("{:06x}", 0x3f_9a2b + number * step);
            let names = (0..20).map(|it| name.replace('#', &number(it)));
            plain(&names.collect::<Vec<_>>(), Code::Java)
        };
        assert_eq!(of("a.View_#.show", 7_919), ["a.View_*.show"]);
        assert_eq!(of("a.View$#$Part.show", 7_919), ["a.View$*$Part.show"]);
        // What begins amid a word is none: its letters may be the word's.
        assert_eq!(of("a.View#.show", 7_919).len(), 20);
        for (word, length) in [
            ("3f9a2b", Some(6)),
            ("3F9A2B1C.run", Some(8)),
            ("2024_06", None),
            ("123456", Some(6)),
            ("decade", None),
            ("3F9a2b", None),
            ("base64", None),
        ] {
            assert_eq!(hexadecimal(word.as_bytes()), length, "{word}");
        }
    }

    #[test]
    fn numbers_of_the_source_stay() {
        for name in [
            "Foo$#.run",
            "Foo$#Local.run",
            "Foo.lambda$main$#",
            "Foo.step#",
            "step#",
        ] {
            let names = series(name, 3 * MANY);
            assert_eq!(plain(&names, Code::Java).len(), names.len(), "{name}");
        }
        let names = series("handle_#", 3 * MANY);
        assert_eq!(plain(&names, Code::Native).len(), names.len());
        let names = series("wasm-function[#]", 3 * MANY);
        assert_eq!(plain(&names, Code::Jit).len(), names.len());
    }

    #[test]
    fn of_scripts_the_file_may_be_one_of_many_and_the_place_in_it_not() {
        for (name, expected) in [
            (
                "JS:*run /tmp/gen/script-#.js:1:17",
                "JS:*run /tmp/gen/script-*.js:1:17",
            ),
            ("py::run:/srv/gen_#.py", "py::run:/srv/gen_*.py"),
        ] {
            assert_eq!(plain(&series(name, MANY), Code::Jit), [expected]);
        }
        for name in [
            "JS:*f# /a.js:1:1",
            "JS:*f /a.js:#:1",
            "JS:*f /a.js:1:#",
            "py::f#:/a.py",
        ] {
            assert_eq!(plain(&series(name, 30), Code::Jit).len(), 30, "{name}");
        }
    }

    #[test]
    fn a_name_of_numbers_alone_costs_little() {
        let name = format!("{}.run", "1z".repeat(8_000));
        let mut numbers = Numbers::default();
        for _ in 0..100 {
            numbers.learn(&name, Code::Java);
        }
        assert_eq!(numbers.seen.len(), MAX_PLACES);
    }
}
