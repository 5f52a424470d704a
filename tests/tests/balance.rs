//! The balance of the resident set, against the kernel's account and programs that
//! know what they did.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use unfreed_tests::allocators::{JEMALLOC, MIMALLOC, TCMALLOC};
use unfreed_tests::model::balance::{Balance, KeptSource, PartName};
use unfreed_tests::{Finished, Jdk, Program, Target, Tracer, View, deadline, erlang, target_path};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// What the kernel finds in memory when it looks at each page, bytes.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no Rss")?.parse::<u64>()? << 10)
}

/// One that was traced while it did something, with its balance.
struct Traced {
    target: Target,
    finished: Finished,
    report: View,
    balance: Balance,
    /// What the kernel says that it grew by.
    grown: i64,
    /// What it said with the prefix that was asked for.
    said: String,
}

impl Traced {
    /// A target traced while it runs commands; the last one says something if a
    /// prefix is given. The balance is checked against the kernel's account.
    fn of(commands: &[&str], prefix: Option<&str>, options: &[&str]) -> Result<Self> {
        Self::under(None, commands, prefix, options)
    }

    /// The same under another allocator.
    fn under(
        library: Option<&str>,
        commands: &[&str],
        prefix: Option<&str>,
        options: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(target_path("balance")?);
        command.envs(library.map(|library| ("LD_PRELOAD", library)));
        Self::by(command, commands, prefix, options)
    }

    /// The same by another program.
    fn by(
        mut command: Command,
        commands: &[&str],
        prefix: Option<&str>,
        options: &[&str],
    ) -> Result<Self> {
        let mut target = Target::start_with(&mut command)?;
        let before = resident(target.pid)?;
        let tracer = Tracer::record(target.pid, options)?;
        let mut said = String::new();
        for command in commands {
            match prefix {
                Some(prefix) => said = target.command_saying(command, prefix)?.0,
                None => drop(target.command(command)?),
            }
        }
        let finished = tracer.stop()?;
        let after = resident(target.pid)?;
        let report = finished.report_of_any_end()?;
        ensure!(report.balance.len() == 1, "{:?}", report.balance);
        let balance = report.balance[0].clone();
        let near = |found: u64, truth: u64| found.abs_diff(truth) <= truth / 20;
        ensure!(
            near(balance.resident_start, before) && near(balance.resident_end, after),
            "{before} and {after} bytes in memory, but {balance:?}"
        );
        ensure!(balance.adds_up(), "{balance:?}");
        let grown = after.cast_signed() - before.cast_signed();
        let traced = Self {
            target,
            finished,
            report,
            balance,
            grown,
            said,
        };
        traced.is_explained()?;
        Ok(traced)
    }

    /// 95 % of what the kernel says must be explained.
    fn is_explained(&self) -> Result<()> {
        let least = (self.grown.unsigned_abs() / 20).max(MIB / 4);
        let left = self.balance.unexplained.unsigned_abs();
        ensure!(left <= least, "{left} unexplained: {:?}", self.balance);
        Ok(())
    }

    /// Whether a part is so large, but for one in twenty and a little.
    fn has(&self, name: PartName, truth: u64) -> Result<()> {
        let part = self.balance.part(name);
        let off = part.abs_diff(truth.cast_signed());
        ensure!(
            off <= truth / 20 + MIB / 4,
            "{name:?} is {part} instead of {truth}: {:?}",
            self.balance
        );
        Ok(())
    }

    /// What it printed, with single spaces.
    fn words(&self) -> String {
        let words: Vec<_> = self.finished.stdout.split_whitespace().collect();
        words.join(" ")
    }

    fn says(&self, part: &str) -> Result<()> {
        let words = self.words();
        ensure!(words.contains(part), "no {part:?} in:\n{words}");
        Ok(())
    }
}

