//! Whole reports, as `record` writes them.

use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{Answers, Refusal, Shared};
use crate::serve::gzip;

/// Who has seen what a report tells.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Seer {
    /// Page faults, which are followed all the time.
    #[default]
    Growth,
    /// The last closer look.
    Look,
}

/// Which report.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// `growth` (page faults), or `look` (the last closer look); `growth` if nothing is said.
    #[serde(default)]
    of: Seer,
}

/// The report of a service at the end of the last window, with all that `unfreed report` reads.
#[utoipa::path(get, path = "/api/services/{service}/report", params(("service" = String, Path), Asked),
    responses((status = 200, description = "a report of schema unfreed/1, compressed by gzip if the client takes that", content_type = "application/json"),
        (status = 404, description = "nothing is known of this service, or nobody has looked at it closer in this run")))]
pub async fn report(
    State(answers): Shared,
    Path(service): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let packed = match asked.of {
        Seer::Growth => of_growth(&answers, &service)?,
        Seer::Look => of_look(&answers, &service)?,
    };
    let json = (CONTENT_TYPE, "application/json");
    let varies = (VARY, "accept-encoding");
    if takes_gzip(&headers) {
        return Ok(([json, varies, (CONTENT_ENCODING, "gzip")], packed).into_response());
    }
    Ok(([json, varies], gzip::unpack(&packed)?).into_response())
}

fn of_growth(answers: &Answers, service: &str) -> Result<Vec<u8>, Refusal> {
    let host = answers.status.now();
    let known = host.service(service);
    let known = known.ok_or_else(|| Refusal::unknown(service))?;
    Ok(known.report.clone())
}

fn of_look(answers: &Answers, service: &str) -> Result<Vec<u8>, Refusal> {
    let host = answers.status.now();
    let looked = host.looks.get(service);
    let seen = looked.and_then(|looked| looked.seen.as_ref());
    let seen = seen.ok_or_else(|| Refusal::no_look(&host, service))?;
    seen.report.clone().ok_or_else(|| {
        let sentence = format!(
            "the last closer look at {service:?} is of a run before, of which findings and the profile are kept: ask /debug/pprof/heap"
        );
        Refusal(StatusCode::NOT_FOUND, sentence)
    })
}

/// Whether a client says that it takes gzip.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let takes = headers.get_all(ACCEPT_ENCODING).iter();
    let mut takes = takes.filter_map(|value| value.to_str().ok());
    takes.any(|value| value.split(',').any(is_gzip))
}

/// Whether one entry of `Accept-Encoding` is gzip, and not refused by a weight of 0.
fn is_gzip(entry: &str) -> bool {
    let (coding, weight) = entry.split_once(';').unwrap_or((entry, ""));
    let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
    let is_refused = weight.parse::<f64>().is_ok_and(|weight| weight <= 0.0);
    coding.trim().eq_ignore_ascii_case("gzip") && !is_refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_to_those_who_take_it() {
        for (value, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(takes_gzip(&headers), takes, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
