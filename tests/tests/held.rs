//! Programs that are held under `run`: whole stacks after each `exec` and each
//! library that is opened, and nothing that they could notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use unfreed_tests::allocators::JEMALLOC;
use unfreed_tests::model::StackEnd;
use unfreed_tests::{Finished, Jdk, Tracer, View, make_fifo, target_path, targets, wait_until};

/// Runs a command under the tracer, to its end.
fn run(options: &[&str], command: &[&str]) -> Result<Finished> {
    Tracer::run(options, command)?.wait()
}

/// Stacks are whole, of a hundred at least 99.
fn is_whole(report: &View, least: u64) -> Result<()> {
    let stacks = &report.stacks;
    ensure!(stacks.allocations >= least, "{stacks:?}");
    ensure!(stacks.whole * 100 >= stacks.allocations * 99, "{stacks:?}");
    Ok(())
}

fn target(name: &str) -> Result<String> {
    Ok(target_path(name)?.display().to_string())
}

// --- whole stacks ---

/// A program of the distribution with several libraries, called by another.
fn is_whole_after(before: &[&str]) -> Result<()> {
    let jq = ["jq", "-n", "[range(1000)]|length"];
    let command: Vec<_> = before.iter().chain(&jq).copied().collect();
    let report = run(&["-q"], &command)?.report()?;
    is_whole(&report, 1000)
}

#[test]
fn stacks_are_whole_after_an_exec() -> Result<()> {
    is_whole_after(&["env", "A=1"])
}

#[test]
fn stacks_are_whole_after_an_exec_by_others() -> Result<()> {
    is_whole_after(&["nice"])?;
    is_whole_after(&["sh", "-c", "exec \"$@\"", "x"])
}

#[test]
fn stacks_of_followed_children_are_whole() -> Result<()> {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do timeout 60 ls / >/dev/null || exit 1; done";
    let report = run(&["-q", "--follow"], &["sh", "-c", script])?.report()?;
    is_whole(&report, 1000)
}