#[test]
fn live_blocks_explain_what_a_leaking_program_grew_by() -> Result<()> {
    let traced = Traced::of(&["keep"], None, &["--fail-growth-above", "16M"])?;
    let truth = 31 * 1_048_583 + 20_011 * 509;
    traced.has(PartName::LiveBlocks, truth)?;
    // All of them were written to.
    ensure!(
        traced.balance.live_resident == truth,
        "{:?}",
        traced.balance
    );
    // What glibc adds to each, and to the large ones to fill pages.
    let overhead = 20_011 * 11 + 31 * PAGE;
    let kept = traced.balance.part(PartName::KeptByAllocators);
    ensure!(
        kept.unsigned_abs() <= overhead + MIB / 4,
        "{:?}",
        traced.balance
    );
    traced.says("Resident set: ")?;
    traced.says("live blocks of this run +")?;
    ensure!(!traced.words().contains("retention"));
    let code = traced.finished.status.code();
    ensure!(code == Some(3), "the gate: {code:?}");
    ensure!(traced.finished.stderr.contains("--fail-growth-above"));
    Ok(())
}

/// Objects of a pool are live blocks, whatever the pool has made them of; and what it
/// keeps of freed ones is kept by an allocator.
#[test]
fn objects_of_pools_explain_what_a_program_grew_by() -> Result<()> {
    let apr = || Ok::<_, anyhow::Error>(Command::new(target_path("apr")?));
    let bytes = 20_011 * 1009;
    let pools = ["--pools"];
    let grown = Traced::by(apr()?, &["grown"], None, &pools)?;
    grown.has(PartName::LiveBlocks, bytes)?;
    grown.has(PartName::Mappings, 0)?;
    let shrunk = Traced::by(apr()?, &["shrunk"], None, &pools)?;
    shrunk.has(PartName::LiveBlocks, 0)?;
    shrunk.has(PartName::KeptByAllocators, bytes)?;
    // Not looked into, all of it is the pool's.
    let closed = Traced::by(apr()?, &["grown"], None, &[])?;
    closed.has(PartName::LiveBlocks, 0)?;
    closed.has(PartName::Pools, bytes)
}

#[test]
fn what_native_code_gets_of_erlang_explains_what_it_grew_by() -> Result<()> {
    for options in [&[][..], &["--pools"]] {
        let traced = Traced::by(erlang()?, &["written"], None, options)?;
        traced.has(PartName::LiveBlocks, 20_011 * 1009)?;
        traced.has(PartName::Mappings, 0)?;
    }
    Ok(())
}

#[test]
fn blocks_that_nobody_wrote_to_are_no_resident_memory() -> Result<()> {
    let traced = Traced::of(&["keep_untouched"], None, &["--fail-growth-above", "16M"])?;
    ensure!(traced.report.totals.live_bytes == 67_108_879);
    ensure!(traced.balance.growth < MIB as i64, "{:?}", traced.balance);
    ensure!(traced.balance.live_resident <= 2 * PAGE);
    ensure!(traced.finished.status.success(), "the gate");
    Ok(())
}

#[test]
fn what_arenas_keep_is_retention() -> Result<()> {
    let mut traced = Traced::of(&["keep_arenas"], None, &[])?;
    let (threads, blocks) = (8, 4001_u64);
    let live = threads * blocks.div_ceil(41) * 1021;
    // The pages between the blocks that stay are kept whole.
    let peak = threads * blocks * 1040;
    traced.has(PartName::LiveBlocks, live)?;
    traced.has(PartName::KeptByAllocators, peak - live)?;
    ensure!(
        traced.balance.arenas == Some(threads + 1),
        "{:?}",
        traced.balance
    );
    traced.says("This is retention, not a leak: ")?;
    traced.says("is kept by glibc in 9 arenas. MALLOC_ARENA_MAX=2")?;
    let (free, _) = traced.target.command_saying("tell_free", "free ")?;
    let free: u64 = free.trim().parse()?;
    let found = traced.balance.free_in_arenas.context("no books")?;
    ensure!(
        found.abs_diff(free) <= free / 50,
        "{found} free instead of {free}"
    );
    let before = resident(traced.target.pid)?;
    traced.target.command("trim")?;
    let given_back = before - resident(traced.target.pid)?;
    let found = traced.balance.trimmable.context("no books")?;
    ensure!(
        found.abs_diff(given_back) <= given_back / 20,
        "{found} instead of {given_back}"
    );
    ensure!(given_back > 20 * MIB, "{given_back}");
    Ok(())
}

