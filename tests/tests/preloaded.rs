//! `run --sampler`: a sampler is preloaded into the program, whose allocator gets no
//! probes.
//!
//! The sampler's random numbers have a fixed seed here, but threads take turns as they
//! like: checks of estimates are five of their standard errors wide, which chance exceeds
//! less than once in a million.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use unfreed_tests::allocators::{JEMALLOC, MIMALLOC, TCMALLOC};
use unfreed_tests::model::Errors;
use unfreed_tests::{Finished, Jdk, Tracer, View, send_signal, target_path, wait_until};

/// Blocks that leak at most of the places.
const COUNT: u64 = 20_000;

/// Starts a program with the sampler, in an environment.
fn start(options: &[&str], command: &[OsString], environment: &[(&str, &str)]) -> Result<Tracer> {
    let options = [&["--sampler", "--as-root"], options].concat();
    Tracer::run_with(&options, command, |tracer| {
        tracer.env("UNFREED_SAMPLER_SEED", "4711");
        tracer.envs(environment.iter().copied());
    })
}

fn run(options: &[&str], command: &[OsString], environment: &[(&str, &str)]) -> Result<Finished> {
    start(options, command, environment)?.wait()
}

/// The same of a target, with commands.
fn target(name: &str, commands: &[&str]) -> Result<Vec<OsString>> {
    let program = target_path(name)?.into_os_string();
    let commands = commands.iter().map(OsString::from);
    Ok(std::iter::once(program).chain(commands).collect())
}

/// Checks that live bytes and blocks at a function are what they are, within five of the
/// stated standard errors, and that these are what they should be.
fn check(report: &View, function: &str, size: u64, count: u64) -> Result<()> {
    let found = report.heap(function);
    let mut errors = Errors::default();
    for site in report.sites_with(function) {
        errors.add(site.errors.as_ref().context("a site without its errors")?);
    }
    let truth = (size * count) as f64;
    let off = (found.live_bytes as f64 - truth).abs();
    ensure!(
        errors.live_bytes > 0.0 && off < 5.0 * errors.live_bytes,
        "{function}: {found:?}, really {truth} bytes, {errors:?}"
    );
    let off = (found.live_count as f64 - count as f64).abs();
    ensure!(
        off < 5.0 * errors.live_count,
        "{function}: {found:?}, {errors:?}"
    );
    ensure!(
        errors.live_bytes < 0.2 * truth,
        "{function}: {errors:?} of {truth}"
    );
    Ok(())
}

/// That the process was traced by its sampler alone.
fn is_sampled(report: &View) -> Result<()> {
    for process in &report.processes {
        ensure!(process.probes.is_empty(), "{process:?}");
    }
    let samplers = report.processes.iter().filter_map(|it| it.sampler.as_ref());
    let modules: Vec<_> = samplers.map(|sampler| sampler.module.as_str()).collect();
    ensure!(
        !modules.is_empty() && modules.iter().all(|it| it.contains("unfreed-sampler")),
        "{:?}",
        report.processes
    );
    Ok(())
}

#[test]
fn leaks_of_a_c_program_are_estimated() -> Result<()> {
    let command = target("leaks", &["leak", "fail"])?;
    let report = run(&["--sample", "32k"], &command, &[])?.report()?;
    is_sampled(&report)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    check(&report, "leak", 1009, COUNT)?;
    // Whatever is freed is seen to be: what is left is what leaks.
    assert_eq!(report.heap("fail").live_bytes, 0);
    assert_eq!(report.totals.untraced_frees, 0);
    let sampler = report.processes[0].sampler.as_ref().context("no sampler")?;
    ensure!(sampler.interval.abs_diff(32 << 10) < 400, "{sampler:?}");
    // Each function of C has its own path, whose innermost frame is the sampler's door.
    let leaves = report.sites_with("leak").filter_map(|site| {
        let leaf = site.frames.last()?.function.as_deref()?;
        Some(leaf.to_owned())
    });
    let leaves: std::collections::BTreeSet<String> = leaves.collect();
    for door in ["malloc", "calloc", "realloc", "memalign", "aligned_alloc"] {
        ensure!(
            leaves.iter().any(|leaf| leaf.ends_with(door)),
            "{door}: {leaves:?}"
        );
    }
    // What the allocator maps is its own.
    ensure!(report.sites_with("leak").all(|site| site.errors.is_some()));
    Ok(())
}

