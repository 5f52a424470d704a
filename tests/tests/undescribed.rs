//! Code that the file itself does not describe: what a debug file or frame pointers
//! tell, and where a stack ends if nothing does.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use unfreed_tests::model::StackEnd;
use unfreed_tests::{Target, Tracer, View, target_path};

/// Runs commands of a target.
fn trace(target: &mut Target, commands: &[&str]) -> Result<View> {
    let tracer = Tracer::record(target.pid, &[])?;
    let truths = commands
        .iter()
        .map(|command| target.command(command))
        .collect::<Result<Vec<_>>>()?;
    let report = tracer.stop()?.report()?;
    for truth in truths {
        report.sites_agree_with(&truth)?;
    }
    Ok(report)
}

/// A path begins with these functions, and ends so. A whole one has the program's start.
fn check(report: &View, size: u64, innermost: &[&str], expected_end: &str) -> Result<()> {
    let (names, end) = report.own_path(size)?;
    assert_eq!(end, expected_end, "{names:?}");
    ensure!(names.len() >= innermost.len(), "{names:?}");
    assert_eq!(names[..innermost.len()], *innermost, "{names:?}");
    let last = names.last().map(String::as_str);
    let expected_last = match end.starts_with("start") {
        true => Some("_start"),
        false => innermost.last().copied(),
    };
    assert_eq!(last, expected_last, "{names:?}");
    Ok(())
}

#[test]
fn a_function_that_keeps_a_frame_pointer_is_passed() -> Result<()> {
    let mut target = Target::start("framed")?;
    let report = trace(&mut target, &["framed", "built_in"])?;
    let framed = ["take_framed", "asm_framed", "framed"];
    check(&report, 1009, &framed, "start_by_frame_pointers")?;
    // The one that shares the frame of another hides it.
    let built_in = ["take_built_in", "Builtins_Handler", "built_in"];
    check(&report, 2003, &built_in, "start_by_frame_pointers")
}

/// Code that nothing describes gives back what it takes of the stack, which tells its frame.
#[test]
fn functions_without_one_are_passed_by_what_they_give_back() -> Result<()> {
    let mut target = Target::start("framed")?;
    let report = trace(&mut target, &["others"])?;
    let frameless = ["take_frameless", "asm_frameless", "others"];
    check(&report, 3001, &frameless, "start")?;
    check(&report, 4001, &["take_busy", "asm_busy", "others"], "start")
}

/// Where there is too much of such code to look through, samples of it tell that it keeps frame pointers.
#[test]
fn vast_code_is_passed_by_the_frame_pointers_that_it_keeps() -> Result<()> {
    let mut target = Target::start("vast")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("nested")?;
    let (names, end) = tracer.stop()?.report()?.own_path(1009)?;
    assert_eq!(end, "start_by_frame_pointers", "{names:?}");
    // It has no names: those of `take`, four times `inner`, `nested` and whoever runs a command.
    ensure!(names.len() > NESTED.len(), "{names:?}");
    ensure!(names.iter().all(|name| name == "?"), "{names:?}");
    Ok(())
}

/// One that jumps to nobody knows where does not tell.
#[test]
fn a_stack_ends_in_a_function_that_tells_nothing() -> Result<()> {
    let mut target = Target::start("framed")?;
    let report = trace(&mut target, &["hidden"])?;
    check(&report, 5003, &["take_hidden", "asm_hidden"], "no_row")
}

/// musl has no tables: a path leads through its `qsort` and on to where it starts the program.
#[test]
fn a_callback_through_musl_has_a_whole_path() -> Result<()> {
    is_whole_through_qsort("paths_musl")?;
    is_whole_through_qsort("paths_musl_shared")
}

fn is_whole_through_qsort(program: &str) -> Result<()> {
    let mut target = Target::start(program)?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("sort")?;
    let report = tracer.stop()?.report()?;
    let paths: Vec<_> = report.sites_with("compare").collect();
    ensure!(paths.len() > 2, "{paths:?}");
    for site in paths {
        assert_eq!(site.stack_end, StackEnd::Start, "{site:?}");
        let names = site.frames.iter().filter_map(|it| it.function.as_deref());
        let names: Vec<_> = names.collect();
        let mut rest = names.iter();
        for wanted in [
            "serve",
            "run_command",
            "sort",
            "qsort_r",
            "compare",
            "malloc",
        ] {
            ensure!(rest.any(|name| *name == wanted), "{wanted}: {names:?}");
        }
    }
    Ok(())
}

/// What a compiler made at run time is passed by frame pointers, and named by its perf map.
#[test]
fn generated_functions_with_frame_pointers_are_passed() -> Result<()> {
    let report = trace(&mut Target::start("jit")?, &["run_framed"])?;
    let innermost = ["take_framed", "framed_inner", "framed_outer", "run_framed"];
    check(&report, 1009, &innermost, "start_by_frame_pointers")
}

/// Where they have none, frames are missing and none is made up, and the path says so.
#[test]
fn generated_functions_without_frame_pointers_hide_frames() -> Result<()> {
    let report = trace(&mut Target::start("jit")?, &["run_frameless"])?;
    let (names, end) = report.own_path(2003)?;
    ensure!(end != "start", "{names:?}");
    assert_eq!(names[..2], ["take_frameless", "frameless_inner"]);
    let mut real = [
        "take_frameless",
        "frameless_inner",
        "frameless_outer",
        "run_frameless",
        "run_command",
        "serve",
        "main",
        "_start",
    ]
    .iter();
    ensure!(
        names.iter().all(|name| real.any(|real| real == name)),
        "{names:?}"
    );
    Ok(())
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    let status = command.current_dir(folder).args(arguments).status()?;
    ensure!(status.success(), "{program} {arguments:?}: {status}");
    Ok(())
}

/// The path of `nested`, recursion and all.
const NESTED: [&str; 6] = ["take", "inner", "inner", "inner", "inner", "nested"];

#[test]
fn call_frame_information_for_debuggers_is_enough() -> Result<()> {
    let report = trace(&mut Target::start("undescribed")?, &["nested"])?;
    check(&report, 1009, &NESTED, "start")
}

#[test]
fn a_debug_file_tells_what_the_program_does_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("undescribed");
    std::fs::copy(target_path("undescribed")?, &program)?;
    let debug = "undescribed.debug";
    run(
        folder.path(),
        "objcopy",
        &["--only-keep-debug", "undescribed", debug],
    )?;
    let link = format!("--add-gnu-debuglink={debug}");
    run(
        folder.path(),
        "objcopy",
        &["--strip-debug", &link, "undescribed"],
    )?;
    std::fs::create_dir(folder.path().join(".debug"))?;
    std::fs::rename(
        folder.path().join(debug),
        folder.path().join(".debug").join(debug),
    )?;
    let report = trace(&mut Target::start_at(&program)?, &["nested"])?;
    check(&report, 1009, &NESTED, "start")?;
    // A file of the same name that is not its own is not believed.
    run(
        folder.path(),
        "objcopy",
        &["--only-keep-debug", "/bin/true", ".debug/undescribed.debug"],
    )?;
    let mut target = Target::start_at(&program)?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("nested")?;
    // What it gives back tells as much.
    check(&tracer.stop()?.report()?, 1009, &NESTED, "start")
}
