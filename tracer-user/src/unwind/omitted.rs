//! What a table leaves out, by cause.

use std::fmt;

/// Counts of call frame information that no row says, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Rows whose rule cannot be said in one word; unwinding stops there.
    pub unsupported: u64,
    /// Entries that cannot be parsed, or whose instructions make no sense.
    pub malformed: u64,
    /// Entries for addresses outside of the executable segments: of functions
    /// that the linker dropped.
    pub outside: u64,
    /// Entries whose code an entry before them describes, in part or whole.
    pub overlapping: u64,
    /// Sections that are compressed in an unknown way, or too large, or end
    /// in the middle of an entry.
    pub sections: u64,
}

impl fmt::Display for Omitted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.unsupported, "rows not expressible"),
            (self.malformed, "entries malformed"),
            (self.outside, "entries outside of the code"),
            (self.overlapping, "entries overlapping"),
            (self.sections, "sections cut or unreadable"),
        ];
        let mut separator = "";
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(out, "{separator}{count} {what}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            out.write_str("nothing")?;
        }
        Ok(())
    }
}
