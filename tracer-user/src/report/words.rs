//! What the numbers are of: blocks that were allocated, or pages that were touched.

use crate::model::Report;

/// The words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// One of them.
    pub unit: &'static str,
    /// Several.
    pub units: &'static str,
    /// What is there at the end.
    pub live: &'static str,
    /// What came.
    pub came: &'static str,
    /// What went.
    pub went: &'static str,
}

const BLOCKS: Words = Words {
    unit: "block",
    units: "blocks",
    live: "live",
    came: "allocated",
    went: "freed",
};

const PAGES: Words = Words {
    unit: "page",
    units: "pages",
    live: "in memory",
    came: "touched",
    went: "given back",
};

impl Words {
    /// Those for a report.
    pub fn of(report: &Report) -> Self {
        match report.settings.growth {
            true => PAGES,
            false => BLOCKS,
        }
    }

    /// With a capital letter.
    pub fn capital(word: &str) -> String {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect()
    }
}