/// In four threads, 200 trials: the mean is the truth, and of the stated intervals of 95 %
/// as many have it as should.
#[test]
fn estimates_are_as_sure_as_they_say() -> Result<()> {
    let command = target("sampled", &["mix_all", "release"])?;
    let report = run(&["--sample", "16k"], &command, &[])?.report()?;
    is_sampled(&report)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    // See `mix` in `targets/c/sampled.c`.
    let truth = 16 * 4096 + 128 * 256 + 1024 * 64 + (64 << 10) + (512 << 10) + 32 * 4096;
    let (mut sum, mut variance, mut hits) = (0.0, 0.0, 0);
    for number in 0..200 {
        let function = format!("trial_{}", 100 + number);
        let live = report.heap(&function).live_bytes as f64;
        let mut errors = Errors::default();
        for site in report.sites_with(&function) {
            errors.add(site.errors.as_ref().context("a site without its errors")?);
        }
        sum += live;
        variance += errors.live_bytes.powi(2);
        let range = unfreed_tests::model::sampling::range(live, errors.live_bytes);
        hits += usize::from(
            range.is_some_and(|(low, high)| low <= truth as f64 && truth as f64 <= high),
        );
    }
    let off = sum - 200.0 * truth as f64;
    ensure!(
        off.abs() < 5.0 * variance.sqrt(),
        "{off} with {}",
        variance.sqrt()
    );
    // Some 190: below 174 and above 199 less than once in a million.
    ensure!((174..200).contains(&hits), "{hits} of 200");
    Ok(())
}

#[test]
fn leaks_of_cpp_and_rust_are_estimated() -> Result<()> {
    let report = run(&["--sample", "32k"], &target("leaks_cpp", &["throw"])?, &[])?.report()?;
    is_sampled(&report)?;
    check(&report, "leak_new", (2 * 1009 + 2 * 1009 + 1024) / 4, COUNT)?;
    let report = run(&["--sample", "32k"], &target("leaks_rust", &[])?, &[])?.report()?;
    is_sampled(&report)?;
    let found = report.heap("leaks_rust::leak");
    let truth = 1024 * COUNT;
    ensure!(found.live_bytes.abs_diff(truth) < truth / 5, "{found:?}");
    check(&report, "leaks_rust::leak", 1024, COUNT)
}

/// Another allocator is preloaded below, or linked: it does the work.
#[test]
fn other_allocators_work_below_it() -> Result<()> {
    for allocator in [JEMALLOC, TCMALLOC, MIMALLOC] {
        let environment = [("LD_PRELOAD", allocator)];
        let throws: &[&str] = match allocator {
            MIMALLOC => &[],
            _ => &["throw"],
        };
        for (program, commands, function, size) in [
            ("leaks", &["leak", "fail"][..], "leak", 1009),
            ("leaks_cpp", throws, "leak_new", (4 * 1009 + 1024) / 4),
        ] {
            let command = target(program, commands)?;
            let finished = run(&["--sample", "32k"], &command, &environment)?;
            let report = finished.report().with_context(|| allocator.to_owned())?;
            is_sampled(&report)?;
            check(&report, function, size, COUNT).with_context(|| allocator.to_owned())?;
        }
    }
    Ok(())
}

#[test]
fn threads_and_libraries_that_come_later_are_sampled() -> Result<()> {
    let folder = target_path("libplugin.so")?;
    let folder = folder
        .parent()
        .and_then(Path::to_str)
        .context("no folder")?;
    let command = target("leaks", &["threads", "load"])?;
    let environment = [("LD_LIBRARY_PATH", folder)];
    let report = run(&["--sample", "32k"], &command, &environment)?.report()?;
    is_sampled(&report)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    check(&report, "in_thread", 1009, 4 * COUNT)?;
    check(&report, "plugin_allocates", 541, COUNT)
}

