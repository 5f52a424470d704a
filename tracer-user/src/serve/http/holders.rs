//! Who holds what, of a service that is looked at closer: searched for when somebody asks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Refusal, Shared};

/// A search that is wanted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WantedSearch {
    /// Searches of this look that have ended until now: that which is wanted has, too, once the
    /// look's `searches` is more.
    pub searches: u64,
}

/// Has the memory of a service's processes searched for who holds what holds most, in the closer
/// look that goes on: as soon as what searches before it took is paid for. The look's findings and
/// its report have what was found.
#[utoipa::path(post, path = "/api/services/{service}/holders", params(("service" = String, Path)),
    responses((status = 202, body = WantedSearch), (status = 404, description = "nobody has looked at this service closer yet"),
        (status = 409, description = "no closer look goes on, or it does not search"),
        (status = 503, description = "too many services wait for that")))]
pub async fn search(
    State(answers): Shared,
    Path(service): Path<String>,
) -> Result<(StatusCode, Json<WantedSearch>), Refusal> {
    let host = answers.status.now();
    let looked = host.looks.get(&service);
    let look = &looked
        .ok_or_else(|| Refusal::no_look(&host, &service))?
        .look;
    let refused = |status, sentence| Err(Refusal(status, sentence));
    if look.ended.is_some() {
        return refused(
            StatusCode::CONFLICT,
            format!(
                "no closer look at {service:?} goes on, without which nobody knows its blocks; the last one's findings say who held what it was sure of (mode = \"overhead\" in its [[service]] always looks)"
            ),
        );
    }
    let Some(searches) = look.searches else {
        return refused(
            StatusCode::CONFLICT,
            format!(
                "the memory of {service:?} is not searched: its configuration says holders = false"
            ),
        );
    };
    if !answers.wanted.add(&service) {
        return refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many services wait for a search: ask later".to_owned(),
        );
    }
    Ok((StatusCode::ACCEPTED, Json(WantedSearch { searches })))
}
