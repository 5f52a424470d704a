//! Functions that an agent has hooked in memory, before they are traced and
//! while they are: the target lives, and the report says what is not seen.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{LeftAlone, LeftAloneCause};
use unfreed_tests::{
    ReturnProbe, Sums, Target, Tracer, View, patched_bytes, target_path, unfreed, wait_until,
};

/// Starts the target at addresses that are the same each time: a byte of a jump may
/// be the file's by chance.
fn start_in_place() -> Result<Target> {
    let program = target_path("hooked")?;
    Target::start_with(Command::new("setarch").arg("-R").arg(program))
}

/// Starts a target and has it change its code.
fn hooked_by(command: &str) -> Result<Target> {
    let mut target = start_in_place()?;
    target.command(command)?;
    Ok(target)
}

/// Its libc, as it maps it.
fn libc_of(target: &Target) -> Result<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid))?;
    let line = maps.lines().find(|line| line.contains("/libc.so"));
    let path = line.and_then(|line| line.split_whitespace().last());
    Ok(path.context("no libc is mapped")?.into())
}

/// The target goes on as before, and ends well.
fn lives(target: &mut Target, hook_calls: &str) -> Result<()> {
    target.command("leak_blocks")?;
    target.command("leak_zeroed")?;
    assert_eq!(target.ask("tell_calls", "calls ")?, hook_calls);
    let status = target.finish()?;
    ensure!(status.success(), "the target ended with {status}");
    Ok(())
}

/// Its page faults are followed and no probe is placed; the report says why.
fn is_followed_by_its_pages(target: &Target, reasons: &[&str]) -> Result<()> {
    let before = patched_bytes(target.pid)?;
    let tracer = Tracer::record(target.pid, &[])?;
    assert_eq!(patched_bytes(target.pid)?, before, "a probe was placed");
    let finished = tracer.stop()?;
    let report = finished.report()?;
    ensure!(report.settings.growth_instead, "{:?}", report.settings);
    let left_alone = report.left_alone.first().context("nothing is left alone")?;
    assert_eq!(left_alone.function, "malloc");
    for text in [&finished.stdout, &finished.stderr] {
        let text = words(text);
        for reason in reasons.iter().chain(&["page faults"]) {
            ensure!(text.contains(reason), "{reason:?} is not in {text}");
        }
    }
    Ok(())
}

fn program() -> Result<String> {
    Ok(target_path("hooked")?.canonicalize()?.display().to_string())
}

// --- hooked before ---

#[test]
fn a_hooked_malloc_is_left_alone() -> Result<()> {
    for (command, leads_to) in [
        ("hook_malloc", format!("by a jump to {}", program()?)),
        (
            "hook_malloc_through_memory",
            format!("by a jump to [anonymous] and on to {}", program()?),
        ),
        (
            "hook_malloc_by_file",
            format!("by a jump to {}", program()?),
        ),
    ] {
        let mut target = hooked_by(command)?;
        let libc = libc_of(&target)?.display().to_string();
        let hooked = format!(
            "malloc of {libc} is hooked in the memory of hooked ({})",
            target.pid
        );
        is_followed_by_its_pages(&target, &[&hooked, &leads_to])?;
        // Who asks for allocations gets none instead.
        let pid = target.pid.to_string();
        let finished = Tracer::start(&["record", "--min-size", "1k", "-p", &pid])?.wait()?;
        finished.fails_saying(&[
            &hooked,
            &leads_to,
            "nothing that this allocator allocates is seen",
        ])?;
        lives(&mut target, "7")?;
    }
    Ok(())
}

/// The kernel places no breakpoints in code that can be written to, and says
/// nothing: no number would be true.
#[test]
fn a_malloc_that_can_be_written_to_is_left_alone() -> Result<()> {
    let mut target = hooked_by("leave_malloc_writable")?;
    is_followed_by_its_pages(&target, &["malloc of ", "can be written to"])?;
    lives(&mut target, "0")
}

#[test]
fn the_rest_of_an_allocator_is_traced_without_calloc() -> Result<()> {
    let mut target = hooked_by("hook_calloc")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("leak_blocks")?;
    target.command("leak_zeroed")?;
    assert_eq!(target.ask("tell_calls", "calls ")?, "3");
    let finished = tracer.stop()?;
    let report = finished.report()?;
    report.sites_agree_with(&truth)?;
    // What the hook allocates by other functions instead: a byte each.
    assert_eq!(report.heap("leak_zeroed"), Sums::live(1, 3));
    let calloc = only(&report)?;
    assert_eq!(calloc.function, "calloc");
    assert_eq!(calloc.cause, LeftAloneCause::Hooked);
    assert_eq!(calloc.leads_to, [program()?]);
    assert_eq!(calloc.at, None);
    assert_eq!(count(&report, "left_alone"), 1, "{:?}", report.losses);
    for text in [&finished.stdout, &finished.stderr] {
        let text = words(text);
        ensure!(
            text.contains("what calloc allocates is not seen") && text.contains(&program()?),
            "{text}"
        );
    }
    ensure!(target.finish()?.success());
    Ok(())
}

#[test]
fn a_hooked_function_of_a_bystander_is_not_probed_for_everyone() -> Result<()> {
    let mut bystander = hooked_by("hook_malloc")?;
    let mut target = Target::start("leak")?;
    let pid = target.pid.to_string();
    let finished = Tracer::start(&["record", "--follow", "-p", &pid])?.wait()?;
    // That of another test may be found first.
    finished.fails_saying(&["is hooked in the memory of hooked (", "without --follow"])?;
    // Without, the bystander is in nobody's way.
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("leak_blocks")?;
    tracer.stop()?.report()?.agrees_with(&truth)?;
    lives(&mut bystander, "7")
}

