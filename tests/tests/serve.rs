//! `unfreed serve`: what grows is found and told, services come and go, and what was kept
//! outlives the tracer. The target's source is `targets/c/paced.c`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tempfile::tempdir;
use unfreed_tests::pprof::Profile;
use unfreed_tests::service::{Service, ask};
use unfreed_tests::{KernelObjects, Target, patched_bytes, unfreed, unpacked, wait_until};

/// Pages that the target touches a second.
const GROWS: &str = "grow 500";

/// Go's own reader of profiles.
const GO: &str = "/usr/lib/go-1.19/bin/go";

fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or(i64::MIN)
}

fn pids(service: &Value) -> Vec<u32> {
    let series = service["series"].as_array().into_iter().flatten();
    let running = series.filter(|series| series["ended"].is_null());
    running
        .filter_map(|series| u32::try_from(series["pid"].as_u64()?).ok())
        .collect()
}

fn config(folder: &Path, text: &str) -> Result<String> {
    let path = folder.join("serve.toml");
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// Runs a program on a text; what it prints.
fn filtered(command: &mut Command, text: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(text)?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Metrics, as Prometheus' own library for Python reads OpenMetrics.
fn metrics(text: &[u8]) -> Result<Value> {
    const READ: &str = "import sys, json
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
print(json.dumps([[s.name, s.labels, s.value] for f in read(sys.stdin.read()) for s in f.samples]))";
    let json = filtered(Command::new("/usr/bin/python3").args(["-c", READ]), text)?;
    Ok(serde_json::from_str(&json)?)
}

fn metric(all: &Value, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
    let is_it = |sample: &&Value| {
        sample[0] == name && label.is_none_or(|(key, value)| sample[1][key] == value)
    };
    all.as_array()?.iter().find(is_it)?[2].as_f64()
}

/// A service that watches one process, with windows of a second and room for all its faults.
fn watch(state: &Path, pid: u32) -> Result<Service> {
    let pid = pid.to_string();
    Service::start(
        state,
        &["-p", &pid, "--window", "1s", "--overhead", "500ms/s"],
    )
}

#[test]
fn what_grows_is_found_and_told() -> Result<()> {
    let mut target = Target::start("paced")?;
    let state = tempdir()?;
    let service = watch(state.path(), target.pid)?;
    ensure!(patched_bytes(target.pid)? == 0, "there are probes");
    target.tell(GROWS)?;
    // What it is called follows from what it does.
    let path = "/api/services/paced/findings";
    let grows = |finding: &Value| {
        let title = finding["title"].as_str().unwrap_or_default();
        let kind = finding["kind"].as_str().unwrap_or_default();
        title.starts_with("grows ") && ["leak", "growing"].contains(&kind)
    };
    let findings = service.wait_for(path, |all| {
        all.as_array().is_some_and(|all| all.iter().any(grows))
    })?;
    let all = findings.as_array().context("no findings")?;
    let finding = all.iter().find(|finding| grows(finding)).context("gone")?;
    let rate = finding["bytes_per_second"].as_f64().unwrap_or_default();
    ensure!(
        (1e6..4e6).contains(&rate),
        "500 pages/s are 2 MB/s: {finding}"
    );
    let seen = service.wait_service("paced", |it| number(it, "live_bytes") > 4 << 20)?;
    ensure!(pids(&seen) == [target.pid], "{seen}");
    ensure!(
        number(&seen, "new_bytes") > 0 && number(&seen, "growing") > 0,
        "{seen}"
    );

    let answer = service.ask("/debug/pprof/growth?service=paced")?;
    ensure!(answer.status == 200, "{}", answer.text());
    let profile = Profile::parse(&unpacked(answer.body.as_slice())?)?;
    ensure!(
        profile.strings.iter().any(|name| name == "grows"),
        "{:?}",
        profile.strings
    );
    let in_use = i64::try_from(profile.sum("inuse_space"))?;
    ensure!(in_use >= number(&seen, "live_bytes"), "{in_use}: {seen}");
    let file = state.path().join("growth.pb.gz");
    fs::write(&file, &answer.body)?;
    let top = Command::new(GO)
        .args(["tool", "pprof", "-top", "-sample_index=inuse_space"])
        .arg(&file)
        .env("HOME", state.path())
        .output()?;
    let top = String::from_utf8_lossy(&top.stdout).into_owned();
    ensure!(top.contains("grows"), "{top}");

    let answer = service.ask("/metrics")?;
    ensure!(
        answer.head.contains("application/openmetrics-text"),
        "{}",
        answer.head
    );
    let read = metrics(&answer.body)?;
    let of_service = Some(("service", "paced"));
    let live = metric(&read, "unfreed_service_live_bytes", of_service);
    ensure!(live.is_some_and(|live| live > 4e6), "{read}");
    let kept = metric(&read, "unfreed_windows_kept_total", None);
    ensure!(kept.is_some_and(|kept| kept >= 1.0), "{read}");
    let described = service.ask("/api/openapi.json")?.json()?;
    ensure!(
        described["paths"]["/api/services"].is_object(),
        "{described}"
    );
    service.stop()
}

/// No page of the process is touched for them.
#[test]
fn descriptors_that_stay_open_are_found() -> Result<()> {
    let mut target = Target::start("balance")?;
    let state = tempdir()?;
    let service = watch(state.path(), target.pid)?;
    for _ in 0..3 {
        target.tell("keep_pipes")?;
    }
    let is_told = |finding: &Value| finding["kind"] == "descriptors";
    let findings = service.wait_for("/api/services/balance/findings", |all| {
        all.as_array().is_some_and(|all| all.iter().any(is_told))
    })?;
    let mut all = findings.as_array().context("no findings")?.iter();
    let finding = all.find(|it| is_told(it)).context("gone")?;
    let advice = finding["advice"].as_str().unwrap_or_default();
    ensure!(
        advice == format!("ls -l /proc/{}/fd shows what they are", target.pid),
        "{finding}"
    );
    ensure!(finding.to_string().contains("of kind pipe"), "{finding}");
    // They are no bytes.
    let seen = service.wait_service("balance", |it| number(it, "growing") > 0)?;
    ensure!(seen["bytes_per_second"] != 0.0, "{seen}");
    service.stop()
}

#[test]
fn a_restarted_service_is_a_new_series_of_it() -> Result<()> {
    let state = tempdir()?;
    let mut first = Target::start("paced")?;
    let rules = config(
        state.path(),
        "budget = \"500ms/s\"\nwindow = \"1s\"\nscan = \"200ms\"\n[[service]]\nname = \"steady\"\ncommand = \"*/paced\"\n",
    )?;
    let service = Service::start(state.path(), &["--config", &rules])?;
    first.tell(GROWS)?;
    service.wait_service("steady", |it| pids(it).contains(&first.pid))?;
    let before = first.pid;
    first.kill()?;
    let mut second = Target::start("paced")?;
    second.tell(GROWS)?;
    let after = service.wait_service("steady", |it| {
        pids(it).contains(&second.pid) && number(it, "live_bytes") > 0
    })?;
    ensure!(!pids(&after).contains(&before), "{after}");
    // The end of the first is in a window, with what it had.
    let ended = |windows: &Value| {
        let windows = windows["windows"].as_array().into_iter().flatten();
        let mut series = windows.flat_map(|it| it["series"].as_array().into_iter().flatten());
        series.any(|it| it["pid"] == before && !it["ended"].is_null())
    };
    service.wait_for("/api/services/steady/windows", ended)?;
    // Then it is forgotten.
    service.wait_service("steady", |it| {
        pids(it).contains(&second.pid)
            && it["series"]
                .as_array()
                .is_some_and(|all| all.iter().all(|series| series["pid"] != before))
    })?;
    service.stop()
}

#[test]
fn a_configuration_is_read_again_and_a_wrong_one_refused() -> Result<()> {
    let state = tempdir()?;
    let one = Target::start("paced")?;
    let other = Target::start("touched")?;
    let text = |pid: u32, name: &str| {
        format!(
            "window = \"1s\"\nscan = \"200ms\"\n[[service]]\nname = \"{name}\"\npids = [{pid}]\n"
        )
    };
    let path = config(state.path(), &text(one.pid, "one"))?;
    let mut service = Service::start(state.path(), &["--config", &path])?;
    service.wait_service("one", |it| pids(it) == [one.pid])?;
    config(state.path(), "window = \"1s\"\n[[service]]\nwhat = 1\n")?;
    service.signal(libc::SIGHUP)?;
    let said = service.hear("is refused")?;
    ensure!(said.contains("serve.toml"), "{said}");
    ensure!(said.contains("line 3"), "{said}");
    let ended = number(&service.ask("/api/services")?.json()?, "ended");
    let still = service.wait_service("one", |it| number(it, "ended") > ended)?;
    ensure!(pids(&still) == [one.pid], "{still}");
    // The same process under another name, and one more.
    let both = format!(
        "{}[[service]]\nname = \"two\"\npids = [{}]\n",
        text(one.pid, "uno"),
        other.pid
    );
    config(state.path(), &both)?;
    service.signal(libc::SIGHUP)?;
    service.hear("read again")?;
    service.wait_service("two", |it| pids(it) == [other.pid])?;
    service.wait_service("uno", |it| pids(it) == [one.pid])?;
    // Nobody asks for it any more.
    config(state.path(), &text(other.pid, "two"))?;
    service.signal(libc::SIGHUP)?;
    service.hear("read again")?;
    service.wait_for("/api/services", |all| {
        let services = all["services"].as_array();
        services.is_some_and(|all| all.len() == 1 && all[0]["name"] == "two")
    })?;
    let check = unfreed(&["serve", "--check", "--config", &path])?;
    ensure!(
        check
            .stdout
            .contains(&format!("process {} as two", other.pid)),
        "{}",
        check.stdout
    );
    service.stop()
}

#[test]
fn what_was_kept_outlives_a_kill_and_the_gap_is_marked() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let service = watch(state.path(), target.pid)?;
    target.tell(GROWS)?;
    service.wait_service("paced", |it| number(it, "live_bytes") > 0)?;
    let objects = KernelObjects::of_process(service.pid())?;
    let kept = service.ask("/api/services/paced/windows")?.json()?;
    service.kill()?;
    wait_until("nothing of it in the kernel", || {
        Ok(objects.remaining()?.is_empty().then_some(()))
    })?;
    ensure!(patched_bytes(target.pid)? == 0, "there are probes");
    let service = watch(state.path(), target.pid)?;
    service.wait_service("paced", |it| number(it, "live_bytes") > 0)?;
    let now = service.ask("/api/services/paced/windows")?.json()?;
    let first = &kept["windows"][0];
    ensure!(&now["windows"][0] == first, "{now}");
    let gap = &now["gaps"][0];
    ensure!(
        gap["lost"] == true && number(gap, "to") > number(gap, "from"),
        "{now}"
    );
    // What was seen before is read back.
    let ended = number(first, "ended");
    let profile = service.ask(&format!("/debug/pprof/growth?service=paced&window={ended}"))?;
    ensure!(profile.status == 200, "{}", profile.text());
    Profile::parse(&unpacked(profile.body.as_slice())?)?;
    service.stop()?;
    let service = watch(state.path(), target.pid)?;
    let gaps = service.ask("/api/services")?.json()?["gaps"].clone();
    ensure!(gaps[1]["lost"] == false, "{gaps}");
    service.stop()
}

#[test]
fn nobody_is_answered_without_the_token() -> Result<()> {
    let state = tempdir()?;
    let target = Target::start("paced")?;
    let pid = target.pid.to_string();
    let service = watch(state.path(), target.pid)?;
    for path in [
        "/metrics",
        "/api/services",
        "/api/openapi.json",
        "/debug/pprof/growth?service=paced",
    ] {
        for token in [None, Some("0123456789abcdef")] {
            let answer = service.ask_with(path, token)?;
            ensure!(answer.status == 401, "{path}: {}", answer.status);
        }
    }
    for path in ["/healthz", "/readyz"] {
        ensure!(service.ask_with(path, None)?.status == 200, "{path}");
    }
    ensure!(
        service.ask("/api/services/nobody/findings")?.status == 404,
        "nobody is known"
    );
    // The thread that answers holds nothing.
    let threads = service.threads()?;
    let http = threads.iter().find(|(name, _)| name == "http");
    let (_, status) = http.with_context(|| format!("{threads:?}"))?;
    for set in ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"] {
        let nothing = format!("{set}:\t0000000000000000");
        ensure!(status.contains(&nothing), "{status}");
    }
    ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
    let refused = unfreed(&["serve", "-p", &pid, "--listen", "0.0.0.0:0"])?;
    refused.fails_saying(&["loopback"])?;
    service.stop()
}

