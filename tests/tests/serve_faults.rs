//! `unfreed serve` on a bad day: a full disk, a thousand processes at once, ten thousand rules,
//! a program that is written anew in its place, and more files than there is room for.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::tempdir;
use unfreed_tests::disk::Disk;
use unfreed_tests::service::Service;
use unfreed_tests::{Target, target_path, unfreed, wait_until};

/// Pages that the target touches a second.
const GROWS: &str = "grow 500";

/// A number of `/metrics` that has no labels.
fn metric(service: &Service, name: &str) -> Result<u64> {
    let text = service.ask("/metrics")?.text();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("no {name}: {text}"))?;
    Ok(value.trim_end_matches(".0").parse()?)
}

fn wait_metric(service: &Service, name: &str, is_it: impl Fn(u64) -> bool) -> Result<u64> {
    wait_until(name, || {
        Ok(Some(metric(service, name)?).filter(|it| is_it(*it)))
    })
}

/// Writes into a file until its disk is full.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for piece in [&[1; 1 << 16][..], &[1; 512]] {
        loop {
            match file.write_all(piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => bail!(error),
            }
        }
    }
    Ok(())
}

/// The ends of a service's windows that are kept.
fn kept(service: &Service) -> Result<Vec<u64>> {
    let windows = service.ask("/api/services/paced/windows")?.json()?;
    let windows = windows["windows"].as_array().context("no windows")?;
    Ok(windows
        .iter()
        .filter_map(|it| it["ended"].as_u64())
        .collect())
}

/// What is seen is told while the disk is full, and what was kept can be read; what is not
/// kept is counted. With room again it goes on, and a restart finds all that was kept.
#[test]
fn a_full_disk_loses_the_windows_that_it_has_no_room_for() -> Result<()> {
    let disk = Disk::of(16 << 20)?;
    let state = disk.path().join("state");
    let mut target = Target::start("paced")?;
    let pid = target.pid.to_string();
    let arguments = [
        "-p",
        &pid,
        "--window",
        "1s",
        "--overhead",
        "500ms/s",
        "--mode",
        "growth",
    ];
    let mut service = Service::start(&state, &arguments)?;
    target.tell(GROWS)?;
    wait_metric(&service, "unfreed_windows_kept_total", |kept| kept >= 2)?;
    let filler = disk.path().join("filler");
    fill(&filler)?;
    let said = service.hear("this window is told, and not kept")?;
    ensure!(said.contains("No space left"), "{said}");
    let first = *kept(&service)?.first().context("nothing is kept")?;
    wait_metric(&service, "unfreed_windows_lost_total", |lost| lost >= 3)?;
    let ended = service.wait_service("paced", |_| true)?["ended"].as_u64();
    let now = service.wait_service("paced", |it| it["ended"].as_u64() > ended)?;
    ensure!(now["live_bytes"].as_u64() > Some(0), "{now}");
    let before = kept(&service)?;
    ensure!(before.first() == Some(&first), "{before:?}");
    ensure!(before.last().copied() < ended, "{before:?}: {ended:?}");
    let profile = format!("/debug/pprof/growth?service=paced&window={first}");
    let profile = service.ask(&profile)?;
    ensure!(profile.status == 200, "{}", profile.text());

    fs::remove_file(&filler)?;
    let count = metric(&service, "unfreed_windows_kept_total")?;
    wait_metric(&service, "unfreed_windows_kept_total", |kept| {
        kept >= count + 2
    })?;
    let lost = metric(&service, "unfreed_windows_lost_total")?;
    let after = kept(&service)?;
    ensure!(after.starts_with(&before), "{before:?}: {after:?}");
    ensure!(after.len() > before.len(), "{before:?}: {after:?}");
    ensure!(
        metric(&service, "unfreed_windows_lost_total")? == lost,
        "it is full yet"
    );
    service.stop()?;
    let service = Service::start(&state, &arguments)?;
    ensure!(kept(&service)?.starts_with(&after), "some are gone");
    service.stop()?;
    ensure!(target.finish()?.success());
    Ok(())
}

