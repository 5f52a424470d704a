//! Who holds live blocks: programs that hold theirs in every way, and drop some, say how; the
//! tracer looks for that from outside.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use unfreed_tests::allocators::JEMALLOC;
use unfreed_tests::held_labels::{
    C, COUNT, CPP, Label, RUST, Tally, held_by, holders_of, sites_of,
};
use unfreed_tests::model::{Link, LinkKind, Lost, MemoryKind};
use unfreed_tests::{Target, Tracer, View, target_path, unfreed};

/// What was said is right, and of so many roots at least.
fn is_right(report: &View, labels: &[Label], least: f64) -> Result<()> {
    for (function, _) in labels {
        println!("{function}: {:?}", holders_of(&report.sites, function)?);
    }
    let tally = Tally::of(&report.sites, labels)?;
    let (recall, precision, roots) = (tally.recall(), tally.precision(), tally.roots());
    println!("lost: recall {recall:.3}, precision {precision:.3}; roots: {roots:.3}");
    ensure!(
        recall >= 0.99 && precision >= 0.99 && roots >= least,
        "{tally:?}"
    );
    Ok(())
}

/// The report on a target that did so, and what was printed.
fn searched(target: &str, command: &str) -> Result<(View, String)> {
    searched_in(Target::start(target)?, command)
}

fn searched_in(mut target: Target, command: &str) -> Result<(View, String)> {
    let tracer = Tracer::record(target.pid, &["--holders"])?;
    target.command(command)?;
    let finished = tracer.stop()?;
    // It lives, and does as it is told.
    ensure!(target.finish()?.success());
    Ok((finished.report()?, finished.stdout))
}

#[test]
fn holders_of_cpp() -> Result<()> {
    let (report, _) = searched("holders_cpp", "work")?;
    is_right(&report, CPP, 0.95)?;
    // Chains have what is in between: of a list all its nodes, and classes by their tables.
    let list = holders_of(&report.sites, "in_list")?;
    let links: Vec<_> = list.chains.iter().flat_map(|chain| &chain.links).collect();
    ensure!(
        links
            .iter()
            .any(|link| link.repeated == COUNT - 1 && link.kind == LinkKind::Block),
        "{list:?}"
    );
    let site = sites_of(&report.sites, "in_list")?[0].id;
    ensure!(links.iter().any(|link| link.site == Some(site)), "{list:?}");
    let listeners = holders_of(&report.sites, "by_base_class")?;
    let text = format!("{listeners:?}");
    // The member of an object, by its class's table and debug information.
    ensure!(text.contains("Registry::listeners, allocated at"), "{text}");
    Ok(())
}

/// Members have their names also where classes have units of their own in the debug information
/// (`-fdebug-types-section`), in DWARF 4 and 5, and where that is compressed by zstd.
#[test]
fn members_have_names_in_units_of_their_own_and_compressed() -> Result<()> {
    for target in ["holders_types", "holders_packed"] {
        let (report, _) = searched(target, "work")?;
        let listeners = holders_of(&report.sites, "by_base_class")?;
        let text = format!("{listeners:?}");
        ensure!(
            text.contains("Registry::listeners, allocated at"),
            "{target}: {text}"
        );
    }
    Ok(())
}

#[test]
fn holders_of_c() -> Result<()> {
    let (report, _) = searched("holders_c", "work")?;
    is_right(&report, C, 0.95)
}

/// Blocks from before the run are known by jemalloc's own structures, and what threads keep of
/// freed ones holds nothing. Buffers of vectors are neighbours there: `g_vector`'s is full, so that its
/// end, which the vector keeps as a pointer, is the start of `t_sessions`'.
#[test]
fn holders_under_jemalloc() -> Result<()> {
    for (target, labels) in [("holders_c", C), ("holders_cpp", CPP)] {
        let mut command = Command::new(target_path(target)?);
        command.env("LD_PRELOAD", JEMALLOC);
        let (report, _) = searched_in(Target::start_with(&mut command)?, "work")?;
        is_right(&report, labels, 0.99)?;
    }
    Ok(())
}

