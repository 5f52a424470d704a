//! What works without tracing: saved reports, differences, the terminal, the
//! smaller commands.

use std::fs;

use anyhow::{Context, Result, ensure};
use unfreed_tests::{
    Outputs, Target, Tracer, gunzip, is_drawing, leak_command as leak, run_leak as run,
    target_path, terminal, unfreed,
};

#[test]
fn wrong_arguments_exit_with_two() -> Result<()> {
    for arguments in [
        &["record"][..],
        &["record", "-p", "x"],
        &["run", "--min-size", "many", "--", "true"],
    ] {
        let finished = unfreed(arguments)?;
        assert_eq!(
            finished.status.code(),
            Some(2),
            "{arguments:?}: {}",
            finished.stderr
        );
    }
    Ok(())
}

// --- later ---

#[test]
fn a_saved_report_renders_the_same_again() -> Result<()> {
    let out = Outputs::new()?;
    let finished = run(&[
        "-o",
        &out.text("a.svg"),
        "-o",
        &out.text("a.folded"),
        "-o",
        &out.text("a.pb.gz"),
    ])?;
    let json = finished.json().display().to_string();
    let rendered = unfreed(&[
        "report",
        &json,
        "-o",
        &out.text("b.svg"),
        "-o",
        &out.text("b.folded"),
        "-o",
        &out.text("b.pb.gz"),
        "-o",
        &out.text("b.json"),
    ])?;
    ensure!(rendered.status.success(), "{}", rendered.stderr);
    assert!(
        rendered.stdout.contains("leak_blocks"),
        "{}",
        rendered.stdout
    );
    let read = |name: &str| fs::read_to_string(out.path(name));
    assert_eq!(read("a.svg")?, read("b.svg")?);
    assert_eq!(read("a.folded")?, read("b.folded")?);
    assert_eq!(fs::read_to_string(finished.json())?, read("b.json")?);
    assert_eq!(gunzip(&out.path("a.pb.gz"))?, gunzip(&out.path("b.pb.gz"))?);
    Ok(())
}

#[test]
fn report_is_a_gate_too() -> Result<()> {
    let finished = run(&[])?;
    let json = finished.json().display().to_string();
    assert_eq!(
        unfreed(&["report", &json, "--fail-above", "1k"])?
            .status
            .code(),
        Some(3)
    );
    assert_eq!(
        unfreed(&["report", &json, "--fail-above", "1M"])?
            .status
            .code(),
        Some(0)
    );
    Ok(())
}

#[test]
fn a_report_that_is_none_is_named() -> Result<()> {
    let out = Outputs::new()?;
    let missing = out.text("missing.json");
    unfreed(&["report", &missing])?.fails_saying(&[&missing])?;
    fs::write(out.path("odd.json"), "{\"schema\": \"somebody/7\"}")?;
    let odd = out.text("odd.json");
    unfreed(&["report", &odd])?.fails_saying(&[&odd])
}

#[test]
fn diff_shows_what_grew() -> Result<()> {
    let out = Outputs::new()?;
    let (json, profile) = (out.text("before.json"), out.text("before.pb.gz"));
    run(&["-o", &json, "-o", &profile])?.report()?;
    let more = leak(&["cache_blocks", "leak_blocks", "leak_blocks", "leak_blocks"])?;
    let (json_after, profile_after) = (out.text("after.json"), out.text("after.pb.gz"));
    Tracer::run(&["-o", &json_after, "-o", &profile_after], &more)?
        .wait()?
        .report()?;
    for (before, after) in [(&json, &json_after), (&profile, &profile_after)] {
        let svg = out.text("diff.svg");
        let difference = unfreed(&["diff", before, after, "-o", &svg])?;
        ensure!(difference.status.success(), "{}", difference.stderr);
        let table = &difference.stdout;
        let grown = table.find("leak_blocks").with_context(|| table.clone())?;
        assert!(
            table.find("cache_blocks").is_none_or(|same| grown < same),
            "{table}"
        );
        let drawing = fs::read_to_string(svg)?;
        assert!(is_drawing(&drawing) && drawing.contains("leak_blocks"));
    }
    Ok(())
}

// --- on a terminal ---

#[test]
fn the_table_fits_the_terminal() -> Result<()> {
    let finished = run(&[])?;
    let json = finished.json().display().to_string();
    for width in [60, 80, 200] {
        let shown = terminal::show(&["report", &json], width, &[])?;
        assert!(shown.contains("leak_blocks"), "{shown}");
        for line in terminal::plain(&shown).lines() {
            assert!(
                line.chars().count() <= width.into(),
                "{width} columns: {line:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn colours_are_for_terminals_that_want_them() -> Result<()> {
    let finished = run(&[])?;
    let json = finished.json().display().to_string();
    let coloured = terminal::show(&["report", &json], 80, &[])?;
    assert!(
        coloured.contains("\x1b["),
        "no colour on a terminal: {coloured:?}"
    );
    let refused = terminal::show(&["report", &json], 80, &[("NO_COLOR", "1")])?;
    assert!(!refused.contains("\x1b["), "{refused:?}");
    assert!(!unfreed(&["report", &json])?.stdout.contains('\x1b'));
    assert!(!finished.stdout.contains('\x1b') && !finished.stderr.contains('\x1b'));
    Ok(())
}

// --- other commands ---

#[test]
fn completions_for_every_shell() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let finished = unfreed(&["completions", shell])?;
        assert!(
            finished.status.success() && finished.stdout.contains("unfreed"),
            "{shell}"
        );
    }
    Ok(())
}

#[test]
fn help_has_the_five_commonest_jobs() -> Result<()> {
    let help = unfreed(&["--help"])?.stdout;
    let examples = help.split("Examples:").nth(1).context("no examples")?;
    assert!(examples.matches("unfreed ").count() >= 5, "{examples}");
    Ok(())
}

#[test]
fn doctor_looks_at_the_machine() -> Result<()> {
    let machine = unfreed(&["doctor"])?;
    assert!(
        machine.status.success(),
        "{}{}",
        machine.stdout,
        machine.stderr
    );
    assert!(machine.stdout.contains("BTF"), "{}", machine.stdout);
    Ok(())
}

#[test]
fn doctor_looks_at_the_machine_and_a_target() -> Result<()> {
    let target = Target::start("leak")?;
    let here = unfreed(&["doctor", "-p", &target.pid.to_string()])?;
    assert!(here.status.success(), "{}{}", here.stdout, here.stderr);
    for part in ["BTF", "kernel accepts the programs", "libc.so.6"] {
        assert!(here.stdout.contains(part), "{}", here.stdout);
    }
    // The kernels of the tests tell of mappings themselves.
    assert!(!here.stdout.contains("munmap+"), "{}", here.stdout);
    Ok(())
}

#[test]
fn doctor_says_what_a_target_lacks() -> Result<()> {
    let target = Target::start("no_allocator")?;
    let finished = unfreed(&["doctor", "-p", &target.pid.to_string()])?;
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains("malloc"), "{said}");
    Ok(())
}

#[test]
fn tables_need_no_process() -> Result<()> {
    let leak = target_path("leak")?.display().to_string();
    let finished = unfreed(&["tables", &leak])?;
    assert!(
        finished.stdout.contains("rows for returns"),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
    unfreed(&["tables", "/dev/null"])?.fails_saying(&["/dev/null", "not a regular file"])
}
