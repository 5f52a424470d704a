//! What the tracer holds of root's rights, and whether that is enough.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::account::{Account, USER, as_sudo, leak_for_all, said};
use unfreed_tests::{
    Jdk, Outputs, Program, Sums, Target, Tracer, binary, kernel_version, unfreed, wait_until,
};

/// Capabilities by number (`linux/capability.h`).
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const FOWNER: u64 = 1 << 3;
const KILL: u64 = 1 << 5;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const IPC_LOCK: u64 = 1 << 14;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const CHECKPOINT_RESTORE: u64 = 1 << 40;

/// What tracing takes all the time, what writing takes at times, and both with
/// what the start takes.
const TRACE: u64 = BPF | PERFMON | CHECKPOINT_RESTORE | SYS_PTRACE | DAC_READ_SEARCH;
const WRITE: u64 = DAC_OVERRIDE | FOWNER;
const ALL: u64 = TRACE | WRITE | IPC_LOCK;

fn lines(text: &str, separator: char) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(separator)?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

/// A thread's capability sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    permitted: u64,
    effective: u64,
    inheritable: u64,
    bounding: u64,
    ambient: u64,
}

fn held(status: &BTreeMap<String, String>) -> Result<Held> {
    let set = |name: &str| {
        let text = status.get(name).with_context(|| format!("no {name}"))?;
        Ok::<_, anyhow::Error>(u64::from_str_radix(text, 16)?)
    };
    Ok(Held {
        permitted: set("CapPrm")?,
        effective: set("CapEff")?,
        inheritable: set("CapInh")?,
        bounding: set("CapBnd")?,
        ambient: set("CapAmb")?,
    })
}

/// The status of every thread, the main one first. Those that end meanwhile
/// are left out.
fn threads(pid: u32) -> Result<Vec<BTreeMap<String, String>>> {
    let mut ids: Vec<u32> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        ids.push(entry?.file_name().to_string_lossy().parse()?);
    }
    ids.sort_unstable_by_key(|id| (*id != pid, *id));
    let status = |id| fs::read_to_string(format!("/proc/{pid}/task/{id}/status")).ok();
    let texts = ids.into_iter().filter_map(status);
    Ok(texts.map(|text| lines(&text, ':')).collect())
}

/// What the main thread holds, after all threads were looked at.
fn main_thread(pid: u32) -> Result<Held> {
    let all = threads(pid)?;
    let main = held(all.first().context("no threads")?)?;
    for status in &all {
        let held = held(status)?;
        let (permitted, effective) = (held.permitted, held.effective);
        ensure!(permitted & !main.permitted == 0, "{status:?}");
        ensure!(effective & !permitted == 0, "{status:?}");
        for (name, expected) in [("NoNewPrivs", "1"), ("Seccomp", "0")] {
            ensure!(status[name] == expected, "{status:?}");
        }
        ensure!(
            (held.inheritable, held.bounding, held.ambient) == (0, 0, 0),
            "{status:?}"
        );
    }
    Ok(main)
}

/// Threads other than the main one that hold nothing.
fn powerless(pid: u32) -> Result<usize> {
    let mut count = 0;
    for status in threads(pid)?.iter().skip(1) {
        let held = held(status)?;
        count += usize::from((held.permitted, held.effective) == (0, 0));
    }
    Ok(count)
}

/// What the tests have: what no container took away.
fn own() -> Result<u64> {
    Ok(held(&lines(&fs::read_to_string("/proc/self/status")?, ':'))?.permitted)
}

/// What probes take that are placed by perf events, as before 6.10.
fn later_events() -> Result<u64> {
    let by_events = kernel_version()? < (6, 10);
    Ok(if by_events { SYS_ADMIN } else { 0 })
}

#[test]
fn a_tracer_keeps_what_it_needs() -> Result<()> {
    let mut target = Target::start("leak")?;
    let out = Outputs::new()?;
    let pipe = out.path("report.folded");
    said(Command::new("mkfifo").arg(&pipe))?;
    let pipe = pipe.display().to_string();
    let tracer = Tracer::record(target.pid, &["-o", &pipe])?;
    let main = main_thread(tracer.pid())?;
    assert_eq!(main.effective, TRACE & own()?);
    assert_eq!(main.permitted, (ALL | later_events()?) & own()?);
    ensure!(powerless(tracer.pid())? > 0, "who builds tables?");
    target.command("leak_blocks")?;
    tracer.signal(libc::SIGINT)?;
    // It waits for a reader of the pipe, with all names made.
    wait_until("the end of tracing", || {
        // A thread that was just made has not given up its share yet.
        let Ok(main) = main_thread(tracer.pid()) else {
            return Ok(None);
        };
        let left = (WRITE | DAC_READ_SEARCH) & own()?;
        Ok((main.permitted == left && main.effective == WRITE & own()?).then_some(()))
    })?;
    let folded = fs::read_to_string(&pipe)?;
    ensure!(folded.contains("leak_blocks"), "{folded}");
    tracer.wait()?.report()?;
    Ok(())
}