/// As many are watched as there is room for, the others are counted, all of them go on, and
/// nothing is left of them when they have ended.
#[test]
fn a_thousand_children_at_once_are_watched_as_far_as_there_is_room() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("forking")?;
    let rule = "name = \"many\"\ncommand = \"*/forking\"\nmode = \"growth\"";
    let service = Service::of_rule(state.path(), rule)?;
    wait_metric(&service, "unfreed_watched_processes", |watched| {
        watched == 1
    })?;
    target.ask("begin", "done ")?;
    let watched = wait_metric(&service, "unfreed_watched_processes", |watched| {
        watched >= 256
    })?;
    ensure!(watched == 256, "{watched}");
    wait_metric(&service, "unfreed_left_out_processes", |left_out| {
        left_out == 1001 - 256
    })?;
    let many = service.wait_service("many", |it| {
        it["series"]
            .as_array()
            .is_some_and(|series| series.len() >= 256)
    })?;
    ensure!(
        many["resident_bytes"].as_u64() > Some(256 * 4 * 4096),
        "{many}"
    );
    // They end as they should.
    target.ask("end", "done ")?;
    wait_metric(&service, "unfreed_watched_processes", |watched| {
        watched == 1
    })?;
    wait_metric(&service, "unfreed_left_out_processes", |left_out| {
        left_out == 0
    })?;
    service.wait_service("many", |it| {
        it["series"]
            .as_array()
            .is_some_and(|series| series.len() == 1)
    })?;
    service.stop()?;
    ensure!(target.finish()?.success());
    Ok(())
}

/// So many services that no process is of, and one that there is.
fn rules(services: usize) -> String {
    let mut text = "window = \"1s\"\nscan = \"200ms\"\n".to_owned();
    for number in 1..services {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "[[service]]\nname = \"none-{number}\"\ncommand = \"*/no-*-such-*-program-{number}\""
        );
    }
    text + "[[service]]\nname = \"last\"\ncommand = \"*/paced\"\nmode = \"growth\"\n"
}

#[test]
fn ten_thousand_rules_are_compared_and_more_are_refused() -> Result<()> {
    let state = tempdir()?;
    let target = Target::start("paced")?;
    let path = state.path().join("serve.toml");
    let config = path.display().to_string();
    fs::write(&path, rules(10_000))?;
    let mut service = Service::start(state.path(), &["--config", &config])?;
    let is_watched = |it: &Value| it["series"][0]["pid"] == target.pid;
    service.wait_service("last", is_watched)?;
    // They are read again, which all processes are compared with.
    service.signal(libc::SIGHUP)?;
    service.hear("read again")?;
    let ended = service.wait_service("last", |_| true)?["ended"].as_u64();
    service.wait_service("last", |it| it["ended"].as_u64() > ended && is_watched(it))?;
    fs::write(&path, rules(10_001))?;
    let check = ["serve", "--check", "--config", &config];
    unfreed(&check)?.fails_saying(&["10001 services", "10000 at most"])?;
    service.signal(libc::SIGHUP)?;
    service.hear("10000 at most")?;
    ensure!(
        service.wait_service("last", |_| true)?["ended"].as_u64() >= ended,
        "it is gone"
    );
    service.stop()
}

/// The titles of what is found of a service.
fn titles(findings: &Value) -> Vec<&str> {
    let all = findings.as_array().into_iter().flatten();
    all.filter_map(|it| it["title"].as_str()).collect()
}

/// As `cp` deploys: the new program has the number of the old one's file, and the same code under
/// other names.
#[test]
fn a_program_that_is_written_anew_in_its_place_has_its_own_names() -> Result<()> {
    let folder = tempdir()?;
    let (path, new) = (folder.path().join("deployed"), folder.path().join("new"));
    fs::copy(target_path("paced")?, &path)?;
    let renamed = Command::new("objcopy")
        .args(["--redefine-sym", "grows=thrives"])
        .args([&path, &new])
        .status()?;
    ensure!(renamed.success(), "{renamed}");
    let state = tempdir()?;
    let rule = "name = \"web\"\ncommand = \"*/deployed\"\nmode = \"growth\"";
    let service = Service::of_rule(state.path(), rule)?;
    let found =
        |name: &str, findings: &Value| titles(findings).iter().any(|title| title.starts_with(name));
    let findings = "/api/services/web/findings";

    let mut first = Target::start_at(&path)?;
    first.tell(GROWS)?;
    service.wait_for(findings, |all| found("grows ", all))?;
    ensure!(first.finish()?.success());
    let number = fs::metadata(&path)?.ino();
    fs::write(&path, fs::read(&new)?)?;
    ensure!(fs::metadata(&path)?.ino() == number, "another file");
    let mut second = Target::start_at(&path)?;
    second.tell(GROWS)?;
    service.wait_for(findings, |all| {
        found("thrives ", all) && !found("grows ", all)
    })?;
    service.stop()
}

