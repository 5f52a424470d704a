//! Code that a program has copied from its file to memory without one, as some do to
//! have it on large pages.

use anyhow::{Context, Result, bail, ensure};
use unfreed_tests::model::LeftAloneCause;
use unfreed_tests::{Target, Tracer, View, unfreed, wait_known};

/// What a path of the target has, the innermost first, without libc's.
const NESTED: [&str; 6] = ["take", "inner", "inner", "inner", "inner", "nested"];

/// The only path with blocks of a size begins with these functions, and is whole.
fn check(report: &View, size: u64, innermost: &[&str]) -> Result<()> {
    let (names, end) = report.own_path(size)?;
    ensure!(names.len() > innermost.len(), "{names:?}");
    assert_eq!(names[..innermost.len()], *innermost, "{names:?}");
    assert_eq!(
        names.last().map(String::as_str),
        Some("_start"),
        "{names:?}"
    );
    assert_eq!(end, "start");
    Ok(())
}

/// The two ways to put a copy in the place of a file's code.
const COPIES: [&str; 2] = ["in_place", "moved"];

#[test]
fn code_that_was_copied_is_still_the_files() -> Result<()> {
    for copy in COPIES {
        let mut target = Target::start("copied")?;
        target.command(copy)?;
        let tracer = Tracer::record(target.pid, &[])?;
        let truth = target.command("nested")?;
        let report = tracer.stop()?.report()?;
        report.agrees_with(&truth)?;
        check(&report, 1009, &NESTED)?;
        ensure!(report.left_alone.is_empty(), "{:?}", report.left_alone);
    }
    Ok(())
}

/// What is nearly the file's is not: it may be anything.
#[test]
fn a_copy_with_another_byte_is_no_copy() -> Result<()> {
    let mut target = Target::start("copied")?;
    target.command("in_place")?;
    target.command("spoil")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("nested")?;
    let report = tracer.stop()?.report()?;
    let mut frames = report.sites.iter().flat_map(|site| &site.frames);
    ensure!(frames.all(|frame| frame.function.as_deref() != Some("inner")));
    Ok(())
}

#[test]
fn a_second_copy_has_the_same_names() -> Result<()> {
    let mut target = Target::start("copied")?;
    target.command("in_place")?;
    target.command("again")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("elsewhere")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    check(&report, 1009, &["take", "calls", "elsewhere"])
}

#[test]
fn code_that_is_copied_while_it_is_traced_is_still_the_files() -> Result<()> {
    for copy in COPIES {
        let mut target = Target::start("copied")?;
        let tracer = Tracer::record(target.pid, &[])?;
        target.command(copy)?;
        wait_known(tracer.pid(), target.pid)?;
        let mut truth = target.command("nested")?;
        // The copy is memory that the program has mapped, which is no question here.
        truth.others = true;
        let report = tracer.stop()?.report()?;
        report.agrees_with(&truth)?;
        check(&report, 1009, &NESTED)?;
    }
    Ok(())
}

/// An allocator that was copied cannot be probed, and the report says so.
#[test]
fn an_allocator_that_was_copied_is_a_loss() -> Result<()> {
    for copy in COPIES {
        let mut target = Target::start("copied_own")?;
        target.command(copy)?;
        let tracer = Tracer::record(target.pid, &[])?;
        target.command("own")?;
        let truth = target.command("nested")?;
        let report = tracer.stop()?.report()?;
        report.sites_agree_with(&truth)?;
        let lost = report.losses.iter().find(|loss| loss.cause == "left_alone");
        assert_eq!(lost.context("no loss")?.count, 2);
        let [left_alone] = &report.left_alone[..] else {
            bail!("{:?}", report.left_alone);
        };
        assert_eq!(left_alone.cause, LeftAloneCause::Copied);
        ensure!(target.finish()?.success());
    }
    Ok(())
}

#[test]
fn doctor_says_which_allocator_was_copied() -> Result<()> {
    let mut target = Target::start("copied_own")?;
    target.command("moved")?;
    let finished = unfreed(&["doctor", "-p", &target.pid.to_string()])?;
    ensure!(!finished.status.success(), "{}", finished.stdout);
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    let words = words.join(" ");
    ensure!(
        words.contains("mi_malloc (and one more function)"),
        "{words}"
    );
    ensure!(words.contains("was copied by copied_own"), "{words}");
    Ok(())
}

/// So is one that is all that a program has.
#[test]
fn a_static_program_that_was_copied() -> Result<()> {
    let mut target = Target::start("copied_static")?;
    target.command("moved")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("nested")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let [left_alone] = &report.left_alone[..] else {
        bail!("{:?}", report.left_alone);
    };
    assert_eq!(left_alone.cause, LeftAloneCause::Copied);
    ensure!(
        finished.stdout.contains("was copied by"),
        "{}",
        finished.stdout
    );
    Ok(())
}
