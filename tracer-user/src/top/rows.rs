//! What is listed of a report: its findings, and its call paths.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::history::{History, Point, growth};
use crate::cli::table::Sort;
use crate::model::{Finding, FindingKind, Report, RowNumber, Site, Verdict};
use crate::report::numbers::{Numbers, told};
use crate::report::{names, own};

/// A call path.
#[derive(Debug, Clone)]
pub struct Row {
    /// What tells it from others, in each report.
    pub key: u64,
    /// The number that tables and `--explain` have for it.
    pub number: Option<RowNumber>,
    /// The deepest function of the program's own.
    pub name: String,
    /// Bytes that it holds.
    pub live: u64,
    /// Blocks that it holds.
    pub blocks: u64,
    /// Whether these are estimates.
    pub is_estimate: bool,
    /// By how many bytes a second it has grown in the last seconds, if that is known.
    pub growth: Option<f64>,
    /// Bytes that it allocates a second: since the report before, or of the whole run.
    pub rate: f64,
    /// The age of its oldest block, seconds.
    pub age: Option<f64>,
    /// What is said of it.
    pub verdict: Option<Verdict>,
    /// What it held over time.
    pub points: Vec<Point>,
    /// What a filter looks at.
    text: String,
}

/// A finding that is told.
#[derive(Debug, Clone)]
pub struct Found {
    /// What tells it from others, in each report.
    pub key: u64,
    /// Its number.
    pub number: usize,
    /// What it is about.
    pub kind: FindingKind,
    /// How sure it is, percent.
    pub sure: f64,
    /// One sentence.
    pub title: String,
    /// Seconds until a limit is reached, and which.
    pub forecast: Option<(f64, String)>,
    text: String,
}

/// All findings that are told, most important first.
pub fn findings(report: &Report) -> Vec<Found> {
    let found = |(index, finding): (usize, &Finding)| {
        let mut hasher = DefaultHasher::new();
        (finding.kind.text(), finding.process, &finding.path).hash(&mut hasher);
        if finding.path.is_empty() {
            finding.title.split(':').next().hash(&mut hasher);
        }
        let title = names::clean(&finding.title).into_owned();
        let path = finding.path.join(" ").to_lowercase();
        Found {
            key: hasher.finish(),
            number: index + 1,
            kind: finding.kind,
            sure: 100.0 * finding.confidence,
            text: format!("{} {path}", title.to_lowercase()),
            title,
            forecast: finding
                .forecast
                .as_ref()
                .map(|it| (it.seconds, names::clean(&it.limit).into_owned())),
        }
    };
    told(report).enumerate().map(found).collect()
}

/// The call paths with something live.
pub fn rows(report: &Report, keys: &[u64], history: &History) -> Vec<Row> {
    let numbers = Numbers::of(report);
    let sites = report.sites.iter().zip(keys);
    sites
        .filter(|(site, _)| site.live_count > 0)
        .map(|(site, key)| row(report, site, *key, &numbers, history))
        .collect()
}

fn row(report: &Report, site: &Site, key: u64, numbers: &Numbers<'_>, history: &History) -> Row {
    let points = history.of(site, key);
    let labels = site.frames.iter().map(|frame| names::label(frame));
    let path = labels.collect::<Vec<_>>().join(" ");
    let roots = names::roots(report, site).join(" ");
    Row {
        key,
        number: numbers.of_site(site),
        name: name(report, site),
        live: site.held_bytes(),
        blocks: site.live_count,
        is_estimate: site.errors.is_some() || site.lower_bound,
        growth: growth(&points),
        rate: rate(report, site),
        age: site.oldest_age,
        verdict: site.verdict,
        points,
        text: format!("{roots} {path}").to_lowercase(),
    }
}

/// What a person calls it: the function that asks, and the process where there are several.
fn name(report: &Report, site: &Site) -> String {
    let own = own::down_to_own(&site.frames).and_then(|count| site.frames.get(count - 1));
    let frame = own.or(site.frames.last());
    let mut name = frame.map_or_else(
        || "[unknown]".to_owned(),
        |it| names::label(it).into_owned(),
    );
    let roots = names::roots(report, site);
    if !roots.is_empty() {
        name.push_str(&format!("  {}", roots.join(" ")));
    }
    name
}

fn rate(report: &Report, site: &Site) -> f64 {
    let new = report.window.as_ref().zip(site.window.as_ref());
    let (bytes, seconds) = match new {
        Some((window, new)) => (new.allocated_bytes, window.ended - window.began),
        // Nothing of it is new.
        None if report.window.is_some() => return 0.0,
        None => (site.allocated_bytes, report.duration),
    };
    match seconds > 0.0 {
        true => bytes as f64 / seconds,
        false => 0.0,
    }
}

/// Brings rows into an order; equal ones stay as they are.
pub fn sort(rows: &mut [Row], by: Sort) {
    let grows = |row: &Row| row.verdict.is_some_and(Verdict::grows);
    rows.sort_by(|a, b| match by {
        Sort::Growth => grows(b)
            .cmp(&grows(a))
            .then(b.growth.unwrap_or(0.0).total_cmp(&a.growth.unwrap_or(0.0)))
            .then(b.live.cmp(&a.live)),
        Sort::Live => b.live.cmp(&a.live),
        Sort::Rate => b.rate.total_cmp(&a.rate),
        Sort::Age => b.age.unwrap_or(0.0).total_cmp(&a.age.unwrap_or(0.0)),
    });
}

impl Row {
    /// Whether a filter in lower case lets it through.
    pub fn has(&self, filter: &str) -> bool {
        self.text.contains(filter)
    }
}

impl Found {
    /// Whether a filter in lower case lets it through.
    pub fn has(&self, filter: &str) -> bool {
        self.text.contains(filter)
    }
}
