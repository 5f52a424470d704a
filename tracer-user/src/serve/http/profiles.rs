//! Profiles, as `go tool pprof` and its like ask for them.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Answers, Refusal, Shared};

use crate::report::pprof;
use crate::serve::gzip;
use crate::serve::store::{Base, Kind};

/// Which profile.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// The service.
    service: String,
    /// The end of a window that is kept, milliseconds since 1970; without it the last one.
    window: Option<u64>,
    /// What came in so many seconds before: the difference to what is kept of then.
    seconds: Option<u64>,
}

/// Where a service's memory was first touched that came since its processes are watched:
/// what is there at the window's end is in use.
#[utoipa::path(get, path = "/debug/pprof/growth", params(Asked), responses(
    (status = 200, description = "pprof, compressed by gzip", content_type = "application/octet-stream"),
    (status = 404, description = "nothing is known of this service, or the window is not kept")))]
pub async fn growth(
    State(answers): Shared,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    answer(&answers, &asked, Kind::Growth, "growth", pprof::INUSE_SPACE)
}

/// What a closer look has seen allocated, and what of it is live.
#[utoipa::path(get, path = "/debug/pprof/heap", params(Asked), responses(
    (status = 200, description = "pprof, compressed by gzip", content_type = "application/octet-stream"),
    (status = 404, description = "nobody has looked at this service closer yet, or the window is not kept")))]
pub async fn heap(State(answers): Shared, Query(asked): Query<Asked>) -> Result<Response, Refusal> {
    answer(&answers, &asked, Kind::Heap, "heap", pprof::INUSE_SPACE)
}

/// The same as `heap`; what was allocated is shown first.
#[utoipa::path(get, path = "/debug/pprof/allocs", params(Asked), responses(
    (status = 200, description = "pprof, compressed by gzip", content_type = "application/octet-stream"),
    (status = 404, description = "nobody has looked at this service closer yet, or the window is not kept")))]
pub async fn allocs(
    State(answers): Shared,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    answer(&answers, &asked, Kind::Heap, "allocs", pprof::ALLOC_SPACE)
}

/// A profile that was found.
struct Profile {
    /// When it ends, and since when it counts, milliseconds since 1970.
    ended: u64,
    began: u64,
    /// Compressed by gzip.
    packed: Vec<u8>,
}

fn answer(
    answers: &Answers,
    asked: &Asked,
    kind: Kind,
    name: &str,
    shown_first: &str,
) -> Result<Response, Refusal> {
    let profile = match asked.window {
        None => last(answers, &asked.service, kind)?,
        Some(ended) => kept(answers, &asked.service, kind, ended)?,
    };
    let file = match asked.seconds {
        None if kind == Kind::Growth || shown_first == pprof::INUSE_SPACE => profile.packed,
        seconds => {
            let mut bytes = gzip::unpack(&profile.packed)?;
            if let Some(seconds) = seconds {
                bytes = since(answers, asked, kind, (&profile, &bytes), seconds)?;
            }
            gzip::pack(&pprof::show_first(&bytes, shown_first)?)?
        }
    };
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.pb.gz\""),
        ),
    ];
    Ok((headers, file).into_response())
}

/// The last one.
fn last(answers: &Answers, service: &str, kind: Kind) -> Result<Profile, Refusal> {
    let host = answers.status.now();
    match kind {
        Kind::Growth => {
            let known = host.service(service);
            let known = known.ok_or_else(|| Refusal::unknown(service))?;
            let ended = known.summary.ended;
            Ok(Profile {
                ended,
                began: answers.store.counts_since(kind, service, ended)?,
                packed: known.profile.clone(),
            })
        }
        Kind::Heap => {
            let looked = host.looks.get(service);
            let seen = looked.and_then(|looked| looked.seen.as_ref());
            let seen = seen.ok_or_else(|| Refusal::no_look(&host, service))?;
            Ok(Profile {
                ended: seen.at,
                began: seen.began,
                packed: seen.profile.clone(),
            })
        }
    }
}

/// That of a window that is kept.
fn kept(answers: &Answers, service: &str, kind: Kind, ended: u64) -> Result<Profile, Refusal> {
    let not_kept = || {
        let sentence = match kind {
            Kind::Growth => format!("no window that ended at {ended} is kept of this service"),
            Kind::Heap => {
                format!("no closer look at this service is kept of a window that ended at {ended}")
            }
        };
        Refusal(StatusCode::NOT_FOUND, sentence)
    };
    let bytes = answers.store.of_kind(kind, service, ended)?;
    let bytes = bytes.ok_or_else(not_kept)?;
    Ok(Profile {
        ended,
        began: answers.store.counts_since(kind, service, ended)?,
        packed: gzip::pack(&bytes)?,
    })
}

/// What a profile has beyond that of so many seconds before.
fn since(
    answers: &Answers,
    asked: &Asked,
    kind: Kind,
    (profile, bytes): (&Profile, &[u8]),
    seconds: u64,
) -> Result<Vec<u8>, Refusal> {
    let from = profile.ended.saturating_sub(seconds.saturating_mul(1000));
    let base = answers
        .store
        .base(kind, &asked.service, profile.began, from)?;
    match base {
        Base::Nothing => Ok(bytes.to_vec()),
        Base::Kept(at, base) => {
            let time = Duration::from_millis(profile.ended.saturating_sub(at));
            Ok(pprof::difference(bytes, &base, time)?)
        }
        Base::Gone(oldest) => {
            let sentence = format!(
                "what there was {seconds} s before is not kept any more: the oldest window of this host ended at {oldest}"
            );
            Err(Refusal(StatusCode::NOT_FOUND, sentence))
        }
    }
}
