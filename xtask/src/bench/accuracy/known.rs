//! What end-to-end tests prove, as tables: their programs know what they did, and a
//! test fails if anything is another number.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tracer_ebpf_build::workspace;

use crate::programs::EndToEnd;
use crate::{pool, shell};

/// How the lines of the matrix begin that the tests of allocators print.
const LINE: &str = "exact: ";

/// A case: what happened to people, what has to be said of it, and the test of that.
type Case = (&'static str, &'static str, &'static str, &'static str);

const CASES: [Case; 6] = [
    (
        "segments of files are mapped, and never unmapped",
        "file mappings with their path, count and the file's name",
        "kinds",
        "private_mappings_of_files_have_the_files_name",
    ),
    (
        "no leak: glibc keeps in its arenas what threads freed",
        "live blocks explain next to nothing; retention, the arenas, what could be given back",
        "balance",
        "what_arenas_keep_is_retention",
    ),
    (
        "growth in a mapping from before the run, whose allocator is unknown",
        "how much, in which mapping, and whose data points to it",
        "balance",
        "growth_in_an_older_mapping_is_no_silence",
    ),
    (
        "Go calls C, whose strings nobody frees",
        "the path through the switch of stacks, to the goroutine's start",
        "goroutines",
        "a_goroutine_that_calls_c",
    ),
    (
        "threads that ended and were never joined",
        "who started them, how many, what is mapped and what is in memory",
        "kinds",
        "stacks_are_of_who_started_the_thread_that_was_never_joined",
    ),
    (
        "the leak was before the tracer came",
        "what the blocks of the run explain, and that the rest is older",
        "balance",
        "memory_from_before_the_run_is_told_apart",
    ),
];

/// Each allocator with each of its interfaces.
///
/// # Errors
/// Fails if a count is not exact.
pub(super) fn matrix(tests: &EndToEnd) -> Result<String> {
    let said = run(tests, "allocators", &["--test-threads=1"])?;
    let rows = said.lines().filter_map(|line| {
        // The harness's own words may stand before it.
        let (_, row) = line.split_once(LINE)?;
        Some(format!("{row}\n"))
    });
    let mut rows: Vec<String> = rows.collect();
    ensure!(!rows.is_empty(), "the tests of allocators say nothing");
    rows.sort();
    Ok(format!(
        "| program | allocator | results taken at | functions and kinds of use | blocks | bytes |\n\
         |---|---|---|---|---|---|\n{}",
        rows.concat()
    ))
}

/// The cases, each with what is said of it.
///
/// # Errors
/// Fails if one is not answered as it has to be.
pub(super) fn cases(tests: &EndToEnd) -> Result<String> {
    let mut table = "| case | what has to be said | said |\n|---|---|---|\n".to_owned();
    for (case, answer, program, test) in CASES {
        run(tests, program, &["--exact", test])
            .with_context(|| format!("not answered as it has to be: {case}"))?;
        table.push_str(&format!("| {case} | {answer} | yes (`{test}`) |\n"));
    }
    Ok(table)
}

/// Runs tests of a program, all of which have to pass.
fn run(tests: &EndToEnd, name: &str, arguments: &[&str]) -> Result<String> {
    let mut programs = tests.programs.iter();
    let program: &PathBuf = programs
        .find(|program| pool::name_of(program) == name)
        .with_context(|| format!("there is no test program {name}"))?;
    let mut command = EndToEnd::command(program, &[])?;
    command
        .current_dir(workspace().join("tests"))
        .args(["--color=never", "--nocapture"])
        .args(arguments)
        .stderr(Stdio::inherit());
    let said = shell::capture(&mut command)?;
    let ran = said.contains("test result: ok.") && !said.contains("running 0 tests");
    ensure!(ran, "no test of {name} ran: {arguments:?}");
    Ok(said)
}