/// What they mapped themselves is theirs, with a block in it or without.
#[test]
fn what_other_allocators_keep_is_theirs() -> Result<()> {
    for library in [JEMALLOC, TCMALLOC, MIMALLOC] {
        let traced = Traced::under(Some(library), &["peak_alone"], None, &[])?;
        let known = [
            PartName::KeptByAllocators,
            PartName::Files,
            PartName::OlderMappings,
        ];
        let known: i64 = known.map(|name| traced.balance.part(name)).iter().sum();
        let left = traced.balance.growth - known;
        ensure!(
            left.unsigned_abs() <= MIB / 4,
            "{library}: {:?}",
            traced.balance
        );
        if library == JEMALLOC {
            // Its dirty pages stay for some seconds. It may have begun in what it had
            // mapped before the run, which nobody has seen.
            let kept = traced.balance.part(PartName::KeptByAllocators);
            ensure!(kept >= traced.grown / 5 * 4, "{:?}", traced.balance);
            traced.says("This is retention, not a leak: ")?;
        }
    }
    Ok(())
}

/// What they say themselves that is free is what their books say, and what they give back
/// when they are asked is no more.
#[test]
fn books_of_other_allocators_are_what_they_say_themselves() -> Result<()> {
    for (library, name) in [(JEMALLOC, "jemalloc"), (TCMALLOC, "tcmalloc")] {
        let mut command = Command::new(target_path("balance")?);
        // Free pages stay until they are asked for.
        command
            .env("LD_PRELOAD", library)
            .env("MALLOC_CONF", "dirty_decay_ms:-1");
        let mut traced = Traced::by(command, &["keep_arenas"], None, &[])?;
        let balance = &traced.balance;
        ensure!(
            balance.kept_source == Some(KeptSource::Books),
            "{balance:?}"
        );
        let [books] = balance.books.as_slice() else {
            anyhow::bail!("{name}: {balance:?}");
        };
        let (free, arenas) = (books.free, books.arenas.unwrap_or(0));
        let said = format!("kept by {name}");
        traced.says(&said)?;
        traced.says("By its own books ")?;
        let (told, _) = traced.target.command_saying("tell_books", "books ")?;
        ensure!(
            told.trim() == format!("{free} {arenas}"),
            "{name} says {told}: {:?}",
            traced.balance
        );
        ensure!(free > 8 * MIB, "{name}: {free}");
        let before = resident(traced.target.pid)?;
        traced.target.command("trim")?;
        let given_back = before.saturating_sub(resident(traced.target.pid)?);
        println!("{name}: {free} free by its books, {given_back} given back");
        ensure!(
            given_back <= free + MIB / 4 && given_back >= free / 10 * 8,
            "{name}: {given_back} of {free}"
        );
    }
    Ok(())
}

/// Growth is the kernel's within 5 %, and all but 5 % of it is explained.
fn is_explained(balance: &Balance, grown: u64) -> Result<()> {
    ensure!(
        balance.growth.abs_diff(grown.cast_signed()) <= grown / 20,
        "{grown} {balance:?}"
    );
    ensure!(
        balance.unexplained.unsigned_abs() <= grown / 20,
        "{balance:?}"
    );
    Ok(())
}

/// What a child has in memory is its parent's, or its own.
#[test]
fn what_a_forked_child_has_from_its_parent_is_told_apart() -> Result<()> {
    let mut target = Target::start("balance")?;
    let tracer = Tracer::record(target.pid, &["--follow"])?;
    let (child, _) = target.command_saying("fork_child", "child ")?;
    let child: u32 = child.trim().parse()?;
    let truth = resident(child)?;
    let report = tracer.stop()?.report_of_any_end()?;
    let mut balances = report.balance.iter();
    let balance = balances.find(|balance| balance.pid == child);
    let balance = balance.context("no balance of the child")?;
    ensure!(
        balance.adds_up() && balance.resident_start == 0,
        "{balance:?}"
    );
    is_explained(balance, truth)?;
    let inherited = balance.part(PartName::Inherited).cast_unsigned();
    ensure!((48 * MIB..50 * MIB).contains(&inherited), "{balance:?}");
    let own = balance.part(PartName::LiveBlocks).cast_unsigned();
    let truth = 5003 * 1019;
    ensure!(
        (truth / 20 * 19..truth + MIB / 4).contains(&own),
        "{balance:?}"
    );
    ensure!(balance.problem.is_none(), "{balance:?}");
    Ok(())
}