/// The end of a full vector's buffer does not hold the block that begins there, if something else
/// does; else the chain says what it is by. Under glibc there is a header in between.
#[test]
fn ends_of_vectors_hold_only_what_nothing_else_does() -> Result<()> {
    for library in [None, Some(JEMALLOC)] {
        let mut command = Command::new(target_path("holders_c")?);
        command.envs(library.map(|library| ("LD_PRELOAD", library)));
        let (report, _) = searched_in(Target::start_with(&mut command)?, "fill_vectors")?;
        let buffers = holders_of(&report.sites, "buffer")?;
        ensure!(
            held_by(&buffers, LinkKind::Global, "g_full") == COUNT,
            "{buffers:?}"
        );
        let holders = holders_of(&report.sites, "neighbour")?;
        let held = held_by(&holders, LinkKind::Global, "g_held");
        let by_end = held_by(&holders, LinkKind::Global, "g_full");
        ensure!(
            held == COUNT / 2 && held + by_end + holders.lost == COUNT,
            "{holders:?}"
        );
        // Few are the first of a slab.
        ensure!(
            (by_end > COUNT / 4) == library.is_some(),
            "{library:?}: {holders:?}"
        );
        let ends = holders.chains.iter().filter(|chain| {
            let mut links = chain.links.iter();
            links.any(|link| link.kind == LinkKind::End)
        });
        ensure!(
            ends.map(|chain| chain.blocks).sum::<u64>() == by_end,
            "{holders:?}"
        );
    }
    Ok(())
}

/// What is made before the run holds what is made in it: its blocks have bounds under each
/// allocator whose blocks are known.
#[test]
fn blocks_from_before_the_run_hold() -> Result<()> {
    for library in [None, Some(JEMALLOC)] {
        let mut command = Command::new(target_path("holders_c")?);
        command.envs(library.map(|library| ("LD_PRELOAD", library)));
        let mut target = Target::start_with(&mut command)?;
        target.command("prepare")?;
        let (report, _) = searched_in(target, "fill")?;
        let held = holders_of(&report.sites, "in_shelves")?;
        ensure!(
            held_by(&held, LinkKind::Global, "g_shelves") == COUNT,
            "{held:?}"
        );
        let links: Vec<_> = held.chains.iter().flat_map(|chain| &chain.links).collect();
        let is_shelf = |link: &Link| link.kind == LinkKind::UntracedBlock;
        ensure!(links.into_iter().any(is_shelf), "{held:?}");
        let lost = holders_of(&report.sites, "in_emptied")?;
        ensure!(lost.lost == COUNT, "{library:?}: {lost:?}");
    }
    Ok(())
}

/// 14 of 192 blocks are said to be held by another than the program says. The channel's state has
/// 128-byte alignment, and is made on the stack: what `in_own` has left there, the address of a
/// node of its tree, is copied with the padding. That pointer is a real one, and the way by it is no
/// longer than the tree's own. With the stack written over before, it is 192 of 192.
#[test]
fn holders_of_rust() -> Result<()> {
    let (report, _) = searched("holders_rust", "leak_vectors")?;
    is_right(&report, RUST, 0.92)
}

/// What is lost is what a leak detector within the program finds.
#[test]
fn lost_is_what_a_leak_sanitizer_finds() -> Result<()> {
    let (report, _) = searched("holders_cpp", "work")?;
    let output = Command::new(target_path("holders_lsan")?)
        .args(["work", "check"])
        .env("LSAN_OPTIONS", "exitcode=0:max_leaks=0")
        .stdin(Stdio::null())
        .output()?;
    let found = leaks_by_function(&String::from_utf8_lossy(&output.stderr));
    for (function, _) in CPP {
        let lost = holders_of(&report.sites, function)?.lost;
        let site = sites_of(&report.sites, function)?[0];
        let block = (*function, site.live_bytes / site.live_count);
        let theirs = found.get(&block).copied().unwrap_or_default();
        ensure!(
            lost == theirs,
            "{function}: {lost}, and {theirs} by them\n{found:?}"
        );
    }
    Ok(())
}

