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
    let rough = || rough(name).unwrap_or_else(|| name.into());
    printable(&demangled.unwrap_or_else(rough))
}

/// What a C++ function is called of which not all is understood: its own name, without the
/// template's arguments. GCC writes conditions of templates (`enable_if` in `make_shared`) in
/// a way of its own, which the crate does not read. `None` if not even that is understood.
fn rough(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("_Z")?;
    let nested = rest.strip_prefix('N');
    if let Some(inner) = nested {
        rest = inner.trim_start_matches(['r', 'V', 'K']);
    }
    let mut parts = Vec::new();
    if let Some(inner) = rest.strip_prefix("St") {
        parts.push("std");
        rest = inner;
    }
    while rest.starts_with(|letter: char| letter.is_ascii_digit()) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (length, behind) = rest.split_at(digits);
        let length = length.parse().ok()?;
        parts.push(match behind.get(..length)? {
            part if part.starts_with("_GLOBAL__N_") => "(anonymous namespace)",
            part => part,
        });
        rest = behind.get(length..)?;
        if nested.is_none() {
            break;
        }
    }
    let named = parts.len() > usize::from(parts.first() == Some(&"std"));
    (named && rest.starts_with('I')).then(|| format!("{}<…>", parts.join("::")))
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
            (
                "_ZSt11make_sharedI7SessionJRiEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES5_E4typeEEDpOT0_",
                "std::make_shared<…>",
            ),
            (
                "_ZN12_GLOBAL__N_14makeI7SessionJRiEEENSt9enable_ifIXntsrSt8is_arrayIT_E5valueES3_E4typeEDpOT0_",
                "(anonymous namespace)::make<…>",
            ),
            (
                "_ZN2v84base17PrintCheckOperandIPKaEENSt9enable_ifIXaaaantsrSt11is_functionINSt14remove_pointerIT_E4typeEE5valuentsrSt7is_enumIS5_E5valuesr19has_output_operatorIS5_NS0_18CheckMessageStreamEEE5valueENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEE4typeES5_",
                "v8::base::PrintCheckOperand<…>",
            ),
            ("_ZSt9I", "_ZSt9I"),
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
