//! `--overhead` and page faults: `--growth` within a budget, growth beside allocations, and
//! how closely these are looked at when something grows.
//!
//! The target (`targets/c/paced.c`) knows which pages it touched, and the kernel counts its
//! page faults.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::balance::PartName;
use unfreed_tests::model::{Balance, BudgetReport, FaultsReport, RegimeTime, Site};
use unfreed_tests::{Target, Tracer, View, unfreed};

const PAGE: u64 = 4096;

/// A budget that a light load is far from.
const AMPLE: &str = "1000ms/s";

/// What the tracer cannot know of a process's account: the kernel may sum it up from
/// parts of each CPU.
const ROUGH: u64 = 2 * 64 * PAGE;

/// Pages that the target touched, and keeps; and those that it gave back.
fn pages(target: &mut Target) -> Result<(u64, u64)> {
    let said = target.ask("pages", "pages ")?;
    let (grown, churned) = said.trim().split_once(' ').context("two numbers")?;
    Ok((grown.parse()?, churned.parse()?))
}

/// Page faults of a process, by the kernel's count (proc_pid_stat(5)).
fn faults(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind) = stat.rsplit_once(')').context("no name")?;
    let words: Vec<&str> = behind.split_whitespace().collect();
    Ok(words[7].parse::<u64>()? + words[9].parse::<u64>()?)
}

/// Seconds of processor time that the target has used.
fn used(target: &mut Target) -> Result<f64> {
    let said = target.ask("truth", "truth ")?;
    let seconds = said.split_whitespace().last().context("no seconds")?;
    Ok(seconds.parse()?)
}

fn budget(report: &View) -> Result<(&BudgetReport, &FaultsReport)> {
    let budget = report.budget.as_ref().context("no budget in the report")?;
    let faults = budget.faults.as_ref().context("nothing of page faults")?;
    Ok((budget, faults))
}

fn with<'a>(sites: &'a [Site], function: &str) -> Option<&'a Site> {
    let is_it = |site: &&Site| {
        let mut names = site.frames.iter().filter_map(|it| it.function.as_deref());
        names.any(|name| name == function)
    };
    sites.iter().find(is_it)
}

fn balance_of(balances: &[Balance], pid: u32) -> Result<&Balance> {
    let own = balances.iter().find(|balance| balance.pid == pid);
    let own = own.with_context(|| format!("{balances:?}"))?;
    ensure!(own.adds_up(), "{own:?}");
    Ok(own)
}

/// Where page faults fit the budget each page is of who touched it.
#[test]
fn a_light_load_of_page_faults_is_followed_exactly() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tracer = Tracer::record(target.pid, &["--growth", "--overhead", AMPLE])?;
    target.tell("grow 500")?;
    sleep(Duration::from_secs(3));
    target.tell("grow 0")?;
    sleep(Duration::from_millis(200));
    let (grown, _) = pages(&mut target)?;
    let report = tracer.stop()?.report()?;
    let (budget, faults) = budget(&report)?;
    ensure!(grown > 700, "{grown}");
    ensure!(faults.pauses == 0 && faults.not_followed == 0, "{faults:?}");
    ensure!(budget.regimes.is_empty(), "{budget:?}");
    let grows = with(&report.sites, "grows").context("no growth")?;
    assert_eq!((grows.live_count, grows.allocated_count), (grown, grown));
    let balance = balance_of(&report.balance, target.pid)?;
    assert_eq!(balance.part(PartName::NotFollowed), 0);
    ensure!(balance.unexplained.unsigned_abs() <= ROUGH, "{balance:?}");
    Ok(())
}

