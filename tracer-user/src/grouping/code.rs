//! Kinds of code, by how their functions are named.

use super::rules::Maker;
use crate::model::{Frame, Origin};

/// What kind of code a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A JVM's methods.
    Java,
    /// A program's or a library's.
    Native,
    /// Functions of Python and JavaScript.
    Script,
    /// Compiled at run time.
    Jit,
    /// A profile of another tool does not say.
    Unknown,
}

impl Code {
    /// That of a frame.
    pub fn of(frame: &Frame) -> Self {
        match frame.origin {
            Origin::Interpreted | Origin::C1 | Origin::C2 => Self::Java,
            Origin::Python | Origin::JavaScript => Self::Script,
            // A method that the JVM told of says so.
            Origin::Jit if frame.reason.is_some() => Self::Java,
            Origin::Jit => Self::Jit,
            Origin::Program | Origin::Library | Origin::Stub => Self::Native,
            Origin::Unknown => Self::Unknown,
        }
    }

    /// Whether a maker's rules are for its names.
    pub const fn may_be_of(self, maker: Maker) -> bool {
        match self {
            Self::Java => matches!(maker, Maker::Jvm),
            Self::Native => matches!(maker, Maker::Native),
            Self::Jit => matches!(maker, Maker::Jvm | Maker::Script),
            Self::Script => matches!(maker, Maker::Script),
            Self::Unknown => matches!(maker, Maker::Jvm | Maker::Native),
        }
    }
}
