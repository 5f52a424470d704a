//! The balance of a service's resident set against the kernel's account.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::load::{Load, fresh, resident, settle};
use super::{jvm, nginx, postgres, redis, scripts};
use crate::bench::seen;
use crate::bench::tracer::{LIFETIME, Tracer};
use crate::build::target_dir;
use crate::shell;

/// Parts that are named in the table.
const NAMED: usize = 3;
/// Parts of which nothing is known but where they are.
const UNKNOWN: [&str; 1] = ["unseen_mappings"];

/// A service: its name, what makes it grow, and how it is started in a folder of its
/// own.
type Service = (
    &'static str,
    &'static str,
    fn(&Path) -> Result<Box<dyn Load>>,
);

const SERVICES: [Service; 6] = [
    ("redis (jemalloc)", redis::WORDS, redis::start),
    ("PostgreSQL, `--follow`", postgres::WORDS, postgres::start),
    ("nginx", nginx::WORDS, nginx::start),
    ("python with numpy", scripts::PYTHON_WORDS, scripts::python),
    ("node", scripts::NODE_WORDS, scripts::node),
    ("a JVM (serial collector)", jvm::WORDS, jvm::start),
];

/// Traces all services, and makes the table.
///
/// # Errors
/// Fails if one cannot be started, or the tracer fails.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    let mut table = "| service | load | growth, by the kernel | by `unfreed` | off | explained | the largest parts |\n\
         |---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut notes = String::new();
    for (name, words, start) in SERVICES {
        shell::say(format!("accuracy: {name}"));
        let traced = trace(unfreed, start).with_context(|| format!("cannot measure {name}"))?;
        let found = Found::of(&traced.report).with_context(|| format!("no balance of {name}"))?;
        table.push_str(&found.row(name, words, traced.growth));
        if let Some(note) = traced.note {
            let _ = write!(notes, "\n{note}");
        }
        if let Some(lost) = lost(&traced.report) {
            let _ = writeln!(notes, "\nLost of {name}: {lost}.");
        }
    }
    Ok(table + &notes)
}

/// A service that was traced while it grew.
struct Traced {
    report: Value,
    /// What the kernel says that it grew by, bytes.
    growth: i64,
    note: Option<String>,
}

fn trace(unfreed: &Path, start: fn(&Path) -> Result<Box<dyn Load>>) -> Result<Traced> {
    let folder = target_dir().join("bench/service");
    fresh(&folder)?;
    let mut load = start(&folder)?;
    let file = seen::new_file("accuracy.json")?;
    let before = settle(&load.pid())?;
    let options = load.options().iter().map(OsStr::new);
    let output = [OsStr::new("-o"), file.as_os_str()];
    let tracer = Tracer::unfreed(unfreed, &load.pid(), LIFETIME, options.chain(output))?;
    load.work()?;
    settle(&load.pid())?;
    let after = resident(&load.pid())?;
    tracer.stop()?;
    let report = seen::report(tracer, &file)?;
    Ok(Traced {
        note: load.notes(&report)?,
        growth: after.cast_signed() - before.cast_signed(),
        report,
    })
}

/// What a report says was lost.
fn lost(report: &Value) -> Option<String> {
    let losses = report["losses"].as_array()?;
    let occurred = losses.iter().filter(|loss| loss["count"] != 0);
    let causes: Vec<_> = occurred
        .map(|loss| format!("{} × {}", loss["count"], loss["cause"]))
        .collect();
    (!causes.is_empty()).then(|| causes.join(", "))
}

/// The balances of a report, together.
struct Found {
    growth: i64,
    /// What nothing is known of, whatever its sign.
    unknown: u64,
    /// By their names, the largest first.
    parts: Vec<(String, i64)>,
}

impl Found {
    fn of(report: &Value) -> Option<Self> {
        let mut found = Self {
            growth: 0,
            unknown: 0,
            parts: Vec::new(),
        };
        for balance in report["balance"].as_array()? {
            found.growth += balance["growth"].as_i64()?;
            found.unknown += balance["unexplained"].as_i64()?.unsigned_abs();
            for part in balance["parts"].as_array()? {
                let (name, bytes) = (part["name"].as_str()?, part["bytes"].as_i64()?);
                if UNKNOWN.contains(&name) {
                    found.unknown += bytes.unsigned_abs();
                }
                match found.parts.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum += bytes,
                    None => found.parts.push((name.to_owned(), bytes)),
                }
            }
        }
        let size = |(_, bytes): &(String, i64)| std::cmp::Reverse(bytes.unsigned_abs());
        found.parts.sort_by_key(size);
        Some(found)
    }

    fn row(&self, name: &str, words: &str, kernel: i64) -> String {
        let parts = self.parts.iter().take(NAMED);
        let parts: Vec<_> = parts
            .map(|(name, bytes)| format!("{} {}", name.replace('_', " "), mib(*bytes)))
            .collect();
        format!(
            "| {name} | {words} | {} | {} | {} | {} | {} |\n",
            mib(kernel),
            mib(self.growth),
            share(self.growth.abs_diff(kernel), kernel.unsigned_abs()),
            share(
                self.growth.unsigned_abs().saturating_sub(self.unknown),
                self.growth.unsigned_abs()
            ),
            parts.join(", ")
        )
    }
}

pub(super) fn mib(bytes: i64) -> String {
    format!("{:+.2} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A part of a whole, in percent.
pub(super) fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_unknown_is_not_explained() {
        let part = |name: &str, bytes: i64| json!({"name": name, "bytes": bytes});
        let mib = 1 << 20;
        let report = json!({"balance": [
            {"growth": 90 * mib, "unexplained": mib, "parts": [
                part("live_blocks", 70 * mib), part("unseen_mappings", 19 * mib)]},
            {"growth": 10 * mib, "unexplained": -mib, "parts": [
                part("live_blocks", 5 * mib), part("shared_memory", 6 * mib)]},
        ]});
        let row = Found::of(&report).unwrap().row("x", "load", 104 * mib);
        assert_eq!(
            row,
            "| x | load | +104.00 MiB | +100.00 MiB | 3.8 % | 79.0 % | live blocks +75.00 MiB, \
             unseen mappings +19.00 MiB, shared memory +6.00 MiB |\n"
        );
        assert!(Found::of(&json!({})).is_none());
    }

    #[test]
    fn what_was_lost_is_told() {
        let loss = |cause: &str, count: u64| json!({"cause": cause, "count": count});
        let report = json!({"losses": [loss("a", 0), loss("b", 3)]});
        assert_eq!(lost(&report).unwrap(), "3 × \"b\"");
        assert_eq!(lost(&json!({"losses": [loss("a", 0)]})), None);
    }
}
