//! What a table says of estimates (`--sample`, `--overhead`).

use crate::model::sampling::rounded;
use crate::model::{BudgetReport, Process, Report, Sampling, Site, Survival};
use crate::report::{names, units};

/// How the numbers came about, in a report of a sample.
pub fn lines(report: &Report) -> Vec<String> {
    let Some(sampling) = &report.sampling else {
        return Vec::new();
    };
    if let Some(line) = of_beginning(report) {
        return vec![line];
    }
    let errors = &sampling.errors;
    if sampling.bursts > 0 {
        return vec![of_bursts(sampling, report.budget.as_ref())];
    }
    let chosen = format!(
        "{} chosen, {} live. Their numbers (~) are estimates, with their standard errors (±); mappings are exact; call paths of which no block was chosen are not seen.",
        units::counted(errors.samples, "block"),
        units::grouped(errors.live_samples),
    );
    let mut lines: Vec<_> = report.processes.iter().filter_map(own).collect();
    // (A budget has an interval of its own.)
    let interval = match report.budget {
        Some(_) => sampling.interval,
        None => report.settings.sample,
    };
    lines.push(match (lines.is_empty(), interval) {
        (false, 0) => format!("Of these samples: {chosen}"),
        _ => format!(
            "Sampled: a block of S bytes with probability 1 - e^(-S/{}); {chosen}",
            units::bytes(interval),
        ),
    });
    lines
}

/// That no burst has been yet.
fn of_beginning(report: &Report) -> Option<String> {
    let budget = report.budget.as_ref().filter(|it| it.is_of_beginning())?;
    Some(format!(
        "Followed for {:.2}% of the time, at the beginning: there was no burst since. Numbers of blocks are of that time alone, and say nothing of the rest of the run (≥).",
        100.0 * budget.duty
    ))
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

/// The same of bursts.
fn of_bursts(sampling: &Sampling, budget: Option<&BudgetReport>) -> String {
    let (duty, scale) = budget.map_or((0.0, 0.0), |it| (it.duty, it.scale_error));
    let mut line = format!(
        "Followed for {:.2}% of the time, in {}: {}. Their numbers (~) are estimates of the whole run, with their standard errors (±); mappings are exact; call paths that no burst saw are not there.",
        100.0 * duty,
        units::counted(sampling.bursts, "burst"),
        units::counted(sampling.errors.samples, "block"),
    );
    if scale >= 0.01 {
        line.push_str(&format!(
            " Tracing slows a burst down, so how much of the run it stands for is known to ±{:.0}%: all of them may be too high or too low by that, alike.",
            100.0 * scale
        ));
    }
    line
}

/// What became of a site's blocks that were followed in bursts.
fn survival(survival: &Survival) -> Option<String> {
    let Survival {
        followed,
        died,
        reused,
        expected,
    } = *survival;
    if followed == 0 {
        return None;
    }
    let blocks = units::counted(followed, "block");
    let gone = died + reused;
    if gone > 0 {
        let gone = units::grouped(gone);
        return Some(format!(
            "{gone} of {blocks} that outlived their burst were seen to be gone later"
        ));
    }
    let none = format!("none of {blocks} that outlived their burst was seen to be freed later");
    Some(match survival.chance() {
        Some(chance) if survival.tells() => format!(
            "{none}: if they lived as long as the run, some {expected:.0} would have been (by chance {chance:.0e})"
        ),
        _ => format!("{none}, but they were not watched for long enough to tell"),
    })
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
    let mut notes = match &site.survival {
        Some(it) => survival(it).into_iter().collect(),
        None => vec![format!(
            "{} of {} live",
            units::grouped(errors.live_samples),
            units::counted(errors.samples, "sampled block"),
        )],
    };
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
        notes.push("too little was seen to rank it".to_owned());
    }
    notes
}

/// What to add where it is said that nothing is live.
pub fn nothing_live(report: &Report) -> Option<String> {
    let sampling = report.sampling.as_ref()?;
    if of_beginning(report).is_some() {
        return Some("That is said of the beginning of the run alone.".to_owned());
    }
    if sampling.bursts > 0 {
        return Some("That is said of blocks that were allocated in bursts: what none of them saw may be live.".to_owned());
    }
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