/// What it copies is in its resident set before and after.
#[test]
fn copies_of_what_is_shared_since_a_fork_are_no_silence() -> Result<()> {
    let mut target = Target::start("balance")?;
    drop(target.command_saying("fork_child", "child ")?);
    let tracer = Tracer::record(target.pid, &["--duration", "3s"])?;
    drop(target.command("write_shared")?);
    let finished = tracer.wait()?;
    let report = finished.report_of_any_end()?;
    let copied = report.balance[0].copied;
    ensure!(
        (31 * MIB / 20 * 19..=31 * MIB + MIB / 4).contains(&copied),
        "{:?}",
        report.balance
    );
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    let words = words.join(" ");
    ensure!(
        words.contains("copies memory that it shares since a fork"),
        "{words}"
    );
    ensure!(!words.contains("No leak seen"), "{words}");
    Ok(())
}

#[test]
fn a_mapping_that_fills_is_a_finding() -> Result<()> {
    let traced = Traced::of(&["fill_mapping"], None, &[])?;
    traced.says("GROWING")?;
    traced.says("fill_mapping maps memory that is not unmapped")?;
    traced.says("MiB of it are in memory, and more at")
}

#[test]
fn growth_in_an_older_mapping_is_no_silence() -> Result<()> {
    let traced = Traced::of(&["touch_older"], Some("mapping "), &[])?;
    traced.has(PartName::OlderMappings, 9001 * PAGE)?;
    let words = traced.words();
    ensure!(
        !words.contains("Nothing that was allocated during the run is still live"),
        "{words}"
    );
    traced.says("No block that was seen is live, but the resident set grew by 35.2 MiB")?;
    traced.says(&format!("MiB in 0x{}-0x", traced.said.trim()))?;
    let most = traced.balance.grown.first().context("nothing grew")?;
    ensure!(most.is_older && format!("{:x}", most.start) == traced.said.trim());
    // The program has its address in a variable.
    let owner = most.owner.as_deref().unwrap_or_default();
    ensure!(owner.ends_with("/balance"), "{owner}");
    Ok(())
}

#[test]
fn files_in_memory_that_stay_open_are_no_silence() -> Result<()> {
    let traced = Traced::of(&["keep_frames"], None, &[])?;
    let held = traced
        .balance
        .descriptors
        .as_ref()
        .context("nothing grew")?;
    let grown = held.file_bytes_end - held.file_bytes_start;
    ensure!(
        grown == 7 * MIB && held.open_end == held.open_start + 7,
        "{held:?}"
    );
    let [file] = &held.files[..] else {
        bail!("{held:?}");
    };
    ensure!(file.name == "/memfd:frame (deleted)" && file.count == 7 && file.growth == grown);
    traced.says("most of it, 7.00 MiB, is 7 files called /memfd:frame (deleted)")?;
    ensure!(
        !traced.words().contains("No leak seen"),
        "{}",
        traced.words()
    );
    Ok(())
}

#[test]
fn descriptors_are_told_if_they_are_not_closed() -> Result<()> {
    let traced = Traced::of(&["keep_pipes"], None, &[])?;
    let held = traced
        .balance
        .descriptors
        .as_ref()
        .context("nothing grew")?;
    ensure!(held.open_end == held.open_start + 140, "{held:?}");
    traced.says("140 more than at the start: 140 of kind pipe")?;
    traced.says("descriptors/s that it does not close")?;
    let traced = Traced::of(&["close_pipes"], None, &[])?;
    let grew = traced.balance.descriptors.as_ref();
    ensure!(
        grew.is_none_or(|held| held.open_end <= held.open_start + 1),
        "{grew:?}"
    );
    ensure!(
        !traced.words().contains("DESCRIPTORS"),
        "{}",
        traced.words()
    );
    Ok(())
}

#[test]
fn mappings_count_by_what_was_written_to() -> Result<()> {
    let commands = ["map_and_touch", "new_arena", "map_shared_and_touch"];
    let traced = Traced::of(&commands, None, &[])?;
    // The kernel may have joined the two.
    traced.has(PartName::Pools, 2003 * PAGE)?;
    traced.has(PartName::Mappings, 4001 * PAGE)?;
    traced.has(PartName::SharedMemory, 4003 * PAGE)?;
    // Old kernels count kinds in batches, for each thread.
    ensure!(traced.balance.kinds_end.shared >= 4003 * PAGE / 20 * 19);
    Ok(())
}

