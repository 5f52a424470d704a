//! Results taken at return instructions, for programs whose return addresses
//! must be left alone: they walk their own stacks, or have a seccomp filter.
//!
//! The oracles are the programs themselves: what jemalloc's profiler,
//! LeakSanitizer and glibc's `backtrace` see with the tracer and without.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use unfreed_tests::allocators::{JEMALLOC, MIMALLOC, TCMALLOC};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{
    Recording, Sums, Target, Tracer, binary, kernel_version, target_path, targets,
};

/// The first kernel with `uprobe_multi` links.
const LINKS: (u32, u32) = (6, 6);

const INSTRUCTIONS: &[&str] = &["--returns", "instructions"];
const REPLACE: &[&str] = &["--returns", "replace"];

/// What every C library has.
const COMMON: [&str; 20] = [
    "malloc_plain",
    "malloc_and_free",
    "malloc_fails",
    "malloc_zero",
    "free_null",
    "calloc_plain",
    "calloc_overflow",
    "free_before_attach",
    "realloc_grows",
    "realloc_moves",
    "realloc_fails",
    "realloc_of_null",
    "realloc_before_attach",
    "reallocarray_plain",
    "reallocarray_overflow",
    "posix_memalign_plain",
    "aligned_alloc_plain",
    "memalign_plain",
    "valloc_plain",
    "strdup_counts_once",
];

/// glibc's alone, or as glibc does them; the last leaves a call by a jump.
const GLIBC: [&str; 7] = [
    "realloc_shrinks",
    "realloc_to_zero",
    "realloc_before_attach_fails",
    "posix_memalign_fails",
    "pvalloc_plain",
    "asprintf_counts_once",
    "after_missed_return",
];

const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";
const LSAN: &str = "/usr/lib/x86_64-linux-gnu/liblsan.so.0";

/// A target with copies of libraries that nobody else has. Return probes on a
/// function replace the return addresses of everybody who has probes there, and
/// other tracers may be at work on this machine.
fn private(program: &str, folder: &Path, libraries: &[&str]) -> Result<Command> {
    for library in libraries {
        let name = Path::new(library).file_name().context("a path")?;
        fs::copy(library, folder.join(name)).with_context(|| (*library).to_owned())?;
    }
    let mut command = Command::new(target_path(program)?);
    command.env("LD_LIBRARY_PATH", folder);
    Ok(command)
}

fn roads() -> Result<&'static [&'static str]> {
    match kernel_version()? < LINKS {
        true => Ok(&["perf"]),
        false => Ok(&["perf", "multi"]),
    }
}

fn agrees_on(road: &str, program: &str, commands: &[&str]) -> Result<Recording> {
    let recording = Recording::with(program, commands, INSTRUCTIONS, |tracer| {
        tracer.env("UNFREED_ATTACH", road);
    })
    .with_context(|| format!("{program} by {road}"))?;
    recording
        .all_agree()
        .with_context(|| format!("{program} by {road}"))?;
    let report = &recording.report;
    ensure!(
        report.overhead.return_hits > 0
            && report.settings.return_instructions.contains("--returns"),
        "{:?} {:?}",
        report.overhead,
        report.settings
    );
    Ok(recording)
}

#[test]
fn the_rules_of_glibcs_functions_hold() -> Result<()> {
    for road in roads()? {
        let commands = [&COMMON[..], &GLIBC[..]].concat();
        agrees_on(road, "semantics", &commands)?.has_nothing_else()?;
    }
    Ok(())
}

#[test]
fn the_rules_of_musls_functions_hold() -> Result<()> {
    for road in roads()? {
        let recording = agrees_on(road, "semantics_musl", &COMMON)?;
        assert_eq!(
            recording.report.lost(),
            0,
            "{:?}",
            recording.report.occurred()
        );
    }
    Ok(())
}

#[test]
fn the_rules_of_mappings_hold() -> Result<()> {
    for road in roads()? {
        let commands = [
            "map_anonymous",
            "map_and_unmap",
            "map_fails",
            "malloc_maps",
            "realloc_remaps",
            "unmap_middle",
            "unmap_fails",
            "remap_grows_in_place",
            "remap_moves",
            "remap_shrinks",
            "remap_fails",
            "map_over_own",
        ];
        agrees_on(road, "mappings", &commands)?.has_nothing_else()?;
    }
    Ok(())
}

