//! Each allocator with each of its ways to allocate and to free: counts and
//! bytes are those that the program knows.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::allocators::{JEMALLOC, MIMALLOC, SCUDO, TCMALLOC};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Target, Tracer, Truth, target_path, unfreed};

/// C++'s operators, which each of them has.
const OPERATORS: [&str; 12] = [
    "new_plain",
    "new_sized",
    "new_array",
    "new_array_sized",
    "new_aligned",
    "new_aligned_sized",
    "new_array_aligned",
    "new_array_aligned_sized",
    "new_nothrow",
    "new_array_nothrow",
    "new_aligned_nothrow",
    "new_array_aligned_nothrow",
];

/// C's functions.
const C: [&str; 16] = [
    "malloc_plain",
    "malloc_and_free",
    "malloc_fails",
    "calloc_plain",
    "calloc_overflow",
    "realloc_grows",
    "realloc_moves",
    "realloc_fails",
    "realloc_of_null",
    "reallocarray_plain",
    "posix_memalign_plain",
    "posix_memalign_fails",
    "aligned_alloc_plain",
    "memalign_plain",
    "valloc_plain",
    "strdup_counts_once",
];

/// How results are taken.
const RETURNS: [&[&str]; 2] = [&[], &["--returns", "instructions"]];

/// Programs with `new` that throws, each of another library.
const THROWING: [(&str, Option<&str>); 5] = [
    ("operators", None),
    ("operators", Some(JEMALLOC)),
    ("operators", Some(TCMALLOC)),
    ("operators_libcpp", None),
    ("operators_libcpp_static", None),
];

/// A program under an allocator.
fn start(program: &str, library: Option<&str>) -> Result<Target> {
    let mut command = Command::new(target_path(program)?);
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    Target::start_with(&mut command)
}

/// Runs commands of a program under an allocator, traced, and compares each
/// with what the tracer saw.
fn agrees(program: &str, library: Option<&str>, options: &[&str], commands: &[&str]) -> Result<()> {
    let mut target = start(program, library)?;
    let tracer = Tracer::record(target.pid, options)?;
    let mut truths = Vec::new();
    for name in commands {
        truths.push((*name, target.command(name)?));
    }
    let report = tracer.stop()?.report()?;
    let context = || format!("{program} {library:?} {options:?}");
    for (name, truth) in &truths {
        let agreed = report.sites_agree_with(truth);
        agreed.with_context(|| format!("{} {name}", context()))?;
    }
    let frees: u64 = truths.iter().map(|(_, truth)| truth.untraced_frees).sum();
    ensure!(
        report.totals.untraced_frees == frees,
        "{}: {} frees without an allocation instead of {frees}",
        context(),
        report.totals.untraced_frees,
    );
    ensure!(report.lost() == 0, "{} {:?}", context(), report.occurred());
    ensure!(
        report
            .processes
            .iter()
            .all(|process| process.unseen.is_empty()),
        "{} {:?}",
        context(),
        report.processes
    );
    tell(program, library, options, commands, &truths);
    Ok(())
}

/// A line for the table of `cargo xtask bench accuracy`.
fn tell(
    program: &str,
    library: Option<&str>,
    options: &[&str],
    commands: &[&str],
    truths: &[(&str, Truth)],
) {
    let preloaded = library.map_or("its own, or glibc", |path| {
        path.rsplit('/').next().unwrap_or(path)
    });
    let results = match options {
        ["--returns", place] => place,
        _ => "return probes",
    };
    let entries = truths.iter().flat_map(|(_, truth)| &truth.sites);
    let (blocks, bytes) = entries.fold((0, 0), |(blocks, bytes), entry| {
        (
            blocks + entry.allocated_count,
            bytes + entry.allocated_bytes,
        )
    });
    println!(
        "exact: | {program} | {preloaded} | {results} | {} | {blocks} | {bytes} |",
        commands.join(" ")
    );
}

