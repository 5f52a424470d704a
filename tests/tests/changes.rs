//! Whole stacks while code comes and goes: late libraries, other libraries in
//! their place, other images, children, foreign probes. gdb is the judge again.

use std::path::Path;
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result, ensure};
use unfreed_tests::gdb::Backtrace;
use unfreed_tests::model::Process;
use unfreed_tests::{
    Agreement, Gdb, ReturnProbe, Runs, Stack, Target, Tracer, target_path, wait_known,
};

/// A tracer that follows children probes every process, and gdb would find the
/// kernel's trampolines instead of return addresses: such a tracer has the
/// machine to itself.
static PROBES: RwLock<()> = RwLock::new(());

/// What the tracer and gdb say about the same commands.
struct Both {
    found: Vec<Stack>,
    real: Vec<Backtrace>,
}

impl Both {
    /// Runs commands under the tracer, then under gdb, in one process. Under
    /// the tracer new code is known before the next group of commands.
    fn of(groups: &[&[&str]]) -> Result<Self> {
        let _no_follower = PROBES.read().unwrap_or_else(PoisonError::into_inner);
        let mut target = Target::start("changing")?;
        // The loader has its tables as large as it needs after a second round.
        run(&mut target, groups)?;
        run(&mut target, groups)?;
        let tracer = Tracer::record(target.pid, &[])?;
        for group in groups {
            run(&mut target, &[group])?;
            wait_known(tracer.pid(), target.pid)?;
        }
        let found = tracer.stop()?.report()?.stacks();
        let gdb = Gdb::attach(target.pid)?;
        run(&mut target, groups)?;
        gdb.is_enough()?;
        target.finish()?;
        let real = gdb.finish()?.stacks;
        Ok(Self { found, real })
    }

    /// What is cut short has met code too new to be known, and nothing is
    /// wrong.
    fn is_whole_or_too_early(&self, least: usize) -> Result<()> {
        let all = Agreement::of(&self.found, &self.real, Runs::Same);
        println!("{all}");
        all.is_honest(least)?;
        let mut reasons = all.truncated.keys();
        ensure!(reasons.all(|reason| reason == "no_row_yet"), "{all}");
        Ok(())
    }

    /// Blocks of one size alone.
    fn of_size(&self, size: u64) -> Agreement {
        let is_found = |stack: &&Stack| stack.bytes == stack.count * size;
        let found: Vec<Stack> = self.found.iter().filter(is_found).cloned().collect();
        let is_real = |trace: &&Backtrace| trace.size == size;
        let real: Vec<Backtrace> = self.real.iter().filter(is_real).cloned().collect();
        Agreement::of(&found, &real, Runs::Same)
    }
}

fn run(target: &mut Target, groups: &[&[&str]]) -> Result<()> {
    for command in groups.iter().copied().flatten() {
        target.command(command)?;
    }
    Ok(())
}

#[test]
fn a_late_library_is_known_once_it_is_looked_at() -> Result<()> {
    let both = Both::of(&[&["load_thin"], &["use_thin"], &["unload"]])?;
    both.is_whole_or_too_early(12)?;
    both.of_size(1489).is_whole(6)
}

/// The table of the first would give frames that are none. The target makes
/// sure that the second has its place.
#[test]
fn a_table_ends_with_its_library() -> Result<()> {
    let both = Both::of(&[
        &["load_thin"],
        &["use_thin", "replace"],
        &["use_wide"],
        &["unload"],
    ])?;
    both.is_whole_or_too_early(24)?;
    both.of_size(1489).is_whole(6)?;
    both.of_size(1499).is_whole(6)
}

/// The stack passes the generated code by frame pointers, or ends with a
/// reason. gdb can only guess in it: what surrounds it is the same as around
/// the compiled function that is called beside it.
#[test]
fn a_table_ends_before_generated_code() -> Result<()> {
    let both = Both::of(&[&["load_thin"], &["generate"]])?;
    let plain = both.real.iter().find(|trace| trace.size == 1543);
    let plain = &plain.context("not run")?.frames;
    let mut generated = both
        .found
        .iter()
        .filter(|stack| stack.bytes == stack.count * 1549);
    let stack = generated.next().context("no stack of 1549 bytes")?;
    ensure!(generated.next().is_none(), "two of them");
    let length = stack.frames.len();
    let all = [length, plain.len()];
    println!("{stack}");
    for (index, (frame, real)) in stack.frames.iter().zip(plain).enumerate().skip(1) {
        let is_generated = index == 2;
        ensure!(is_generated || frame == real, "frame {index}: {stack}");
    }
    // A row of the library's table would end it by chance, or not at all.
    let honest = [
        "start_by_frame_pointers",
        "no_row_yet",
        "no_mapping",
        "no_frame_pointer",
    ];
    ensure!(honest.contains(&stack.end.as_str()), "{stack}");
    ensure!(length <= plain.len(), "{all:?}: {stack}");
    ensure!(
        (length == plain.len()) == (stack.end == "start_by_frame_pointers"),
        "{all:?}: {stack}"
    );
    Ok(())
}

