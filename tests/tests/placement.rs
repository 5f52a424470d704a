//! Probes that stand behind a function's first instruction, where its arguments
//! are in other places: each allocator's code has its own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::allocators::{JEMALLOC, MIMALLOC, TCMALLOC};
use unfreed_tests::model::{Site, StackEnd};
use unfreed_tests::{Target, Tracer, View, kernel_version, target_path};

/// Debian's allocators.
const ALLOCATORS: [&str; 3] = [JEMALLOC, TCMALLOC, MIMALLOC];

/// Functions whose arguments nowhere stand in registers at an instruction that
/// the kernel emulates, or only with the stack pointer moved.
const STEPPED: [&str; 5] = ["reallocarray", "mmap", "mmap64", "munmap", "mremap"];

/// The first kernels on which probes have cookies, and `uprobe_multi` links.
const COOKIES: (u32, u32) = (5, 15);
const LINKS: (u32, u32) = (6, 6);

fn roads() -> Result<&'static [&'static str]> {
    Ok(match kernel_version()? < LINKS {
        true => &["perf"],
        false => &["perf", "multi"],
    })
}

/// A program that uses every function in all threads, under an allocator.
fn counts(program: &str, preloaded: Option<&str>, road: &str, options: &[&str]) -> Result<View> {
    let mut command = Command::new(target_path(program)?);
    command.envs(preloaded.map(|library| ("LD_PRELOAD", library)));
    let mut target = Target::start_with(&mut command)?;
    let tracer = Tracer::record_with(target.pid, options, |tracer| {
        tracer.env("UNFREED_ATTACH", road);
    })?;
    let truth = target.command("all_apis")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    let mut sites = report.sites.iter();
    let cut = sites.find(|site| has(site, "by_") && !is_whole(program, site));
    ensure!(cut.is_none(), "{cut:#?}");
    Ok(report)
}

fn has(site: &Site, prefix: &str) -> bool {
    let mut functions = site.frames.iter().filter_map(|it| it.function.as_deref());
    functions.any(|function| function.starts_with(prefix))
}

/// musl has no call frame information where its threads start.
fn is_whole(program: &str, site: &Site) -> bool {
    has(site, "use") && (program == "apis_musl" || site.stack_end == StackEnd::Start)
}

/// What is single-stepped of a file's functions.
fn stepped(report: &View, module: &str) -> Vec<String> {
    let probes = report.processes.iter().flat_map(|process| &process.probes);
    probes
        .filter(|probe| probe.module.contains(module))
        .filter(|probe| !STEPPED.contains(&probe.function.as_str()))
        .filter(|probe| probe.placement.contains("single-stepped"))
        .map(|probe| format!("{}: {}", probe.function, probe.placement))
        .collect()
}

fn is_exact_and_cheap(program: &str, preloaded: Option<&str>) -> Result<()> {
    let module = preloaded.map_or("", |library| {
        let name = library.rsplit('/').next().unwrap_or(library);
        name.split('.').next().unwrap_or(name)
    });
    for road in roads()? {
        for options in [&["--returns", "replace"], &["--returns", "instructions"]] {
            let report = counts(program, preloaded, road, options)
                .with_context(|| format!("{program} {preloaded:?} {road} {options:?}"))?;
            if kernel_version()? >= COOKIES {
                let stepped = stepped(&report, module);
                ensure!(stepped.is_empty(), "{program} {preloaded:?} {stepped:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn every_function_of_glibc_is_exact_and_cheap() -> Result<()> {
    is_exact_and_cheap("apis", None)
}

#[test]
fn every_function_of_musl_is_exact_and_cheap() -> Result<()> {
    is_exact_and_cheap("apis_musl", None)
}

#[test]
fn every_function_of_jemalloc_is_exact_and_cheap() -> Result<()> {
    is_exact_and_cheap("apis", Some(ALLOCATORS[0]))
}

#[test]
fn every_function_of_tcmalloc_is_exact_and_cheap() -> Result<()> {
    is_exact_and_cheap("apis", Some(ALLOCATORS[1]))
}

#[test]
fn every_function_of_mimalloc_is_exact_and_cheap() -> Result<()> {
    is_exact_and_cheap("apis", Some(ALLOCATORS[2]))
}
