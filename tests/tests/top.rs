//! `unfreed top`, on a terminal that tmux holds. The target's source is `targets/c/paced.c`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::tempdir;
use unfreed_tests::service::Service;
use unfreed_tests::tmux::Tmux;
use unfreed_tests::{
    KernelObjects, Target, View, is_drawing, patched_bytes, send_signal, unfreed, wait_until,
};

/// Requests a second of the target: each tenth leaks.
const LOAD: &str = "load 300";

/// A screen that shows what the target leaks.
fn watch(target: &mut Target, size: (u16, u16)) -> Result<Tmux> {
    target.tell(LOAD)?;
    let tmux = Tmux::start(&format!("top -p {}", target.pid), size)?;
    tmux.wait(&["unfreed top  paced", "LIVE", "leak"])?;
    Ok(tmux)
}

/// The target goes on as if nobody had looked.
fn is_unharmed(target: &mut Target) -> Result<()> {
    ensure!(patched_bytes(target.pid)? == 0, "there are probes");
    let truth = target.ask("truth", "truth ")?;
    ensure!(!truth.is_empty(), "it does not answer");
    Ok(())
}

/// The file of a folder with this ending.
fn file_in(folder: &Path, ending: &str) -> Result<String> {
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|it| it == ending) {
            return Ok(fs::read_to_string(path)?);
        }
    }
    Err(anyhow::anyhow!("there is no .{ending}"))
}

#[test]
fn a_leak_is_found_sorted_filtered_and_exported() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tmux = watch(&mut target, (80, 24))?;
    tmux.wait_for("the leak as a finding", |shown| {
        let mut lines = shown.lines();
        lines.any(|line| line.contains(" % leak allocates"))
    })?;
    tmux.press(&["l"])?;
    tmux.wait(&["by live"])?;
    tmux.press(&["/", "cache", "Enter"])?;
    tmux.wait_for("the cache alone", |shown| {
        let rows = shown
            .lines()
            .skip_while(|line| !line.contains("CALL PATH OF"));
        let rows = rows.skip(1).take_while(|line| !line.is_empty());
        let rows: Vec<&str> = rows.collect();
        rows.len() == 1 && rows[0].ends_with("cache") && shown.contains("/cache")
    })?;
    tmux.press(&["Escape"])?;
    tmux.press(&["g", "Enter"])?;
    tmux.wait(&["stack and evidence", "sure"])?;
    for size in [(200, 50), (40, 20)] {
        tmux.resize(size)?;
        tmux.wait(&["stack and evidence", "q end"])?;
    }
    tmux.resize((80, 24))?;
    tmux.press(&["Escape", "e"])?;
    tmux.wait(&["written: unfreed-paced"])?;
    let view = View::new(serde_json::from_str(&file_in(&tmux.folder(), "json")?)?);
    let leaked = view.heap("leak");
    ensure!(
        leaked.live_count > 0 && leaked.live_bytes == 131 * leaked.live_count,
        "{leaked:?}"
    );
    ensure!(is_drawing(&file_in(&tmux.folder(), "svg")?), "no drawing");
    tmux.press(&["q"])?;
    tmux.has_ended_with(0)?;
    is_unharmed(&mut target)
}

/// While the target goes on, a key has its memory searched for who holds what is chosen: what
/// it caches is in a variable of its own, and nobody holds what leaks.
#[test]
fn a_key_tells_who_holds_what_is_chosen() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tmux = watch(&mut target, (120, 60))?;
    for (path, expected) in [
        ("cache", "cached (paced)"),
        ("leak", "lost, no pointer leads to them"),
    ] {
        tmux.press(&["/", path, "Enter", "End"])?;
        tmux.wait(&[&format!("/{path}")])?;
        tmux.press(&["h"])?;
        let shown = tmux.wait(&["searched: the details", "Who holds its blocks", expected])?;
        ensure!(
            shown.contains("LIVE") && shown.contains("after the run's start"),
            "{shown}"
        );
        for opened in ["stack and evidence", &format!("/{path}")] {
            tmux.press(&["Escape"])?;
            tmux.wait_for("it to go", |shown| !shown.contains(opened))?;
        }
    }
    tmux.press(&["e"])?;
    tmux.wait(&["written: unfreed-paced"])?;
    let view = View::new(serde_json::from_str(&file_in(&tmux.folder(), "json")?)?);
    let searched = view.searched.context("there was no search")?;
    let at = searched.at.context("it was while the run went on")?;
    ensure!(
        searched.bytes > 0 && at + searched.seconds <= view.duration,
        "{searched:?} of {}",
        view.duration
    );
    let mut leaking = view.sites_with("leak");
    let leaked = leaking
        .find_map(|site| site.holders.clone())
        .context("no holders")?;
    // The newest block was in a variable of the target's until the next one came.
    let decided = leaked.sampled - leaked.undecided;
    ensure!(
        leaked.lost == decided && decided > 0 && leaked.undecided <= 1,
        "{leaked:?}"
    );
    tmux.press(&["h", "q"])?;
    tmux.has_ended_with(0)?;
    is_unharmed(&mut target)
}

#[test]
fn after_the_terminal_was_killed_nothing_is_left() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tmux = watch(&mut target, (80, 24))?;
    let pid = tmux.pid()?;
    let objects = KernelObjects::of_process(pid)?;
    ensure!(!objects.is_empty(), "it has no programs");
    tmux.kill()?;
    wait_until("its end", || {
        Ok((!Path::new(&format!("/proc/{pid}")).exists()).then_some(()))
    })?;
    wait_until("the end of its programs", || {
        Ok(objects.remaining()?.is_empty().then_some(()))
    })?;
    is_unharmed(&mut target)
}

