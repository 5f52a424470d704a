//! Names that fit into a sentence.
//!
//! C++ and Rust names have the arguments of templates and functions in them, and may be a
//! thousand letters long; what people call a function is a few of these.

use std::borrow::Cow;

/// A name of so many letters is left as it is.
const SHORT: usize = 48;
/// What stands for the arguments of a template.
const ARGUMENTS: &str = "<…>";

/// A name without its return type and parameters, and with `<…>` for the arguments of
/// templates, if it is a long one of C++ or Rust.
pub fn brief(name: &str) -> Cow<'_, str> {
    let is_long = name.chars().count() > SHORT;
    let is_qualified = name.contains("::") || name.contains('<');
    match is_long && is_qualified {
        true => shortened(name).map_or(Cow::Borrowed(name), Cow::Owned),
        false => Cow::Borrowed(name),
    }
}

/// `None` if the brackets of the name do not match.
fn shortened(name: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        if let Some(behind) = operator(&mut text, rest) {
            rest = behind;
            continue;
        }
        let (inner, behind) = match letter {
            '<' | '(' | '{' => bracketed(rest)?,
            _ => ("", &rest[letter.len_utf8()..]),
        };
        match letter {
            // Rust: a type, and the trait of which it is.
            '<' if text.is_empty() => text.push_str(&format!("<{}>", qualified(inner))),
            '<' => text.push_str(ARGUMENTS),
            '(' if inner == "anonymous namespace" => text.push_str("(anonymous namespace)"),
            // Parameters: what is in the function goes on behind them.
            '(' if behind.starts_with("::") => {}
            '(' => break,
            '{' => text.push_str(&format!("{{{inner}}}")),
            ' ' if behind.starts_with('<') => {}
            ' ' => text.clear(),
            _ => text.push(letter),
        }
        rest = behind;
    }
    (!text.is_empty()).then_some(text)
}

/// A type, or `type as trait`, with short arguments.
fn qualified(inner: &str) -> String {
    let parts = inner.split(" as ");
    let parts = parts.map(|part| shortened(part).unwrap_or_else(|| part.to_owned()));
    parts.collect::<Vec<_>>().join(" as ")
}

/// What is behind the symbol of an operator, whose name has ended; that is added.
fn operator<'a>(text: &mut String, rest: &'a str) -> Option<&'a str> {
    const SYMBOLS: [&str; 12] = [
        "<<=",
        "<=>",
        "<<",
        "<=",
        "<",
        "->*",
        "->",
        "()",
        " new[]",
        " new",
        " delete[]",
        " delete",
    ];
    if !text.ends_with("operator") {
        return None;
    }
    let found = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol))?;
    text.push_str(found);
    Some(&rest[found.len()..])
}

/// What is between the bracket at the beginning and its partner, and what is behind that.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '<' | '(' | '{' | '[' => depth += 1,
            // An arrow is no bracket.
            '>' if before == '-' => {}
            '>' | ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        before = letter;
        if depth == 0 {
            return Some((&text[1..at], &text[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_what_people_call_them() {
        for (name, expected) in [
            (
                "std::shared_ptr<std::enable_if<!std::is_array<Session>::value, Session>::type> std::make_shared<Session, int&>(int&)",
                "std::make_shared<…>",
            ),
            (
                "v8::internal::(anonymous namespace)::ConstructBuffer(v8::internal::Isolate*, v8::internal::Handle<v8::internal::JSFunction>)",
                "v8::internal::(anonymous namespace)::ConstructBuffer",
            ),
            (
                "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >::basic_string(char const*) const",
                "std::__cxx11::basic_string<…>::basic_string",
            ),
            (
                "accept_all(std::vector<int, std::allocator<int> >&)::{lambda(int)#2}::operator()(int) const",
                "accept_all::{lambda(int)#2}::operator()",
            ),
            (
                "std::ostream& store::operator<< <char, std::char_traits<char> >(std::ostream&, store::Row const&)",
                "store::operator<<<…>",
            ),
            (
                "<alloc::vec::Vec<T, A> as core::iter::traits::collect::Extend<T>>::extend",
                "<alloc::vec::Vec<…> as core::iter::traits::collect::Extend<…>>::extend",
            ),
            (
                "<hyper::proto::h1::conn::Conn<I, B, T>>::poll_read_head_with_a_long_name",
                "<hyper::proto::h1::conn::Conn<…>>::poll_read_head_with_a_long_name",
            ),
            (
                "pool::Pool<fn(i32) -> i32>::operator new(unsigned long, std::align_val_t)",
                "pool::Pool<…>::operator new",
            ),
        ] {
            assert_eq!(brief(name), expected);
        }
    }

    #[test]
    fn other_names_are_left() {
        for name in [
            "open_session(int)",
            "LazyCompile:~onUpload /srv/app/with/a/very/long/path/to/its/index.js:12:34",
            "a_function_of_c_with_a_name_that_is_longer_than_all_of_those",
            "broken::name<that<has>::more_brackets_open_than_it_has_closed",
        ] {
            assert_eq!(brief(name), name);
        }
    }
}