/// What a program that ran under the tracer has lost at its end.
fn lost_by(report: &View) -> Lost {
    let mut sum = Lost::default();
    let holders = report.sites.iter().filter_map(|site| site.holders.as_ref());
    for lost in holders.filter_map(|holders| holders.all_lost) {
        sum.add(lost);
    }
    sum
}

/// At the end of a program that is what a leak detector within it finds then, and the status
/// says so.
#[test]
fn lost_at_the_end_is_what_a_leak_sanitizer_finds_at_the_end() -> Result<()> {
    let output = Command::new(target_path("holders_lsan")?)
        .arg("work")
        .env("LSAN_OPTIONS", "exitcode=0")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    // SUMMARY: LeakSanitizer: 12345 byte(s) leaked in 67 allocation(s).
    let (_, summary) = text.split_once("SUMMARY: ").context("no summary")?;
    let words = summary.split(' ');
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let [bytes, blocks] = numbers[..] else {
        bail!("other numbers: {summary}");
    };

    // Copies of pointers that the program has left behind, where nobody wipes them, hold their
    // blocks in some runs, with a leak detector in it, too.
    let program = target_path("holders_cpp")?;
    let command = [program.as_os_str(), OsStr::new("work")];
    for _ in 0..10 {
        let finished = Tracer::run(&["--check-lost"], &command)?.wait()?;
        ensure!(finished.status.code() == Some(3), "{}", finished.stderr);
        let lost = lost_by(&finished.report_of_any_end()?);
        let said = format!("lost: no pointer leads to {} blocks", lost.blocks);
        ensure!(finished.stderr.contains(&said), "{}", finished.stderr);
        if (lost.bytes, lost.blocks) == (bytes, blocks) {
            return Ok(());
        }
    }
    bail!("in no run all that they found: {summary}\n{text}")
}

/// A program that loses nothing has its own status, and one that a signal ends is not looked at.
#[test]
fn a_program_that_loses_nothing_keeps_its_status() -> Result<()> {
    let finished = Tracer::run(&["--check-lost"], &["/bin/sh", "-c", "exit 7"])?.wait()?;
    ensure!(finished.status.code() == Some(7), "{}", finished.stderr);
    let killed = Tracer::run(&["--check-lost"], &["/bin/sh", "-c", "kill -9 $$"])?.wait()?;
    ensure!(killed.status.code() == Some(3), "{}", killed.stderr);
    ensure!(
        killed.stderr.contains("what is lost is not known"),
        "{}",
        killed.stderr
    );
    Ok(())
}

/// `Direct leak of 64 byte(s) in 2 object(s) allocated from:`, and then frames: how many
/// objects, by function and size.
fn leaks_by_function(text: &str) -> BTreeMap<(&'static str, u64), u64> {
    let mut found = BTreeMap::new();
    let mut leak = None;
    // A detector looks once more at the end.
    let first = text.split("SUMMARY").next().unwrap_or_default();
    for line in first.lines() {
        if line.contains(" byte(s) in ") {
            let numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
            let numbers: Vec<u64> = numbers.collect();
            leak = match numbers[..] {
                [bytes, objects] if objects > 0 => Some((bytes / objects, objects)),
                _ => None,
            };
        }
        let is_in = |function: &str| {
            line.contains(&format!(" in {function} ")) || line.contains(&format!("::{function}("))
        };
        let label = CPP.iter().find(|(function, _)| is_in(function));
        if let Some((function, _)) = label
            && let Some((size, objects)) = leak.take()
        {
            *found.entry((*function, size)).or_default() += objects;
        }
    }
    found
}