#[test]
fn a_tracer_of_a_program_can_end_it_too() -> Result<()> {
    let account = Account::of(USER)?;
    let out = Outputs::new()?;
    let command = [leak_for_all(&out)?];
    let mut tracer = Tracer::run_with(&[], &command, |tracer| {
        as_sudo(tracer, &account);
        tracer.stdin(std::process::Stdio::piped());
    })?;
    tracer.wait_tracing()?;
    // The thread that started it is gone when it is ready.
    tracer.wait_printed("ready")?;
    let main = main_thread(tracer.pid())?;
    assert_eq!(main.permitted, (ALL | KILL | SYS_ADMIN) & own()?);
    assert_eq!(main.effective, TRACE & own()?);
    tracer.stop()?;
    Ok(())
}

#[test]
fn a_tracer_that_asks_a_jvm_can_be_its_user() -> Result<()> {
    let program = Program::copy("Heap")?;
    let target = Target::start_with(&mut Jdk::full()?.command(&[], &program))?;
    let tracer = Tracer::record(target.pid, &["--java-heap"])?;
    let main = main_thread(tracer.pid())?;
    let asks = KILL | SETUID | SETGID;
    assert_eq!(main.permitted, (ALL | asks | SYS_ADMIN) & own()?);
    assert_eq!(main.effective, TRACE & own()?);
    let asking = (SYS_PTRACE | DAC_READ_SEARCH | asks) & own()?;
    let mut others = Vec::new();
    for status in threads(tracer.pid())?.iter().skip(1) {
        others.push(held(status)?.permitted);
    }
    ensure!(others.contains(&asking), "{others:x?}");
    tracer.stop()?.report()?;
    Ok(())
}

/// With the capabilities that README names, and none of root's.
#[test]
fn root_is_not_needed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let tracer = folder.path().join("unfreed");
    fs::copy(binary()?, &tracer)?;
    fs::set_permissions(&tracer, fs::Permissions::from_mode(0o755))?;
    let account = Account::of(USER)?;
    let mut names = "+bpf,+perfmon,+sys_ptrace,+dac_read_search".to_owned();
    let mut few = BPF | PERFMON | SYS_PTRACE | DAC_READ_SEARCH;
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
    if paranoid.trim().parse::<i32>()? > 2 || later_events()? != 0 {
        names += ",+sys_admin";
        few |= SYS_ADMIN;
    }
    if kernel_version()? < (5, 11) {
        // BPF memory counts as locked there. It goes with the first look.
        names += ",+sys_resource";
    }
    let as_user = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &account.uid.to_string()])
            .args(["--regid", &account.gid.to_string(), "--clear-groups"])
            .args(["--inh-caps", &names, "--ambient-caps", &names])
            .arg(&tracer)
            // Said by a user who is not root, it means nothing.
            .envs([("SUDO_UID", "0"), ("SUDO_GID", "0")])
            .current_dir(folder.path());
        command
    };
    let out = Outputs::new()?;
    let leak = leak_for_all(&out)?;
    let mut run = as_user();
    run.args(["run", "-q", "-o", "run.json", "--", "sh", "-c"]);
    run.arg(format!("id -u; exec {leak} leak_blocks"));
    let printed = said(&mut run)?;
    ensure!(
        printed.starts_with(&format!("{}\n", account.uid)),
        "{printed}"
    );
    let text = fs::read_to_string(folder.path().join("run.json"))?;
    let report = unfreed_tests::View::new(serde_json::from_str(&text)?);
    assert_eq!(report.heap("leak_blocks"), Sums::live(1009, 7));

    // A process of root's, and what the tracer holds meanwhile.
    let mut target = Target::start("leak")?;
    let mut record = as_user();
    record.args(["record", "-o", "record.json", "-p", &target.pid.to_string()]);
    let mut tracer = record.stderr(std::process::Stdio::piped()).spawn()?;
    let mut stderr = std::io::BufReader::new(tracer.stderr.take().context("no pipe")?);
    let mut heard = String::new();
    while !heard.lines().any(|line| line.starts_with("tracing ")) {
        let more = std::io::BufRead::read_line(&mut stderr, &mut heard)?;
        ensure!(more > 0, "{heard}");
    }
    for status in threads(tracer.id())? {
        let held = held(&status)?;
        ensure!(held.permitted & !few == 0, "{status:?}");
        ensure!((held.inheritable, held.ambient) == (0, 0), "{status:?}");
        ensure!(status["NoNewPrivs"] == "1", "{status:?}");
    }
    target.command("leak_blocks")?;
    unfreed_tests::send_signal(tracer.id(), libc::SIGINT)?;
    stderr.read_to_string(&mut heard)?;
    let status = wait_until("the tracer's end", || Ok(tracer.try_wait()?))?;
    ensure!(status.success(), "{heard}");
    let text = fs::read_to_string(folder.path().join("record.json"))?;
    let report = unfreed_tests::View::new(serde_json::from_str(&text)?);
    assert_eq!(report.heap("leak_blocks"), Sums::live(1009, 7));
    Ok(())
}

#[test]
fn doctor_shows_what_is_held() -> Result<()> {
    let doctor = unfreed(&["doctor"])?;
    ensure!(doctor.status.success(), "{}", doctor.stdout);
    for part in [
        "privileges while attaching: DAC_READ_SEARCH, SYS_PTRACE, PERFMON, BPF, CHECKPOINT_RESTORE",
        "privileges while tracing: DAC_READ_SEARCH, SYS_PTRACE, PERFMON, BPF, CHECKPOINT_RESTORE",
        "privileges while reporting: none",
        "privileges of threads that read files: none",
        "no new ones",
    ] {
        ensure!(doctor.stdout.contains(part), "{part}: {}", doctor.stdout);
    }
    Ok(())
}