#[test]
fn a_jvms_stacks_are_whole_from_its_start() -> Result<()> {
    for jdk in &Jdk::some()? {
        let java = jdk.home.join("bin/java").display().to_string();
        let report = run(&["-q"], &[&java, "-version"])?.report()?;
        is_whole(&report, 1000).with_context(|| jdk.name.clone())?;
        no_number_is_marked(&report).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// What a library's constructor allocates while `System.load` runs, and a
/// function of it right afterwards.
#[test]
fn a_library_that_java_loads_is_known_at_once() -> Result<()> {
    let library = targets().join("libjni_loads.so").display().to_string();
    let folder = tempfile::tempdir()?;
    let go = folder.path().join("go").display().to_string();
    make_fifo(Path::new(&go))?;
    for jdk in &Jdk::some()? {
        let java = jdk.home.join("bin/java").display().to_string();
        let classes = jdk.class_path()?.display().to_string();
        let command = [&*java, "-Xint", "-cp", &*classes, "Loads", &*library, &*go];
        let mut tracer = Tracer::run(&["-q"], &command)?;
        tracer.wait_printed("loaded")?;
        // Interpreted methods have names as long as the program lives.
        let report = tracer.stop()?.report_of_any_end()?;
        for (size, methods) in [
            (7001, &["Loads.load", "Loads.main"][..]),
            (7013, &["Loads.allocate", "Loads.load", "Loads.main"]),
        ] {
            let mut sites = report.sites.iter();
            let site = sites.find(|site| site.allocated_bytes == size);
            let site = site.with_context(|| format!("{}: none of {size}", jdk.name))?;
            let table = report.table();
            ensure!(site.stack_end == StackEnd::Start, "{}\n{table}", jdk.name);
            let names: Vec<_> = site
                .frames
                .iter()
                .filter_map(|one| one.function.as_deref())
                .collect();
            for method in methods {
                let is_there = names.iter().any(|name| name.contains(method));
                ensure!(is_there, "{}: no {method} in {names:?}", jdk.name);
            }
        }
    }
    Ok(())
}

// --- honest numbers ---

/// There is nothing from before the run, and nothing came too late.
fn no_number_is_marked(report: &View) -> Result<()> {
    let frees = report.totals.untraced_frees;
    ensure!(frees == 0, "{frees} frees of unknown blocks");
    let late = report
        .losses
        .iter()
        .find(|loss| loss.cause == "late_allocator");
    ensure!(
        late.is_some_and(|loss| loss.count == 0),
        "{:?}",
        report.occurred()
    );
    Ok(())
}

/// glibc gives the blocks in a thread's cache back by `free` when it ends.
#[test]
fn what_an_allocator_frees_for_itself_is_not_from_before_the_run() -> Result<()> {
    let script = "import threading
for i in range(50):
    one = threading.Thread(target=lambda: [bytearray(700 + j) for j in range(50)])
    one.start()
    one.join()";
    let report = run(&["-q"], &["python3", "-S", "-E", "-c", script])?.report()?;
    no_number_is_marked(&report)
}

#[test]
fn an_allocator_that_is_there_from_the_start_is_not_late() -> Result<()> {
    let preload = &*format!("LD_PRELOAD={JEMALLOC}");
    let report = run(
        &["-q"],
        &["env", preload, "jq", "-n", "[range(1000)]|length"],
    )?
    .report()?;
    let of_jemalloc = |module: &str| module.contains("libjemalloc");
    let mut frames = report.sites.iter().flat_map(|site| &site.frames);
    ensure!(frames.any(|frame| frame.module.as_deref().is_some_and(of_jemalloc)));
    no_number_is_marked(&report)
}

// --- nothing that a program could notice ---

#[test]
fn signals_and_children_are_as_without_a_tracer() -> Result<()> {
    let program = target("signals")?;
    let alone = Command::new(&program).output()?;
    let alone = String::from_utf8(alone.stdout)?;
    ensure!(alone.contains("of the kernel: 5 urgent"), "{alone}");
    for options in [&["-q"][..], &["-q", "--follow"]] {
        let finished = run(options, &[&program])?;
        assert_eq!(finished.stdout, alone.trim_end(), "{options:?}");
        assert_eq!(finished.status.code(), Some(128 + libc::SIGTERM));
    }
    Ok(())
}

#[test]
fn debuggers_work() -> Result<()> {
    let debugger = target("debugger")?;
    for options in [&["-q"][..], &["-q", "--follow"]] {
        let finished = run(options, &[&debugger])?;
        assert_eq!(
            (finished.status.code(), finished.stdout.as_str()),
            (Some(0), "traced")
        );
        let finished = run(options, &["sh", "-c", &format!("exec {debugger}")])?;
        assert_eq!(
            (finished.status.code(), finished.stdout.as_str()),
            (Some(0), "traced")
        );
    }
    // Of a process that is held itself.
    let script = format!("sleep 60 & {debugger} $! && kill $!");
    let finished = run(&["-q", "--follow"], &["sh", "-c", &script])?;
    assert_eq!(
        (finished.status.code(), finished.stdout.as_str()),
        (Some(0), "attached")
    );
    Ok(())
}

#[test]
fn a_leak_sanitizer_looks_at_its_threads() -> Result<()> {
    let sanitized = target("sanitized")?;
    let alone = Command::new(&sanitized).arg("leak").output()?.status.code();
    let finished = run(&["-q"], &[&sanitized, "leak"])?;
    assert_eq!(finished.status.code(), alone, "{}", finished.stderr);
    Ok(())
}

// --- the tracer's death ---

/// A script that says in a file how far it is.
struct Script {
    folder: TempDir,
    tracer: Tracer,
}

impl Script {
    fn start(script: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tracer = Tracer::run_with(&["-q", "--follow"], &["sh", "-c", script], |tracer| {
            tracer.current_dir(folder.path());
        })?;
        Ok(Self { folder, tracer })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Kills the tracer once there are so many lines.
    fn kill_after(&self, lines: usize) -> Result<()> {
        let said = self.path("said");
        wait_until("the script", || Ok((count(&said) >= lines).then_some(())))?;
        self.tracer.signal(libc::SIGKILL)
    }

    fn ends_well(&self) -> Result<()> {
        let end = self.path("end");
        let text = wait_until("the script's end", || {
            Ok(fs::read_to_string(&end)
                .ok()
                .filter(|text| text.ends_with('\n')))
        })?;
        ensure!(text == "fine\n", "{text}");
        Ok(())
    }
}

fn count(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// At any moment of programs' starts.
#[test]
fn programs_that_start_outlive_the_tracer() -> Result<()> {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        jq -n 1 >/dev/null || { echo failed > end; exit; }; echo $i >> said; done; echo fine > end";
    for lines in 0..12 {
        let script = Script::start(script)?;
        if lines == 0 {
            // Not before it runs at all.
            script.kill_after(1)?;
        } else {
            script.kill_after(lines)?;
        }
        script
            .ends_well()
            .with_context(|| format!("after {lines}"))?;
    }
    Ok(())
}

/// It opens libraries, makes threads and starts programs afterwards.
#[test]
fn programs_that_run_outlive_the_tracer() -> Result<()> {
    let script = "python3 -S -E -c '
import os, sys, threading
print(1, file=open(\"said\", \"w\"), flush=True)
os.mkfifo(\"go\")
open(\"go\").read()
import ctypes, sqlite3, bz2, lzma
for i in range(20):
    one = threading.Thread(target=lambda: ctypes.CDLL(\"libm.so.6\"))
    one.start()
    one.join()
sys.exit(os.system(\"true\"))' && echo fine > end || echo failed > end";
    let script = Script::start(script)?;
    script.kill_after(1)?;
    wait_until("the tracer's end", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", script.tracer.pid()));
        let is_dead = stat.map_or(true, |stat| stat.contains(") Z "));
        Ok(is_dead.then_some(()))
    })?;
    wait_until("the pipe", || Ok(script.path("go").exists().then_some(())))?;
    fs::write(script.path("go"), "")?;
    script.ends_well()
}
