//! What there was of services over time, in columns: a point a window.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::blocking::blocking;
use super::{Answers, Refusal, Shared};
use crate::serve::status::{Resident, Series};
use crate::serve::store::{Gap, Kind, Store};

/// Points of each service, if nothing else is asked, and at most.
const POINTS: usize = 60;
const MOST_POINTS: usize = 1_000;
/// Points of one service at most: a week of minutes.
const MOST_POINTS_OF_ONE: usize = 10_080;
/// Series of one service that are told at most: the last ones.
const MOST_SERIES: usize = 1_000;

/// How many windows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HowMany {
    /// The last ones.
    limit: Option<usize>,
}

/// What is read of a window's numbers that were kept, maybe by a version that kept fewer.
#[derive(Debug, Deserialize)]
struct Moment {
    began: u64,
    ended: u64,
    series: Vec<Series>,
    resident_bytes: u64,
    #[serde(default)]
    resident: Option<Resident>,
    growth_bytes: i64,
    live_bytes: u64,
    paths: u64,
    growing: u64,
}

/// The curves of all services.
#[derive(Debug, Serialize, ToSchema)]
pub struct Curves {
    /// Of each service of which a window is kept, by name.
    services: Vec<Outline>,
}

/// A service's last windows, oldest first: an entry of each column is of one window.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Outline {
    /// The service.
    name: String,
    /// When each ended, milliseconds since 1970.
    ended: Vec<u64>,
    /// What was in memory, bytes.
    resident_bytes: Vec<u64>,
    /// What was live, bytes.
    live_bytes: Vec<u64>,
}

/// What all services had over their last windows (60 of each, if nothing else is asked).
#[utoipa::path(get, path = "/api/curves", params(HowMany), responses((status = 200, body = Curves)))]
pub async fn curves(
    State(answers): Shared,
    Query(how_many): Query<HowMany>,
) -> Result<Json<Curves>, Refusal> {
    let limit = how_many.limit.unwrap_or(POINTS).min(MOST_POINTS);
    blocking(move || {
        let names = answers.store.services()?.into_iter();
        let services = names.map(|name| outline(&answers.store, name, limit));
        Ok(Json(Curves {
            services: services.collect::<anyhow::Result<_>>()?,
        }))
    })
    .await
}

fn outline(store: &Store, name: String, limit: usize) -> anyhow::Result<Outline> {
    let mut outline = Outline::default();
    for moment in moments(store, &name, limit)? {
        outline.ended.push(moment.ended);
        outline.resident_bytes.push(moment.resident_bytes);
        outline.live_bytes.push(moment.live_bytes);
    }
    outline.name = name;
    Ok(outline)
}

fn moments(store: &Store, name: &str, limit: usize) -> anyhow::Result<Vec<Moment>> {
    let kept = store.summaries(name, limit)?.into_iter();
    kept.map(|json| Ok(serde_json::from_slice(&json)?))
        .collect()
}

/// A service over time, oldest first: an entry of each column is of one window.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Curve {
    /// When each window began and ended, milliseconds since 1970.
    began: Vec<u64>,
    /// See `began`.
    ended: Vec<u64>,
    /// What was in memory, bytes.
    resident_bytes: Vec<u64>,
    /// The same by kind; nothing of windows that an older version has kept.
    resident: Vec<Option<Resident>>,
    /// By how much that had grown since each process is watched, bytes.
    growth_bytes: Vec<i64>,
    /// What was first touched since then and was there yet, by the paths that were followed.
    live_bytes: Vec<u64>,
    /// Call paths.
    paths: Vec<u64>,
    /// Findings that are a reason to worry.
    growing: Vec<u64>,
    /// Its processes, each once, those that began first before others; the last 1,000.
    series: Vec<Series>,
    /// How many there were before these.
    series_left_out: usize,
    /// Ends of windows of which a closer look is kept, milliseconds since 1970.
    looked_at: Vec<u64>,
    /// Times in which nobody watched.
    gaps: Vec<Gap>,
}

/// A service over time (of 10,080 windows at most, if nothing else is asked), with all that
/// happened to it.
#[utoipa::path(get, path = "/api/services/{service}/curve", params(("service" = String, Path), HowMany),
    responses((status = 200, body = Curve), (status = 404, description = "no window of this service is kept")))]
pub async fn curve(
    State(answers): Shared,
    Path(service): Path<String>,
    Query(how_many): Query<HowMany>,
) -> Result<Json<Curve>, Refusal> {
    let limit = how_many.limit.unwrap_or(MOST_POINTS_OF_ONE);
    blocking(move || whole(&answers, &service, limit.min(MOST_POINTS_OF_ONE)).map(Json)).await
}

fn whole(answers: &Answers, service: &str, limit: usize) -> Result<Curve, Refusal> {
    let moments = moments(&answers.store, service, limit)?;
    if moments.is_empty() {
        return Err(Refusal::unknown(service));
    }
    let mut curve = Curve {
        looked_at: answers.store.windows(Kind::Heap, service, 0..=u64::MAX)?,
        gaps: answers.store.gaps()?,
        ..Curve::default()
    };
    for moment in moments {
        curve.add(moment);
    }
    curve
        .series
        .sort_by_key(|series| (series.began, series.pid));
    curve.series_left_out = curve.series.len().saturating_sub(MOST_SERIES);
    curve.series.drain(..curve.series_left_out);
    Ok(curve)
}

impl Curve {
    fn add(&mut self, moment: Moment) {
        self.began.push(moment.began);
        self.ended.push(moment.ended);
        self.resident_bytes.push(moment.resident_bytes);
        self.resident.push(moment.resident);
        self.growth_bytes.push(moment.growth_bytes);
        self.live_bytes.push(moment.live_bytes);
        self.paths.push(moment.paths);
        self.growing.push(moment.growing);
        for series in moment.series {
            // Those of the window before are the last ones: a week has few.
            let is_it = |it: &&mut Series| (it.pid, it.began) == (series.pid, series.began);
            match self.series.iter_mut().rev().find(is_it) {
                Some(known) => known.ended = series.ended,
                None => self.series.push(series),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(ended: u64, pids: &[(u32, Option<u64>)]) -> Moment {
        let series = pids.iter().map(|(pid, ended)| {
            let ended = ended.map_or("null".to_owned(), |it| it.to_string());
            format!(r#"{{"pid":{pid},"name":"a","began":{pid},"ended":{ended}}}"#)
        });
        let series: Vec<_> = series.collect();
        // As versions before wrote it, and with what is not read.
        let json = format!(
            r#"{{"name":"a","began":{},"ended":{ended},"containers":[],"series":[{}],
            "resident_bytes":7,"growth_bytes":-1,"live_bytes":5,"new_bytes":0,"paths":2,"growing":0}}"#,
            ended - 1,
            series.join(",")
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn each_process_is_told_once_with_its_end() {
        let mut curve = Curve::default();
        curve.add(moment(10, &[(1, None)]));
        curve.add(moment(20, &[(1, Some(15)), (2, None)]));
        curve.add(moment(30, &[(2, None)]));
        assert_eq!(curve.ended, [10, 20, 30]);
        assert_eq!(curve.resident, [None, None, None]);
        let series = curve.series.iter().map(|it| (it.pid, it.ended));
        assert_eq!(series.collect::<Vec<_>>(), [(1, Some(15)), (2, None)]);
    }
}
