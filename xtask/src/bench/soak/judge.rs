//! What was promised, and what was kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::host::Outcome;
use super::sample::Sample;
use super::watcher::number;
use crate::bench::figures::median;

/// The tracer's memory may grow by so much after the first sixth: by a part, and in bytes.
const GROWTH: (f64, f64) = (0.05, 4.0 * MIB);
/// It has at most so much in memory.
const RESIDENT: f64 = 150.0 * MIB;
/// And of the kernel's: what is stated, and what many processors add.
const KERNEL: f64 = 70.0 * MIB;
/// Descriptors that it may have more at the end.
const DESCRIPTORS: f64 = 8.0;
/// The start takes processor time that the budget does not pay for, seconds.
const START: f64 = 3.0;

const MIB: f64 = (1 << 20) as f64;

/// All that was seen.
pub(super) struct Facts {
    /// How long it took.
    pub(super) wall: Duration,
    /// How long a window was to be.
    pub(super) window: Duration,
    /// The tracer over time.
    pub(super) samples: Vec<Sample>,
    /// What it told before the end.
    pub(super) services: Value,
    /// The processor time of its threads then, seconds, by name.
    pub(super) threads: BTreeMap<String, f64>,
    /// Windows of services that had arrived where it pushes them.
    pub(super) pushed: u64,
    /// What became of what it watched.
    pub(super) outcome: Outcome,
    /// Processes that it watched when all had ended.
    pub(super) left: u64,
    /// Its programs that any process has when it has ended.
    pub(super) remaining: usize,
    /// What it has said of its own state.
    pub(super) remarks: Vec<String>,
}

/// A promise.
#[derive(Debug, PartialEq)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) found: String,
    pub(super) bound: String,
    pub(super) is_kept: bool,
}

/// All promises.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![flat(facts), resident(facts), budget(facts), kernel(facts)];
    checks.extend([
        descriptors(facts),
        windows(facts),
        pushed(facts),
        told(facts),
    ]);
    checks.push(at_most(
        "processes watched when all have ended",
        facts.left as f64,
        0.0,
    ));
    checks.push(at_most(
        "its programs in the kernel after its end",
        facts.remaining as f64,
        0.0,
    ));
    checks.push(unharmed(facts));
    checks.push(served(facts));
    checks
}

fn at_most(what: &'static str, found: f64, bound: f64) -> Check {
    Check {
        what,
        found: format!("{found:.1}"),
        bound: format!("at most {bound:.1}"),
        is_kept: found <= bound,
    }
}

fn mebibytes(what: &'static str, found: f64, bound: f64) -> Check {
    Check {
        found: format!("{:.1} MiB", found / MIB),
        bound: format!("at most {:.1} MiB", bound / MIB),
        ..at_most(what, found, bound)
    }
}

/// The samples of one sixth of the time, counted from 0.
fn sixth(facts: &Facts, index: usize) -> &[Sample] {
    let count = facts.samples.len();
    &facts.samples[index * count / 6..(index + 1) * count / 6]
}

fn median_of(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(value).collect())
}

/// Its memory in the last sixth is that of the second one.
fn flat(facts: &Facts) -> Check {
    let resident = |sample: &Sample| sample.resident as f64;
    let then = median_of(sixth(facts, 1), resident);
    let last = median_of(sixth(facts, 5), resident);
    let bound = GROWTH.1.max(then * GROWTH.0);
    mebibytes(
        "growth of its memory after the first sixth",
        last - then,
        bound,
    )
}

fn resident(facts: &Facts) -> Check {
    let most = facts.samples.iter().map(|it| it.resident as f64);
    mebibytes(
        "most that it has in memory",
        most.fold(0.0, f64::max),
        RESIDENT,
    )
}

/// What it says of its own cost, and the kernel of its processor time, are both within the
/// host's budget.
fn budget(facts: &Facts) -> Check {
    let tracer = &facts.services["tracer"];
    let seconds = |name: &str| tracer[name].as_f64().unwrap_or(f64::NAN);
    let spent = seconds("seconds") + seconds("target_seconds");
    let counted = facts.samples.last().map_or(f64::NAN, |it| it.seconds);
    let found = spent.max(counted + seconds("target_seconds"));
    let bound = seconds("allowed_seconds") + START;
    Check {
        what: "processor time of it and of tracing, seconds",
        ..at_most("", found, bound)
    }
}

fn kernel(facts: &Facts) -> Check {
    let tracer = &facts.services["tracer"];
    let bytes = number(tracer, "kernel_bytes").max(number(tracer, "kernel_bytes_at_most"));
    mebibytes("the kernel's memory", bytes as f64, KERNEL)
}

