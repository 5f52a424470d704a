//! Values of settings, as they are written.

use std::time::Duration;

use serde::Deserialize;

use crate::budget::Budget;

/// A time: `90s`, `5m` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|error| format!("{error}; write \"90s\", \"5m\" or \"1h30m\""))
    }
}

/// A number of bytes: `4096`, `64k` or `10M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_size::Config::new()
            .with_binary()
            .parse_size(&text)
            .map(Self)
            .map_err(|error| format!("{error}; write \"4096\", \"64k\" or \"10M\""))
    }
}

/// A budget: `1%` or `5ms/s`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Part(pub Budget);

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self)
    }
}