/// While a heap that leads to itself is changed, and mappings come and go, the search ends
/// within its budget, says so, and calls nothing lost that is held.
#[test]
fn a_process_that_changes_is_searched_within_bounds() -> Result<()> {
    let begin = std::time::Instant::now();
    let mut target = Target::start("holders_c")?;
    let tracer = Tracer::record(target.pid, &["--holders", "--holders-budget", "1ms"])?;
    target.command("churn")?;
    let report = tracer.stop()?.report()?;
    let elapsed = begin.elapsed().as_secs_f64();
    // The search is no part of the run: nothing that took place meanwhile is counted.
    let searched = report.searched.context("it was not searched")?;
    println!("{} s, {searched:?} of {elapsed} s", report.duration);
    ensure!(searched.seconds > 0.2 && searched.bytes > 0, "{searched:?}");
    ensure!(
        report.duration + searched.seconds <= elapsed,
        "{searched:?}"
    );
    let last = report
        .sites
        .iter()
        .map(|site| site.last_seen)
        .fold(0.0, f64::max);
    ensure!(
        last <= report.duration + 0.01,
        "{last} of {}",
        report.duration
    );
    ensure!(target.finish()?.success());
    let tally = Tally::of(&report.sites, C)?;
    assert_eq!(tally.lost_wrongly, 0);
    Ok(())
}

/// A list whose first element is pushed and popped while memory is read is held, and what is
/// lost beside it is lost.
#[test]
fn what_comes_and_goes_meanwhile_holds() -> Result<()> {
    let mut target = Target::start("stacked")?;
    let tracer = Tracer::record(target.pid, &["--holders"])?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let report = tracer.stop()?.report()?;
    ensure!(target.finish()?.success());
    let pushed = holders_of(&report.sites, "push")?;
    let lost = pushed.all_lost.context("it is not known what is lost")?;
    // Its last elements were taken off since, or freed between two looks.
    ensure!(pushed.lost == 0 && lost.blocks <= 2, "{pushed:?}");
    let held = held_by(&pushed, LinkKind::Global, "top (stacked)");
    let by_stack = held_by(&pushed, LinkKind::Stack, "stacked");
    ensure!(
        pushed.sampled == 64 && held + by_stack >= 60,
        "{held} by its root, {by_stack} by a stack: {pushed:?}"
    );
    let lost = holders_of(&report.sites, "lose")?;
    ensure!(lost.sampled == 64 && lost.lost >= 62, "{lost:?}");
    Ok(())
}

/// CPython's small objects are in arenas that it maps: these are roots that nobody has a name for, also
/// where the kernel made one mapping of them and a library's variables. What module-level lists
/// and dicts keep is held by way of these; what only a Python number has the address of is held by
/// no pointer.
#[test]
fn holders_of_python() -> Result<()> {
    let script = "targets/python/holders.py";
    let mut python = Command::new("/usr/bin/python3");
    // So that all small objects are in arenas.
    python.args(["-S", "-E", script]).env_remove("PYTHONMALLOC");
    let mut target = Target::start_with(&mut python)?;
    let tracer = Tracer::record(target.pid, &["--holders"])?;
    target.ask("work", "done")?;
    let report = tracer.stop()?.report()?;
    ensure!(target.finish()?.success());
    let of_size = |size: u64| {
        let mut heap = report.sites.iter().filter(|it| it.kind == MemoryKind::Heap);
        let site = heap.find(|it| it.live_count >= COUNT && it.live_bytes == size * it.live_count);
        let site = site.with_context(|| format!("no blocks of {size} bytes"))?;
        site.holders.clone().context("no holders")
    };
    // By `bytearray` and `bytes`: each a function of CPython's, so a site of its own.
    for size in [5003, 7013] {
        let holders = of_size(size)?;
        let by_arenas = held_by(&holders, LinkKind::Mapping, "memory without a file");
        println!(
            "{size}: {by_arenas} of {} by arenas: {:?}",
            holders.sampled, holders.chains
        );
        ensure!(holders.sampled == COUNT && holders.lost == 0, "{holders:?}");
        // The interpreter's own variables lead to some, which were used last.
        ensure!(by_arenas + 4 >= COUNT, "{holders:?}");
    }
    // By `malloc` of ctypes: blocks of three kinds are one site. Those with an object are held.
    let mut sites = report.sites.iter();
    let by_ctypes = sites
        .find(|it| it.live_count == 3 * COUNT)
        .context("no blocks of ctypes")?;
    let holders = by_ctypes.holders.as_ref().context("no holders")?;
    let lost = holders.all_lost.context("it was cut off")?;
    println!("ctypes: {lost:?}, {:?}", holders.chains);
    // Of those that are a number to Python some may have left a pointer in an arena's free memory.
    let numbers = (lost.bytes.saturating_sub(11003 * lost.blocks)) / (13007 - 11003);
    let dropped = lost.blocks.saturating_sub(numbers);
    ensure!(
        lost.bytes == 11003 * dropped + 13007 * numbers,
        "others are lost, too: {holders:?}"
    );
    ensure!(
        dropped <= COUNT && dropped + 1 >= COUNT && numbers <= COUNT,
        "{holders:?}"
    );
    Ok(())
}