/// What is opened for those who come is closed when they go, or when their window is over. So
/// there are fewest right after a window, and each third of the time has one.
fn descriptors(facts: &Facts) -> Check {
    let fewest = |third: usize| {
        let sixths = [2 * third, 2 * third + 1].map(|index| sixth(facts, index));
        let counts = sixths.into_iter().flatten();
        let counts = counts.map(|sample| sample.descriptors as f64);
        counts.fold(f64::INFINITY, f64::min)
    };
    at_most(
        "fewest descriptors of the last third, more than of the second",
        fewest(2) - fewest(1),
        DESCRIPTORS,
    )
}

/// Each window that was due was kept, or is known to be longer.
fn windows(facts: &Facts) -> Check {
    let tracer = &facts.services["tracer"];
    let [kept, lost, postponed] =
        ["kept", "lost", "postponed"].map(|name| number(tracer, &format!("windows_{name}")));
    let due = facts.wall.as_secs() / facts.window.as_secs().max(1);
    let accounted = kept + postponed;
    Check {
        what: "windows kept and postponed",
        found: format!("{kept} and {postponed}, {lost} lost"),
        bound: format!("{due} were due, none lost"),
        // The last one is on its way.
        is_kept: lost == 0 && kept > 0 && accounted + 2 >= due && postponed * 10 <= due,
    }
}

/// There is more than one service in nearly all windows, and each is an entry.
fn pushed(facts: &Facts) -> Check {
    let kept = number(&facts.services["tracer"], "windows_kept");
    Check {
        what: "windows of services that arrived by OTLP",
        found: facts.pushed.to_string(),
        bound: format!("more than the {kept} that were kept"),
        is_kept: facts.pushed > kept,
    }
}

/// Each service is told, with processes.
fn told(facts: &Facts) -> Check {
    let services = facts.services["services"].as_array();
    let names = services
        .into_iter()
        .flatten()
        .filter_map(|it| it["name"].as_str());
    let names: Vec<&str> = names.collect();
    let wanted = ["visitors", "redis", "postgres", "nginx", "java"];
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|it| !names.contains(it))
        .collect();
    Check {
        what: "services that are told",
        found: names.join(", "),
        bound: "all five".to_owned(),
        is_kept: missing.is_empty(),
    }
}

/// Visitors and services went on. That they ended as they should was looked at when they did.
fn unharmed(facts: &Facts) -> Check {
    let outcome = &facts.outcome;
    let idle = outcome.work.iter().filter(|it| it.operations == 0).count();
    Check {
        what: "visitors that came and ended as they should",
        found: outcome.visitors.to_string(),
        bound: "more than stay at once".to_owned(),
        is_kept: idle == 0 && outcome.visitors > 100,
    }
}

/// No piece of a service's load failed. On a machine that does other things, too, one may.
fn served(facts: &Facts) -> Check {
    let work = facts.outcome.work.iter();
    let failures = work.flat_map(|it| it.failures.iter().map(move |why| (it.name, why)));
    let mut said = failures.clone().take(1).map(|(name, why)| {
        let line = why
            .lines()
            .find(|line| line.contains("rror"))
            .unwrap_or(why);
        format!(", the first of {name}: {}", line.trim())
    });
    let count = failures.clone().count();
    Check {
        what: "pieces of load that failed",
        found: format!("{count}{}", said.next().unwrap_or_default()),
        bound: "none".to_owned(),
        is_kept: count == 0,
    }
}

/// All of it as Markdown.
pub(super) fn table(facts: &Facts, checks: &[Check]) -> String {
    let mut text = format!(
        "A soak of {} min; windows of {} s.\n\n| promise | found | bound | kept |\n|---|---|---|---|\n",
        facts.wall.as_secs() / 60,
        facts.window.as_secs()
    );
    for check in checks {
        let kept = if check.is_kept { "yes" } else { "**no**" };
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {kept} |",
            check.what, check.found, check.bound
        );
    }
    let tracer = &facts.services["tracer"];
    let _infallible = write!(
        text,
        "\nPages that visitors touched: {}; page faults followed {}, not followed {}; closer looks {}; lost by cause: {}.\nOperations: {}.\n",
        facts.outcome.pages,
        number(tracer, "faults_followed"),
        number(tracer, "faults_not_followed"),
        number(tracer, "looks"),
        losses(tracer),
        facts
            .outcome
            .work
            .iter()
            .map(|it| format!("{} {}", it.name, it.operations))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let _infallible = writeln!(text, "Processor time by thread, s: {}.", by_thread(facts));
    for remark in &facts.remarks {
        let _infallible = writeln!(text, "It said: {remark}");
    }
    text.push_str(&curve(facts));
    text
}

fn by_thread(facts: &Facts) -> String {
    let threads = facts.threads.iter();
    let threads: Vec<String> = threads
        .map(|(name, seconds)| format!("{name} {seconds:.2}"))
        .collect();
    threads.join(", ")
}

fn losses(tracer: &Value) -> String {
    let losses = tracer["losses"].as_array().into_iter().flatten();
    let losses = losses.map(|it| format!("{} {}", it["cause"], it["count"]));
    let losses: Vec<String> = losses.collect();
    match losses.is_empty() {
        true => "none".to_owned(),
        false => losses.join(", "),
    }
}

