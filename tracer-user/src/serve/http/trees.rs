//! Call trees of a moment, of a range of windows and of two ranges side by side, and what
//! one call path had over time.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::blocking::blocking;
use super::{Answers, Refusal, Shared};
use crate::report::pprof::tree::{COLUMNS, Told, Tree};
use crate::serve::store::{Base, Kind};

/// Nodes of a tree that are told at most.
const MOST_NODES: usize = 100_000;
/// Points of a path's history.
const POINTS: usize = 60;

/// Which profile a tree is of.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Where memory was first touched.
    #[default]
    Growth,
    /// What closer looks have seen allocated.
    Heap,
}

impl Source {
    fn kind(self) -> Kind {
        match self {
            Self::Growth => Kind::Growth,
            Self::Heap => Kind::Heap,
        }
    }
}

/// What the numbers of a tree are, as profiles name them.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Bytes that are live.
    #[default]
    InuseSpace,
    /// Blocks that are live; of growth pages.
    InuseObjects,
    /// Bytes that were allocated.
    AllocSpace,
    /// Blocks that were allocated.
    AllocObjects,
}

impl Value {
    fn name(self) -> &'static str {
        match self {
            Self::InuseSpace => "inuse_space",
            Self::InuseObjects => "inuse_objects",
            Self::AllocSpace => "alloc_space",
            Self::AllocObjects => "alloc_objects",
        }
    }
}

/// Which tree. Times are milliseconds since 1970; each means the last window that ended
/// then or before.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Which profile; `growth` if nothing is said.
    #[serde(default)]
    #[param(inline, required = false)]
    source: Source,
    /// Which of its numbers; `inuse_space` if nothing is said.
    #[serde(default)]
    #[param(inline, required = false)]
    value: Value,
    /// When the range ends; with the last window, if nothing is said.
    to: Option<u64>,
    /// When it begins: what there was then is subtracted. Nothing is, if it is not said.
    from: Option<u64>,
    /// When the other range ends, if there is one to compare with.
    other_to: Option<u64>,
    /// When that one begins.
    other_from: Option<u64>,
}

/// From when to when what is told has come, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Span {
    /// The end of the window whose profile is subtracted, or since when the profile counts.
    since: u64,
    /// The end of the window whose profile is shown.
    until: u64,
    /// Whether a profile was subtracted.
    is_difference: bool,
}

/// A call tree in columns. A node is an index into `parents` and `functions` and each of
/// `values`; the first one is the root, and a node stands after its parent.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallTree {
    /// What each of `values` is of: one range or two.
    spans: Vec<Span>,
    /// Names of functions.
    names: Vec<String>,
    /// The parent of each node; the root is its own.
    parents: Vec<u32>,
    /// The function of each node, an index into `names`.
    functions: Vec<u32>,
    /// For each of `spans`, what is of each node and of all below it.
    values: Vec<Vec<i64>>,
    /// Nodes that are left out, the smallest; their values are in those of their parents.
    left_out: usize,
}

/// The call tree of a service at a moment or of what came in a range of windows; of two
/// ranges, side by side, to compare them.
#[utoipa::path(get, path = "/api/services/{service}/tree", params(("service" = String, Path), Asked),
    responses((status = 200, body = CallTree), (status = 404, description = "nothing is kept of this service or of this time")))]
pub async fn tree(
    State(answers): Shared,
    Path(service): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<CallTree>, Refusal> {
    blocking(move || make(&answers, &service, &asked).map(Json)).await
}

fn make(answers: &Answers, service: &str, asked: &Asked) -> Result<CallTree, Refusal> {
    let mut ranges = vec![(asked.from, asked.to)];
    if asked.other_to.is_some() || asked.other_from.is_some() {
        ranges.push((asked.other_from, asked.other_to));
    }
    let mut maker = Maker::new(answers, service, asked);
    let mut spans = Vec::new();
    for (column, (from, to)) in ranges.into_iter().enumerate() {
        spans.push(maker.add(column, from, to)?);
    }
    let Told {
        names,
        parents,
        functions,
        values,
        left_out,
    } = maker.tree.told(MOST_NODES);
    Ok(CallTree {
        values: values.into_iter().take(spans.len()).collect(),
        spans,
        names,
        parents,
        functions,
        left_out,
    })
}

/// Makes a tree of what is kept.
struct Maker<'a> {
    answers: &'a Answers,
    service: &'a str,
    kind: Kind,
    value: &'static str,
    tree: Tree,
}

impl<'a> Maker<'a> {
    fn new(answers: &'a Answers, service: &'a str, asked: &Asked) -> Self {
        Self {
            answers,
            service,
            kind: asked.source.kind(),
            value: asked.value.name(),
            tree: Tree::default(),
        }
    }

