//! `--module` and `--only`: only those allocations are followed that some code asks for,
//! and what is left out leaves nothing behind.

use anyhow::{Result, ensure};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{
    Finished, KernelMap, Sums, Target, Tracer, Truth, View, kernel_version, target_path, wait_until,
};

/// The first kernel with session links.
const SESSIONS: (u32, u32) = (6, 13);

/// Functions of the program that allocate.
const HERE: [&str; 5] = ["takes_here", "zeroed_here", "aligned_here", INSERT, MADE];
const INSERT: &str = "cache::insert(int)";
const MADE: &str = "short* cache::made<short>(unsigned long)";

/// The part of a truth that these functions are.
fn of(truth: &Truth, functions: &[&str]) -> Truth {
    let mut part = truth.clone();
    part.sites
        .retain(|entry| functions.contains(&entry.function.as_str()));
    part
}

/// How many allocations a truth has.
fn allocations(truth: &Truth) -> u64 {
    truth.sites.iter().map(|entry| entry.allocated_count).sum()
}

/// The report has what these functions did, and nothing else; all other calls are
/// counted.
fn has_only(report: &View, truth: &Truth, functions: &[&str]) -> Result<()> {
    let followed = of(truth, functions);
    report.agrees_with(&followed)?;
    let others = allocations(truth) - allocations(&followed);
    ensure!(
        report.totals.calls_from_elsewhere == others,
        "{} calls from elsewhere are told instead of {others}",
        report.totals.calls_from_elsewhere
    );
    let totals = &report.totals;
    ensure!(
        totals.untraced_frees == 0 && totals.inherited_frees == 0,
        "{totals:?}"
    );
    Ok(())
}

/// Runs `allocate`; looks into the kernel's maps before the end.
fn allocated(options: &[&str], functions: &[&str]) -> Result<View> {
    let mut target = Target::start("callers")?;
    let tracer = Tracer::record(target.pid, options)?;
    let truth = target.command("allocate")?;
    let followed = of(&truth, functions);
    let live: u64 = followed
        .sites
        .iter()
        .map(|entry| entry.allocated_count - entry.freed_count)
        .sum();
    let keys = KernelMap::of(tracer.pid(), "LIVE")?.keys()?.len();
    ensure!(keys as u64 == live, "{keys} blocks are kept, {live} live");
    let report = tracer.stop()?.report()?;
    has_only(&report, &truth, functions)?;
    Ok(report)
}

/// Returns that were told.
fn returns(report: &View) -> u64 {
    let hits = report.overhead.hits.iter();
    let returns = hits.filter(|hits| hits.kind == "return_probe");
    returns.map(|hits| hits.count).sum()
}

#[test]
fn a_module_is_followed_by_its_name_or_path() -> Result<()> {
    let path = target_path("libcallers_library.so")?;
    let path = path.to_string_lossy();
    for name in ["libcallers_library", "libcallers_library.so", &path] {
        let report = allocated(&["--module", name], &["library_takes"])?;
        assert_eq!(report.settings.modules, [name]);
        assert!(report.settings.unmet.is_empty());
        if kernel_version()? >= SESSIONS {
            assert_eq!(returns(&report), 14, "what is left out pays for no return");
        }
    }
    Ok(())
}

#[test]
fn the_program_itself_is_a_module_and_operator_new_is_its_callers() -> Result<()> {
    let report = allocated(&["--module", "callers"], &HERE)?;
    assert_eq!(report.totals.calls_from_elsewhere, 14);
    // Nobody asks for what libstdc++ does for others.
    allocated(&["--module", "libstdc++"], &[])?;
    Ok(())
}

#[test]
fn functions_are_followed_by_all_their_names() -> Result<()> {
    for name in [
        "cache::insert",
        "cache::insert(int)",
        "_ZN5cache6insertEi",
        "*::insert",
    ] {
        allocated(&["--only", name], &[INSERT])?;
    }
    allocated(&["--only", "cache::*"], &[INSERT, MADE])?;
    let both = ["--only", "takes_here", "--only", "cache::made<short>"];
    allocated(&both, &["takes_here", MADE])?;
    let united = ["--only", "zeroed_here", "--module", "libcallers_library"];
    allocated(&united, &["zeroed_here", "library_takes"])?;
    Ok(())
}

#[test]
fn results_can_be_taken_at_instructions() -> Result<()> {
    let options = ["--only", "cache::insert", "--returns", "instructions"];
    let report = allocated(&options, &[INSERT])?;
    assert_eq!(returns(&report), 0);
    Ok(())
}

