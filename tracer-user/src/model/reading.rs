//! Bounds for a report that is read: a file says how many frames and names it
//! has, and may be anybody's.
//!
//! `serde` hands no state from field to field, so the budget of the report that
//! a thread reads is kept beside it.

use std::cell::RefCell;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Frame;
use super::name::{Name, Names};

/// Frames that a call path may have when it is read.
pub const MAX_FRAMES: usize = 4096;

/// Frames of all call paths together: twice as many as a run makes without
/// inlined functions.
pub const MAX_ALL_FRAMES: usize = 8 << 20;

thread_local! {
    static BUDGET: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

struct Budget {
    names: Names,
    frames: usize,
}

/// Reads something with frames in it within a budget; equal names are one.
/// Returns how many names were cut, too.
pub fn bounded<T>(read: impl FnOnce() -> T) -> (T, u64) {
    BUDGET.set(Some(Budget {
        names: Names::default(),
        frames: MAX_ALL_FRAMES,
    }));
    let read = read();
    let budget = BUDGET.take();
    (read, budget.map_or(0, |budget| budget.names.cut()))
}

/// The one name with this text.
pub fn name(text: &str) -> Name {
    BUDGET.with_borrow_mut(|budget| match budget {
        Some(budget) => budget.names.intern(text),
        None => text.into(),
    })
}

/// Takes a frame from the budget.
fn take_frame() -> bool {
    BUDGET.with_borrow_mut(|budget| {
        let Some(budget) = budget else { return true };
        let left = budget.frames.checked_sub(1);
        budget.frames = left.unwrap_or(0);
        left.is_some()
    })
}

/// Reads a call path.
///
/// # Errors
/// Fails if it has too many frames, or all paths together have.
pub fn frames<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Frame>, D::Error> {
    struct Path;
    impl<'de> Visitor<'de> for Path {
        type Value = Vec<Frame>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an array of frames")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut path: A) -> Result<Vec<Frame>, A::Error> {
            let mut frames = Vec::new();
            while let Some(frame) = path.next_element()? {
                if frames.len() >= MAX_FRAMES {
                    let problem = "a call path has more than 4096 frames, the most that are read";
                    return Err(A::Error::custom(problem));
                }
                if !take_frame() {
                    let problem = "its call paths have more than 8,388,608 frames together, the most that are read";
                    return Err(A::Error::custom(problem));
                }
                frames.push(frame);
            }
            // It stays as long as the report.
            frames.shrink_to_fit();
            Ok(frames)
        }
    }
    deserializer.deserialize_seq(Path)
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(name(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_shares_its_names() {
        let read = || serde_json::from_str::<Vec<Name>>(r#"["a","b","a"]"#).unwrap();
        let (names, cut) = bounded(read);
        let at = |name: &Name| name.as_str().as_ptr();
        assert!(at(&names[0]) == at(&names[2]) && cut == 0);
        assert_ne!(at(&read()[0]), at(&names[0]));
        assert_eq!(serde_json::to_string(&names).unwrap(), r#"["a","b","a"]"#);
    }

    #[test]
    fn neither_one_path_nor_all_have_more_frames_than_the_budget() {
        #[derive(Debug, Deserialize)]
        struct Path(#[serde(deserialize_with = "frames")] Vec<Frame>);
        let path = |count: usize| {
            let frame = r#"{"address":1,"inlined":false,"origin":"jit"}"#;
            format!("[{}]", vec![frame; count].join(","))
        };
        let read = |text: &str| serde_json::from_str::<Vec<Path>>(&format!("[{text}]"));
        let (whole, _) = bounded(|| read(&path(MAX_FRAMES)));
        assert_eq!(whole.unwrap()[0].0.len(), MAX_FRAMES);
        let (deep, _) = bounded(|| read(&path(MAX_FRAMES + 1)));
        assert!(deep.unwrap_err().to_string().contains("4096 frames"));
        let (many, _) = bounded(|| {
            BUDGET.with_borrow_mut(|budget| budget.as_mut().unwrap().frames = 10);
            read(&[path(6), path(5)].join(","))
        });
        assert!(many.unwrap_err().to_string().contains("8,388,608 frames"));
    }
}