/// Within a budget frees are missed, so that blocks to which nothing leads may have been freed: none
/// is said to be lost.
#[test]
fn nothing_is_lost_where_frees_are_missed() -> Result<()> {
    let mut target = Target::start("paced")?;
    target.tell("leaks 0")?;
    target.tell("load 0")?;
    let tracer = Tracer::record(target.pid, &["--holders", "--overhead", "2%"])?;
    std::thread::sleep(std::time::Duration::from_secs(6));
    target.ask("drop", "dropped")?;
    let report = tracer.stop()?.report()?;
    let budget = report.budget.as_ref().context("no budget")?;
    ensure!(
        budget.regimes.len() > 1,
        "it was followed all the time: {budget:?}"
    );
    ensure!(target.finish()?.success());
    let holders: Vec<_> = report
        .sites
        .iter()
        .filter_map(|it| it.holders.as_ref())
        .collect();
    let undecided: u64 = holders.iter().map(|it| it.undecided).sum();
    ensure!(undecided > 0, "{holders:?}");
    for holders in holders {
        ensure!(
            holders.lost == 0 && holders.all_lost.is_none(),
            "{holders:?}"
        );
    }
    Ok(())
}

/// A run is asked from elsewhere who holds what, says so by all its blocks until then, and goes on. Its
/// socket is its user's alone, and goes with it.
#[test]
fn a_run_that_goes_on_says_who_holds_what() -> Result<()> {
    let mut target = Target::start("holders_c")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("work")?;
    let pid = target.pid.to_string();
    let ask = |more: &[&str]| {
        let asked = unfreed(&[&["holders", "-p", &pid], more].concat())?;
        ensure!(asked.status.success(), "{}", asked.stderr);
        Ok(asked.stdout)
    };
    let table = ask(&[])?;
    ensure!(table.contains("held by "), "{table}");
    is_right(
        &View::new(serde_json::from_str(&ask(&["--json"])?)?),
        C,
        0.95,
    )?;
    // Before what the target does may stand what its neighbours in the control group do.
    let mut numbers = ["1", "2", "3"].into_iter();
    let is_explained = |number: &&str| {
        let explained = ask(&["--site", number]);
        explained.is_ok_and(|it| it.contains("Who holds its blocks"))
    };
    let number = numbers.find(is_explained).context("no site is explained")?;
    let row: Value = serde_json::from_str(&ask(&["--site", number, "--json"])?)?;
    ensure!(row["holders"]["sampled"].as_u64() > Some(0), "{row}");
    let other = unfreed(&["holders", "-p", &std::process::id().to_string()])?;
    other.fails_saying(&["no run follows the allocations"])?;
    let socket = format!("/run/unfreed/{}.sock", tracer.pid());
    let mode = fs::metadata(&socket)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let report = tracer.stop()?.report()?;
    ensure!(!Path::new(&socket).exists(), "{socket} is left");
    // The search was no part of it: it follows frees until its end.
    for (function, _) in C {
        ensure!(!sites_of(&report.sites, function)?.is_empty(), "{function}");
    }
    ensure!(target.finish()?.success());
    Ok(())
}

/// A finding says who holds what it is about, on the first screen too.
#[test]
fn findings_say_who_holds_what_grows() -> Result<()> {
    let (report, table) = searched("behaviours", "work")?;
    let finding = report.findings.first().context("no finding")?;
    let holders = finding.holders.as_ref().context("no holders")?;
    ensure!(holders.sampled >= COUNT, "{holders:?}");
    ensure!(
        table.contains("eld by") || table.contains("ost: no pointer"),
        "{table}"
    );
    Ok(())
}
