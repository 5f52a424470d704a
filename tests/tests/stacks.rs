//! Whole stacks: every call path that the tracer reports is, address by
//! address, the one that gdb finds.

use anyhow::{Context, Result};
use unfreed_tests::gdb::{Backtrace, Position};
use unfreed_tests::{Agreement, Gdb, Runs, Sampling, Stack, Target, Tracer};

/// Runs commands of a target under the tracer, then the same under gdb, in one
/// process.
fn compare(program: &str, commands: &[&str]) -> Result<Agreement> {
    let (found, real) = both(program, commands)?;
    let agreement = Agreement::of(&found, &real, Runs::Same);
    println!("{program} {commands:?}: {agreement}");
    Ok(agreement)
}

/// What the tracer says, and what gdb says.
fn both(program: &str, commands: &[&str]) -> Result<(Vec<Stack>, Vec<Backtrace>)> {
    let mut target = Target::start(program)?;
    // What happens only the first time: lazy binding, libc's own buffers.
    run(&mut target, commands)?;
    let tracer = Tracer::record(target.pid, &[])?;
    run(&mut target, commands)?;
    let report = tracer.stop()?.report()?;
    let gdb = Gdb::attach(target.pid, Sampling::ALL)?;
    run(&mut target, commands)?;
    gdb.is_enough()?;
    target.finish()?;
    let real = gdb.finish()?;
    Ok((report.stacks(0), real.stacks))
}

fn run(target: &mut Target, commands: &[&str]) -> Result<()> {
    commands
        .iter()
        .try_for_each(|command| target.command(command).map(drop))
}

/// All that `paths` can do while it is attached to.
const PATHS: [&str; 16] = [
    "recursion_5",
    "recursion_20",
    "recursion_60",
    "recursion_200",
    "tree",
    "sort",
    "shared_library",
    "interposed",
    "signal_raised",
    "signal_on_own_stack",
    "exceptions",
    "long_jump",
    "frames",
    "tail_calls",
    "allocators",
    "threads",
];

#[test]
fn a_program_without_frame_pointers() -> Result<()> {
    compare("paths", &PATHS)?.is_whole(500)
}

#[test]
fn a_stripped_program() -> Result<()> {
    compare("paths_stripped", &PATHS)?.is_whole(500)
}

#[test]
fn a_release_build_in_rust() -> Result<()> {
    compare("paths_rust", &["recursion", "caught", "sorts", "threads"])?.is_whole(200)
}

/// musl is built without tables: gdb guesses on in its code, and we stop.
#[test]
fn a_static_program_with_musl() -> Result<()> {
    compare("paths_musl", &["recursion_5", "recursion_60", "sort"])?.is_honest(70)
}

#[test]
fn coroutines_and_assembly() -> Result<()> {
    let commands = ["coroutines", "assembly", "fault_at_an_entry"];
    compare("odd", &commands)?.is_whole(17)
}

/// What no compiler writes may end a stack, but not spoil it.
#[test]
fn a_frame_by_an_expression() -> Result<()> {
    compare("odd", &["assembly_with_expressions"])?.is_honest(1)
}

// --- code without tables, in which gdb guesses ---

/// The only one of its size.
fn of_size(found: &[Stack], size: u64) -> Result<&Stack> {
    let mut all = found
        .iter()
        .filter(|stack| stack.bytes == stack.count * size);
    let first = all.next().with_context(|| format!("none of {size}"))?;
    assert!(all.next().is_none(), "several of {size}");
    Ok(first)
}

/// gdb's frames of the compiled function that is called where the generated
/// one is, with the generated one in its place.
fn expected(real: &[Backtrace], size: u64, generated: &Position) -> Result<Vec<Position>> {
    let plain = real.iter().find(|trace| trace.size == size);
    let mut frames = plain.context("not run")?.frames.clone();
    frames[2] = generated.clone();
    Ok(frames)
}

#[test]
fn generated_code_with_frame_pointers_is_passed() -> Result<()> {
    let (found, real) = both("odd", &["generated_with_frame_pointers"])?;
    let stack = of_size(&found, 1409)?;
    let generated = &stack.frames[2];
    assert_eq!(generated.path, "", "{stack}");
    let expected = expected(&real, 1399, generated)?;
    assert_eq!(stack.frames[1..], expected[1..], "{stack}");
    assert_eq!(stack.end, "start");
    Ok(())
}

#[test]
fn generated_code_without_frame_pointers_ends_a_stack() -> Result<()> {
    let (found, real) = both("odd", &["generated_without_frame_pointers"])?;
    let stack = of_size(&found, 1427)?;
    assert_eq!(stack.frames.len(), 3, "{stack}");
    assert_eq!(stack.frames[2].path, "", "{stack}");
    let expected = expected(&real, 1423, &stack.frames[2])?;
    assert_eq!(stack.frames[1..], expected[1..3], "{stack}");
    assert_ne!(stack.end, "start");
    Ok(())
}
