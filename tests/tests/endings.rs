//! How targets end: what the report says is what `wait` says, and a death that
//! may be the tracer's doing is told loudly.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{Outcome, Process, ProcessEnd};
use unfreed_tests::{Finished, Target, Tracer, target_path};

/// What the kernel told the target's parent.
fn outcome_of(status: ExitStatus) -> Result<Outcome> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(Outcome::Status(u8::try_from(code)?)),
        (None, Some(signal)) => Ok(Outcome::Signal {
            number: u8::try_from(signal)?,
            core_dumped: status.core_dumped(),
        }),
        (None, None) => anyhow::bail!("neither exited nor killed: {status}"),
    }
}

/// Traces the target while it carries out a command that ends it.
fn ends_by(command: &str) -> Result<(Finished, Process, Outcome)> {
    let mut target = Target::start("endings")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.tell(command)?;
    let outcome = outcome_of(target.wait()?)?;
    let finished = tracer.wait()?;
    let report = finished.report()?;
    let last = report.processes.last().context("no process")?.clone();
    assert_eq!(last.end, ProcessEnd::Exited);
    Ok((finished, last, outcome))
}

fn is_told(command: &str) -> Result<(Finished, Process)> {
    let (finished, process, outcome) = ends_by(command)?;
    assert_eq!(process.outcome, Some(outcome), "{command}");
    let text = outcome.text();
    for output in [&finished.stdout, &finished.stderr] {
        ensure!(
            output.contains(&text),
            "{command}: no {text:?} in\n{output}"
        );
    }
    Ok((finished, process))
}

fn statuses_are_told(commands: &[&str]) -> Result<()> {
    for command in commands {
        let (finished, process) = is_told(command)?;
        assert_eq!(process.suspicion, None, "{command}");
        ensure!(!finished.stderr.contains("TRACER"), "{}", finished.stderr);
    }
    Ok(())
}

#[test]
fn an_exit_status_is_told() -> Result<()> {
    statuses_are_told(&["end_with_7", "end_with_8_of_many", "exec_and_end_with_3"])
}

/// The kernel has a status for the process and one for each thread, and which one
/// counts differs.
#[test]
fn an_exit_status_is_told_whichever_thread_gives_it() -> Result<()> {
    statuses_are_told(&["end_with_9_in_a_thread", "end_each_for_itself"])
}

#[test]
fn a_signal_that_somebody_sent_is_told_and_is_no_suspicion() -> Result<()> {
    for command in ["die_of_kill", "die_of_term"] {
        let (_, process) = is_told(command)?;
        assert_eq!(process.suspicion, None, "{command}");
    }
    Ok(())
}

#[test]
fn a_death_soon_after_the_attach_asks_for_a_report() -> Result<()> {
    for command in [
        "die_of_ill",
        "die_of_trap",
        "die_of_segv",
        "die_of_segv_in_a_thread",
        "die_of_bus",
        "die_of_abort",
    ] {
        let (finished, process) = is_told(command)?;
        let suspicion = process.suspicion.context("no suspicion")?;
        ensure!(suspicion.after < 10.0, "{suspicion:?}");
        let malloc = suspicion.placed.iter().find(|it| it.function == "malloc");
        let malloc = malloc.with_context(|| format!("{suspicion:?}"))?;
        ensure!(malloc.module.contains("libc.so"), "{malloc:?}");
        ensure!(
            malloc.build_id.is_some() && !malloc.placement.is_empty(),
            "{malloc:?}"
        );
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        for part in [
            "MAY BE THE TRACER'S DOING",
            "Please report",
            "malloc at 0x",
            release.trim(),
        ] {
            ensure!(
                finished.stderr.contains(part),
                "no {part:?} in\n{}",
                finished.stderr
            );
        }
        ensure!(
            finished.stdout.contains("TRACER'S DOING"),
            "{}",
            finished.stdout
        );
    }
    Ok(())
}

/// A child of ours: `wait` and the kernel side say the same.
#[test]
fn a_program_that_is_run_ends_as_its_exit_code_says() -> Result<()> {
    let program = target_path("endings")?;
    for (command, code) in [("end_with_7", 7), ("die_of_term", 128 + libc::SIGTERM)] {
        let finished = Tracer::run(&[], &[program.as_os_str(), command.as_ref()])?.wait()?;
        assert_eq!(finished.status.code(), Some(code), "{}", finished.stderr);
        let report = finished.report_of_any_end()?;
        let expected = match command {
            "end_with_7" => Outcome::Status(7),
            _ => Outcome::Signal {
                number: u8::try_from(libc::SIGTERM)?,
                core_dumped: false,
            },
        };
        assert_eq!(report.processes[0].outcome, Some(expected));
    }
    Ok(())
}

#[test]
fn a_followed_child_has_an_end_of_its_own() -> Result<()> {
    let script = "\"$0\" die_of_kill; \"$0\" end_with_7; exit 2";
    let program = target_path("endings")?.display().to_string();
    let finished = Tracer::run(&["--follow"], &["sh", "-c", script, &program])?.wait()?;
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
    for text in [
        "killed by SIGKILL",
        "exited with status 7",
        "exited with status 2",
    ] {
        ensure!(finished.stderr.contains(text), "{}", finished.stderr);
    }
    Ok(())
}
