//! What a table says of estimates (`--sample`).

use crate::model::sampling::rounded;
use crate::model::{Process, Report, Site};
use crate::report::{names, units};

/// How the numbers came about, in a report of a sample.
pub fn lines(report: &Report) -> Vec<String> {
    let Some(sampling) = &report.sampling else {
        return Vec::new();
    };
    let errors = &sampling.errors;
    let chosen = format!(
        "{} chosen, {} live. Their numbers (~) are estimates, with their standard errors (±); mappings are exact; call paths of which no block was chosen are not seen.",
        units::counted(errors.samples, "block"),
        units::grouped(errors.live_samples),
    );
    let mut lines: Vec<_> = report.processes.iter().filter_map(own).collect();
    lines.push(match (lines.is_empty(), report.settings.sample) {
        (false, 0) => format!("Of these samples: {chosen}"),
        _ => format!(
            "Sampled: a block of S bytes with probability 1 - e^(-S/{}); {chosen}",
            units::bytes(report.settings.sample),
        ),
    });
    lines
}

/// That a process takes samples itself.
fn own(process: &Process) -> Option<String> {
    let sampler = process.sampler.as_ref()?;
    let how = match (sampler.samples, sampler.interval) {
        (0, _) => "which has told of none: it may be switched off, and --no-samplers probes allocators instead".to_owned(),
        (_, 0) => "all of them of blocks that stand for themselves".to_owned(),
        (_, interval) => format!("one in about {} of what is allocated", units::bytes(interval)),
    };
    let unused = match sampler.unused.as_slice() {
        [] => String::new(),
        others => format!("; not used: {}", names::clean(&others.join(", "))),
    };
    Some(format!(
        "{} takes samples itself, by {} of {}, {how}{unused}.",
        names::process(process),
        names::clean(&sampler.provider),
        names::clean(&sampler.module),
    ))
}

/// ` ± 1.02 MiB`; nothing of exact numbers.
pub fn bytes(error: Option<f64>) -> String {
    plus_minus(error, units::bytes)
}

/// ` ± 1,020`; nothing of exact numbers.
pub fn count(error: Option<f64>) -> String {
    plus_minus(error, units::grouped)
}

fn plus_minus(error: Option<f64>, show: fn(u64) -> String) -> String {
    match error {
        Some(error) if error > 0.0 => format!(" ± {}", show(rounded(error.ceil()))),
        _ => String::new(),
    }
}

/// A site's standard error as a share of its live bytes, marked if it is so large that
/// the site's place says nothing.
pub fn share(site: &Site) -> String {
    let Some(errors) = site.errors.filter(|_| site.live_bytes > 0) else {
        return String::new();
    };
    let percent = 100.0 * errors.live_bytes / site.live_bytes as f64;
    let mark = if site.is_unsure() { " ?" } else { "" };
    match percent {
        exact if exact <= 0.0 => String::new(),
        small if small < 10.0 => format!(" ±{small:.1}%{mark}"),
        large => format!(" ±{large:.0}%{mark}"),
    }
}

/// What there is to say of a site's estimates.
pub fn notes(site: &Site) -> Vec<String> {
    let Some(errors) = &site.errors else {
        return Vec::new();
    };
    let mut notes = vec![format!(
        "{} of {} live",
        units::grouped(errors.live_samples),
        units::counted(errors.samples, "sampled block"),
    )];
    if errors.live_bytes > 0.0
        && let Some((low, high)) = site.live_range()
    {
        notes.push(format!(
            "95%: {} to {} live",
            units::bytes(low),
            units::bytes(high)
        ));
    }
    if site.is_unsure() {
        notes.push("too few samples to rank it".to_owned());
    }
    notes
}

/// What to add where it is said that nothing is live.
pub fn nothing_live(report: &Report) -> Option<String> {
    let sampling = report.sampling.as_ref()?;
    if sampling.interval == 0 {
        return Some(
            "That is said of samples, and nobody knows how many blocks these are of.".to_owned(),
        );
    }
    Some(format!(
        "That is said of sampled blocks: with a probability of 95% less than {} of others is live.",
        units::bytes(sampling.unseen())
    ))
}
