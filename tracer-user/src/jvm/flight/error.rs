//! Why there is no answer from a flight recording.

use std::fmt;
use std::io;

use super::reader::Broken;
use crate::jvm::attach::AttachError;

/// Why there is no answer from a flight recording, and what mends it.
#[derive(Debug)]
pub enum FlightError {
    /// The JVM gave no answer to a command.
    Asked(AttachError),
    /// The JVM answered that it does not: with these words.
    Refused(String),
    /// The folder for what the JVM reads and writes cannot be made, or not be written to.
    Folder(io::Error),
    /// What the JVM wrote cannot be read.
    File(io::Error),
    /// What the JVM wrote is no recording.
    Broken(Broken),
    /// We may not ask.
    Credentials(io::Error),
    /// The JVM's search could end it.
    TooLarge {
        /// Objects in its heap.
        objects: u64,
        /// With so many it cannot.
        most: u64,
    },
    /// The JVM does not say how large its heap can be.
    NoHeapSize,
    /// The recording had not begun.
    NotBegun,
    /// A thread of ours failed.
    Thread,
}

impl fmt::Display for FlightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(error) => write!(f, "{error}"),
            Self::Refused(words) => write!(f, "the JVM has no flight recording for us: {words}"),
            Self::Folder(error) => write!(
                f,
                "there can be no folder for a flight recording in the JVM's /tmp: {error}"
            ),
            Self::File(error) => write!(f, "the JVM's flight recording cannot be read: {error}"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Credentials(error) => write!(f, "cannot give up capabilities: {error}"),
            Self::TooLarge { objects, most } => write!(
                f,
                "it was not asked: its heap has {objects} objects, and with more than {most} (by -Xmx) \
                 HotSpot's search may overflow its stack, which would end the JVM"
            ),
            Self::NoHeapSize => write!(f, "the JVM does not say how large its heap can be"),
            Self::NotBegun => write!(f, "the flight recording had not begun"),
            Self::Thread => write!(f, "the thread that asks the JVM failed"),
        }
    }
}

impl std::error::Error for FlightError {}