/// The tracer in each sixth.
fn curve(facts: &Facts) -> String {
    let mut text = "\n| sixth | in memory, MiB | processor, s | descriptors | watched | alive |\n|---|---|---|---|---|---|\n".to_owned();
    for index in 0..6 {
        let samples = sixth(facts, index);
        let of = |value: fn(&Sample) -> f64| median_of(samples, value);
        let _infallible = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {} | {} | {} |",
            index + 1,
            of(|it| it.resident as f64) / MIB,
            of(|it| it.seconds),
            of(|it| it.descriptors as f64),
            of(|it| number(&it.tracer, "watched") as f64),
            of(|it| it.alive as f64),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bench::soak::host::Work;

    /// A soak that keeps all of it.
    fn facts() -> Facts {
        let tracer = json!({"watched": 100, "seconds": 4.0, "target_seconds": 1.0, "allowed_seconds": 6.0,
            "kernel_bytes": 60 << 20, "kernel_bytes_at_most": 64 << 20, "windows_kept": 30,
            "windows_lost": 0, "windows_postponed": 0, "losses": []});
        let sample = |_| Sample {
            resident: 80 << 20,
            seconds: 4.0,
            descriptors: 60,
            alive: 100,
            tracer: tracer.clone(),
        };
        let names = ["visitors", "redis", "postgres", "nginx", "java"];
        Facts {
            wall: Duration::from_secs(60),
            window: Duration::from_secs(2),
            samples: (0..30).map(sample).collect(),
            services: json!({"tracer": tracer, "services": names.map(|name| json!({"name": name}))}),
            threads: BTreeMap::from([("push".to_owned(), 0.25)]),
            pushed: 150,
            outcome: Outcome {
                visitors: 600,
                pages: 60_000,
                work: vec![Work::new("redis", 7)],
                pids: Vec::new(),
            },
            left: 0,
            remaining: 0,
            remarks: Vec::new(),
        }
    }

    fn broken(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = facts();
        change(&mut facts);
        let checks = checks(&facts);
        assert!(!table(&facts, &checks).is_empty());
        let broken = checks.iter().filter(|it| !it.is_kept);
        broken.map(|it| it.what).collect()
    }

    #[test]
    fn each_promise_can_be_broken() {
        assert_eq!(broken(|_| {}), Vec::<&str>::new());
        let grown = |facts: &mut Facts| {
            for sample in &mut facts.samples[20..] {
                sample.resident += 5 << 20;
            }
        };
        assert_eq!(
            broken(grown),
            ["growth of its memory after the first sixth"]
        );
        let large = |facts: &mut Facts| {
            for sample in &mut facts.samples {
                sample.resident = 200 << 20;
            }
        };
        assert_eq!(broken(large), ["most that it has in memory"]);
        let busy = |facts: &mut Facts| facts.services["tracer"]["seconds"] = json!(9.0);
        assert_eq!(
            broken(busy),
            ["processor time of it and of tracing, seconds"]
        );
        let busier = |facts: &mut Facts| facts.samples[29].seconds = 9.0;
        assert_eq!(
            broken(busier),
            ["processor time of it and of tracing, seconds"]
        );
        let silent = |facts: &mut Facts| facts.services["tracer"] = json!({});
        assert!(broken(silent).contains(&"processor time of it and of tracing, seconds"));
        let open = |facts: &mut Facts| {
            for sample in &mut facts.samples[20..] {
                sample.descriptors = 99;
            }
        };
        assert_eq!(
            broken(open),
            ["fewest descriptors of the last third, more than of the second"]
        );
        let lost = |facts: &mut Facts| facts.services["tracer"]["windows_lost"] = json!(1);
        assert_eq!(broken(lost), ["windows kept and postponed"]);
        assert_eq!(
            broken(|facts| facts.pushed = 30),
            ["windows of services that arrived by OTLP"]
        );
        let few = |facts: &mut Facts| facts.services["tracer"]["windows_kept"] = json!(20);
        assert_eq!(broken(few), ["windows kept and postponed"]);
        let gone = |facts: &mut Facts| facts.services["services"] = json!([]);
        assert_eq!(broken(gone), ["services that are told"]);
        assert_eq!(
            broken(|facts| facts.left = 1),
            ["processes watched when all have ended"]
        );
        assert_eq!(
            broken(|facts| facts.remaining = 1),
            ["its programs in the kernel after its end"]
        );
        let refused = |facts: &mut Facts| {
            facts.outcome.work[0].failures = vec!["wrk\nSocket errors: timeout 15".to_owned()];
        };
        assert_eq!(broken(refused), ["pieces of load that failed"]);
        let stopped = |facts: &mut Facts| facts.outcome.work[0].operations = 0;
        assert_eq!(
            broken(stopped),
            ["visitors that came and ended as they should"]
        );
    }
}