/// Static programs choose their `memset` themselves when they start.
#[test]
fn static_programs_count_the_same_as_by_return_probes() -> Result<()> {
    for program in ["leak_static", "leak_static_pie", "leak_musl_static"] {
        let path = target_path(program)?.display().to_string();
        let run = |how: &[&str]| -> Result<Sums> {
            let command = [path.as_str(), "scratch_blocks", "cache_blocks"];
            let finished = Tracer::run(how, &command)?.wait()?;
            let report = finished.report()?;
            ensure!(report.lost() == 0, "{program} {:?}", report.occurred());
            Ok(report.sums("", MemoryKind::Heap))
        };
        let replaced = run(REPLACE)?;
        ensure!(replaced.allocated_count >= 150, "{program} {replaced:?}");
        ensure!(replaced == run(INSTRUCTIONS)?, "{program} {replaced:?}");
    }
    Ok(())
}

/// Functions that other allocators share in their own ways.
#[test]
fn other_allocators_count_the_same_as_by_return_probes() -> Result<()> {
    let commands = [
        "malloc_plain",
        "calloc_plain",
        "realloc_moves",
        "realloc_of_null",
    ];
    let more = [
        "posix_memalign_plain",
        "aligned_alloc_plain",
        "memalign_plain",
        "valloc_plain",
    ];
    for library in [JEMALLOC, TCMALLOC, MIMALLOC] {
        for options in [REPLACE, INSTRUCTIONS] {
            let mut command = Command::new(target_path("semantics")?);
            command.env("LD_PRELOAD", library);
            let mut target = Target::start_with(&mut command)?;
            let tracer = Tracer::record(target.pid, options)?;
            let mut truths = Vec::new();
            for name in commands.iter().chain(&more) {
                truths.push(target.command(name)?);
            }
            let report = tracer.stop()?.report()?;
            for truth in &truths {
                report
                    .sites_agree_with(truth)
                    .with_context(|| format!("{library} {options:?}"))?;
            }
            ensure!(
                report.lost() == 0,
                "{library} {options:?} {:?}",
                report.occurred()
            );
        }
    }
    Ok(())
}

/// Samples of jemalloc's profiler, and how many of them have an address of
/// these among their callers.
fn samples(profile: &Path, callers: &Range<u64>) -> Result<(u64, u64)> {
    let text = fs::read_to_string(profile)?;
    // `heap_v2/1`, then `t*: 1003: 1009000 [0: 0]` of all, then the same of each
    // stack below `@ 0x… 0x…`.
    let (mut all, mut with_caller) = (0, 0);
    let mut is_caller = None;
    for line in text.lines() {
        if let Some(stack) = line.strip_prefix("@ ") {
            let mut met = false;
            for word in stack.split_whitespace() {
                let address = u64::from_str_radix(word.trim_start_matches("0x"), 16)?;
                met |= callers.contains(&address);
            }
            is_caller = Some(met);
        } else if let Some(counts) = line.trim_start().strip_prefix("t*: ") {
            let count: u64 = counts.split(':').next().unwrap_or_default().parse()?;
            match is_caller {
                None => all = count,
                Some(true) => with_caller += count,
                Some(false) => {}
            }
        }
    }
    Ok((all, with_caller))
}

const PROFILING: (&str, &str) = ("MALLOC_CONF", "prof:true,lg_prof_sample:0");

/// What jemalloc's profiler wrote, of which it samples every block.
struct Profile {
    folder: TempDir,
}

impl Profile {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("profile")
    }

    /// The program, with jemalloc of its own.
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = private(program, self.folder.path(), &[LIBC, JEMALLOC])?;
        command.env("PROFILE", self.path());
        Ok(command)
    }

    /// All samples, and those with the program's own function among their
    /// callers, given what the program says of it.
    fn samples(&self, said: &str) -> Result<(u64, u64)> {
        let address = said.split(' ').next().unwrap_or_default();
        let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
        samples(&self.path(), &(address..address + 64))
    }
}

/// Runs a program with jemalloc's profiler, traced or not. Returns samples and
/// why results were taken at return instructions.
fn profiled(
    command: &mut Command,
    profile: &Profile,
    how: Option<&[&str]>,
) -> Result<((u64, u64), String)> {
    let mut target = Target::start_with(command)?;
    let tracer = how.map(|how| Tracer::record(target.pid, how)).transpose()?;
    let (said, truth) = target.command_saying("profile", "caller ")?;
    let mut reason = String::new();
    if let Some(tracer) = tracer {
        let report = tracer.stop()?.report()?;
        report.sites_agree_with(&truth)?;
        assert_eq!(report.lost(), 0, "{:?}", report.occurred());
        reason.clone_from(&report.settings.return_instructions);
    }
    Ok((profile.samples(&said)?, reason))
}