/// A forked child has copies of what its parent has sampled, and samples of its own.
#[test]
fn a_child_has_its_parents_samples() -> Result<()> {
    let command = target("leaks", &["child"])?;
    let report = run(&["--sample", "32k", "--follow"], &command, &[])?.report()?;
    is_sampled(&report)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    check(&report, "leak", 1009, COUNT)?;
    // What the parent holds the child has freed, but not the parent.
    let all = report.heap("child");
    let own = report.heap("leak");
    let live = (all.live_bytes - own.live_bytes) as f64;
    let truth = (1013 * COUNT) as f64;
    ensure!((live - truth).abs() < 0.25 * truth, "{live} of {truth}");
    let expected = truth / 32768.0;
    let freed = report.totals.inherited_frees as f64;
    ensure!(
        (freed - expected).abs() < 6.0 * expected.sqrt(),
        "{freed} of {expected}"
    );
    assert_eq!(report.totals.untraced_frees, 0);
    Ok(())
}

/// A program that another one becomes is sampled like it.
#[test]
fn a_program_behind_a_shell_is_sampled() -> Result<()> {
    let program = target_path("leaks")?;
    let script = format!("exec env {} leak", program.display());
    let command = ["sh", "-c", &script].map(OsString::from);
    let report = run(&["--sample", "32k"], &command, &[])?.report()?;
    is_sampled(&report)?;
    check(&report, "leak", 1009, COUNT)
}

/// A child that has closed the sampler's descriptor executes others without a word of it;
/// one that keeps it is sampled.
#[test]
fn children_that_close_descriptors_are_not_troubled() -> Result<()> {
    let leaks = target_path("leaks")?;
    let script = format!(
        "import os, subprocess\nfor keep in [True, False]:\n    print(keep, subprocess.run(['/usr/bin/env'], close_fds=not keep, capture_output=True).stdout.count(b'LD_PRELOAD'))\n    done = subprocess.run([{leaks:?}, 'leak'], close_fds=not keep, capture_output=True)\n    print('said', done.stderr, done.returncode, flush=True)\nos._exit(0)\n"
    );
    let command = ["/usr/bin/python3".into(), "-c".into(), script.into()];
    let finished = run(&["--sample", "32k", "--follow"], &command, &[])?;
    let report = finished.report()?;
    for part in ["True 1", "False 0", "said b'' 0"] {
        ensure!(finished.stdout.contains(part), "{}", finished.stdout);
    }
    ensure!(!finished.stdout.contains("said b'E"), "{}", finished.stdout);
    // One of the two by its sampler, the other by probes.
    let found = report.heap("leak").live_bytes as f64;
    let truth = (2 * 1009 * COUNT) as f64;
    ensure!((found - truth).abs() < 0.15 * truth, "{found} of {truth}");
    let exact = report.processes.iter().filter(|it| !it.probes.is_empty());
    ensure!(exact.count() > 0, "{:?}", report.processes);
    Ok(())
}

#[test]
fn python_is_sampled() -> Result<()> {
    let script = "import os\nkept = []\ndef leak():\n    for i in range(2000):\n        kept.append(bytearray(100003))\n        len(bytes(20011))\nleak()\nos._exit(0)\n";
    let command = ["/usr/bin/python3", "-c", script].map(OsString::from);
    let report = run(&[], &command, &[])?.report()?;
    is_sampled(&report)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    let truth = 2000.0 * 100_004.0;
    let errors = report.sampling.context("no sampling")?.errors;
    let live = report.totals.live_bytes as f64;
    // Python itself holds some MiB.
    let slack = 16e6;
    ensure!(
        (live - truth).abs() < 5.0 * errors.live_bytes + slack,
        "{live} of {truth}, {errors:?}"
    );
    ensure!(errors.live_bytes < 0.12 * truth, "{errors:?}");
    Ok(())
}

