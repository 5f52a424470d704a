//! Names of functions, as they are typed: symbols, names as they are shown, with or
//! without arguments, and patterns.

use crate::pattern::is_like;
use crate::symbolize::demangle;

/// What compilers put behind the name of a function of which they split off a part, or
/// made a copy: calls from there are the function's.
const PARTS: [&str; 6] = [
    ".cold",
    ".part.",
    ".isra.",
    ".constprop.",
    ".lto_priv.",
    ".llvm.",
];

/// Words of names that may not be found so in a mangled name.
const UNSPELLED: [&str; 22] = [
    "allocator",
    "anonymous",
    "basic_string",
    "bool",
    "char",
    "closure",
    "const",
    "double",
    "float",
    "impl",
    "int",
    "iostream",
    "istream",
    "long",
    "namespace",
    "operator",
    "ostream",
    "short",
    "signed",
    "string",
    "unsigned",
    "void",
];

/// A function that was asked for.
#[derive(Debug)]
pub struct Pattern {
    typed: String,
    /// What a mangled name has in it if its function is meant; empty if that is not known.
    word: String,
}

impl Pattern {
    /// A name.
    pub fn new(typed: &str) -> Self {
        Self {
            typed: typed.to_owned(),
            word: word_of(typed).to_owned(),
        }
    }

    /// As it was typed.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// The longest word that a mangled name of it has; empty if there is none.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// Whether a function's symbol is meant.
    pub fn matches(&self, symbol: &[u8]) -> bool {
        let Ok(symbol) = std::str::from_utf8(symbol) else {
            return false;
        };
        let symbol = whole(symbol);
        if is_like(&self.typed, symbol) {
            return true;
        }
        if !is_mangled(symbol) || !symbol.contains(&self.word) {
            return false;
        }
        let shown = demangle(symbol);
        is_like(&self.typed, &shown) || is_like(&self.typed, without_arguments(&shown))
    }
}

/// Whether a symbol is a name of C++ or Rust.
pub fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_Z") || symbol.starts_with("_R")
}

/// A symbol without its version, and without what tells of a part of a function.
pub fn whole(symbol: &str) -> &str {
    let symbol = symbol.split('@').next().unwrap_or(symbol);
    let ends = PARTS.iter().filter_map(|part| symbol.find(part));
    match ends.min() {
        Some(end) if end > 0 => &symbol[..end],
        _ => symbol,
    }
}

/// A C++ function's name as it is shown, without its arguments, and without what it
/// returns, which only templates tell.
pub fn without_arguments(shown: &str) -> &str {
    const ANONYMOUS: &str = "(anonymous namespace)";
    let (mut depth, mut begin, mut at) = (0_u32, 0, 0);
    let bytes = shown.as_bytes();
    while let Some(byte) = bytes.get(at) {
        let is_operator = shown[..at].ends_with("operator");
        match byte {
            b'(' if bytes[at..].starts_with(ANONYMOUS.as_bytes()) => at += ANONYMOUS.len() - 1,
            b'(' if is_operator => at += 1,
            b'<' | b'>' if is_operator || shown[..at].ends_with("operator<") => {}
            b'(' if depth == 0 => return &shown[begin..at],
            b'<' | b'(' | b'{' => depth += 1,
            b'>' | b')' | b'}' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 && !is_operator => begin = at + 1,
            _ => {}
        }
        at += 1;
        while !shown.is_char_boundary(at) {
            at += 1;
        }
    }
    &shown[begin..]
}

/// The longest word of a name that a mangled name of it spells out.
fn word_of(typed: &str) -> &str {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let words = typed.split(|letter| !is_word(letter));
    let words = words.filter(|word| !UNSPELLED.contains(word));
    words.max_by_key(|word| word.len()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(symbol: &str, names: &[&str], others: &[&str]) {
        for name in names {
            assert!(Pattern::new(name).matches(symbol.as_bytes()), "{name}");
        }
        for name in others {
            assert!(!Pattern::new(name).matches(symbol.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_function_has_many_names() {
        check(
            "parse",
            &["parse", "par*", "*", "p*r*e"],
            &["pars", "arse", "p*x*e", "Parse"],
        );
        check("parse.part.0", &["parse", "parse*"], &["parse.part"]);
        check("parse@@V1.2", &["parse"], &["parse@@V1.2"]);
        check(
            "_ZN5space3fooEibc",
            &[
                "_ZN5space3fooEibc",
                "space::foo",
                "space::foo(int, bool, char)",
                "space::*",
                "*::foo",
            ],
            &["foo", "space::foo(int)", "space", "pace::foo"],
        );
        check("_ZN5space3fooEibc.cold", &["space::foo"], &[]);
        // void space::of<int>(int)
        check(
            "_ZN5space2ofIiEEvT_",
            &["space::of<int>", "space::of*"],
            &["space::of", "void"],
        );
        // (anonymous namespace)::inner()
        check(
            "_ZN12_GLOBAL__N_15innerEv",
            &["(anonymous namespace)::inner", "*::inner"],
            &["inner"],
        );
        check(
            "_ZN4core3ptr13drop_in_place17h0123456789abcdefE",
            &["core::ptr::drop_in_place", "core::ptr::*"],
            &["drop_in_place"],
        );
        check("_ZN1AclEv", &["A::operator()"], &["A::operator"]);
        check("_ZlsRSoi", &["operator<<"], &["operator"]);
        check("_ZN3fooC1Ev", &["foo::foo"], &["foo"]);
    }

    #[test]
    fn names_that_are_no_text_are_nobodys() {
        assert!(!Pattern::new("*").matches(b"\xff\xfe"));
        assert_eq!(without_arguments("ünder(int)"), "ünder");
    }
}