#[test]
fn jemallocs_profiler_sees_all_callers() -> Result<()> {
    let run = |how| {
        let profile = Profile::new()?;
        let mut command = profile.command("heap_profile")?;
        command.env(PROFILING.0, PROFILING.1);
        profiled(&mut command, &profile, how)
    };
    let ((_, alone), _) = run(None)?;
    assert_eq!(alone, 1000);
    let ((_, traced), reason) = run(Some(&[]))?;
    assert_eq!(traced, 1000);
    assert!(
        reason.contains("jemalloc's heap profiler (MALLOC_CONF"),
        "{reason}"
    );
    // So the test can fail.
    let ((all, replaced), _) = run(Some(REPLACE))?;
    assert!(replaced < 1000 && all >= 1000, "{replaced} of {all}");
    Ok(())
}

#[test]
fn a_profiler_that_the_program_sets_up_itself_is_recognised() -> Result<()> {
    let profile = Profile::new()?;
    let mut command = profile.command("heap_profile_set")?;
    let ((_, traced), reason) = profiled(&mut command, &profile, Some(&[]))?;
    assert_eq!(traced, 1000);
    assert!(reason.contains("its malloc_conf"), "{reason}");
    Ok(())
}

/// Programs that are traced from their first instruction.
#[test]
fn a_profiler_in_a_program_that_is_started_is_recognised() -> Result<()> {
    let profile = Profile::new()?;
    profile.command("heap_profile")?;
    let program = target_path("heap_profile")?.display().to_string();
    let tracer = Tracer::run_with(&[], &[program.as_str(), "profile"], |tracer| {
        tracer
            .env(PROFILING.0, PROFILING.1)
            .env("PROFILE", profile.path())
            .env("LD_LIBRARY_PATH", profile.folder.path());
    })?;
    let finished = tracer.wait()?;
    finished.report()?;
    let said = finished.stdout.lines();
    let said = said.filter_map(|line| line.strip_prefix("caller ")).next();
    let (_, with_caller) = profile.samples(said.context("the program says nothing")?)?;
    assert_eq!(with_caller, 1000);
    Ok(())
}

#[test]
fn doctor_says_how_results_are_taken_and_why() -> Result<()> {
    for (configuration, says) in [
        (
            PROFILING.1,
            "at return instructions: it may walk its own stacks, by jemalloc's heap profiler",
        ),
        ("prof:false", "results of calls: by return probes"),
    ] {
        let profile = Profile::new()?;
        let mut command = profile.command("heap_profile")?;
        let target = Target::start_with(command.env(PROFILING.0, configuration))?;
        let doctor = Command::new(binary()?)
            .args(["doctor", "-p", &target.pid.to_string()])
            .output()?;
        let text = String::from_utf8_lossy(&doctor.stdout);
        assert!(text.contains(says), "{text}");
        assert!(text.contains("return instructions\n"), "{text}");
    }
    Ok(())
}

/// What LeakSanitizer says of the program's leaks.
fn sanitized(options: Option<&[&str]>) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut command = private("sanitized", folder.path(), &[LIBC, LSAN])?;
    command.env("LSAN_OPTIONS", format!("log_path={}", log.display()));
    let mut target = Target::start_with(&mut command)?;
    let tracer = options
        .map(|options| Tracer::record(target.pid, options))
        .transpose()?;
    let truth = target.command("leak")?;
    target.finish()?;
    if let Some(tracer) = tracer {
        tracer.wait()?.report()?.sites_agree_with(&truth)?;
    }
    let log = PathBuf::from(format!("{}.{}", log.display(), target.pid));
    let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let summary = text.lines().find(|line| line.starts_with("SUMMARY: "));
    Ok(summary.with_context(|| text.clone())?.to_owned())
}

#[test]
fn leak_sanitizer_finds_what_it_finds_alone() -> Result<()> {
    let alone = sanitized(None)?;
    assert!(
        alone.contains("1337 byte(s) leaked in 1 allocation(s)"),
        "{alone}"
    );
    assert_eq!(sanitized(Some(&[]))?, alone);
    let replaced = sanitized(Some(REPLACE))?;
    assert!(
        replaced.contains("2003 byte(s)"),
        "so the test can fail: {replaced}"
    );
    Ok(())
}

/// A handler of a signal that comes within `posix_memalign` looks who called
/// that, and jumps out of it.
#[test]
fn a_backtrace_from_within_a_call_has_its_caller() -> Result<()> {
    for (options, met) in [(INSTRUCTIONS, "1"), (REPLACE, "0")] {
        let folder = tempfile::tempdir()?;
        let mut target = Target::start_with(&mut private("walks", folder.path(), &[LIBC])?)?;
        let tracer = Tracer::record(target.pid, options)?;
        let (said, truth) = target.command_saying("after_walk", "met ")?;
        assert_eq!(said, met, "{options:?}");
        // The call that was left is lost, and what comes after it is not.
        tracer.stop()?.report()?.agrees_with(&truth)?;
    }
    Ok(())
}