#[test]
fn doctor_says_what_is_hooked_and_where_it_leads() -> Result<()> {
    let mut target = hooked_by("hook_malloc")?;
    let finished = unfreed(&["doctor", "-p", &target.pid.to_string()])?;
    ensure!(!finished.status.success(), "{}", finished.stdout);
    ensure!(
        finished
            .stdout
            .contains("malloc is as in its file: malloc of ")
            && finished
                .stdout
                .contains(&format!("by a jump to {}", program()?)),
        "{}",
        finished.stdout
    );
    lives(&mut target, "7")
}

/// Several tracers may have probes at one place.
#[test]
fn another_tracers_probe_is_no_hook() -> Result<()> {
    let mut target = Target::start("hooked")?;
    let libc = libc_of(&target)?;
    let foreign = ReturnProbe::place(target.pid, &libc, "malloc")?;
    ensure!(
        patched_bytes(target.pid)? > 0,
        "no breakpoint of the other is there"
    );
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("leak_blocks")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    assert_eq!(report.left_alone, []);
    assert_eq!(foreign.count()?, 7);
    drop(foreign);
    ensure!(target.finish()?.success());
    Ok(())
}

// --- hooked while traced ---

/// The probes go at once, and what was seen until then stands.
fn is_noticed_while_traced(command: &str) -> Result<()> {
    let mut target = start_in_place()?;
    let mut tracer = Tracer::record(target.pid, &[])?;
    let before = target.command("leak_blocks")?;
    target.command(command)?;
    tracer.wait_saying("the probes went at once")?;
    // The same as in one that nobody traces: the hook and nothing else.
    let mut untraced = hooked_by(command)?;
    assert_eq!(patched_bytes(target.pid)?, patched_bytes(untraced.pid)?);
    ensure!(untraced.finish()?.success());
    target.command("leak_zeroed")?;
    target.command("leak_blocks")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    report.sites_agree_with(&before)?;
    assert_eq!(report.heap("leak_zeroed"), Sums::default());
    let malloc = report.left_alone.iter().find(|it| it.function == "malloc");
    let malloc = malloc.context("malloc is not left alone")?;
    // The protection changes first, which may be seen before the hook.
    ensure!(malloc.cause != LeftAloneCause::Unreadable, "{malloc:?}");
    ensure!(malloc.at.is_some(), "{malloc:?}");
    assert_eq!(
        count(&report, "hooked_while_traced"),
        1,
        "{:?}",
        report.losses
    );
    ensure!(
        words(&finished.stdout).contains("the probes went at once"),
        "{}",
        finished.stdout
    );
    lives(&mut target, "14")
}

#[test]
fn a_hook_made_while_traced_is_noticed() -> Result<()> {
    is_noticed_while_traced("hook_malloc_by_file")
}

#[test]
fn a_hook_in_code_that_stays_writable_is_noticed_while_traced() -> Result<()> {
    is_noticed_while_traced("hook_malloc_for_good")
}

/// The agent has saved our breakpoint, and puts it back when it unhooks.
#[test]
fn a_breakpoint_that_is_put_back_is_still_known() -> Result<()> {
    let mut target = start_in_place()?;
    let mut tracer = Tracer::record(target.pid, &[])?;
    target.command("hook_malloc_by_file")?;
    tracer.wait_saying("the probes went at once")?;
    assert_eq!(patched_bytes(target.pid)?, hook_bytes()?);
    target.command("unhook_malloc_by_file")?;
    assert_eq!(patched_bytes(target.pid)?, 1, "the breakpoint");
    // The kernel takes it for a probe's, and puts the code right: at the first call,
    // or later if others trace other processes.
    target.command("leak_blocks")?;
    tracer.stop()?.report()?;
    is_as_in_the_file(&target)?;
    lives(&mut target, "0")
}

/// The same with no call until the run is over.
#[test]
fn a_breakpoint_that_is_put_back_goes_with_the_run() -> Result<()> {
    let mut target = Target::start("hooked")?;
    let mut tracer = Tracer::record(target.pid, &[])?;
    target.command("hook_malloc_by_file")?;
    tracer.wait_saying("the probes went at once")?;
    target.command("unhook_malloc_by_file")?;
    assert_eq!(patched_bytes(target.pid)?, 1, "the breakpoint");
    tracer.stop()?.report()?;
    is_as_in_the_file(&target)?;
    lives(&mut target, "0")
}

/// The kernel takes probes away a moment after their owner's end.
fn is_as_in_the_file(target: &Target) -> Result<()> {
    wait_until("the code of the file", || {
        Ok((patched_bytes(target.pid)? == 0).then_some(()))
    })
}

/// How many bytes a hook changes.
fn hook_bytes() -> Result<usize> {
    let mut target = hooked_by("hook_malloc_by_file")?;
    let bytes = patched_bytes(target.pid)?;
    ensure!(target.finish()?.success());
    Ok(bytes)
}

fn only(report: &View) -> Result<&LeftAlone> {
    ensure!(report.left_alone.len() == 1, "{:?}", report.left_alone);
    Ok(&report.left_alone[0])
}

fn count(report: &View, cause: &str) -> u64 {
    let mut losses = report.losses.iter();
    losses
        .find(|loss| loss.cause == cause)
        .map_or(0, |loss| loss.count)
}

/// Text without its line breaks.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
