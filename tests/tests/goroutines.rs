//! Call paths through the doors between Go and C: from the C function that allocates
//! to the start of the goroutine or thread, in the order that the source has.

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::Site;
use unfreed_tests::{Target, Tracer};

/// What Go puts between its code and C, the innermost first.
const TO_C: [&str; 2] = ["runtime.asmcgocall", "runtime.cgocall"];
const FROM_C: [&str; 5] = [
    "runtime.cgocallbackg1",
    "runtime.cgocallbackg",
    "runtime.cgocallback",
    "crosscall2",
    "goBack",
];

/// The same target with symbols, and as most images have it: without any.
const PROGRAMS: [&str; 2] = ["gopher", "gopher_stripped"];

/// Runs a command of both programs, and compares the call paths of blocks of a size.
/// Those of C functions are `c:NAME`: they have none without symbols.
fn check(command: &str, size: u64, expected: &[&[&str]]) -> Result<()> {
    for program in PROGRAMS {
        let mut target = Target::start(program)?;
        let tracer = Tracer::record(target.pid, &[])?;
        let truth = target.command(command)?;
        let report = tracer.stop()?.report()?;
        target.finish()?;
        report.agrees_with(&truth)?;
        let is_it = |site: &&Site| site.allocated_bytes == site.allocated_count * size;
        let mut found = report.sites.iter().filter(is_it).collect::<Vec<_>>();
        found.sort_by_key(|site| site.freed_count);
        ensure!(found.len() == expected.len(), "{program}: {found:#?}");
        for (site, expected) in found.into_iter().zip(expected) {
            let has_symbols = program == PROGRAMS[0];
            let mut expected: Vec<&str> = expected
                .iter()
                .map(|name| match name.strip_prefix("c:") {
                    Some(name) if has_symbols => name,
                    Some(_) => "?",
                    None => name,
                })
                .collect();
            expected.dedup();
            assert_eq!(names(site), expected, "{program} {command}");
            let end = serde_json::to_value(site.stack_end)?;
            assert_eq!(end.as_str().context("no end")?, "start", "{program}");
        }
    }
    Ok(())
}

/// The functions of a path that are the program's, the innermost first. Of wrappers
/// for another calling convention only the function's name is left, once.
fn names(site: &Site) -> Vec<&str> {
    let own = |frame: &&unfreed_tests::model::Frame| {
        let module = frame.module.as_deref().unwrap_or_default();
        !frame.inlined && module.contains("gopher")
    };
    let frames = site.frames.iter().rev().filter(own);
    let mut names: Vec<&str> = frames
        .map(|frame| frame.function.as_deref().unwrap_or("?"))
        .map(|name| name.strip_suffix(".abi0").unwrap_or(name))
        .map(|name| if is_export(name) { "export" } else { name })
        .collect();
    names.dedup();
    names
}

/// The name of Go's side of an exported function has a hash in it.
fn is_export(name: &str) -> bool {
    name.starts_with("_cgoexp_") && name.ends_with("_goBack")
}

fn path(parts: &[&[&'static str]]) -> Vec<&'static str> {
    parts.concat()
}

#[test]
fn a_goroutine_that_calls_c() -> Result<()> {
    let from = |function, call, caller| {
        let start: [&str; 2] = ["main.inGoroutine.func1", "runtime.goexit"];
        path(&[&[function], &TO_C, &[call, caller], &start])
    };
    let keeps = from("c:take", "main._Cfunc_take", "main.keeps");
    let gives = from("c:take_and_give", "main._Cfunc_take_and_give", "main.gives");
    check("goroutine", 1009, &[&keeps, &gives])
}

/// The frames of a callback from C, from the C function that allocates to the one
/// that called back.
fn callback() -> Vec<&'static str> {
    path(&[
        &["c:take"],
        &TO_C,
        &["main._Cfunc_take", "main.back", "main.goBack", "export"],
        &FROM_C,
        &["c:call_back"],
    ])
}

/// From there to the start of the goroutine.
fn outermost() -> Vec<&'static str> {
    let start: [&str; 4] = [
        "main._Cfunc_call_back",
        "main.callsBack",
        "main.inNewGoroutine.func1",
        "runtime.goexit",
    ];
    path(&[&TO_C, &start])
}

#[test]
fn c_code_that_calls_back() -> Result<()> {
    check("callback", 2003, &[&path(&[&callback(), &outermost()])])
}

#[test]
fn callbacks_within_callbacks() -> Result<()> {
    let again = path(&[
        &TO_C,
        &["main._Cfunc_call_back", "main.goBack", "export"],
        &FROM_C,
        &["c:call_back"],
    ]);
    check(
        "callbacks",
        3001,
        &[&path(&[&callback(), &again, &outermost()])],
    )
}

/// What C code on the thread's stack was given of the goroutine's has moved since.
#[test]
fn a_goroutines_stack_that_moved() -> Result<()> {
    check("moved", 4001, &[&path(&[&callback(), &outermost()])])
}

#[test]
fn a_thread_of_c_code_that_calls_go() -> Result<()> {
    check("thread", 5003, &[&path(&[&callback(), &["c:thread"]])])
}

/// What Go maps for its heap: the runtime does so on the thread's stack, by C code. Its
/// path goes on where the goroutine's stack was left.
#[test]
fn what_the_runtime_maps_for_a_goroutine() -> Result<()> {
    for program in PROGRAMS {
        let mut target = Target::start(program)?;
        let tracer = Tracer::record(target.pid, &[])?;
        target.command("grows")?;
        let report = tracer.stop()?.report()?;
        let is_it = |site: &&Site| names(site).contains(&"main.grows");
        let found: Vec<&Site> = report.sites.iter().filter(is_it).collect();
        let bytes: u64 = found.iter().map(|site| site.live_bytes).sum();
        ensure!(bytes > 128 << 20, "{program}: {bytes} {:#?}", report.sites);
        for site in found {
            let names = names(site);
            let switch = names.iter().position(|name| *name == "runtime.systemstack");
            let caller = names.iter().position(|name| *name == "main.grows");
            ensure!(switch.is_some() && switch < caller, "{program}: {names:?}");
            let last = [
                "main.grows",
                "main.growsInGoroutine.func1",
                "runtime.goexit",
            ];
            ensure!(names.ends_with(&last), "{program}: {names:?}");
            assert_eq!(serde_json::to_value(site.stack_end)?, "start", "{program}");
        }
    }
    Ok(())
}