/// An agent that is loaded during the run.
#[test]
fn an_agent_that_comes_later_finds_return_addresses_too() -> Result<()> {
    agent_comes_later(&[])
}

/// The same where the kernel's session links tell of entries and returns until then.
#[test]
fn an_agent_that_comes_later_ends_session_links() -> Result<()> {
    agent_comes_later(&["--min-size", "2"])
}

fn agent_comes_later(options: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let agent = folder.path().join("libasyncProfiler.so");
    fs::copy(targets().join("libplugin.so"), &agent)?;
    let mut command = private("walks", folder.path(), &[LIBC])?;
    command.env("LIBRARY", &agent);
    let mut target = Target::start_with(&mut command)?;
    let mut tracer = Tracer::record(target.pid, options)?;
    let (said, before) = target.command_saying("walk", "met ")?;
    assert_eq!(said, "0", "return probes first");
    target.command("churn_begins")?;
    target.command("churn_goes_on")?;
    target.command("open_library")?;
    tracer.wait_saying("results are taken at return instructions")?;
    target.command("churn_goes_on")?;
    let churned = target.command("churn_ends")?;
    let (said, after) = target.command_saying("after_walk", "met ")?;
    assert_eq!(said, "1");
    let report = tracer.stop()?.report()?;
    // No call was lost or counted twice by the change, in either thread.
    report.sites_agree_with(&churned)?;
    report.sites_agree_with(&after)?;
    assert_eq!(
        report.lost(),
        before.losses + after.losses,
        "{:?}",
        report.occurred()
    );
    let reason = &report.settings.return_instructions;
    assert!(
        reason.contains("async-profiler (libasyncProfiler.so)"),
        "{reason}"
    );
    Ok(())
}

/// A program whose filter kills it for any system call that it does not know:
/// `uretprobe`, which return probes make from kernel 6.11 on, and `uprobe`.
#[test]
fn a_program_with_a_seccomp_filter_lives() -> Result<()> {
    for is_early in [true, false] {
        let mut target = Target::start("filtered")?;
        if is_early {
            target.command("set_up_filter")?;
        }
        let tracer = Tracer::record(target.pid, &[])?;
        if !is_early {
            target.command("set_up_filter")?;
        }
        let truth = target.command("allocate")?;
        tracer.stop()?.report()?.agrees_with(&truth)?;
        let status = target.finish()?;
        assert!(status.success(), "set up early: {is_early}, {status}");
    }
    Ok(())
}

/// The same with results at return instructions, as on kernels where a return
/// probe kills it.
#[test]
fn a_program_with_a_seccomp_filter_is_seen_without_return_probes() -> Result<()> {
    let mut target = Target::start("filtered")?;
    target.command("set_up_filter")?;
    let tracer = Tracer::record(target.pid, INSTRUCTIONS)?;
    let truth = target.command("allocate")?;
    tracer.stop()?.report()?.agrees_with(&truth)?;
    let status = target.finish()?;
    assert!(status.success(), "{status}");
    Ok(())
}

/// A function whose ends are not certain has no probes, and everybody is told.
#[test]
fn a_function_that_cannot_be_followed_is_named() -> Result<()> {
    let run = |options: &[&str]| -> Result<_> {
        let mut target = Target::start("computed")?;
        let tracer = Tracer::record(target.pid, options)?;
        let (malloc, calloc) = (target.command("allocate")?, target.command("clear")?);
        Ok((tracer.stop()?, malloc, calloc))
    };
    let (finished, malloc, calloc) = run(REPLACE)?;
    let report = finished.report()?;
    report.sites_agree_with(&malloc)?;
    report.sites_agree_with(&calloc)?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());

    let (finished, malloc, _) = run(INSTRUCTIONS)?;
    let report = finished.report()?;
    report.sites_agree_with(&malloc)?;
    assert_eq!(report.sums("clear", MemoryKind::Heap).allocated_count, 0);
    let losses: Vec<_> = report
        .occurred()
        .iter()
        .map(|loss| (loss.cause.clone(), loss.count))
        .collect();
    assert_eq!(losses, [("unseen_function".to_owned(), 1)]);
    let unseen = &report.processes[0].unseen;
    assert_eq!(unseen.len(), 1, "{unseen:?}");
    assert_eq!(unseen[0].function, "calloc");
    for said in [&finished.stderr, &finished.stdout] {
        assert!(said.contains("is not probed"), "{said}");
    }
    Ok(())
}
