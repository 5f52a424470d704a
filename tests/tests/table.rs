//! The table of a run that leaks, and what is made of its report later: fewer lines, another
//! order, explanations, drawings and profiles by verdict, and what changed from one version
//! of the program to the next.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use unfreed_tests::{Finished, Outputs, Target, Tracer, gunzip, unfreed};

/// Lines of a row, at most.
const MOST_LINES: usize = 12;

/// `targets/c/behaviours.c`, traced while it works; in the version that comes after some
/// commands.
fn traced(before: &[&str], options: &[&str]) -> Result<Finished> {
    let mut target = Target::start("behaviours")?;
    for command in before {
        target.command(command)?;
    }
    let tracer = Tracer::record(target.pid, options)?;
    let truth = target.command("work")?;
    let finished = tracer.stop()?;
    finished.report()?.agrees_with(&truth)?;
    Ok(finished)
}

fn shown(arguments: &[&str]) -> Result<String> {
    let finished = unfreed(arguments)?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    Ok(finished.stdout)
}

/// The lines of each row, first the one that begins with its number.
fn rows(table: &str) -> Result<Vec<Vec<&str>>> {
    let (_, table) = table
        .split_once("LIFETIME OF FREED\n")
        .context("no table")?;
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty()) {
        let number = line.trim_start().split(' ').next().unwrap_or_default();
        match rows.last_mut() {
            Some(row) if line.starts_with("    ") => row.push(line),
            _ if number.parse::<f64>().is_ok() && line.contains('%') => rows.push(vec![line]),
            _ => break,
        }
    }
    Ok(rows)
}

/// The functions of the target, by the first line of each row that has one.
fn functions(table: &str) -> Result<Vec<String>> {
    let own = |row: Vec<&str>| {
        let names = row.into_iter().filter_map(|line| line.strip_prefix("    "));
        let mut names = names.filter(|line| line.contains("behaviours.c:"));
        names.next()?.split("  ").next().map(str::to_owned)
    };
    Ok(rows(table)?.into_iter().filter_map(own).collect())
}

fn check_rows(table: &str) -> Result<()> {
    for row in rows(table)? {
        ensure!(row.len() <= MOST_LINES, "{row:#?}");
    }
    let order = functions(table)?;
    let leaks = ["keeps_all", "forgets_some", "leaks_in_bursts"];
    ensure!(order.starts_with(&leaks.map(str::to_owned)), "{order:?}");
    // Where a thread starts is nobody's leak.
    ensure!(table.contains("frames of libc"), "{table}");
    Ok(())
}

fn check_order(json: &str) -> Result<()> {
    // Half a megabyte and more each, of which two are freed again and again.
    let by = |sort| functions(&shown(&["report", json, "--top", "20", "--sort", sort])?);
    let live = by("live")?;
    assert_eq!(
        live.first().map(String::as_str),
        Some("keeps_all"),
        "{live:?}"
    );
    let rate = by("rate")?;
    assert_eq!(
        rate.first().map(String::as_str),
        Some("forgets_some"),
        "{rate:?}"
    );
    let age = by("age")?;
    assert_eq!(age.first().map(String::as_str), Some("sets_up"), "{age:?}");
    let whole = shown(&["report", json, "--top", "20", "--all-frames"])?;
    ensure!(
        !whole.contains("frames of libc") && whole.contains("_start"),
        "{whole}"
    );
    Ok(())
}

fn check_explanations(json: &str) -> Result<()> {
    let leak = shown(&["report", json, "--explain", "1"])?;
    for part in [
        "1. LEAK (",
        "What was live over time (bytes)",
        "in all: 1,200 allocated",
        "in the last half:",
        "How long blocks lived",
        "Speaks for “leak”",
        "- none of its blocks was freed",
        "a cache that fills looks the same",
        "The whole call path, leaf first\n  malloc  ",
        "\n  keeps_all  c/behaviours.c:",
        "  _start  (behaviours)",
    ] {
        ensure!(leak.contains(part), "no {part:?} in\n{leak}");
    }
    ensure!(leak.contains('█'), "no curve in\n{leak}");
    let partial = shown(&["report", json, "--explain", "2"])?;
    let survive = "outlive ";
    ensure!(partial.contains(survive), "no {survive:?} in\n{partial}");
    unfreed(&["report", json, "--explain", "999"])?
        .fails_saying(&["there is no finding or row 999", "they are 1 to "])
}