#[test]
fn two_hundred_scrapers_at_once_do_no_harm() -> Result<()> {
    let state = tempdir()?;
    let mut target = Target::start("paced")?;
    let service = watch(state.path(), target.pid)?;
    target.tell(GROWS)?;
    service.wait_service("paced", |it| number(it, "live_bytes") > 0)?;
    let token = fs::read_to_string(state.path().join("token"))?;
    let scrapers: Vec<_> = (0..200)
        .map(|number| {
            let (address, token) = (service.address().to_owned(), token.trim().to_owned());
            let path = match number % 2 {
                0 => "/metrics",
                _ => "/debug/pprof/growth?service=paced",
            };
            thread::spawn(move || ask(&address, path, Some(&token)))
        })
        .collect();
    for scraper in scrapers {
        let answer = scraper
            .join()
            .map_err(|_| anyhow!("a scraper panicked"))??;
        ensure!(answer.status == 200, "{}", answer.text());
    }
    // Windows go on being closed.
    let ended = number(&service.ask("/api/services")?.json()?, "ended");
    service.wait_service("paced", |it| number(it, "ended") > ended)?;
    service.stop()
}

/// Requests a second of the target: each tenth leaks.
const LOAD: &str = "load 300";
/// A leak is looked at closer, and named, within so long, also on a machine with much else to do.
const NAMED_WITHIN: Duration = Duration::from_secs(80);

