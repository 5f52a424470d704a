//! The names that a generated function had before it got one name with its like.

use std::collections::HashSet;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::name::Name;

/// So many names are kept of those that one stands for.
pub const MAX_EXAMPLES: usize = 3;

/// What a frame's function was called, where [`Frame::function`](super::Frame::function)
/// is a name that stands for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Originals {
    /// What gave it its name.
    pub by: By,
    /// How many different names the function stands for, in this place of this path.
    pub count: u64,
    /// Whether there may be more of them: paths were added up whose names were not all
    /// known any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lower_bound: bool,
    /// Some of them, at most three.
    #[serde(deserialize_with = "few")]
    pub names: Vec<Name>,
}

/// What gives generated functions one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A rule for names that a generator is known to make.
    Rule,
    /// Many names that differ in a number alone.
    Numbers,
    /// `--group`.
    Asked,
}

impl Originals {
    /// A single name.
    pub fn one(name: Name, by: By) -> Self {
        Self {
            by,
            count: 1,
            lower_bound: false,
            names: vec![name],
        }
    }

    /// Those of the same frame in several paths that are one.
    pub fn united<'a>(all: impl IntoIterator<Item = &'a Arc<Self>>) -> Option<Arc<Self>> {
        let mut all = all.into_iter();
        let first = all.next()?;
        let mut parts: Vec<&Self> = Vec::new();
        let mut seen = HashSet::from([Arc::as_ptr(first)]);
        parts.push(first);
        parts.extend(
            all.filter(|part| seen.insert(Arc::as_ptr(part)))
                .map(|it| &**it),
        );
        if parts.len() == 1 {
            return Some(Arc::clone(first));
        }
        Some(Arc::new(Self::sum(&parts)))
    }

    fn sum(parts: &[&Self]) -> Self {
        let mut names = Vec::new();
        let mut seen = HashSet::new();
        for name in parts.iter().flat_map(|part| &part.names) {
            if seen.insert(name) {
                names.push(name.clone());
            }
        }
        let known = names.len() as u64;
        names.truncate(MAX_EXAMPLES);
        let most = parts.iter().map(|part| part.count).max().unwrap_or(0);
        // Of a part without all its names nobody knows which it shares with others.
        let is_whole = |part: &&Self| !part.lower_bound && part.count == part.names.len() as u64;
        Self {
            by: parts.iter().map(|part| part.by).max().unwrap_or(By::Rule),
            count: known.max(most),
            lower_bound: !parts.iter().all(is_whole),
            names,
        }
    }
}

/// Reads as many names as are kept, and leaves out what a file has beyond.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Name>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Name>;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("an array of names")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Vec<Name>, A::Error> {
            let mut names = Vec::new();
            while names.len() < MAX_EXAMPLES
                && let Some(name) = all.next_element()?
            {
                names.push(name);
            }
            while all.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            Ok(names)
        }
    }
    deserializer.deserialize_seq(Few)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Arc<Originals> {
        let names: Vec<Name> = names.iter().map(Name::from).collect();
        Arc::new(Originals {
            by: By::Rule,
            count: names.len() as u64,
            lower_bound: false,
            names,
        })
    }

    #[test]
    fn different_names_are_counted_once() {
        let parts = [of(&["a"]), of(&["b"]), of(&["a"]), of(&["c"]), of(&["d"])];
        let all = Originals::united(&parts).unwrap();
        assert_eq!((all.count, all.lower_bound), (4, false));
        assert_eq!(all.names, ["a", "b", "c"]);
        assert_eq!(Originals::united(&parts[..1]).unwrap(), parts[0]);
        assert_eq!(Originals::united(&[]), None);
    }

    #[test]
    fn what_is_not_known_any_more_makes_a_lower_bound() {
        let many = Arc::new(Originals {
            count: 700,
            ..(*of(&["a", "b", "c"])).clone()
        });
        let all = Originals::united([&many, &of(&["d"])]).unwrap();
        assert_eq!((all.count, all.lower_bound), (700, true));
        let alone = Originals::united([&many, &Arc::clone(&many)]).unwrap();
        assert_eq!((alone.count, alone.lower_bound), (700, false));
    }

    #[test]
    fn of_a_file_no_more_names_are_read_than_are_kept() {
        let text = r#"{"by":"numbers","count":9,"names":["a","b","c","d",{"e":1}]}"#;
        let read: Originals = serde_json::from_str(text).unwrap();
        assert_eq!((read.names.len(), read.count, read.by), (3, 9, By::Numbers));
    }
}