/// By return probes and by return instructions.
fn agrees_both(program: &str, library: Option<&str>, commands: &[&str]) -> Result<()> {
    for options in RETURNS {
        agrees(program, library, options, commands)?;
    }
    Ok(())
}

#[test]
fn libstdcpp_and_glibc() -> Result<()> {
    agrees_both("operators", None, &OPERATORS)
}

/// LLVM's library, loaded and as a part of the program.
#[test]
fn libcpp_and_glibc() -> Result<()> {
    agrees_both("operators_libcpp", None, &OPERATORS)?;
    agrees_both("operators_libcpp_static", None, &OPERATORS)
}

#[test]
fn jemalloc() -> Result<()> {
    agrees_both("semantics", Some(JEMALLOC), &C)?;
    let own = [
        "jemalloc_x",
        "jemalloc_sized",
        "jemalloc_rallocx",
        "jemalloc_xallocx",
    ];
    let all = [&OPERATORS[..], &own].concat();
    agrees_both("operators", Some(JEMALLOC), &all)
}

#[test]
fn tcmalloc() -> Result<()> {
    agrees_both("semantics", Some(TCMALLOC), &C)?;
    let all = [&OPERATORS[..], &["tcmalloc_names", "tcmalloc_new"]].concat();
    agrees_both("operators", Some(TCMALLOC), &all)
}

#[test]
fn mimalloc() -> Result<()> {
    agrees_both("semantics", Some(MIMALLOC), &C)?;
    let own = [
        "mimalloc_names",
        "mimalloc_zeroed",
        "mimalloc_aligned",
        "mimalloc_count",
        "mimalloc_heap",
        "mimalloc_heap_calloc",
        "mimalloc_reallocs",
    ];
    let all = [&OPERATORS[..], &own].concat();
    agrees_both("operators", Some(MIMALLOC), &all)
}

/// Its `operator new` ends the program where others throw.
#[test]
fn scudo() -> Result<()> {
    // Its `aligned_alloc` refuses what is no multiple of the alignment.
    let c: Vec<&str> = C
        .into_iter()
        .filter(|it| *it != "aligned_alloc_plain")
        .collect();
    agrees_both("semantics", Some(SCUDO), &c)?;
    agrees_both("operators", Some(SCUDO), &OPERATORS)
}

const PREFIXED: [&str; 5] = ["blocks", "zeroed", "sized", "aligned", "grown"];

/// As a part of the program, with the plain names.
#[test]
fn a_static_jemalloc() -> Result<()> {
    let own = ["jemalloc_x", "jemalloc_sized", "jemalloc_rallocx"];
    let all = [&OPERATORS[..], &own].concat();
    agrees_both("static_jemalloc", None, &all)
}

/// With a prefix of which nobody has heard, and names that nobody exports.
#[test]
fn a_prefixed_jemalloc() -> Result<()> {
    agrees_both("prefixed", None, &PREFIXED)
}

/// Plain names that a library keeps to itself.
#[test]
fn an_allocator_that_is_hidden_in_a_library() -> Result<()> {
    agrees_both("hidden", None, &PREFIXED)
}

#[test]
fn rusts_jemalloc() -> Result<()> {
    agrees_both("rust_jemalloc", None, &["leak_vectors"])
}

#[test]
fn rusts_snmalloc() -> Result<()> {
    agrees_both(env!("CARGO_BIN_EXE_rust_snmalloc"), None, &["leak_vectors"])
}

#[test]
fn rusts_scudo() -> Result<()> {
    agrees_both(env!("CARGO_BIN_EXE_rust_scudo"), None, &["leak_vectors"])
}

/// What only the compiler's own door shows.
#[test]
fn a_global_allocator_of_a_rust_program() -> Result<()> {
    agrees_both("rust_arena", None, &["leak_vectors"])
}