/// A service of two processes' growth, within a budget.
fn watching(state: &Path, budget: &str, targets: [(&str, u32); 2]) -> Result<Service> {
    let mut text = format!("budget = \"{budget}\"\nwindow = \"1s\"\nscan = \"200ms\"\n");
    for (name, pid) in targets {
        let _ = writeln!(
            text,
            "[[service]]\nname = \"{name}\"\npids = [{pid}]\nmode = \"growth\""
        );
    }
    let config = state.join("serve.toml");
    fs::write(&config, text)?;
    Service::start(state, &["--config", &config.display().to_string()])
}

/// What the budget leaves out is told of the service that it was left out of, and accounts for
/// what of its growth no path explains.
#[test]
fn what_is_not_followed_is_told_of_each_service() -> Result<()> {
    let (mut busy, mut calm) = (Target::start("paced")?, Target::start("paced")?);
    let state = tempdir()?;
    let targets = [("busy", busy.pid), ("calm", calm.pid)];
    let service = watching(state.path(), "5ms/s", targets)?;
    busy.tell("grow 20000")?;
    let number = |it: &Value, name: &str| it[name].as_u64().unwrap_or(0);
    let missed = |it: &Value| number(it, "not_followed_bytes");
    let seen = service.wait_service("busy", |it| missed(it) > 32 << 20)?;
    let told = ["live_bytes", "not_followed_bytes", "untold_bytes"];
    let told: u64 = told.iter().map(|name| number(&seen, name)).sum();
    let grown = number(&seen, "growth_bytes");
    ensure!(
        told.abs_diff(grown) * 20 < grown,
        "{told} of {grown}: {seen}"
    );
    let other = service.wait_service("calm", |_| true)?;
    ensure!(missed(&other) < 1 << 20, "{other}");
    let metrics = service.ask("/metrics")?.text();
    let line = "unfreed_service_not_followed_bytes{service=\"busy\"} ";
    let value = metrics.lines().find_map(|it| it.strip_prefix(line));
    let value: u64 = value.context(metrics.clone())?.parse()?;
    ensure!(value > 32 << 20, "{value}");
    service.stop()?;
    for target in [&mut busy, &mut calm] {
        ensure!(target.finish()?.success());
    }
    Ok(())
}

/// As on a host of containers, each of which has files of its own: those that nobody maps any more
/// have taken half of the room, so another run begins, which has all of it.
#[test]
fn files_of_processes_that_have_ended_take_no_room() -> Result<()> {
    let state = tempdir()?;
    let (mut many, mut target) = (Target::start("many_files")?, Target::start("paced")?);
    let targets = [("many", many.pid), ("paced", target.pid)];
    let mut service = watching(state.path(), "500ms/s", targets)?;
    let descriptors = |service: &Service| {
        let entries = fs::read_dir(format!("/proc/{}/fd", service.pid()))?;
        Ok::<_, anyhow::Error>(entries.count())
    };
    service.wait_service("many", |_| true)?;
    target.tell(GROWS)?;
    let grows = |it: &Value| it["live_bytes"].as_u64() > Some(0);
    let before = service.wait_service("paced", grows)?;
    let had = descriptors(&service)?;
    ensure!(had > 2100, "{had}");
    ensure!(many.finish()?.success());
    service.hear("a new run begins")?;

    let began = |it: &Value| it["began"].as_u64();
    let gaps = service.wait_for("/api/services", |it| it["gaps"][0]["to"].is_u64())?;
    let gap = &gaps["gaps"][0];
    ensure!(gap["lost"] == false, "{gap}");
    let after = service.wait_service("paced", |it| grows(it) && began(it) >= gap["to"].as_u64())?;
    let has = descriptors(&service)?;
    ensure!(has + 2000 < had, "{has} of {had}");
    let kept = kept(&service)?;
    for window in [&before, &after] {
        ensure!(
            kept.iter()
                .any(|ended| Some(*ended) == window["ended"].as_u64()),
            "{window}"
        );
    }
    // Profiles of both runs can be had, and what grows has its names.
    let findings = service.wait_for("/api/services/paced/findings", |all| {
        titles(all).iter().any(|title| title.starts_with("grows "))
    });
    findings?;
    service.stop()?;
    ensure!(target.finish()?.success());
    Ok(())
}