    /// Adds a range to a column.
    fn add(&mut self, column: usize, from: Option<u64>, to: Option<u64>) -> Result<Span, Refusal> {
        let store = &self.answers.store;
        let (until, profile) =
            match store.base(self.kind, self.service, 0, to.unwrap_or(u64::MAX))? {
                Base::Kept(until, profile) => (until, profile),
                Base::Nothing => return Err(self.nothing()),
                Base::Gone(oldest) => return Err(gone(oldest)),
            };
        self.tree.add(&profile, self.value, column, 1)?;
        let began = store.counts_since(self.kind, self.service, until)?;
        let mut span = Span {
            since: began,
            until,
            is_difference: false,
        };
        let Some(from) = from else {
            return Ok(span);
        };
        if from >= until {
            return Err(empty(from, until));
        }
        match store.base(self.kind, self.service, began, from)? {
            // It began in the range.
            Base::Nothing => {}
            Base::Kept(since, profile) => {
                self.tree.add(&profile, self.value, column, -1)?;
                span.since = since;
                span.is_difference = true;
            }
            Base::Gone(oldest) => return Err(gone(oldest)),
        }
        Ok(span)
    }

    fn nothing(&self) -> Refusal {
        match self.kind {
            Kind::Growth => Refusal::unknown(self.service),
            Kind::Heap => Refusal::no_look(&self.answers.status.now(), self.service),
        }
    }
}

fn gone(oldest: u64) -> Refusal {
    let sentence = format!(
        "what there was then is not kept any more: the oldest window of this host ended at {oldest}"
    );
    Refusal(StatusCode::NOT_FOUND, sentence)
}

fn empty(from: u64, until: u64) -> Refusal {
    let sentence = format!(
        "no window ended after {from} in this range (the last one ended at {until}): choose a longer one"
    );
    Refusal(StatusCode::NOT_FOUND, sentence)
}

/// Which path, and when. A path can be longer than an address may be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AskedPath {
    /// Names of its functions, root first.
    path: Vec<String>,
    /// See `tree`.
    #[serde(default)]
    source: Source,
    /// See `tree`.
    #[serde(default)]
    value: Value,
    /// From when, milliseconds since 1970; from the oldest window, if nothing is said.
    from: Option<u64>,
    /// Until when; until the last window, if nothing is said.
    to: Option<u64>,
}

/// What a path had over time.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// When each window ended, milliseconds since 1970, oldest first.
    ended: Vec<u64>,
    /// What was of the path, and of all that it calls, at the end of each.
    values: Vec<i64>,
    /// Windows in the range, of which at most 60 are told, evenly.
    windows: usize,
}

/// What one call path, and all that it calls, had at the windows of a range.
#[utoipa::path(post, path = "/api/services/{service}/path", params(("service" = String, Path)),
    request_body = AskedPath,
    responses((status = 200, body = History), (status = 404, description = "nothing is kept of this service in this range")))]
pub async fn path(
    State(answers): Shared,
    Path(service): Path<String>,
    Json(asked): Json<AskedPath>,
) -> Result<Json<History>, Refusal> {
    blocking(move || history(&answers, &service, &asked).map(Json)).await
}

fn history(answers: &Answers, service: &str, asked: &AskedPath) -> Result<History, Refusal> {
    let kind = asked.source.kind();
    let range = asked.from.unwrap_or(0)..=asked.to.unwrap_or(u64::MAX);
    let all = answers.store.windows(kind, service, range)?;
    if all.is_empty() {
        return Err(Refusal::unknown(service));
    }
    let mut history = History {
        ended: Vec::new(),
        values: Vec::new(),
        windows: all.len(),
    };
    for ended in evenly(&all, POINTS) {
        // Those that went meanwhile are not told.
        let Some(profile) = answers.store.of_kind(kind, service, ended)? else {
            continue;
        };
        let mut tree = Tree::default();
        tree.add(&profile, asked.value.name(), 0, 1)?;
        let [value, ..]: [i64; COLUMNS] = tree.at(&asked.path);
        history.ended.push(ended);
        history.values.push(value);
    }
    Ok(history)
}

/// So many of them at most, evenly, the first and the last among them.
fn evenly(all: &[u64], most: usize) -> Vec<u64> {
    let last = all.len().saturating_sub(1);
    let steps = last.min(most.saturating_sub(1));
    let indices = (0..=steps).map(|step| step * last / steps.max(1));
    indices
        .filter_map(|index| all.get(index).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_its_first_and_its_last_window() {
        let all: Vec<u64> = (0..1000).collect();
        let some = evenly(&all, POINTS);
        assert_eq!(some.len(), POINTS);
        assert_eq!((some[0], some[POINTS - 1]), (0, 999));
        assert_eq!(evenly(&all[..7], POINTS), all[..7]);
        assert_eq!(evenly(&[5], POINTS), [5]);
        assert!(evenly(&[], POINTS).is_empty());
    }
}
