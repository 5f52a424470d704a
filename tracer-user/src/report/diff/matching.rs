//! Which frames of two runs are the same, across restarts and builds.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::model::{Frame, Module};
use crate::report::names;

/// The builds of files by their names.
pub type Builds = BTreeMap<String, BTreeSet<String>>;

/// The builds of a run's files, as far as they have ids.
pub fn builds(modules: &[Module]) -> Builds {
    let mut builds = Builds::new();
    for module in modules {
        if let Some(id) = &module.build_id {
            let known = builds.entry(file(&module.path).to_owned());
            known.or_default().insert(id.clone());
        }
    }
    builds
}

/// A file's name without what changes from version to version.
fn file(path: &str) -> &str {
    let name = names::base(path).trim_end_matches(" (deleted)");
    match name.find(".so.") {
        Some(at) => &name[..at + ".so".len()],
        None => name,
    }
}

/// What two runs have in common.
pub struct Matching {
    /// Files of which the two runs have no build in common: offsets have moved.
    rebuilt: HashSet<String>,
}

impl Matching {
    /// That of runs with these files.
    pub fn of(before: &Builds, after: &Builds) -> Self {
        let is_rebuilt = |(name, ids): &(&String, &BTreeSet<String>)| {
            after
                .get(*name)
                .is_some_and(|others| others.is_disjoint(ids))
        };
        let rebuilt = before.iter().filter(is_rebuilt);
        Self {
            rebuilt: rebuilt.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// What is the same of a frame in both runs: its function and its file; where it has no
    /// name and offsets have moved, the file alone.
    pub fn key<'a>(&self, frame: &'a Frame) -> (Cow<'a, str>, &'a str) {
        let file = frame.module.as_deref().map(file).unwrap_or_default();
        let label = match frame.function {
            None if self.rebuilt.contains(file) => format!("[{}]", names::clean(file)).into(),
            _ => names::label(frame),
        };
        (label, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn frame(function: Option<&str>, module: &str, offset: u64) -> Frame {
        Frame {
            function: function.map(Into::into),
            module: Some(module.into()),
            module_offset: Some(offset),
            ..Frame::default()
        }
    }

    fn of(before: &str, after: &str) -> Matching {
        let builds = |id: &str| {
            builds(&[Module {
                path: "/opt/libshop.so.1.2".into(),
                build_id: Some(id.into()),
                ..sample::report().modules[0].clone()
            }])
        };
        Matching::of(&builds(before), &builds(after))
    }

    #[test]
    fn functions_match_across_builds_and_offsets_within_one() {
        let (old, new) = ("/opt/libshop.so.1.2", "/srv/libshop.so.1.3 (deleted)");
        let names = [frame(Some("add"), old, 0x10), frame(Some("add"), new, 0x20)];
        let nameless = [frame(None, old, 0x10), frame(None, new, 0x20)];
        for (matching, together) in [(of("aa", "bb"), true), (of("aa", "aa"), false)] {
            let key = |frame| matching.key(frame);
            assert_eq!(key(&names[0]), key(&names[1]));
            assert_eq!(key(&nameless[0]) == key(&nameless[1]), together);
            assert_ne!(key(&names[0]), key(&nameless[0]));
        }
    }
}