/// Page faults beyond the budget are not followed for most of the time, and what came in
/// meanwhile is told.
#[test]
fn a_heavy_load_of_page_faults_keeps_the_budget() -> Result<()> {
    let mut target = Target::start("paced")?;
    // While it is looked at, at the start and at the end, nothing moves.
    let tracer = Tracer::record(target.pid, &["--growth", "--overhead", "1%"])?;
    let before = (faults(target.pid)?, used(&mut target)?);
    target.tell("churn -1")?;
    target.tell("grow 2000")?;
    sleep(Duration::from_secs(20));
    target.tell("grow 0")?;
    target.tell("churn 0")?;
    sleep(Duration::from_millis(200));
    let after = (faults(target.pid)?, used(&mut target)?);
    let (grown, _) = pages(&mut target)?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let (budget, told) = budget(&report)?;
    // How often hangs on what the tracer itself takes of the budget, and so on how it was built.
    ensure!(told.pauses >= 1, "{told:?}");

    // The kernel has counted them all.
    let counted = after.0 - before.0;
    let all = told.followed + told.not_followed;
    ensure!(
        all.abs_diff(counted) < counted / 20,
        "{counted} by the kernel, {told:?}"
    );
    // (What the tracer itself takes hangs on how it was built, and on what others do: it has
    // 5 ms a second.)
    ensure!(
        budget.target_seconds <= budget.allowed_seconds,
        "{budget:?}"
    );
    let of_one = budget.target_seconds / told.followed as f64;
    ensure!((0.1e-6..50e-6).contains(&of_one), "{of_one} {told:?}");
    ensure!(
        budget.used_seconds <= after.1 - before.1 + 0.5,
        "{budget:?}"
    );

    let balance = balance_of(&report.balance, target.pid)?;
    ensure!(balance.unexplained.unsigned_abs() <= ROUGH, "{balance:?}");
    let not_followed = balance.part(PartName::NotFollowed);
    let touched = balance.part(PartName::FirstTouched);
    ensure!(balance.part(PartName::BroughtAlong) == 0, "{balance:?}");
    ensure!(touched > 0 && not_followed > 10 * touched, "{balance:?}");
    // Nobody else has so many pages.
    let truth = i64::try_from(grown * PAGE)?;
    let missing = truth - touched - not_followed;
    ensure!(missing.unsigned_abs() < 64 * PAGE, "{truth}: {balance:?}");
    let grows = with(&report.sites, "grows").context("no growth was seen")?;
    ensure!(grows.live_count <= grown, "{grows:?}");
    for words in [
        "not followed, to keep the budget",
        "not followed within",
        "Budget 1% of the targets' processor time",
    ] {
        let table = &finished.stdout;
        ensure!(table.contains(words), "{words}: {table}");
    }
    Ok(())
}

/// A load that becomes light is followed again, all of it.
#[test]
fn a_falling_load_of_page_faults_is_followed_again() -> Result<()> {
    let mut target = Target::start("paced")?;
    target.tell("churn -1")?;
    let tracer = Tracer::record(target.pid, &["--growth", "--overhead", "20ms/s"])?;
    sleep(Duration::from_secs(3));
    target.tell("churn 0")?;
    // What is owed is paid, and the programs come back.
    sleep(Duration::from_secs(8));
    target.tell("grow 300")?;
    sleep(Duration::from_secs(2));
    target.tell("grow 0")?;
    sleep(Duration::from_millis(200));
    let (grown, _) = pages(&mut target)?;
    let report = tracer.stop()?.report()?;
    let (_, told) = budget(&report)?;
    ensure!(told.pauses > 0 && grown > 200, "{told:?}");
    let grows = with(&report.sites, "grows").context("no growth")?;
    assert_eq!(grows.live_count, grown);
    Ok(())
}

/// Beside allocations that fit the budget, the pages that fit it are as exact.
#[test]
fn growth_is_told_beside_allocations() -> Result<()> {
    let mut target = Target::start("paced")?;
    let tracer = Tracer::record(target.pid, &["--overhead", AMPLE])?;
    target.tell("load 200")?;
    target.tell("grow 500")?;
    sleep(Duration::from_secs(3));
    target.tell("load -1")?;
    target.tell("grow 0")?;
    sleep(Duration::from_millis(200));
    let (grown, _) = pages(&mut target)?;
    let requests = target.ask("truth", "truth ")?;
    let requests: u64 = requests
        .split_whitespace()
        .next()
        .context("none")?
        .parse()?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let (budget, told) = budget(&report)?;
    ensure!(told.pauses == 0 && budget.bursts == 0, "{budget:?}");
    assert_eq!(report.heap("parse").allocated_count, requests);
    // No page is in the table of allocations, nor in its sums.
    let sites = report.sites.iter().filter(|site| site.kind.is_memory());
    let live: u64 = sites.map(|site| site.live_bytes).sum();
    assert_eq!(report.totals.live_bytes, live);
    ensure!(with(&report.sites, "grows").is_none(), "{}", report.table());
    let growth = report.growth.as_ref().context("nothing of growth")?;
    let grows = with(&growth.sites, "grows").context("no growth")?;
    assert_eq!((grows.live_count, grows.live_bytes), (grown, grown * PAGE));
    let balance = balance_of(&growth.balance, target.pid)?;
    ensure!(balance.unexplained.unsigned_abs() <= ROUGH, "{balance:?}");
    balance_of(&report.balance, target.pid)?;
    let (before, behind) = finished
        .stdout
        .split_once("Growth: where memory was first touched")
        .context("no second table")?;
    ensure!(before.contains("LIFETIME OF FREED"), "{before}");
    ensure!(behind.contains("not who keeps it"), "{behind}");
    Ok(())
}

