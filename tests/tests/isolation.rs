//! One target's failure is no other's.

use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::Untraced;
use unfreed_tests::{Finished, Target, Tracer, View, unfreed, wait_until};

/// A process that has ended, until somebody asks how.
struct Zombie(Child);

impl Zombie {
    fn new() -> Result<Self> {
        let child = Self(Command::new("true").spawn()?);
        let path = format!("/proc/{}/stat", child.0.id());
        wait_until("a zombie", || {
            let state = std::fs::read_to_string(&path)?;
            Ok(state.contains(") Z ").then_some(()))
        })?;
        Ok(child)
    }
}

impl Drop for Zombie {
    fn drop(&mut self) {
        let _reaped_before = self.0.wait();
    }
}

fn untraced(report: &View, pid: u32) -> Result<&Untraced> {
    let mut untraced = report.untraced.iter();
    let found = untraced.find(|it| it.pid == pid);
    found.with_context(|| format!("{pid} is not among {:?}", report.untraced))
}

/// The reason is in the report, in the table and on standard error.
fn is_told(finished: &Finished, pid: u32, reason: &str) -> Result<()> {
    let report = finished.report_of_any_end()?;
    let found = untraced(&report, pid)?;
    ensure!(found.reason.contains(reason), "{found:?}");
    for text in [&finished.stdout, &finished.stderr] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(words.contains(reason), "no {reason:?} in {text}");
    }
    Ok(())
}

#[test]
fn others_are_traced_beside_some_that_cannot_be() -> Result<()> {
    for options in [&[][..], &["--follow"]] {
        let mut target = Target::start("leak")?;
        let bare = Target::start("no_allocator")?;
        let zombie = Zombie::new()?;
        let (bare_pid, zombie_pid) = (bare.pid.to_string(), zombie.0.id().to_string());
        let others = ["-p", &bare_pid, "-p", &zombie_pid, "-p", "2"];
        let tracer = Tracer::record(target.pid, &[&others, options].concat())?;
        let truth = target.command("leak_blocks")?;
        let finished = tracer.stop()?;
        let report = finished.report()?;
        report.agrees_with(&truth)?;
        is_told(&finished, bare.pid, "has no allocator to probe")?;
        is_told(&finished, zombie.0.id(), "has exited already")?;
        is_told(&finished, 2, "is a kernel thread")?;
        ensure!(report.untraced.iter().all(|it| it.at.is_none()));
    }
    Ok(())
}

#[test]
fn if_none_can_be_traced_all_reasons_are_told() -> Result<()> {
    let bare = Target::start("no_allocator")?;
    let pid = bare.pid.to_string();
    let arguments = ["record", "-p", "2", "-p", &pid, "--duration", "1s"];
    unfreed(&arguments)?.fails_saying(&["kernel thread", "no allocator to probe", &pid])?;
    let zombie = Zombie::new()?;
    let pid = zombie.0.id().to_string();
    unfreed(&["record", "-p", "2", "-p", &pid])?.fails_saying(&["kernel thread", &pid, "exited"])
}

/// The kernel refuses a probe in one of two.
#[test]
fn a_refused_probe_ends_its_target_alone() -> Result<()> {
    let mut refused = Target::start("refused")?;
    refused.command("open_refused")?;
    let mut target = Target::start("leak")?;
    let other = refused.pid.to_string();
    let tracer = Tracer::record(target.pid, &["-p", &other])?;
    let truth = target.command("leak_blocks")?;
    refused.command("allocate_after")?;
    let finished = tracer.stop()?;
    finished.report()?.agrees_with(&truth)?;
    is_told(&finished, refused.pid, "cannot probe")?;
    ensure!(refused.finish()?.success() && target.finish()?.success());
    Ok(())
}

/// It refuses one during the run: what was gathered until then stays.
#[test]
fn a_probe_refused_while_traced_ends_its_target_alone() -> Result<()> {
    let mut refused = Target::start("refused")?;
    let mut target = Target::start("leak")?;
    let other = refused.pid.to_string();
    let mut tracer = Tracer::record(target.pid, &["-p", &other])?;
    let before = refused.command("allocate_before")?;
    refused.command("open_refused")?;
    tracer.wait_saying("is not traced any more")?;
    refused.command("allocate_after")?;
    let truth = target.command("leak_blocks")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    report.sites_agree_with(&truth)?;
    report.sites_agree_with(&before)?;
    ensure!(report.sites_with("allocate_after").count() == 0);
    ensure!(untraced(&report, refused.pid)?.at.is_some());
    ensure!(refused.finish()?.success() && target.finish()?.success());
    Ok(())
}

/// It was the last: the report is written, and the run has failed.
#[test]
fn a_run_whose_last_target_is_given_up_fails_with_its_report() -> Result<()> {
    let mut refused = Target::start("refused")?;
    let tracer = Tracer::record(refused.pid, &[])?;
    let before = refused.command("allocate_before")?;
    refused.command("open_refused")?;
    let finished = tracer.wait()?;
    finished.fails_saying(&["cannot probe", "librefused_library.so"])?;
    finished.report_of_any_end()?.sites_agree_with(&before)?;
    ensure!(refused.finish()?.success());
    Ok(())
}
