//! Where windows are pushed to, and where findings are told.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::uri::Scheme;
use axum::http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::setting::Span;

/// Entries that wait for a destination, if nothing else is said.
const QUEUE: u64 = 1000;
/// And at most.
const MOST_QUEUE: u64 = 1_000_000;
/// A destination answers within this time, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// From this confidence on a finding is told, if nothing else is said.
pub const CONFIDENCE: f64 = 0.9;

/// A protocol by which windows are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// OpenTelemetry's, over gRPC.
    OtlpGrpc,
    /// OpenTelemetry's, over HTTP as protobuf.
    OtlpHttp,
    /// Pyroscope's push API.
    Pyroscope,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtlpGrpc => "otlp-grpc",
            Self::OtlpHttp => "otlp-http",
            Self::Pyroscope => "pyroscope",
        })
    }
}

/// An address with a scheme, and how to speak with who is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The address.
    pub url: Uri,
    /// Headers of each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// A file with certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// It answers within this time.
    pub timeout: Duration,
    /// Entries that wait for it at most; beyond that the oldest go.
    pub queue: u64,
}

/// Where windows are pushed to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Push {
    /// By which protocol.
    pub to: Protocol,
    /// Where.
    pub place: Place,
}

/// Where findings are told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Alert {
    /// Where.
    pub place: Place,
    /// From this confidence on, 0 to 1.
    pub confidence: f64,
    /// And when its forecast is nearer than this.
    pub within: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    to: Option<Protocol>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    timeout: Option<Span>,
    queue: Option<u64>,
    confidence: Option<f64>,
    within: Option<Span>,
}

impl TryFrom<Fields> for Push {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let to = fields
            .to
            .ok_or("a [[push]] has `to`: \"otlp-grpc\", \"otlp-http\" or \"pyroscope\"")?;
        if fields.confidence.is_some() || fields.within.is_some() {
            return Err("`confidence` and `within` are for an [[alert]]".to_owned());
        }
        let place = fields.place()?;
        Ok(Self { to, place })
    }
}

impl TryFrom<Fields> for Alert {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        if fields.to.is_some() {
            return Err("an [[alert]] is always JSON: `to` is for a [[push]]".to_owned());
        }
        let confidence = fields.confidence.unwrap_or(CONFIDENCE);
        if !(0.0..=1.0).contains(&confidence) {
            return Err(format!("confidence {confidence} is not between 0 and 1"));
        }
        Ok(Self {
            confidence,
            within: fields.within.map(|within| within.0),
            place: fields.place()?,
        })
    }
}

impl Fields {
    fn place(self) -> Result<Place, String> {
        let url = url(&self.url)?;
        if self.token_file.is_some() && url.scheme() == Some(&Scheme::HTTP) && !is_loopback(&url) {
            return Err(format!(
                "the token would go to {url} for all to read: write https"
            ));
        }
        let queue = self.queue.unwrap_or(QUEUE);
        if !(1..=MOST_QUEUE).contains(&queue) {
            return Err(format!("a queue has 1 to {MOST_QUEUE} entries"));
        }
        let headers = self.headers.iter();
        Ok(Place {
            url,
            headers: headers
                .map(|(name, value)| header(name, value))
                .collect::<Result<_, _>>()?,
            token_file: self.token_file,
            ca_file: self.ca_file,
            timeout: self.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            queue,
        })
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName = name
        .parse()
        .map_err(|_| format!("{name:?} is no name of a header"))?;
    let mut value: HeaderValue = value
        .parse()
        .map_err(|_| format!("{value:?} is no value of a header"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text
        .parse()
        .map_err(|error| format!("{text:?} is no address: {error}"))?;
    let is_known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme());
    let is_whole = is_known && url.host().is_some_and(|host| !host.is_empty());
    if !is_whole || url.query().is_some() {
        return Err(format!(
            "{text:?} is not of the form http://HOST:PORT/PATH or https://HOST:PORT/PATH"
        ));
    }
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("a user and a password belong into `headers` or `token_file`".to_owned());
    }
    Ok(url)
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl Push {
    /// What its queue is called.
    pub fn name(&self) -> String {
        format!("{} {}", self.to, self.place.url)
    }
}

impl Alert {
    /// What its queue is called.
    pub fn name(&self) -> String {
        format!("alert {}", self.place.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str) -> Result<Push, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn destinations_are_checked() {
        let ok = push(
            "to = \"otlp-grpc\"\nurl = \"https://a.example:4317\"\ntoken_file = \"/t\"\nheaders = { X-Scope-OrgID = \"a\" }",
        );
        assert_eq!(ok.unwrap().place.headers.len(), 1);
        for (text, why) in [
            ("url = \"http://a\"", "`to`"),
            ("to = \"otlp-grpc\"\nurl = \"a:4317\"", "of the form"),
            ("to = \"otlp-grpc\"\nurl = \"ftp://a\"", "of the form"),
            ("to = \"pyroscope\"\nurl = \"http://u:p@a\"", "password"),
            ("to = \"smoke\"\nurl = \"http://a\"", "smoke"),
            (
                "to = \"pyroscope\"\nurl = \"http://a\"\ntoken_file = \"/t\"",
                "https",
            ),
            (
                "to = \"pyroscope\"\nurl = \"http://a\"\nqueue = 0",
                "entries",
            ),
            (
                "to = \"pyroscope\"\nurl = \"http://a\"\nwithin = \"1h\"",
                "[[alert]]",
            ),
            (
                "to = \"pyroscope\"\nurl = \"http://a\"\nheaders = { \"a b\" = \"c\" }",
                "header",
            ),
            ("to = \"pyroscope\"\nurl = \"http://a\"\nurn = 1", "urn"),
        ] {
            let error = push(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
            let text = format!("to = \"pyroscope\"\nurl = \"{url}\"\ntoken_file = \"/t\"");
            push(&text).unwrap();
        }
    }

    #[test]
    fn alerts_are_checked() {
        let alert = |text: &str| toml::from_str::<Alert>(text).map_err(|error| error.to_string());
        let plain = alert("url = \"http://a\"\nwithin = \"2h\"").unwrap();
        assert_eq!(plain.confidence, CONFIDENCE);
        assert_eq!(plain.within, Some(Duration::from_hours(2)));
        assert!(
            alert("url = \"http://a\"\nconfidence = 90.0")
                .unwrap_err()
                .contains("between")
        );
        assert!(alert("url = \"http://a\"\nto = \"pyroscope\"").is_err());
    }
}