/// A realloc is whose call it is; that it was called from elsewhere ends the old block.
#[test]
fn a_realloc_counts_where_it_is_called() -> Result<()> {
    const ALL: [&str; 4] = ["library_takes", "library_grows", "takes_here", "grows_here"];
    for (options, functions) in [
        (["--module", "libcallers_library"], &ALL[..2]),
        (["--module", "callers"], &ALL[2..]),
        (["--only", "library_takes"], &ALL[..1]),
        (["--only", "*_grows"], &ALL[1..2]),
    ] {
        let mut target = Target::start("callers")?;
        let tracer = Tracer::record(target.pid, &options)?;
        let truth = target.command("move")?;
        let report = tracer.stop()?.report()?;
        let followed = of(&truth, functions);
        report.agrees_with(&followed)?;
        // Three calls have failed besides.
        let others = allocations(&truth) - allocations(&followed);
        let failed = if functions.contains(&"grows_here") {
            0
        } else {
            3
        };
        assert_eq!(report.totals.calls_from_elsewhere, others + failed);
    }
    Ok(())
}

#[test]
fn mappings_are_whose_code_makes_them() -> Result<()> {
    for (options, function) in [
        (["--module", "libcallers_library"], "library_maps"),
        (["--module", "callers"], "maps_here"),
        (["--only", "maps_here"], "maps_here"),
    ] {
        let mut target = Target::start("callers")?;
        let tracer = Tracer::record(target.pid, &options)?;
        let truth = target.command("map")?;
        let report = tracer.stop()?.report()?;
        report.agrees_with(&of(&truth, &[function]))?;
    }
    Ok(())
}

#[test]
fn what_a_call_from_elsewhere_maps_is_the_allocators() -> Result<()> {
    let mut target = Target::start("callers")?;
    let tracer = Tracer::record(target.pid, &["--module", "libcallers_library"])?;
    let truth = target.command("map_within")?;
    let report = tracer.stop()?.report()?;
    has_only(&report, &truth, &[])?;
    assert!(report.sites.is_empty(), "{:?}", report.sites);
    let resident = &report.balance[0];
    assert!(
        resident.unexplained.unsigned_abs() < 64 << 10,
        "{resident:?}"
    );
    Ok(())
}

#[test]
fn two_processes_have_their_own_addresses() -> Result<()> {
    let (mut one, mut other) = (Target::start("callers")?, Target::start("callers")?);
    let pid = other.pid.to_string();
    let tracer = Tracer::record(one.pid, &["-p", &pid, "--only", "takes_here"])?;
    let mut truth = one.command("allocate")?;
    truth.add(other.command("allocate")?);
    let report = tracer.stop()?.report()?;
    for process in 0..2 {
        let found = report.heap_of_process(process, "takes_here");
        assert_eq!(found, Sums::blocks(101, 14, 7));
    }
    let others = allocations(&truth) - 28;
    assert_eq!(report.totals.calls_from_elsewhere, others);
    Ok(())
}

/// The list of an image's code, a number.
fn list(tracer: u32) -> Result<Vec<Vec<u8>>> {
    let map = KernelMap::of(tracer, "ORIGINS_OF")?;
    let keys = map.keys()?;
    keys.iter().map(|key| map.get(key)).collect()
}

#[test]
fn a_library_that_is_opened_later_is_followed_from_then_on() -> Result<()> {
    let mut target = Target::start("callers")?;
    let tracer = Tracer::record(target.pid, &["--module", "libcallers_later"])?;
    let before = list(tracer.pid())?;
    target.command("load")?;
    wait_until("the library's code", || {
        Ok((list(tracer.pid())? != before).then_some(()))
    })?;
    let truth = target.command("use_later")?;
    let finished = tracer.stop()?;
    let notice = "no file named libcallers_later is mapped yet";
    assert!(finished.stderr.contains(notice), "{}", finished.stderr);
    let report = finished.report()?;
    report.sites_agree_with(&truth)?;
    report.has_nothing_but(&truth)?;
    let losses: Vec<_> = report
        .occurred()
        .iter()
        .map(|it| it.cause.clone())
        .collect();
    assert_eq!(losses, ["late_code"]);
    Ok(())
}

/// Runs the target with commands to its end.
fn run(options: &[&str], commands: &[&str]) -> Result<Finished> {
    let path = target_path("callers")?;
    let path = path.to_string_lossy();
    let command: Vec<&str> = [path.as_ref()]
        .into_iter()
        .chain(commands.iter().copied())
        .collect();
    Tracer::run(options, &command)?.wait()
}