#[test]
fn a_new_image_has_tables_of_its_own() -> Result<()> {
    let _no_follower = PROBES.read().unwrap_or_else(PoisonError::into_inner);
    let mut target = Target::start("changing")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("exec_self")?;
    target.wait_ready()?;
    wait_known(tracer.pid(), target.pid)?;
    target.command("after_exec")?;
    let report = tracer.stop()?.report()?;
    let gdb = Gdb::attach(target.pid)?;
    target.command("after_exec")?;
    gdb.is_enough()?;
    target.finish()?;
    let mut real = gdb.finish()?.stacks;
    real.retain(|trace| trace.size == 1531);
    ensure!(report.processes.len() == 2, "{:?}", report.processes);
    let mut found = report.stacks_of(1);
    found.retain(|stack| stack.bytes == stack.count * 1531);
    Agreement::of(&found, &real, Runs::Same).is_whole(21)
}

#[test]
fn a_followed_child_has_whole_stacks_at_once() -> Result<()> {
    let _alone = PROBES.write().unwrap_or_else(PoisonError::into_inner);
    let mut target = Target::start("changing")?;
    target.command("allocate_in_child")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.command("allocate_in_child")?;
    let report = tracer.stop()?.report()?;
    let gdb = Gdb::attach_to_child_of(target.pid)?;
    target.command("allocate_in_child")?;
    let mut real = gdb.finish()?.stacks;
    real.retain(|trace| trace.size == 1511);
    let child = report
        .processes
        .iter()
        .position(|process| process.pid != target.pid)
        .context("no child")?;
    Agreement::of(&report.stacks_of(child), &real, Runs::Same).is_whole(21)
}

/// The parent's table is wrong for the child, and the other way round.
#[test]
fn a_followed_child_has_tables_of_its_own() -> Result<()> {
    let _alone = PROBES.write().unwrap_or_else(PoisonError::into_inner);
    let mut target = Target::start("changing")?;
    target.command("replace_in_child")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.command("replace_in_child")?;
    let report = tracer.stop()?.report()?;
    let is_child = |process: &Process| process.pid != target.pid;
    let child = report.processes.iter().position(is_child);
    let found = report.stacks_of(child.context("no child")?);
    let gdb = Gdb::attach_to_child_of(target.pid)?;
    target.command("replace_in_child")?;
    // gdb sees what the parent did before, too.
    let mut real = gdb.finish()?.stacks;
    real.retain(|trace| [1493, 1499].contains(&trace.size));
    let both = Both { found, real };
    for (size, is_known) in [(1493, false), (1499, true)] {
        let agreement = both.of_size(size);
        println!("{agreement}");
        agreement.is_honest(6)?;
        ensure!(agreement.whole == 6 || !is_known, "{agreement}");
    }
    Ok(())
}

// --- return probes of somebody else ---

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const PROGRAM: &str = "paths";
const LIBRARY: &str = "libpaths_library.so";

/// What runs while others have probes on functions that call each other, in a
/// program, its library and libc, so that several return addresses of a stack are
/// the kernel's.
struct Hijacked {
    commands: [&'static [&'static str]; 1],
    /// Files and functions with probes.
    probed: &'static [(&'static str, &'static str)],
    /// How many call paths there are at least.
    least: usize,
}

const MANY: Hijacked = Hijacked {
    commands: [&["tree", "sort", "shared_library", "recursion_5"]],
    probed: &[
        (PROGRAM, "_ZL4lefti"),
        (PROGRAM, "_ZL7comparePKvS0_"),
        (PROGRAM, "_ZL8callbacki"),
        (LIBRARY, "library_calls_back"),
        (LIBRARY, "library_allocates"),
        (LIBC, "qsort"),
    ],
    least: 500,
};

/// Some through the library, up to five times in one stack.
const FEW: Hijacked = Hijacked {
    commands: [&["shared_library"]],
    probed: &[
        (PROGRAM, "_ZL8callbacki"),
        (LIBRARY, "library_calls_back"),
        (LIBRARY, "library_allocates"),
    ],
    least: 6,
};

impl Hijacked {
    fn place(&self, pid: u32) -> Result<Vec<ReturnProbe>> {
        let place = |(file, function): &(&str, &str)| match *file {
            LIBC => ReturnProbe::place(pid, Path::new(LIBC), function),
            own => ReturnProbe::place(pid, &target_path(own)?, function),
        };
        self.probed.iter().map(place).collect()
    }
}

/// Records what happens while the probes are there, and lets gdb see the same
/// without them.
fn compare_hijacked(load: &Hijacked, are_first: bool) -> Result<()> {
    let _no_follower = PROBES.read().unwrap_or_else(PoisonError::into_inner);
    let mut target = Target::start(PROGRAM)?;
    run(&mut target, &load.commands)?;
    let mut probes = Vec::new();
    if are_first {
        probes = load.place(target.pid)?;
    }
    let tracer = Tracer::record(target.pid, &[])?;
    if !are_first {
        probes = load.place(target.pid)?;
    }
    run(&mut target, &load.commands)?;
    for probe in &probes {
        ensure!(probe.count()? > 0, "a probe that never hits proves nothing");
    }
    let report = tracer.stop()?.report()?;
    drop(probes);
    let gdb = Gdb::attach(target.pid)?;
    run(&mut target, &load.commands)?;
    gdb.is_enough()?;
    target.finish()?;
    let agreement = Agreement::of(&report.stacks(), &gdb.finish()?.stacks, Runs::Same);
    println!("{agreement}");
    agreement.is_whole(load.least)
}

#[test]
fn return_addresses_that_were_hijacked_before() -> Result<()> {
    compare_hijacked(&MANY, true)
}

#[test]
fn a_few_return_addresses_that_were_hijacked_before() -> Result<()> {
    compare_hijacked(&FEW, true)
}

#[test]
fn return_addresses_that_are_hijacked_later() -> Result<()> {
    compare_hijacked(&MANY, false)
}