fn names_leak(finding: &Value) -> bool {
    let path = finding["path"].as_array().into_iter().flatten();
    let grows = finding["kind"] == "leak" || finding["kind"] == "growing";
    grows && path.into_iter().any(|name| name == "leak")
}

/// What page faults say grows is looked at by the allocators' probes, which name the path;
/// then they go, and what was found stays, also over a restart.
#[test]
fn what_grows_is_looked_at_closer() -> Result<()> {
    let mut target = Target::start("paced")?;
    let state = tempdir()?;
    // Room for all of its calls: a second's window makes a look dear.
    let rules = config(
        state.path(),
        &format!(
            "window = \"1s\"\nbudget = \"600ms/s\"\nlook = \"14s\"\n\
             [[service]]\npids = [{}]\nbudget = \"300ms/s\"\n",
            target.pid
        ),
    )?;
    let mut service = Service::start(state.path(), &["--config", &rules])?;
    service.wait_service("paced", |it| number(it, "ended") > 0)?;
    let none = service.ask("/debug/pprof/heap?service=paced")?;
    ensure!(
        none.status == 404 && none.text().contains("nobody has looked closer"),
        "{}",
        none.text()
    );
    ensure!(patched_bytes(target.pid)? == 0, "there are probes");
    let began = Instant::now();
    target.tell(LOAD)?;
    target.tell(GROWS)?;
    let line = service.hear("looking closer at paced")?;
    ensure!(line.contains("grows by"), "{line}");
    let looked = service.wait_for("/api/services/paced/look", |it| {
        let findings = it["found"]["findings"].as_array();
        findings.is_some_and(|all| all.iter().any(names_leak))
    })?;
    ensure!(began.elapsed() < NAMED_WITHIN, "{:?}", began.elapsed());
    ensure!(looked["look"]["processes"][0] == target.pid, "{looked}");
    ensure!(looked["look"]["cost"]["budget"] == "300ms/s", "{looked}");

    service.hear("the closer look at paced has ended")?;
    ensure!(patched_bytes(target.pid)? == 0, "there are probes");
    // The target goes on, and growth is watched.
    ensure!(!target.ask("truth", "truth ")?.is_empty(), "it is gone");
    let ended = service.wait_for("/api/services/paced/look", |it| {
        !it["look"]["ended"].is_null()
    })?;
    let threads = service.threads()?;
    ensure!(
        threads.iter().all(|(name, _)| name != "closer"),
        "{threads:?}"
    );
    let allocated = looked_profile(&service, "allocs")?;
    let live = looked_profile(&service, "heap")?;
    for (profile, first) in [(&allocated, "alloc_space"), (&live, "inuse_space")] {
        ensure!(profile.shown_first == first, "{}", profile.shown_first);
        ensure!(profile.strings.iter().any(|name| name == "leak"), "no leak");
    }
    let last = looked_profile(&service, "heap?seconds=3")?;
    let (all, part) = (allocated.sum("alloc_space"), last.sum("alloc_space"));
    ensure!(part > 0 && part * 10 < all * 9, "{part} of {all}");
    let top = top_of(
        &service,
        state.path(),
        "/debug/pprof/heap?service=paced&seconds=3",
    )?;
    ensure!(top.contains("leak"), "{top}");

    let read = metrics(&service.ask("/metrics")?.body)?;
    let of_service = Some(("service", "paced"));
    let value = |name| metric(&read, name, of_service);
    ensure!(value("unfreed_look") == Some(0.0), "{read}");
    ensure!(value("unfreed_look_findings").is_some(), "{read}");
    ensure!(
        value("unfreed_look_cost_seconds").is_some_and(|it| it > 0.0),
        "{read}"
    );
    ensure!(
        value("unfreed_look_budget_seconds").is_some_and(|it| it > 0.0),
        "{read}"
    );
    service.stop()?;

    let pid = target.pid.to_string();
    let service = Service::start(state.path(), &["-p", &pid, "--mode", "growth"])?;
    let kept = service.ask("/api/services/paced/look")?.json()?;
    ensure!(kept["look"]["began"] == ended["look"]["began"], "{kept}");
    let findings = kept["found"]["findings"].as_array();
    ensure!(
        findings.is_some_and(|all| all.iter().any(names_leak)),
        "{kept}"
    );
    service.stop()
}

