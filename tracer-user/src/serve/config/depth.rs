//! How closely a service is looked at.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::budget::Budget;

/// What closer looks may take if nothing else is said: a part of the service's processor time.
const SHARE: f64 = 0.01;

/// Whether a service is looked at by the allocators' probes, beside its page faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Never.
    Growth,
    /// For some minutes, when it grows.
    #[default]
    Closer,
    /// As long as no other service waits for its look.
    Overhead,
}

impl Mode {
    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Growth => "growth",
            Self::Closer => "closer",
            Self::Overhead => "overhead",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Growth, Self::Closer, Self::Overhead]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| "write growth, closer or overhead".to_owned())
    }
}

/// How closely a service is looked at, and what that may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Depth {
    /// Whether the allocators' probes look.
    pub mode: Mode,
    /// What they may take of processor time, the tracer's part with it.
    pub budget: Budget,
    /// Whether who holds what it leaks is searched for; nothing if that is as for all services.
    pub holders: Option<bool>,
}

impl Default for Depth {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            budget: Budget::Share(SHARE),
            holders: None,
        }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::Growth => return f.write_str("growth"),
            mode => write!(f, "{} ({})", mode.name(), self.budget)?,
        }
        match self.holders {
            Some(true) => f.write_str(", holders searched"),
            Some(false) => f.write_str(", no holders searched"),
            None => Ok(()),
        }
    }
}
