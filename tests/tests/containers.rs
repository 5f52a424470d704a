//! Targets in containers: the files that name their functions are on an overlay file system
//! that only they see, and their processes and users have other numbers there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::tempdir;
use unfreed_tests::container::{Container, Image};
use unfreed_tests::model::{Frame, Origin};
use unfreed_tests::pprof::Profile;
use unfreed_tests::service::Service;
use unfreed_tests::{Target, Tracer, View, line_of, patched_bytes, unpacked};

fn record(target: &mut Target, command: &str) -> Result<View> {
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command(command)?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    Ok(report)
}

/// The frame of a function in the only path that it is in.
fn frame_of<'a>(report: &'a View, function: &'a str) -> Result<&'a Frame> {
    let site = report.sites_with(function).next().context("no site")?;
    let mut frames = site.frames.iter();
    let frame = frames.find(|frame| frame.function.as_deref() == Some(function));
    frame.context("no frame")
}

fn has_line(frame: &Frame) -> Result<()> {
    let line = line_of("c/leak.h", "opaque(malloc(1009))")?;
    ensure!(frame.line == Some(line), "{frame:?}");
    Ok(())
}

/// With glibc, with musl, and with musl inside of the program.
#[test]
fn functions_are_named_whichever_libc_the_image_has() -> Result<()> {
    for program in ["leak", "leak_musl", "leak_musl_static"] {
        let mut container = Container::start(program)?;
        let report = record(&mut container.target, "leak_blocks")?;
        ensure!(
            report.processes[0].executable == container.program.to_string_lossy(),
            "{:?}",
            report.processes
        );
        let frame = frame_of(&report, "leak_blocks")?;
        ensure!(
            frame.module.as_deref().map(Path::new) == Some(&container.program),
            "{frame:?}"
        );
        has_line(frame)?;
        ensure!(
            patched_bytes(container.target.pid)? == 0,
            "there are probes"
        );
        ensure!(container.target.finish()?.success(), "{program}");
    }
    Ok(())
}

fn run(tool: &str, arguments: &[&str], file: &Path) -> Result<()> {
    let status = Command::new(tool).args(arguments).arg(file).status()?;
    ensure!(status.success(), "{tool}: {status}");
    Ok(())
}

/// The debug file is inside, where the program's own link says.
#[test]
fn debug_files_are_looked_for_inside() -> Result<()> {
    let image = Image::of("leak")?;
    let program = image.outside(&image.inside());
    let debug = program.with_extension("debug");
    fs::copy(&program, &debug)?;
    run("objcopy", &["--only-keep-debug"], &debug)?;
    run("strip", &[], &program)?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run("objcopy", &[&link], &program)?;
    let mut container = image.start()?;
    let report = record(&mut container.target, "leak_blocks")?;
    has_line(frame_of(&report, "leak_blocks")?)
}

/// A perf map of ours that would name all of a container's code wrongly; removed with this
/// value.
struct Decoy(PathBuf);

impl Decoy {
    fn of(pid: u32) -> Result<Self> {
        let decoy = Self(PathBuf::from(format!("/tmp/perf-{pid}.map")));
        fs::write(&decoy.0, "1 fffffffffffffffe not_this_one\n")?;
        Ok(decoy)
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        let _gone_before = fs::remove_file(&self.0);
    }
}

/// The map is the one inside, under the number that the process has there.
#[test]
fn compiled_code_is_named_by_the_map_inside() -> Result<()> {
    let mut container = Container::start("jit")?;
    let _decoy = Decoy::of(container.target.pid)?;
    let report = record(&mut container.target, "run_compiled")?;
    let frame = frame_of(&report, "compiled_at_run_time")?;
    ensure!(frame.origin == Origin::Jit, "{frame:?}");
    Ok(())
}

/// Two containers of one image are a service, and what grows in both has its name.
#[test]
fn serve_names_what_grows_in_containers() -> Result<()> {
    let mut containers = [Container::start("paced")?, Container::start("paced")?];
    let state = tempdir()?;
    let rule = "name = \"boxed\"\ncommand = \"/app/paced\"\nmode = \"growth\"";
    let service = Service::of_rule(state.path(), rule)?;
    for container in &mut containers {
        container.target.tell("grow 500")?;
    }
    // By their places among the service's processes.
    let growing = |findings: &Value| -> BTreeSet<u64> {
        let all = findings.as_array().into_iter().flatten();
        let grow = all.filter(|it| {
            let title = it["title"].as_str().unwrap_or_default();
            title.starts_with("grows ")
        });
        grow.filter_map(|it| it["process"].as_u64()).collect()
    };
    service.wait_for("/api/services/boxed/findings", |all| {
        growing(all).len() == containers.len()
    })?;
    let answer = service.ask("/debug/pprof/growth?service=boxed")?;
    ensure!(answer.status == 200, "{}", answer.text());
    let profile = Profile::parse(&unpacked(answer.body.as_slice())?)?;
    for wanted in ["grows", "/app/paced"] {
        ensure!(
            profile.strings.iter().any(|it| it == wanted),
            "no {wanted}: {:?}",
            profile.strings
        );
    }
    service.stop()
}
