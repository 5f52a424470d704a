//! What programs may ask, as JSON.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{Refusal, Shared, curves, holders, metrics, profiles, reports, trees};
use crate::model::Finding;
use crate::serve::look::Look;
use crate::serve::status::{Summary, Tracer};
use crate::serve::store::Gap;

/// Windows that are told at once, if nothing else is asked.
const WINDOWS: usize = 100;
/// And at most.
const MOST_WINDOWS: usize = 10_000;

/// The description of all of this.
#[derive(OpenApi)]
#[openapi(
    paths(
        services,
        windows,
        findings,
        look,
        holders::search,
        curves::curves,
        curves::curve,
        trees::tree,
        trees::path,
        reports::report,
        profiles::growth,
        profiles::heap,
        profiles::allocs,
        metrics::metrics
    ),
    info(title = "unfreed serve", license(name = "MIT OR Apache-2.0"))
)]
struct Description;

/// The description of all of this (OpenAPI).
pub async fn description() -> Result<Response, Refusal> {
    let json = Description::openapi()
        .to_json()
        .map_err(anyhow::Error::from)?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

/// All services.
#[derive(Debug, Serialize, ToSchema)]
pub struct Services {
    /// When the last window ended, milliseconds since 1970; 0 before the first.
    ended: u64,
    /// Those that have a process, each with its last window.
    services: Vec<Summary>,
    /// All of which a window is kept, by name.
    kept: Vec<String>,
    /// Times in which nobody watched.
    gaps: Vec<Gap>,
    /// The last closer look at each service.
    looks: Vec<Look>,
    /// The tracer's own numbers.
    tracer: Tracer,
}

/// All services, and how the tracer is.
#[utoipa::path(get, path = "/api/services", responses((status = 200, body = Services)))]
pub async fn services(State(answers): Shared) -> Result<Json<Services>, Refusal> {
    let host = answers.status.now();
    let services = host.services.iter();
    Ok(Json(Services {
        ended: host.ended,
        services: services.map(|service| service.summary.clone()).collect(),
        kept: answers.store.services()?,
        gaps: answers.store.gaps()?,
        looks: host.looks.values().map(|it| it.look.clone()).collect(),
        tracer: host.tracer.clone(),
    }))
}

/// The last closer look at a service, and what the last one that saw anything has found.
#[derive(Debug, Serialize, ToSchema)]
pub struct Looked {
    /// The look.
    look: Look,
    /// What was found; nothing if no look has seen anything yet.
    found: Option<Found>,
}

/// What a closer look has found.
#[derive(Debug, Serialize, ToSchema)]
pub struct Found {
    /// Since when allocations were followed, milliseconds since 1970.
    since: u64,
    /// Until when.
    until: u64,
    /// How long ago that is, seconds.
    age_seconds: u64,
    /// Findings, as in a report.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Finding>,
}

/// What the allocators' probes have found at a service: the call paths by which what grows was
/// allocated.
#[utoipa::path(get, path = "/api/services/{service}/look", params(("service" = String, Path)),
    responses((status = 200, body = Looked), (status = 404, description = "nobody has looked at this service closer yet")))]
pub async fn look(
    State(answers): Shared,
    Path(service): Path<String>,
) -> Result<Json<Looked>, Refusal> {
    let host = answers.status.now();
    let looked = host.looks.get(&service);
    let looked = looked.ok_or_else(|| Refusal::no_look(&host, &service))?;
    let found = looked.seen.as_ref().map(|seen| Found {
        since: seen.began,
        until: seen.at,
        age_seconds: seen.age().as_secs(),
        findings: seen.findings.clone(),
    });
    Ok(Json(Looked {
        look: looked.look.clone(),
        found,
    }))
}

/// How many windows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HowMany {
    /// The last ones; 100 if nothing is said.
    limit: Option<usize>,
}

/// Windows of a service that are kept, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Windows {
    /// The windows.
    #[schema(value_type = Vec<Summary>)]
    windows: Vec<Value>,
    /// Times in which nobody watched.
    gaps: Vec<Gap>,
}

/// Windows of a service that are kept.
#[utoipa::path(get, path = "/api/services/{service}/windows", params(("service" = String, Path), HowMany),
    responses((status = 200, body = Windows), (status = 404, description = "no window of this service is kept")))]
pub async fn windows(
    State(answers): Shared,
    Path(service): Path<String>,
    Query(how_many): Query<HowMany>,
) -> Result<Json<Windows>, Refusal> {
    let limit = how_many.limit.unwrap_or(WINDOWS).min(MOST_WINDOWS);
    let windows = answers.store.summaries(&service, limit)?;
    if windows.is_empty() && limit > 0 {
        return Err(Refusal::unknown(&service));
    }
    let windows: serde_json::Result<Vec<Value>> = windows
        .into_iter()
        .map(|window| serde_json::from_slice(&window))
        .collect();
    Ok(Json(Windows {
        windows: windows.map_err(anyhow::Error::from)?,
        gaps: answers.store.gaps()?,
    }))
}

/// Of which window.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// The end of a window that is kept, milliseconds since 1970; without it the last one.
    window: Option<u64>,
}

/// What is to be said of a service, from the time since which its processes are watched:
/// what grows, and what is no reason to worry.
#[utoipa::path(get, path = "/api/services/{service}/findings", params(("service" = String, Path), Which),
    responses((status = 200, description = "findings, as in a report", body = Vec<Object>),
        (status = 404, description = "nothing is known of this service, or the window is not kept")))]
pub async fn findings(
    State(answers): Shared,
    Path(service): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, Refusal> {
    let Some(ended) = which.window else {
        let host = answers.status.now();
        let known = host.service(&service);
        let known = known.ok_or_else(|| Refusal::unknown(&service))?;
        return Ok(Json(&known.findings).into_response());
    };
    let findings = answers.store.findings(&service, ended)?;
    let findings = findings.ok_or_else(|| {
        let sentence = format!("no window that ended at {ended} is kept of this service");
        Refusal(StatusCode::NOT_FOUND, sentence)
    })?;
    Ok(([(CONTENT_TYPE, "application/json")], findings).into_response())
}
