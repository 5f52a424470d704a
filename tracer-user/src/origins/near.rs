//! Names that are like one that was mistyped.

use strsim::damerau_levenshtein;

use super::functions::{Pattern, is_mangled, whole, without_arguments};
use crate::symbolize::demangle;

/// Names that are kept.
const KEPT: usize = 3;

/// Longer names are like none.
const MAX_NAME: usize = 256;

/// So many names are compared, at most: each takes a microsecond or more.
const MAX_SEEN: usize = 1 << 20;

/// The names that are most like one.
#[derive(Debug)]
pub struct Near {
    typed: String,
    word: String,
    seen: usize,
    /// Each with its distance, the nearest first.
    names: Vec<(u64, String)>,
}

impl Near {
    /// Those like a function that was asked for; none if that is a pattern.
    pub fn new(pattern: &Pattern) -> Self {
        let is_pattern = pattern.typed().contains('*');
        Self::of(pattern.typed(), pattern.word(), is_pattern)
    }

    /// Those like a name.
    pub fn of(typed: &str, word: &str, is_pattern: bool) -> Self {
        Self {
            typed: without_arguments(typed).to_owned(),
            word: word.to_lowercase(),
            seen: if is_pattern { MAX_SEEN } else { 0 },
            names: Vec::new(),
        }
    }

    /// Looks at a function's symbol.
    pub fn see(&mut self, symbol: &[u8]) {
        let is_over = self.seen >= MAX_SEEN || symbol.is_empty() || symbol.len() > MAX_NAME;
        let Some(symbol) = std::str::from_utf8(symbol).ok().filter(|_| !is_over) else {
            return;
        };
        self.seen += 1;
        let symbol = whole(symbol);
        // The beginning is seldom what was mistyped.
        let letters = self.word.chars().count() * 2 / 3;
        let begin: String = self.word.chars().take(letters).collect();
        if !is_mangled(symbol) {
            self.compare(symbol);
        } else if letters > 3 && symbol.to_lowercase().contains(&begin) {
            let shown = demangle(symbol);
            self.compare(without_arguments(&shown));
        }
    }

    /// Looks at a name.
    pub fn compare(&mut self, name: &str) {
        let (long, short) = (
            self.typed.len().max(name.len()),
            self.typed.len().min(name.len()),
        );
        // What has the whole word in it is like it, however long.
        let has_word = self.word.len() > 3 && name.to_lowercase().contains(&self.word);
        if !has_word && long - short > allowed(short) {
            return;
        }
        let distance = damerau_levenshtein(&self.typed, name);
        if !has_word && distance > allowed(short) {
            return;
        }
        let entry = (distance as u64, name.to_owned());
        if let Err(at) = self.names.binary_search(&entry)
            && at < KEPT
        {
            self.names.insert(at, entry);
            self.names.truncate(KEPT);
        }
    }

    /// The names with their distances.
    pub fn names(&self) -> impl Iterator<Item = (u64, &str)> {
        let names = self.names.iter();
        names.map(|(distance, name)| (*distance, name.as_str()))
    }
}

/// The files' names that are most like one that was typed.
pub fn nearest_names<'a>(typed: &str, paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let name = |path: &'a str| path.rsplit('/').next().unwrap_or(path);
    let typed = typed.rsplit('/').next().unwrap_or(typed);
    let mut near = Near::of(typed, typed, false);
    paths.for_each(|path| near.compare(name(path)));
    near.names().map(|(_, name)| name.to_owned()).collect()
}

/// Letters that may differ in names of this length.
const fn allowed(length: usize) -> usize {
    let third = length / 3;
    if third == 0 { 1 } else { third }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mistyped_is_found() {
        let mut near = Near::new(&Pattern::new("parse_heder"));
        for symbol in ["parse_header", "parse_footer", "main", "_ZN5cache6insertEi"] {
            near.see(symbol.as_bytes());
        }
        let names: Vec<_> = near.names().collect();
        assert_eq!(names, [(1, "parse_header")]);
        for (typed, distance) in [
            ("insert", 7),
            ("cache::inserts", 1),
            ("cache::Insert(int)", 1),
        ] {
            let mut near = Near::new(&Pattern::new(typed));
            near.see(b"_ZN5cache6insertEi");
            let names: Vec<_> = near.names().collect();
            assert_eq!(names, [(distance, "cache::insert")], "{typed}");
        }
    }
}
