//! What a process holds by its descriptors: a part of the report's schema.

use serde::{Deserialize, Serialize};

/// Descriptors that were open at the run's start and end, and files without a disk that
/// they keep in memory. Such files are in no resident set unless they are mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorBalance {
    /// How many were open at the start; 0 if the process began later.
    pub open_start: u64,
    /// How many were open at the end.
    pub open_end: u64,
    /// How many it may have open at once, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How often they were counted during the run.
    pub looks: u64,
    /// At how many of these more were open than at any before.
    pub risen: u64,
    /// At which look that was last, counted from 1; 0 for none.
    pub last_risen: u64,
    /// The kinds of which more are open at the end, those that grew most first.
    pub kinds: Vec<GrownDescriptors>,
    /// Bytes of files in memory (tmpfs, memfd) that were open at the start.
    pub file_bytes_start: u64,
    /// Bytes of those that were open at the end.
    pub file_bytes_end: u64,
    /// Those that grew most, the largest growth first.
    pub files: Vec<GrownFile>,
    /// Whether there were more than were looked at: kinds and files are of the first then.
    #[serde(default)]
    pub is_cut: bool,
}

/// Descriptors of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrownDescriptors {
    /// `socket`, `pipe`, `file`, or what the kernel calls it.
    pub kind: String,
    /// How many more are open at the end.
    pub growth: u64,
}

/// A file in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrownFile {
    /// Its path as the kernel tells it; of files alike that differ in digits, one has a star
    /// for them.
    pub name: String,
    /// How many files have that name.
    pub count: u64,
    /// By how many bytes they grew.
    pub growth: u64,
}