#[test]
fn a_program_that_is_run_waits_until_its_code_is_known() -> Result<()> {
    let report = run(&["--module", "libcallers_later"], &["load_and_use"])?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    assert_eq!(report.heap("later_takes"), Sums::live(307, 5));
    assert_eq!(report.heap("later_news"), Sums::live(311, 5));
    assert_eq!(report.heap(""), Sums::live(307, 5) + Sums::live(311, 5));
    let report = run(&["--only", "cache::insert"], &["allocate"])?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    let heap = report.heap("");
    assert_eq!((heap.allocated_count, heap.freed_count), (15, 3));
    Ok(())
}

#[test]
fn children_and_what_they_execute_are_followed() -> Result<()> {
    for command in ["in_child", "in_other_program"] {
        let report = run(&["--follow", "--only", "takes_here"], &[command])?.report()?;
        assert_eq!(report.lost(), 0, "{command} {:?}", report.occurred());
        assert_eq!(report.heap(""), Sums::blocks(101, 28, 14), "{command}");
        assert_eq!(report.totals.inherited_frees, 0);
    }
    let mut target = Target::start("callers")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--only", "takes_here"])?;
    target.command("in_child")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    assert_eq!(report.heap(""), Sums::blocks(101, 28, 14));
    Ok(())
}

/// What a program calls before its code is known is in no number, and is counted.
#[test]
fn calls_of_unknown_code_are_a_loss() -> Result<()> {
    let mut target = Target::start("callers")?;
    let options = ["--follow", "--per-process", "--only", "takes_here"];
    let tracer = Tracer::record(target.pid, &options)?;
    let truth = target.command("in_other_program")?;
    let report = tracer.stop()?.report()?;
    let of_cause = |cause: &str| {
        let losses = report.losses.iter();
        let found = losses.filter(|loss| loss.cause == cause);
        found.map(|loss| loss.count).sum::<u64>()
    };
    let (unknown, late) = (of_cause("origin_unknown"), of_cause("late_code"));
    // Both programs have made the same calls, and the second some before `main`.
    let calls = report.totals.calls_from_elsewhere + report.heap("").allocated_count;
    let all = 2 * allocations(&truth);
    let occurred = report.occurred();
    assert!(
        unknown + calls >= all,
        "{unknown} {calls} {all} {occurred:?}"
    );
    let followed = report.heap("takes_here");
    assert_eq!(report.heap(""), followed);
    assert!(followed.allocated_count == 28 || unknown + late > 0);
    Ok(())
}

#[test]
fn what_is_not_there_is_an_error_with_advice() -> Result<()> {
    let target = Target::start("callers")?;
    let pid = target.pid.to_string();
    let record = |options: &[&str]| {
        let arguments = [&["record", "-p", &pid, "--duration", "1s"], options].concat();
        Tracer::start(&arguments)?.wait()
    };
    let none = ["no function named takes_her is", "perhaps takes_here"];
    record(&["--only", "takes_her"])?.fails_saying(&none)?;
    record(&["--only", "cache::inserts"])?.fails_saying(&["perhaps cache::insert"])?;
    record(&["--only", "*"])?.fails_saying(&["too many separate pieces of code"])?;
    record(&["--only", "x", "--growth"])?.fails_saying(&["cannot be used with"])?;
    let finished = record(&["--module", "libcallers_librari"])?;
    let notice = "no file named libcallers_librari is mapped yet (perhaps libcallers_library.so)";
    assert!(finished.stderr.contains(notice), "{}", finished.stderr);
    let report = finished.report()?;
    assert_eq!(report.settings.unmet, ["--module libcallers_librari"]);
    assert!(
        finished.stdout.contains("nothing was traced of that"),
        "{}",
        finished.stdout
    );
    Ok(())
}

/// With a sample, what stands for all are calls of the code that was asked for.
#[test]
fn a_sample_is_of_what_was_asked_for() -> Result<()> {
    let mut target = Target::start("callers")?;
    let options = ["--sample", "1k", "--module", "libcallers_library"];
    let tracer = Tracer::record(target.pid, &options)?;
    target.command("move")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    assert!(report.sites_with("grows_here").next().is_none());
    assert!(report.sites_with("takes_here").next().is_none());
    // A block of 100,003 bytes escapes once in e^97.
    let found = report.sums_of_size(100_003, MemoryKind::Heap);
    assert_eq!(found.live_count, 3);
    Ok(())
}

/// An allocator in the program itself: what its functions call of one another is no call
/// of the program's.
#[test]
fn calls_within_an_allocator_are_nobodys() -> Result<()> {
    let mut target = Target::start("static_jemalloc")?;
    let tracer = Tracer::record(target.pid, &["--module", "static_jemalloc"])?;
    let mut truth = target.command("new_plain")?;
    for command in [
        "new_array_nothrow",
        "jemalloc_x",
        "jemalloc_rallocx",
        "jemalloc_sized",
    ] {
        truth.add(target.command(command)?);
    }
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    Ok(())
}
