//! Names as people read them, from names as linkers and targets write them.

use std::fmt::{self, Write};

/// A name longer than this is cut, bytes: a short mangled name can stand for
/// gigabytes.
pub const MAX_NAME: usize = 16 << 10;

/// Demangles a C++ or Rust name; any other is returned as it is. What could
/// steer a terminal is replaced.
pub fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return printable(&cut(|out| write!(out, "{rust:#}")).unwrap_or_else(|| name.into()));
    }
    let cpp = name.starts_with("_Z") || name.starts_with("__Z");
    let parsed = cpp
        .then(|| cpp_demangle::Symbol::new(name.as_bytes()).ok())
        .flatten();
    let options = cpp_demangle::DemangleOptions::new();
    let demangled = parsed.and_then(|symbol| cut(|out| symbol.structured_demangle(out, &options)));
    printable(&demangled.unwrap_or_else(|| name.into()))
}

/// A text from outside, made safe to print on a terminal: control characters
/// are replaced and the length is bounded.
pub fn printable(text: &str) -> String {
    let safe = |letter: char| {
        if letter.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            letter
        }
    };
    text.chars().take(MAX_NAME).map(safe).collect()
}

/// What `write` writes, cut at the limit. None if it failed before.
fn cut(write: impl FnOnce(&mut Limited) -> fmt::Result) -> Option<String> {
    let mut out = Limited::default();
    match write(&mut out) {
        Err(_) if !out.full => None,
        _ => Some(out.text),
    }
}

#[derive(Default)]
struct Limited {
    text: String,
    full: bool,
}

impl Write for Limited {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.text.len() + piece.len() > MAX_NAME {
            self.text.push('…');
            self.full = true;
            return Err(fmt::Error);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled() {
        for (mangled, name) in [
            ("_ZN5space3fooEibc", "space::foo(int, bool, char)"),
            (
                "_ZN4core3ptr13drop_in_place17h0123456789abcdefE",
                "core::ptr::drop_in_place",
            ),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("malloc", "malloc"),
            ("_Znot a name", "_Znot a name"),
            ("_ZN3fooEv.cold", "foo() [clone .cold]"),
        ] {
            assert_eq!(demangle(mangled), name);
        }
    }

    #[test]
    fn a_name_that_expands_without_end_is_cut() {
        // Each parameter is a pair of the parameter before it, twice.
        let mut bomb = String::from("_Z1fSt4pairIiiE");
        for back in "0123456789ABCDEFGHIJKLMNOPQRSTU".chars() {
            bomb.push_str(&format!("S_IS{back}_S{back}_E"));
        }
        let name = demangle(&bomb);
        assert!(
            name.ends_with('…') && name.len() <= MAX_NAME + '…'.len_utf8(),
            "{}",
            name.len()
        );
    }

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(demangle("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable(&"x".repeat(MAX_NAME * 2)).len(), MAX_NAME);
    }
}