fn looked_profile(service: &Service, what: &str) -> Result<Profile> {
    let and = if what.contains('?') { '&' } else { '?' };
    let answer = service.ask(&format!("/debug/pprof/{what}{and}service=paced"))?;
    ensure!(answer.status == 200, "{}", answer.text());
    Profile::parse(&unpacked(answer.body.as_slice())?)
}

/// What `go tool pprof` shows first of a profile.
fn top_of(service: &Service, folder: &Path, path: &str) -> Result<String> {
    let file = folder.join("profile.pb.gz");
    fs::write(&file, service.ask(path)?.body)?;
    let top = Command::new(GO)
        .args(["tool", "pprof", "-top", "-nodecount=100"])
        .arg(&file)
        .env("HOME", folder)
        .output()?;
    Ok(String::from_utf8_lossy(&top.stdout).into_owned())
}

/// A rule that asks for it is looked at from the start, within its own budget; one that asks
/// for growth alone never is. A kill leaves nothing behind.
#[test]
fn each_rule_says_how_closely_to_look() -> Result<()> {
    let state = tempdir()?;
    let mut asked = Target::start("paced")?;
    let mut never = Target::start("paced")?;
    let rules = format!(
        "window = \"1s\"\nscan = \"200ms\"\nlook = \"2s\"\nbudget = \"400ms/s\"\n\
         [[service]]\nname = \"asked\"\npids = [{}]\nmode = \"overhead\"\nbudget = \"250ms/s\"\n\
         [[service]]\nname = \"never\"\npids = [{}]\nmode = \"growth\"\n",
        asked.pid, never.pid
    );
    let path = config(state.path(), &rules)?;
    for target in [&mut asked, &mut never] {
        target.tell(LOAD)?;
        target.tell(GROWS)?;
    }
    let mut service = Service::start(state.path(), &["--config", &path])?;
    service.hear("looking closer at asked, since its rule asks for it")?;
    let looked = service.wait_for("/api/services/asked/look", |it| !it["found"].is_null())?;
    let cost = &looked["look"]["cost"];
    ensure!(cost["budget"] == "250ms/s", "{looked}");
    let kernel = number(cost, "kernel_bytes");
    ensure!((1 << 20..40 << 20).contains(&kernel), "{looked}");
    // It goes on, as nobody else waits.
    let growing = service.wait_service("never", |it| number(it, "growing") > 0)?;
    let ended = number(&growing, "ended");
    service.wait_service("never", |it| number(it, "ended") > ended + 5000)?;
    ensure!(
        service.ask("/api/services/never/look")?.status == 404,
        "it is looked at"
    );
    let looked = service.ask("/api/services/asked/look")?.json()?;
    ensure!(looked["look"]["ended"].is_null(), "{looked}");
    ensure!(patched_bytes(never.pid)? == 0, "there are probes");
    let objects = KernelObjects::of_process(service.pid())?;
    service.kill()?;
    wait_until("nothing of it in the kernel", || {
        Ok(objects.remaining()?.is_empty().then_some(()))
    })?;
    ensure!(patched_bytes(asked.pid)? == 0, "there are probes");
    ensure!(!asked.ask("truth", "truth ")?.is_empty(), "it is gone");
    Ok(())
}

#[test]
fn a_mode_that_is_none_is_refused() -> Result<()> {
    let state = tempdir()?;
    let path = config(state.path(), "[[service]]\njvm = true\nmode = \"deep\"\n")?;
    let refused = unfreed(&["serve", "--check", "--config", &path])?;
    refused.fails_saying(&["line 3", "deep", "growth"])?;
    unfreed(&["serve", "--check", "-p", "1", "--mode", "deep"])?.fails_saying(&["overhead"])
}
