//! Asks a `serve` that runs, as another program of this host.

mod place;
mod transport;

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use axum::http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use self::place::Place;
use self::transport::{Answer, Token, Transport};
use crate::model::Report;
use crate::report::json;
use crate::serve::http::WantedSearch;
use crate::serve::look::Look;
use crate::visible::clean;

/// Names of services that a message has at most.
const MOST_NAMES: usize = 20;

/// One who asks.
pub struct Client {
    transport: Transport,
}

/// What is told of all services, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Services {
    /// When the last window ended, milliseconds since 1970; 0 before the first.
    pub ended: u64,
    /// Those that have a process.
    services: Vec<Named>,
    /// All of which a window is kept.
    kept: Vec<String>,
    /// Those that were looked at closer.
    looks: Vec<Looked>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Looked {
    service: String,
}

/// What is told of a closer look, as far as it is read.
#[derive(Debug, Deserialize)]
struct About {
    look: Look,
}

/// Which profile.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The end of a window that is kept, milliseconds since 1970; the last one if nothing is
    /// said.
    pub window: Option<u64>,
    /// What came in so many seconds before; all if nothing is said.
    pub seconds: Option<u64>,
}

impl Client {
    /// One who asks there, with the token of a file. Without a file, it is that of a `serve`
    /// with its usual folder, if that is there and it listens at an address of this host. With TLS
    /// it believes certificates of `tls_ca`, or those of the system.
    ///
    /// # Errors
    /// The token or the certificates cannot be read.
    pub fn new(place: Place, token_file: Option<&Path>, tls_ca: Option<&Path>) -> Result<Self> {
        let token = Token::of(token_file, &place)?;
        Ok(Self {
            transport: Transport::new(place, token, tls_ca)?,
        })
    }

    /// All services.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub fn services(&self) -> Result<Services> {
        self.json("/api/services")
    }

    /// The report of a service at the end of the last window; of the last closer look if
    /// `is_look`.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn report(&self, service: &str, is_look: bool) -> Result<Report> {
        let of = if is_look { "look" } else { "growth" };
        let path = format!("/api/services/{}/report?of={of}", encoded(service));
        let body = self.of_service(service, &path)?;
        json::read(&mut Cursor::new(body)).with_context(|| self.strange())
    }

    /// A profile of a service as pprof, compressed by gzip: of page faults, or of what closer
    /// looks have seen if `is_look`.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn profile(&self, service: &str, is_look: bool, moment: Moment) -> Result<Vec<u8>> {
        let of = if is_look { "heap" } else { "growth" };
        let mut path = format!("/debug/pprof/{of}?service={}", encoded(service));
        for (name, value) in [("window", moment.window), ("seconds", moment.seconds)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={value}"));
            }
        }
        self.of_service(service, &path)
    }

    /// Has a service's memory searched for who holds what, in the closer look that goes on; how
    /// many searches of it had ended before.
    ///
    /// # Errors
    /// Says why it is not.
    pub fn search(&self, service: &str) -> Result<u64> {
        let path = format!("/api/services/{}/holders", encoded(service));
        let body = self.success(self.transport.order(&path)?)?;
        let wanted: WantedSearch = serde_json::from_slice(&body).with_context(|| self.strange())?;
        Ok(wanted.searches)
    }

    /// How many searches have ended in the last closer look at a service, and whether it goes on.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub fn searches(&self, service: &str) -> Result<(u64, bool)> {
        let path = format!("/api/services/{}/look", encoded(service));
        let about: About = self.json(&path)?;
        let look = about.look;
        Ok((look.searches.unwrap_or(0), look.ended.is_none()))
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.transport.ask(path)?;
        let body = self.success(body)?;
        serde_json::from_slice(&body).with_context(|| self.strange())
    }

    /// What is answered of a service. If there is none of that name, says which there are.
    fn of_service(&self, service: &str, path: &str) -> Result<Vec<u8>> {
        let answer = self.transport.ask(path)?;
        if answer.status == StatusCode::NOT_FOUND {
            let names = self.services()?.names();
            if !names.iter().any(|name| name == service) {
                bail!("{}", unknown(service, &names, self.transport.place()));
            }
        }
        self.success(answer)
    }

    fn success(&self, answer: Answer) -> Result<Vec<u8>> {
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(self.failure(&answer))
    }

    fn failure(&self, answer: &Answer) -> anyhow::Error {
        let place = self.transport.place();
        if answer.status == StatusCode::UNAUTHORIZED {
            return anyhow!("{}", self.transport.refused());
        }
        let said = clean(String::from_utf8_lossy(&answer.body).trim()).into_owned();
        match said.as_str() {
            "" => anyhow!("{place} answers with status {}", answer.status),
            said => anyhow!("{said}"),
        }
    }

    fn strange(&self) -> String {
        let place = self.transport.place();
        format!("what answers at {place} is no `unfreed serve` of this version")
    }
}

impl Services {
    /// The names of all that something can be asked of, in order.
    pub fn names(self) -> Vec<String> {
        let running = self.services.into_iter().map(|it| it.name);
        let looked = self.looks.into_iter().map(|it| it.service);
        let mut names: Vec<String> = running.chain(self.kept).chain(looked).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A name as a part of a path or a query.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Says that there is no such service, and which there are.
fn unknown(service: &str, names: &[String], place: &Place) -> String {
    let service = clean(service);
    if names.is_empty() {
        return format!(
            "nothing is known of a service {service} at {place}, nor of any other: its first window has not ended yet, or no process is a service"
        );
    }
    let shown: Vec<_> = names.iter().take(MOST_NAMES).map(|it| clean(it)).collect();
    let more = match names.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!(
        "nothing is known of a service {service} at {place}; it knows {}{more}",
        shown.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_another_question() {
        assert_eq!(encoded("a/b?c=d&é"), "a%2Fb%3Fc%3Dd%26%C3%A9");
    }

    #[test]
    fn who_mistypes_is_told_what_there_is() {
        let place = Place::default();
        let names: Vec<String> = (0..25).map(|it| format!("s{it}")).collect();
        let said = unknown("x\u{1b}", &names, &place);
        assert!(
            said.contains("it knows s0, s1") && said.ends_with("s19, and 5 more"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'), "{said}");
        assert!(unknown("x", &[], &place).contains("nor of any other"));
    }

    #[test]
    fn services_are_all_that_can_be_asked_for() {
        let text = r#"{"ended": 7, "services": [{"name": "b", "more": 1}], "kept": ["a", "b"],
            "looks": [{"service": "c"}], "gaps": []}"#;
        let services: Services = serde_json::from_str(text).unwrap();
        assert_eq!(services.ended, 7);
        assert_eq!(services.names(), ["a", "b", "c"]);
    }
}
