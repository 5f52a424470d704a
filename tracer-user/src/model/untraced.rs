//! Processes that were to be traced, and are not.

use serde::{Deserialize, Serialize};

/// A process that is not traced, or no longer: its failure is no other's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Untraced {
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// Its short name (`comm`); empty if it was gone.
    pub process: String,
    /// Why, and what to do.
    pub reason: String,
    /// When its tracing ended, seconds since the run began; `None` if it never
    /// began. What was gathered until then is in the report.
    pub at: Option<f64>,
}

impl Untraced {
    /// For people. Names are the target's.
    pub fn sentence(&self) -> String {
        let Self { pid, reason, .. } = self;
        let name = match self.process.as_str() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        match self.at {
            None => format!("{pid}{name} is not traced: {reason}"),
            Some(at) => {
                format!("{pid}{name} is not traced any more, {at:.1} s into the run: {reason}")
            }
        }
    }
}

/// The children of a process that are not traced, and theirs, if they hold much
/// more memory than it does. Memory is what the kernel counts as resident and
/// anonymous (`RssAnon`), bytes; pages that processes share since a fork count in
/// each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Children {
    /// How many there were when the process was last looked at.
    pub count: u64,
    /// What they held when the run began, all together.
    pub bytes_at_start: u64,
    /// What they held when it was last looked at.
    pub bytes: u64,
    /// What the process itself held when the run began.
    pub own_bytes_at_start: u64,
    /// What it held when it was last looked at.
    pub own_bytes: u64,
}

/// Children are worth a line only if they hold so much more than their parent,
/// bytes: an interpreter or a shell has some.
const MUCH: u64 = 4 << 20;

/// Or if they have grown by as much during the run, bytes.
const GROWTH: u64 = 1 << 20;

impl Children {
    /// Whether they hold more than twice what their parent does, or grow four
    /// times as fast.
    pub fn hold_much(&self) -> bool {
        let is_more = |children: u64, own: u64| children > 2 * own && children - own >= MUCH;
        let (grown, own) = (
            self.bytes.saturating_sub(self.bytes_at_start),
            self.own_bytes.saturating_sub(self.own_bytes_at_start),
        );
        is_more(self.bytes_at_start, self.own_bytes_at_start)
            || is_more(self.bytes, self.own_bytes)
            || (grown >= GROWTH && grown / 4 >= own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn held(children: (u64, u64), own: (u64, u64)) -> Children {
        Children {
            count: 2,
            bytes_at_start: children.0 * MIB,
            bytes: children.1 * MIB,
            own_bytes_at_start: own.0 * MIB,
            own_bytes: own.1 * MIB,
        }
    }

    #[test]
    fn children_that_hold_or_gain_much_more_are_told() {
        assert!(held((50, 50), (20, 20)).hold_much());
        assert!(held((10, 50), (20, 20)).hold_much());
        assert!(held((10, 18), (20, 20)).hold_much(), "they grow");
        assert!(held((0, 40), (1, 1)).hold_much(), "they are new");
    }

    #[test]
    fn others_are_not() {
        assert!(!held((0, 0), (0, 0)).hold_much());
        assert!(!held((3, 3), (1, 1)).hold_much(), "a shell's");
        assert!(!held((30, 30), (20, 20)).hold_much());
        assert!(!held((10, 14), (20, 28)).hold_much(), "it grows itself");
        assert!(!held((15, 5), (20, 20)).hold_much());
    }
}