/// What the file has besides says nothing of where its Rust code allocates.
#[test]
fn a_global_allocator_beside_jemalloc() -> Result<()> {
    agrees_both("rust_arena_beside_jemalloc", None, &["leak_vectors"])
}

#[test]
fn operators_that_a_program_replaces() -> Result<()> {
    agrees_both("own_operators", None, &["objects", "blocks"])
}

#[test]
fn an_allocator_that_the_command_line_names() -> Result<()> {
    let declared = ["--allocator", "own_pool:pool_get=size@1,pool_put"];
    agrees("own_pool", None, &declared, &["pooled"])
}

/// Without names nothing can be probed: then it is said, by the report and by
/// doctor.
#[test]
fn a_stripped_allocator_is_a_loss() -> Result<()> {
    let mut target = Target::start("stripped_allocator")?;
    let doctor = unfreed(&["doctor", "-p", &target.pid.to_string()])?.stdout;
    let said = "every function of its jemalloc is not probed";
    ensure!(doctor.contains(said), "{doctor}");
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("blocks")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let unseen = report.processes.iter().flat_map(|process| &process.unseen);
    let unseen: Vec<_> = unseen.map(|unseen| unseen.function.as_str()).collect();
    assert_eq!(unseen, ["every function of its jemalloc"]);
    let mut losses = report.losses.iter();
    ensure!(
        losses.any(|loss| loss.cause == "unseen_function" && loss.count == 1),
        "{:?}",
        report.losses
    );
    Ok(())
}

/// A call of `new` that fails is no block, and the exception that it throws is one, of the
/// path that threw it, which is freed when it was caught.
#[test]
fn what_a_failing_new_throws_is_a_block_of_its_own() -> Result<()> {
    for (program, library) in THROWING {
        let mut target = start(program, library)?;
        let tracer = Tracer::record(target.pid, &[])?;
        let truth = target.command("throws_and_allocates")?;
        let report = tracer.stop()?.report()?;
        let context = || format!("{program} {library:?}");
        report.agrees_with(&truth).with_context(context)?;
        let thrown = report.heap("__cxa_allocate_exception");
        assert_eq!(thrown.allocated_count, 100, "{program} {library:?}");
        assert_eq!(thrown.live_count, 0, "{program} {library:?}");
        assert_eq!(report.totals.untraced_frees, 0, "{program} {library:?}");
    }
    Ok(())
}

/// A call within which an exception was caught goes on, and what it allocates then is
/// counted or a loss.
#[test]
fn a_new_whose_handler_catches_is_counted_or_lost() -> Result<()> {
    for (program, library) in THROWING {
        let mut target = start(program, library)?;
        let tracer = Tracer::record(target.pid, &[])?;
        let truth = target.command("handler_catches")?;
        let report = tracer.stop()?.report()?;
        let size = truth.sites[0].size;
        let seen = report.sums_of_size(size, MemoryKind::Heap).live_count;
        let lost: u64 = report.losses.iter().map(|loss| loss.count).sum();
        assert_eq!(seen + lost, 1, "{program} {library:?} {:?}", report.losses);
    }
    Ok(())
}

/// An exception meets no trampoline: a program that runs out of memory and
/// catches that lives, and what it allocates afterwards is counted. (Debian's
/// mimalloc is built as C, and aborts where it should throw.)
#[test]
fn whoever_catches_bad_alloc_lives() -> Result<()> {
    for (program, library) in THROWING {
        let commands = ["throws_and_allocates", "lives_on_bad_alloc"];
        let mut target = start(program, library)?;
        let tracer = Tracer::record(target.pid, &[])?;
        let truths: Result<Vec<_>> = commands.iter().map(|name| target.command(name)).collect();
        let truths = truths.with_context(|| format!("{program} {library:?} has died"))?;
        let report = tracer.stop()?.report()?;
        for truth in truths {
            report
                .sites_agree_with(&truth)
                .with_context(|| format!("{program} {library:?}"))?;
        }
    }
    Ok(())
}