#[test]
fn memory_from_before_the_run_is_told_apart() -> Result<()> {
    let traced = Traced::of(&["keep_few"], None, &[])?;
    ensure!(traced.balance.older >= 48 * MIB, "{:?}", traced.balance);
    traced.says("the blocks of this run explain 692 KiB; ")?;
    traced.says("is older than the run")?;
    Ok(())
}

#[test]
fn what_was_freed_from_before_the_run_is_negative() -> Result<()> {
    let traced = Traced::of(&["free_old"], None, &[])?;
    let unmapped = traced.balance.part(PartName::Unmapped);
    let truth = -(48 * MIB).cast_signed();
    ensure!(
        unmapped.abs_diff(truth) < MIB,
        "{unmapped}: {:?}",
        traced.balance
    );
    traced.says("Nothing that was allocated during the run is still live")
}

#[test]
fn a_program_that_begins_in_the_run_grows_from_nothing() -> Result<()> {
    // It waits for commands, which never come.
    let (commands, tell) = std::io::pipe()?;
    let target = target_path("balance")?;
    let mut tracer = Tracer::run_with(&[], &[target], |command| {
        command.stdin(commands);
    })?;
    tracer.wait_printed(" ready")?;
    let finished = tracer.stop()?;
    drop(tell);
    let report = finished.report_of_any_end()?;
    let balance = report.balance.first().context("no balance")?;
    ensure!(balance.resident_start == 0 && balance.resident_end > 48 * MIB);
    let blocks = balance.part(PartName::LiveBlocks).cast_unsigned();
    ensure!((48 * MIB..49 * MIB).contains(&blocks), "{balance:?}");
    ensure!(balance.adds_up(), "{balance:?}");
    let left = balance.unexplained.unsigned_abs();
    ensure!(left <= balance.resident_end / 20 + 16 * PAGE, "{balance:?}");
    Ok(())
}

#[test]
fn windows_tell_what_was_in_memory_when_they_began_and_ended() -> Result<()> {
    let mut target = Target::start("balance")?;
    let tracer = Tracer::record(target.pid, &["--interval", "200ms"])?;
    target.command("keep")?;
    let end = resident(target.pid)?;
    let began = Instant::now();
    loop {
        ensure!(began.elapsed() < deadline(), "no window has it all");
        if let Some(report) = tracer.report_so_far()? {
            let window = report.window.context("no window")?;
            let balance = report.balance.first().context("no balance")?;
            ensure!(balance.adds_up() && balance.resident_end == window.resident_end);
            if window.resident_start.abs_diff(end) < MIB {
                ensure!(window.resident_end.abs_diff(end) < MIB, "{window:?}");
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    tracer.stop()?;
    Ok(())
}

#[test]
fn a_jvms_growth_is_told_by_java_heap_and_blocks() -> Result<()> {
    let program = Program::copy("Heap")?;
    let options = ["-XX:+UseSerialGC", "-Xms256m", "-Xmx256m"];
    let mut target = Target::start_with(&mut Jdk::full()?.command(&options, &program))?;
    let tracer = Tracer::record(target.pid, &[])?;
    let before = resident(target.pid)?;
    target.command("direct 20000003")?;
    target.command("arrays 400000")?;
    let after = resident(target.pid)?;
    let report = tracer.stop()?.report()?;
    let balance = report.balance.first().context("no balance")?;
    ensure!(balance.adds_up(), "{balance:?}");
    let grown = after - before;
    is_explained(balance, grown)?;
    // The JVM writes zeros to all of a buffer.
    let blocks = balance.part(PartName::LiveBlocks);
    ensure!((20_000_003..22_000_000).contains(&blocks), "{balance:?}");
    // Seven pointers and a header of 16 bytes each, and what is new in the eden.
    let heap = balance.part(PartName::JavaHeap);
    let truth = 400_000 * (16 + 7 * 4 + 4);
    ensure!((truth..2 * truth).contains(&heap), "{balance:?}");
    Ok(())
}
