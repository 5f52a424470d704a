//! Whose rights are used for what: the program of `run`, and the tracer.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::{
    Finished, Jdk, Outputs, Program, Sums, Target, Tracer, binary, kernel_version, target_path,
    unfreed, wait_until,
};

/// A user whom every Debian has, whose name is his group's, and whose ids
/// differ.
const USER: &str = "games";

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

/// An entry of the system's list of users, as its own tools tell it.
struct Account {
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
    groups: String,
}

impl Account {
    fn of(name: &str) -> Result<Self> {
        let entry = said(Command::new("getent").args(["passwd", name]))?;
        let fields: Vec<&str> = entry.trim().split(':').collect();
        let [_, _, uid, gid, _, home, shell] = fields[..] else {
            anyhow::bail!("no user {name}: {entry:?}");
        };
        Ok(Self {
            uid: uid.parse()?,
            gid: gid.parse()?,
            home: home.to_owned(),
            shell: shell.to_owned(),
            groups: said(Command::new("id").args(["-G", name]))?,
        })
    }
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A target's copy in a folder that anybody may enter.
fn leak_for_all(folder: &Outputs) -> Result<String> {
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path("leak");
    fs::copy(target_path("leak")?, &copy)?;
    Ok(copy.display().to_string())
}

/// The environment that sudo makes for root.
fn as_sudo(command: &mut Command, account: &Account) {
    command
        .current_dir("/")
        .env("SUDO_UID", account.uid.to_string())
        .env("SUDO_GID", account.gid.to_string())
        .env("SUDO_USER", USER)
        .env("SUDO_COMMAND", "unfreed")
        .envs([("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")])
        .envs([("SHELL", "/bin/bash"), ("MAIL", "/var/mail/root")]);
}

fn run_as_sudo(options: &[&str], command: &[&str]) -> Result<Finished> {
    let account = Account::of(USER)?;
    Tracer::run_with(&[&["-q"], options].concat(), command, |tracer| {
        as_sudo(tracer, &account);
    })?
    .wait()
}

fn lines(text: &str, separator: char) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(separator)?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

// --- the program ---

#[test]
fn the_program_is_the_one_of_who_called_sudo() -> Result<()> {
    let account = Account::of(USER)?;
    let finished = run_as_sudo(&[], &["cat", "/proc/self/status"])?;
    let status = lines(&finished.stdout, ':');
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    assert_eq!(status["Uid"], four(account.uid));
    assert_eq!(status["Gid"], four(account.gid));
    assert_eq!(status["Groups"], account.groups);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    // Programs that are set-uid work as ever.
    let own = lines(&fs::read_to_string("/proc/self/status")?, ':');
    assert_eq!(status["CapBnd"], own["CapBnd"]);
    assert_eq!(status["NoNewPrivs"], own["NoNewPrivs"]);
    finished.report()?;
    Ok(())
}

#[test]
fn its_environment_is_not_roots() -> Result<()> {
    let account = Account::of(USER)?;
    let finished = run_as_sudo(&[], &["env"])?;
    let found = lines(&finished.stdout, '=');
    assert_eq!(found["HOME"], account.home);
    assert_eq!(found["SHELL"], account.shell);
    assert_eq!(
        (found["USER"].as_str(), found["LOGNAME"].as_str()),
        (USER, USER)
    );
    assert_eq!(found["MAIL"], format!("/var/mail/{USER}"));
    assert_eq!(found["PATH"], std::env::var("PATH")?);
    let left: Vec<_> = found.keys().filter(|key| key.starts_with("SUDO")).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Its limits are those that it has without the tracer.
#[test]
fn its_limits_are_those_of_the_tracers_parent() -> Result<()> {
    let lower = |command: &mut Command| {
        let set = |resource, by: u64| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: valid pointers to a local.
            unsafe {
                libc::getrlimit(resource, &raw mut limit);
                limit.rlim_cur = limit.rlim_max.min(by);
                libc::setrlimit(resource, &raw const limit)
            };
        };
        let both = move || {
            set(libc::RLIMIT_NOFILE, 321);
            set(libc::RLIMIT_MEMLOCK, 48 << 10);
            Ok(())
        };
        // SAFETY: it makes system calls and nothing else.
        unsafe { command.pre_exec(both) };
    };
    let command = ["cat", "/proc/self/limits"];
    let mut plain = Command::new(command[0]);
    lower(plain.arg(command[1]));
    let expected = said(&mut plain)?;
    ensure!(expected.contains(" 321 "), "{expected}");
    let account = Account::of(USER)?;
    for sudo in [true, false] {
        let finished = Tracer::run_with(&["-q"], &command, |tracer| {
            if sudo {
                as_sudo(tracer, &account);
            }
            lower(tracer);
        })?;
        assert_eq!(finished.wait()?.stdout.trim(), expected, "sudo: {sudo}");
    }
    Ok(())
}

/// A set-uid program is traced by root, and gets its user all the same.
#[test]
fn set_uid_programs_work_in_it() -> Result<()> {
    let out = Outputs::new()?;
    fs::set_permissions(out.path(""), fs::Permissions::from_mode(0o755))?;
    let (secret, cat) = (out.path("secret"), out.path("cat"));
    fs::write(&secret, "for root alone")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    fs::copy("/bin/cat", &cat)?;
    let (secret, cat) = (secret.display().to_string(), cat.display().to_string());
    for (mode, expected) in [(0o755, ""), (0o4755, "for root alone")] {
        fs::set_permissions(&cat, fs::Permissions::from_mode(mode))?;
        // Called at once, and by a program that was called.
        for command in [
            &[&*cat, &secret][..],
            &["sh", "-c", &format!("{cat} {secret}; true")],
        ] {
            let finished = run_as_sudo(&[], command)?;
            assert_eq!(finished.stdout, expected, "{}", finished.stderr);
        }
    }
    Ok(())
}

#[test]
fn as_root_keeps_root() -> Result<()> {
    let finished = run_as_sudo(
        &["--as-root"],
        &["sh", "-c", "id -u; echo $HOME $SUDO_USER"],
    )?;
    assert_eq!(finished.stdout, format!("0\n/root {USER}"));
    Ok(())
}

#[test]
fn who_is_not_called_by_sudo_starts_it_as_himself() -> Result<()> {
    let finished = Tracer::run(&["-q"], &["cat", "/proc/self/status"])?.wait()?;
    let status = lines(&finished.stdout, ':');
    let own = lines(&fs::read_to_string("/proc/self/status")?, ':');
    for key in [
        "Uid",
        "Gid",
        "Groups",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
    ] {
        assert_eq!(status[key], own[key], "{key}");
    }
    Ok(())
}

#[test]
fn a_program_that_the_user_may_not_execute_is_named() -> Result<()> {
    let out = Outputs::new()?;
    fs::set_permissions(out.path(""), fs::Permissions::from_mode(0o755))?;
    let script = out.text("mine");
    fs::write(&script, "#!/bin/sh\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    let finished = run_as_sudo(&[], &[&script])?;
    finished.fails_saying(&[&script, "Permission denied", USER, "sudo", "--as-root"])?;
    assert_eq!(finished.status.code(), Some(126));
    let finished = run_as_sudo(&["--as-root"], &[&script])?;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    Ok(())
}

#[test]
fn a_caller_who_cannot_be_is_refused() -> Result<()> {
    for user in ["x", "4294967295", "-1"] {
        let refused = Tracer::run_with(&[], &["true"], |tracer| {
            tracer.env("SUDO_UID", user).env("SUDO_GID", "1");
        })?;
        refused
            .wait()?
            .fails_saying(&["SUDO_UID", user, "--as-root"])?;
    }
    Ok(())
}

/// The program is not root's: to end it takes a capability.
#[test]
fn a_signal_to_the_tracer_ends_the_users_program() -> Result<()> {
    let account = Account::of(USER)?;
    let command = [
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done",
    ];
    let mut tracer = Tracer::run_with(&[], &command, |tracer| as_sudo(tracer, &account))?;
    tracer.wait_tracing()?;
    tracer.wait_printed("up")?;
    tracer.signal(libc::SIGTERM)?;
    let finished = tracer.wait()?;
    assert_eq!(finished.status.code(), Some(5), "{}", finished.stderr);
    let told = format!("{USER} (uid {})", account.uid);
    ensure!(finished.stderr.contains(&told), "{}", finished.stderr);
    Ok(())
}

// --- the tracer ---

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

// --- outputs ---

/// Root has fewer capabilities now, and still writes where others may not.
#[test]
fn reports_go_into_folders_of_others() -> Result<()> {
    let account = Account::of(USER)?;
    let out = Outputs::new()?;
    for (name, mode) in [("plain", 0o755), ("sticky", 0o1777)] {
        let folder = out.path(name);
        fs::create_dir(&folder)?;
        let old = folder.join("old.json");
        fs::write(&old, "")?;
        chown(&old, Some(account.uid + 1), None)?;
        chown(&folder, Some(account.uid), Some(account.gid))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        for file in ["old.json", "new.json"] {
            let path = folder.join(file);
            let text = path.display().to_string();
            let finished = Tracer::run(&["-q", "-o", &text], &["true"])?.wait()?;
            ensure!(finished.status.success(), "{}", finished.stderr);
            let report = fs::read_to_string(&path)?;
            ensure!(report.contains("unfreed/1"), "{report}");
            assert_eq!(path.metadata()?.uid(), 0, "{text}");
        }
    }
    Ok(())
}

/// A file that is mounted over another; unmounted with this value.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _still_busy = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_file_that_is_mounted_is_filled() -> Result<()> {
    let out = Outputs::new()?;
    let (inside, outside) = (out.text("inside.json"), out.text("outside.json"));
    fs::write(&inside, "")?;
    fs::write(&outside, "an older report, ".repeat(1000))?;
    said(Command::new("mount").args(["--bind", &outside, &inside]))?;
    let mounted = Mounted(inside);
    let finished = Tracer::run(&["-q", "-o", &mounted.0], &["true"])?.wait()?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    let is_report = |path: &str| -> Result<()> {
        let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        assert_eq!(report["schema"], "unfreed/1");
        Ok(())
    };
    is_report(&mounted.0)?;
    is_report(&outside)?;
    drop(mounted);
    ensure!(Path::new(&outside).metadata()?.len() > 0);
    Ok(())
}

/// A pipe that is swapped for a link while the target is traced.
#[test]
fn what_was_checked_is_what_is_written() -> Result<()> {
    let target = Target::start("leak")?;
    let out = Outputs::new()?;
    let (pipe, victim) = (out.path("report.folded"), out.path("victim"));
    said(Command::new("mkfifo").arg(&pipe))?;
    fs::write(&victim, "precious")?;
    let mut both = fs::OpenOptions::new();
    let both = both.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let mut reader = both.open(&pipe)?;
    let output = pipe.display().to_string();
    let tracer = Tracer::record(target.pid, &["-o", &output])?;
    fs::remove_file(&pipe)?;
    std::os::unix::fs::symlink(&victim, &pipe)?;
    tracer
        .stop()?
        .fails_saying(&[&output, "was a pipe when it was checked"])?;
    assert_eq!(fs::read_to_string(&victim)?, "precious");
    ensure!(pipe.is_symlink());
    let mut bytes = Vec::new();
    let _nothing_to_read = reader.read_to_end(&mut bytes);
    ensure!(bytes.is_empty());
    Ok(())
}