#[test]
fn java_is_sampled() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = "import java.nio.ByteBuffer;\nimport java.util.*;\npublic class Keeps {\n    static final List<ByteBuffer> kept = new ArrayList<>();\n    static void keep() {\n        for (int i = 0; i < 400; i++) {\n            kept.add(ByteBuffer.allocateDirect(300_007));\n        }\n    }\n    public static void main(String[] arguments) {\n        keep();\n        Runtime.getRuntime().halt(0);\n    }\n}\n";
    let path = folder.path().join("Keeps.java");
    fs::write(&path, source)?;
    let jdk = Jdk::full()?;
    let compiled = jdk
        .tool("javac")
        .args(["-encoding", "UTF-8", "-d"])
        .arg(folder.path())
        .arg(&path)
        .status()?;
    ensure!(compiled.success());
    let java = jdk.tool("java").get_program().to_owned();
    let command = [java, "-cp".into(), folder.path().into(), "Keeps".into()];
    let report = run(&[], &command, &[])?.report()?;
    is_sampled(&report)?;
    // Debian's JDK hands out whole pages, and some more for the alignment.
    let truth = 400.0 * 300_007.0;
    // By the native frame: the first Java frames may be from before their JVM is known.
    let found = report.heap("Unsafe_AllocateMemory0");
    let mut errors = Errors::default();
    for site in report
        .sites_with("Unsafe_AllocateMemory0")
        .filter(|site| site.errors.is_some())
    {
        errors.add(&site.errors.unwrap_or_default());
    }
    let live = found.live_bytes as f64;
    ensure!(
        (live - truth).abs() < 5.0 * errors.live_bytes + 400.0 * 8192.0,
        "{live} of {truth}, {errors:?}"
    );
    ensure!(errors.live_bytes < 0.15 * truth, "{errors:?}");
    Ok(())
}

/// Who cannot be sampled is told so, and is not started.
#[test]
fn what_cannot_be_sampled_is_not_started() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let raised = folder.path().join("raised");
    fs::copy(target_path("leaks")?, &raised)?;
    chown(&raised, Some(65534), None)?;
    fs::set_permissions(&raised, fs::Permissions::from_mode(0o4755))?;
    let raised = raised.into_os_string();
    for (program, why) in [
        (
            target_path("leak_static")?.into_os_string(),
            "linked statically",
        ),
        (
            target_path("leak_static_pie")?.into_os_string(),
            "linked statically",
        ),
        (raised, "set-user-ID"),
        (
            target_path("static_jemalloc")?.into_os_string(),
            "allocator of its own",
        ),
    ] {
        let finished = run(&[], &[program, "leak".into()], &[])?;
        finished.fails_saying(&[why, "without --sampler"])?;
        ensure!(finished.stdout.is_empty(), "{}", finished.stdout);
    }
    Ok(())
}

/// A program whose tracer is killed goes on, and nothing of the tracer's is left once it
/// has ended.
#[test]
fn a_killed_tracer_leaves_nothing_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let script = format!(
        "import os, time\nos.chdir({:?})\nkept = []\ncount = 0\nopen('pid', 'w').write(str(os.getpid()))\nwhile not os.path.exists('stop'):\n    kept.append(bytearray(100003))\n    kept = kept[-1000:]\n    count += 1\n    open('count.new', 'w').write(str(count))\n    os.rename('count.new', 'count')\nopen('done', 'w').write('whole')\n",
        folder.path()
    );
    let command = ["/usr/bin/python3".into(), "-c".into(), script.into()];
    let before = temporary_files()?;
    let tracer = start(&["--quiet"], &command, &[])?;
    let count = || -> Option<u64> { fs::read_to_string(path("count")).ok()?.parse().ok() };
    wait_until("the program's work", || {
        Ok(count().filter(|count| *count > 10))
    })?;
    send_signal(tracer.pid(), libc::SIGKILL)?;
    wait_until("the tracer's end", || {
        let status = fs::read_to_string(format!("/proc/{}/stat", tracer.pid()));
        let has_ended = status.map_or(true, |stat| stat.contains(") Z "));
        Ok(has_ended.then_some(()))
    })?;
    let then = count().context("no count")?;
    wait_until("more of the program's work", || {
        Ok(count().filter(|count| *count > then + 100))
    })?;
    fs::write(path("stop"), "")?;
    wait_until("the program's end", || {
        Ok(path("done").exists().then_some(()))
    })?;
    let pid = fs::read_to_string(path("pid"))?;
    wait_until("the process's end", || {
        Ok((!Path::new("/proc").join(&pid).exists()).then_some(()))
    })?;
    assert_eq!(temporary_files()?, before);
    Ok(())
}

/// What lies where files of ours would lie.
fn temporary_files() -> Result<Vec<OsString>> {
    let mut found = Vec::new();
    for folder in ["/tmp", "/dev/shm", "/run"] {
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            if name.to_string_lossy().contains("unfreed-sampler") {
                found.push(name);
            }
        }
    }
    Ok(found)
}
