//! What was traced, and the totals.

use super::layout::{Layout, Marks, PLAIN};
use super::{balance, budget, chance, lifetimes, origins, pages, window};
use crate::model::{Loss, Process, ProcessEnd, Report};
use crate::report::words::Words;
use crate::report::{names, units};

/// Processes named before the rest is only counted.
const NAMED_PROCESSES: usize = 6;

/// Adds the heading lines and an empty one.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    layout.prose(text, layout.strong, 0, &traced(report));
    balance::render(text, report, layout);
    let window = window::line(report);
    let lines = [live(report), allocated(report), freed(report)];
    let sampled = chance::lines(report);
    let growth = report
        .settings
        .growth
        .then(|| pages::not_who_keeps(report).into());
    let others = window.into_iter().chain(budget::line(report));
    let others = others.chain(origins::lines(report));
    let others = others.chain(sampled).chain(growth);
    for line in lines.into_iter().chain(others) {
        layout.prose(text, PLAIN, 0, &line);
    }
    text.push('\n');
}

fn traced(report: &Report) -> String {
    let count = report.processes.len();
    let mut names: Vec<String> = report
        .processes
        .iter()
        .take(NAMED_PROCESSES)
        .map(process)
        .collect();
    if count > NAMED_PROCESSES {
        names.push(format!("and {} more", count - NAMED_PROCESSES));
    }
    let all: u64 = report.processes.iter().map(|it| it.processes.max(1)).sum();
    let who = match (count, all) {
        (1, _) => String::new(),
        (_, all) => format!("{} processes: ", units::grouped(all)),
    };
    let searched = report.searched.map(|it| {
        let time = units::seconds(it.seconds);
        match it.at {
            None => format!(", then searched for holders for {time}"),
            Some(at) => format!(
                ", searched for holders after {} for {time}",
                units::seconds(at)
            ),
        }
    });
    format!(
        "{who}{}, traced for {} from {}{}",
        names.join("; "),
        units::seconds(report.duration),
        names::clean(&report.started),
        searched.unwrap_or_default()
    )
}

fn process(process: &Process) -> String {
    if process.processes > 1 {
        let state = match process.running {
            0 => "all ended".to_owned(),
            running => format!("{} running", units::grouped(running)),
        };
        return format!("{}, {state}", names::process(process));
    }
    let end = match (process.end, process.outcome) {
        (ProcessEnd::Running, _) => String::new(),
        (ProcessEnd::Exited, None) => " exited".to_owned(),
        (ProcessEnd::Exited, Some(outcome)) => format!(" {}", outcome.text()),
        (ProcessEnd::Exec, _) => " until exec".to_owned(),
    };
    format!("{}{end}", names::process(process))
}

fn live(report: &Report) -> String {
    let totals = &report.totals;
    let words = Words::of(report);
    let about = marks(report).about;
    let sites = report.memory().filter(|site| site.live_count > 0).count() as u64;
    let errors = report.sampling.map(|sampling| sampling.errors);
    let mut line = format!(
        "{}: {about}{}{} in {about}{}{} ({about}{} bytes) from {}",
        Words::capital(words.live),
        units::bytes(report.held_bytes()),
        chance::bytes(errors.map(|it| it.live_bytes)),
        units::counted(totals.live_count, words.unit),
        chance::count(errors.map(|it| it.live_count)),
        units::grouped(report.held_bytes()),
        units::counted(sites, "call path"),
    );
    if let Some(young) = young(report, words) {
        line.push_str(&young);
    }
    let empty = totals.live_bytes.saturating_sub(report.held_bytes());
    if empty > 0 {
        let empty = units::bytes(empty);
        line.push_str(&format!("; {empty} more are mapped and not in memory"));
    }
    let left: u64 = report.memory().map(|site| site.left_bytes).sum();
    let is_whole = report.processes.iter().all(|it| it.processes <= 1);
    if left > 0 && !is_whole {
        let left = units::bytes(left);
        line.push_str(&format!("; {left} of it held by processes when they ended"));
    }
    if report.settings.older_than > 0.0 {
        let age = units::seconds(report.settings.older_than);
        line.push_str(&format!("; only blocks live for at least {age}"));
    }
    if report.settings.survived > 0 {
        let collections = units::counted(report.settings.survived.into(), "garbage collection");
        line.push_str(&format!("; only blocks that survived {collections}"));
        if report.jvm.len() < report.processes.len() {
            line.push_str(", and all blocks of processes that are no JVM");
        }
    }
    if report.settings.min_size > 0 {
        let size = units::grouped(report.settings.min_size);
        line.push_str(&format!("; only allocations of at least {size} bytes"));
    }
    if let Some(askers) = origins::askers(&report.settings) {
        line.push_str(&format!("; only what {askers} asked for"));
    }
    line
}