fn check_drawings(out: &Outputs) -> Result<()> {
    let svg = fs::read_to_string(out.path("a.svg"))?;
    for part in [
        ">leak</text>",
        ">paler: no growth</text>",
        ", leak)</title>",
    ] {
        ensure!(svg.contains(part), "no {part} in the drawing");
    }
    let profile = gunzip(&out.path("a.pb.gz"))?;
    for label in ["verdict", "leak", "churn", "confidence"] {
        let found = profile
            .windows(label.len())
            .any(|it| it == label.as_bytes());
        ensure!(found, "no label {label}");
    }
    Ok(())
}

#[test]
fn a_report_is_told_in_few_lines_and_explained_on_request() -> Result<()> {
    let out = Outputs::new()?;
    let (svg, profile) = (out.text("a.svg"), out.text("a.pb.gz"));
    let options = ["-o", &svg, "-o", &profile, "--explain", "1"];
    let finished = traced(&[], &options)?;
    check_rows(&finished.stdout)?;
    let (_, explained) = finished.stdout.split_once("\nCost: ").context("no end")?;
    ensure!(explained.contains("Speaks for “leak”"), "{explained}");
    let json = finished.json().display().to_string();
    check_order(&json)?;
    check_explanations(&json)?;
    check_drawings(&out)
}

/// The tables of `--interval` tell what changed from one to the next.
#[test]
fn tables_of_an_interval_say_what_changed() -> Result<()> {
    let finished = traced(&[], &["--interval", "3s"])?;
    let table = finished
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let (_, changes) = table
        .split_once("Since the last table: ")
        .context("no changes")?;
    ensure!(changes.contains("live (+"), "{changes}");
    let last = table.rsplit("traced for").next().context("no last table")?;
    ensure!(!last.contains("Since the last table"), "{last}");
    Ok(())
}

/// One leak is mended in the next version, and another is five times as fast.
#[test]
fn the_next_version_is_compared_with_the_last() -> Result<()> {
    let (before, after) = (traced(&[], &[])?, traced(&["next_version"], &[])?);
    let out = Outputs::new()?;
    let [before, after] = [&before, &after].map(|it| it.json().display().to_string());
    let json = out.text("diff.json");
    let text = shown(&["diff", &before, &after, "-o", &json])?;
    for part in [
        "1. FASTER (",
        "forgets_some grows by ",
        "2. STOPPED (",
        "keeps_all grows no more, and did by ",
        "the later run has it, freed and replaced (1,200 blocks allocated)",
    ] {
        ensure!(
            text.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(part),
            "no {part:?} in\n{text}"
        );
    }
    let difference: Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    let findings = difference["findings"].as_array().context("no findings")?;
    let kinds: Vec<_> = findings.iter().map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("faster"), Some("stopped")], "{findings:?}");
    let rate = |finding: &Value, side: &str| finding[side].as_f64().unwrap_or(-1.0);
    let faster = rate(&findings[0], "after_bytes_per_second")
        / rate(&findings[0], "before_bytes_per_second");
    ensure!((4.0..6.0).contains(&faster), "{faster} times as fast");
    assert_eq!(rate(&findings[1], "after_bytes_per_second"), 0.0);
    // The other way round one is new, and the other slower.
    let back = shown(&["diff", &after, &before])?;
    ensure!(
        back.contains("1. NEW (") && back.contains("2. SLOWER ("),
        "{back}"
    );
    Ok(())
}
