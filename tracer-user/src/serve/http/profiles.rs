//! Profiles, as `go tool pprof` and its like ask for them.

use std::io::Write;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Refusal, Shared};

/// Which profile.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// The service.
    service: String,
    /// The end of a window that is kept, milliseconds since 1970; without it the last one.
    window: Option<u64>,
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
    let profile = match asked.window {
        None => {
            let host = answers.status.now();
            let service = host.service(&asked.service);
            let service = service.ok_or_else(|| Refusal::unknown(&asked.service))?;
            service.profile.clone()
        }
        Some(ended) => {
            let profile = answers.store.profile(&asked.service, ended)?;
            let profile = profile.ok_or_else(|| {
                let sentence = format!("no window that ended at {ended} is kept of this service");
                Refusal(StatusCode::NOT_FOUND, sentence)
            })?;
            pack(&profile).map_err(anyhow::Error::from)?
        }
    };
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_DISPOSITION, "attachment; filename=\"growth.pb.gz\""),
    ];
    Ok((headers, profile).into_response())
}

fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    file.write_all(bytes)?;
    file.finish()
}