/// How many of the live blocks may well be freed yet. They are not left out: what leaks is
/// young at first, too.
fn young(report: &Report, words: Words) -> Option<String> {
    let young = report.memory().filter_map(lifetimes::young_blocks);
    let count = young.map(|(count, _)| count).fold(0, u64::saturating_add);
    let about = marks(report).about;
    (count > 0).then(|| {
        format!(
            "; {about}{} younger than {} of their call paths usually get",
            units::grouped(count),
            words.units
        )
    })
}

fn allocated(report: &Report) -> String {
    let totals = &report.totals;
    let words = Words::of(report);
    let at_least = marks(report).at_least;
    let errors = report.sampling.map(|sampling| sampling.errors);
    format!(
        "{}: {at_least}{}{} in {at_least}{}{}; {at_least}{}/s, {at_least}{} {}/s",
        Words::capital(words.came),
        units::bytes(totals.allocated_bytes),
        chance::bytes(errors.map(|it| it.allocated_bytes)),
        units::counted(totals.allocated_count, words.unit),
        chance::count(errors.map(|it| it.allocated_count)),
        units::bytes_per_second(rate(totals.allocated_bytes, report.duration)),
        units::per_second(rate(totals.allocated_count, report.duration)),
        words.units,
    )
}

fn freed(report: &Report) -> String {
    let totals = &report.totals;
    let words = Words::of(report);
    let Marks { at_least, about } = marks(report);
    let errors = report.sampling.map(|sampling| sampling.errors);
    let mut line = format!(
        "{}: {at_least}{}{} in {at_least}{}{}, {about}{} of the {}",
        Words::capital(words.went),
        units::bytes(totals.freed_bytes),
        chance::bytes(errors.map(|it| it.freed_bytes)),
        units::counted(totals.freed_count, words.unit),
        chance::count(errors.map(|it| it.freed_count)),
        units::percent(totals.freed_count, totals.allocated_count),
        words.units,
    );
    if totals.untraced_frees > 0 {
        let frees = units::counted(totals.untraced_frees, "free");
        let small = if report.settings.min_size > 0 {
            " or below --min-size"
        } else {
            ""
        };
        // Unless it is certain that not all of them are that old.
        let mut losses = report.occurred_losses();
        let unseen = losses.any(|loss| loss.cause == Loss::UNSEEN_ALLOCATION);
        let whose = match unseen {
            true => "whose allocation was not seen",
            false => "from before the run",
        };
        line.push_str(&format!("; and {frees} of blocks {whose}{small}"));
    }
    if totals.inherited_frees > 0 {
        let frees = units::counted(totals.inherited_frees, "free");
        let at_least = if totals.inherited_forgotten > 0 {
            "≥"
        } else {
            ""
        };
        line.push_str(&format!(
            "; and {at_least}{frees} by children of blocks that they inherited"
        ));
    }
    line
}

/// The totals are inexact when anything was lost, or if they are estimates.
fn marks(report: &Report) -> Marks {
    Marks::new(report.lost_events() > 0 || report.memory().any(|site| site.lower_bound))
        .or_estimates(report.is_sampled())
}

/// `amount` a second; 0 for a run without duration.
pub fn rate(amount: u64, duration: f64) -> f64 {
    if duration > 0.0 {
        amount as f64 / duration
    } else {
        0.0
    }
}