#[test]
fn a_signal_gives_the_terminal_back() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tmux = watch(&mut target, (80, 24))?;
    send_signal(tmux.pid()?, libc::SIGTERM)?;
    tmux.has_ended_with(143)?;
    is_unharmed(&mut target)
}

#[test]
fn the_last_report_stays_when_the_target_has_ended() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tmux = watch(&mut target, (80, 24))?;
    drop(target);
    tmux.wait(&["ENDED", "the processes have ended", "leak"])?;
    tmux.press(&["q"])?;
    tmux.has_ended_with(0)?;
    Ok(())
}

#[test]
fn what_a_running_serve_knows_is_shown() -> Result<()> {
    let mut target = Target::start("paced")?;
    let state = tempdir()?;
    let pid = target.pid.to_string();
    let service = Service::start(
        state.path(),
        &["-p", &pid, "--window", "1s", "--overhead", "500ms/s"],
    )?;
    target.tell("grow 500")?;
    service.wait_service("paced", |it| it["live_bytes"].as_i64() > Some(1 << 20))?;
    let token = state.path().join("token");
    let tmux = Tmux::start(
        &format!(
            "top --service paced --url http://{} --token-file {}",
            service.address(),
            token.display()
        ),
        (100, 30),
    )?;
    let shown = tmux.wait(&["unfreed top  service paced", "grows"])?;
    let first = shown.lines().next().context("nothing is shown")?.to_owned();
    // The next windows are shown, too.
    tmux.wait_for("another time", |shown| shown.lines().next() != Some(&first))?;
    service.stop()?;
    tmux.wait(&["nobody answers at"])?;
    tmux.press(&["q"])?;
    tmux.has_ended_with(0)?;
    Ok(())
}

/// While a closer look goes on, a key has its `serve` search the service's memory: never by
/// itself, since no finding is as sure as an alert wants.
#[test]
fn a_key_has_a_serve_search_for_who_holds_what() -> Result<()> {
    let mut target = Target::start("paced")?;
    let state = tempdir()?;
    let rules = state.path().join("serve.toml");
    fs::write(
        &rules,
        format!(
            "window = \"1s\"\nlook = \"5m\"\nbudget = \"900ms/s\"\n\
             [[service]]\nname = \"shop\"\npids = [{}]\nmode = \"overhead\"\nbudget = \"400ms/s\"\n\
             [[alert]]\nurl = \"http://127.0.0.1:9/hook\"\nconfidence = 1.0\n",
            target.pid
        ),
    )?;
    let service = Service::start(state.path(), &["--config", &rules.display().to_string()])?;
    let early = service.order("/api/services/shop/holders")?;
    ensure!(early.status == 404, "{}", early.text());
    target.tell(LOAD)?;
    let looked = service.wait_for("/api/services/shop/look", |it| {
        let findings = it["found"]["findings"].as_array();
        findings.is_some_and(|all| !all.is_empty())
    })?;
    ensure!(looked["look"]["searches"] == 0, "{looked}");
    let tmux = Tmux::start(
        &format!(
            "top --service shop --url http://{} --token-file {}",
            service.address(),
            state.path().join("token").display()
        ),
        (140, 60),
    )?;
    tmux.wait(&["unfreed top  service shop"])?;
    tmux.press(&["h"])?;
    tmux.wait(&["searched: shown is what the closer look has seen"])?;
    tmux.press(&["/", "cache", "Enter", "End", "Enter"])?;
    let shown = tmux.wait(&["Who holds its blocks", "cached (paced)"])?;
    ensure!(shown.contains("after the run's start"), "{shown}");
    let looked = service.ask("/api/services/shop/look")?.json()?;
    ensure!(looked["look"]["searches"] == 1, "{looked}");
    let report = service.ask("/api/services/shop/report?of=look")?.json()?;
    let sites = report["sites"].as_array().context("no sites")?;
    ensure!(sites.iter().any(|site| !site["holders"].is_null()));
    tmux.press(&["q"])?;
    tmux.has_ended_with(0)?;
    service.stop()?;
    is_unharmed(&mut target)
}

/// Where the configuration keeps searches away, nobody can ask for one.
#[test]
fn a_service_that_is_not_to_be_searched_is_not() -> Result<()> {
    let target = Target::start("paced")?;
    let state = tempdir()?;
    let rule = format!(
        "name = \"shop\"\npids = [{}]\nmode = \"overhead\"\nholders = false\n",
        target.pid
    );
    let service = Service::of_rule(state.path(), &rule)?;
    service.wait_for("/api/services/shop/look", |it| !it["found"].is_null())?;
    let refused = service.order("/api/services/shop/holders")?;
    ensure!(
        refused.status == 409 && refused.text().contains("holders = false"),
        "{}",
        refused.text()
    );
    let without = service.ask_with("/api/services/shop/look", None)?;
    ensure!(without.status == 401, "{}", without.text());
    service.stop()
}

#[test]
fn without_a_terminal_it_says_what_does() -> Result<()> {
    let target = Target::start("paced")?;
    let refused = unfreed(&["top", "-p", &target.pid.to_string()])?;
    refused.fails_saying(&["top needs a terminal", "record --interval"])?;
    let refused = unfreed(&["top", "-p", "1", "--service", "a"])?;
    refused.fails_saying(&["cannot be used with"])?;
    Ok(())
}