/// The pace of bursts at a time of the run.
fn pace(attention: &[RegimeTime], at: f64) -> Option<&str> {
    let before = attention.iter().rfind(|it| it.since <= at);
    before.map(|it| it.regime.as_str())
}

/// While nothing grows bursts have a quarter of the budget; when something begins to they
/// have all of it within two seconds. The load is beyond the budget all the time.
#[test]
fn bursts_come_closer_when_something_grows() -> Result<()> {
    /// How long there is nothing, and how long there is growth, seconds.
    const EACH: u64 = 25;
    let mut target = Target::start("paced")?;
    target.tell("leaks 0")?;
    target.tell("load 0")?;
    // Its cache is full by then.
    sleep(Duration::from_secs(2));
    let still = Tracer::record(target.pid, &["--overhead", "20%"])?;
    sleep(Duration::from_secs(EACH));
    let still = still.stop()?;
    let grown = Tracer::record(target.pid, &["--overhead", "20%"])?;
    sleep(Duration::from_secs(3));
    target.tell("grow 1000")?;
    sleep(Duration::from_secs(EACH));
    let grown = grown.stop()?;

    let report = still.report()?;
    let (still, _) = budget(&report)?;
    let names: Vec<&str> = still
        .attention
        .iter()
        .map(|it| it.regime.as_str())
        .collect();
    ensure!(names.ends_with(&["base"]), "{still:?}");
    let report = grown.report()?;
    let (grown, _) = budget(&report)?;
    // (When the run began is not known as well as when it ended: it said so later.)
    let began = report.duration - EACH as f64;
    let at = [began - 1.0, began + 3.0, began + EACH as f64 - 1.0];
    let at = at.map(|at| pace(&grown.attention, at));
    ensure!(
        at == [Some("base"), Some("full"), Some("full")],
        "{grown:?}"
    );
    // Bursts are four times as many; that there are not even 1.5 times as many is less likely
    // than one in 100,000.
    let each = |budget: &BudgetReport, seconds: f64| budget.bursts as f64 / seconds;
    let (rare, often) = (each(still, EACH as f64), each(grown, EACH as f64 + 3.0));
    ensure!(often > 1.5 * rare, "{rare} {often} {still:?} {grown:?}");
    Ok(())
}

/// Page faults beside allocations have a part of the budget, and do not end exact tracing.
#[test]
fn page_faults_do_not_take_the_budget_of_allocations() -> Result<()> {
    let mut target = Target::start("paced")?;
    target.tell("load 20")?;
    target.tell("churn -1")?;
    let tracer = Tracer::record(target.pid, &["--overhead", "20ms/s"])?;
    sleep(Duration::from_secs(10));
    let report = tracer.stop()?.report()?;
    let (budget, told) = budget(&report)?;
    ensure!(
        told.pauses > 0 && told.not_followed > told.followed,
        "{told:?}"
    );
    ensure!(
        budget.regimes.iter().all(|it| it.regime == "exact"),
        "{budget:?}"
    );
    // A quarter, and what a look finds too late.
    let most = budget.allowed_seconds / 4.0 + 0.05;
    ensure!(budget.target_seconds < most, "{budget:?}");
    Ok(())
}

#[test]
fn a_budget_of_growth_is_checked_like_others() -> Result<()> {
    let target = Target::start("paced")?;
    let pid = target.pid.to_string();
    for wrong in ["1", "0.01%", "1ms/s"] {
        unfreed(&["record", "-p", &pid, "--growth", "--overhead", wrong])?
            .fails_saying(&["--overhead"])?;
    }
    Ok(())
}
