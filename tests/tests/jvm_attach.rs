//! JVMs asked by the attach protocol: every JDK at hand, and everything that
//! must not happen to them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use unfreed_tests::container::child_of;
use unfreed_tests::model::JavaHeap;
use unfreed_tests::{Entries, Happened, Jdk, Program, Target, Tracer, send_signal, wait_until};

/// A user without any rights: nobody, and its group.
const NOBODY: u32 = 65534;

/// What `--java-heap` found in a short run.
fn ask(pid: u32) -> Result<JavaHeap> {
    let report = Tracer::record(pid, &["--java-heap"])?.stop()?.report()?;
    report.java_heap.first().cloned().context("no Java heap")
}

fn ask_well(pid: u32) -> Result<()> {
    let heap = ask(pid)?;
    ensure!(heap.problem.is_none(), "{:?}", heap.problem);
    ensure!(heap.samples.len() >= 2, "{:?}", heap.samples);
    leaves_no_trigger(pid)
}

fn ask_in_vain(pid: u32, part: &str) -> Result<()> {
    let heap = ask(pid)?;
    let problem = heap.problem.unwrap_or_default();
    ensure!(problem.contains(part), "no {part:?} in {problem:?}");
    ensure!(heap.samples.is_empty());
    leaves_no_trigger(pid)
}

fn triggers(pid: u32) -> [PathBuf; 2] {
    let name = format!(".attach_pid{pid}");
    [format!("/proc/{pid}/cwd"), "/tmp".to_owned()].map(|folder| PathBuf::from(folder).join(&name))
}

fn leaves_no_trigger(pid: u32) -> Result<()> {
    for path in triggers(pid) {
        let is_there = path.symlink_metadata().is_ok();
        ensure!(!is_there, "left behind: {}", path.display());
    }
    Ok(())
}

fn socket(pid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/.java_pid{pid}"))
}

/// That the JVM lives, and does what it is told.
fn lives(target: &mut Target) -> Result<()> {
    target.command("grow 1").map(drop)
}

fn for_each(jdks: &[Jdk], test: impl Fn(&Jdk, &Program) -> Result<()>) -> Result<()> {
    let program = Program::copy("Heap")?;
    for jdk in jdks {
        test(jdk, &program).with_context(|| jdk.home.display().to_string())?;
    }
    Ok(())
}

/// A command that runs another as nobody, below a third if there is one.
fn as_nobody(below: &[&str], command: &Command) -> Command {
    let id = NOBODY.to_string();
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(below)
        .arg(command.get_program())
        .args(command.get_args());
    other
}

#[test]
fn every_jdk_answers() -> Result<()> {
    for_each(&Jdk::all()?, |jdk, program| {
        let mut target = Target::start_with(&mut jdk.command(&[], program))?;
        ensure!(!socket(target.pid).exists());
        ask_well(target.pid)?;
        // The socket is there now, and no signal is needed.
        ensure!(socket(target.pid).metadata()?.file_type().is_socket());
        ask_well(target.pid)?;
        lives(&mut target)
    })
}

/// Under `-Xrs` SIGQUIT kills. Such a JVM listens from its start, so it can be
/// asked all the same; without its socket it must not be touched.
#[test]
fn no_signal_that_kills() -> Result<()> {
    for_each(&Jdk::some()?, |jdk, program| {
        let mut target = Target::start_with(&mut jdk.command(&["-Xrs"], program))?;
        ask_well(target.pid)?;
        fs::remove_file(socket(target.pid))?;
        ask_in_vain(target.pid, "does not catch SIGQUIT")?;
        lives(&mut target)
    })
}

#[test]
fn an_option_that_forbids_it_is_named() -> Result<()> {
    for_each(&Jdk::some()?, |jdk, program| {
        let file = program.folder().join("options");
        fs::write(&file, "-XX:+DisableAttachMechanism")?;
        let disabled = "-XX:+DisableAttachMechanism";
        let from_file = match jdk.major {
            // It reads no options from files.
            8 => disabled.to_owned(),
            _ => format!("@{}", file.display()),
        };
        // Known by its counters, and without these by its arguments.
        for options in [&[from_file.as_str()][..], &[disabled, "-XX:-UsePerfData"]] {
            let mut target = Target::start_with(&mut jdk.command(options, program))?;
            // Known at once: a time limit would say so.
            ask_in_vain(target.pid, "DisableAttachMechanism; start it without")?;
            ensure!(!socket(target.pid).exists());
            lives(&mut target)?;
        }
        Ok(())
    })
}

/// Where neither tells, the time limit does.
#[test]
fn silence_is_bounded() -> Result<()> {
    let program = Program::copy("Heap")?;
    let file = program.folder().join("options");
    fs::write(&file, "-XX:+DisableAttachMechanism -XX:-UsePerfData")?;
    let options = format!("@{}", file.display());
    let mut command = Jdk::full()?.command(&[&options], &program);
    let mut target = Target::start_with(&mut command)?;
    ask_in_vain(target.pid, "did not begin to listen within 10 s")?;
    lives(&mut target)
}

#[test]
fn planted_links_are_not_followed() -> Result<()> {
    let program = Program::copy("Heap")?;
    let gone = tempfile::tempdir()?;
    let mut command = Jdk::full()?.command(&[], &program);
    let mut target = Target::start_with(command.current_dir(gone.path()))?;
    let pid = target.pid;
    // No file can be made in a folder that is gone: /tmp is left.
    gone.close()?;
    let [_, trigger] = triggers(pid);
    let victim = program.folder().join("victim");
    symlink(&victim, &trigger)?;
    let heap = ask(pid)?;
    fs::remove_file(&trigger)?;
    let problem = heap.problem.unwrap_or_default();
    ensure!(problem.contains("is a link"), "{problem}");
    ensure!(!victim.exists());

    let listener = std::os::unix::net::UnixListener::bind(&victim)?;
    listener.set_nonblocking(true)?;
    symlink(&victim, socket(pid))?;
    ask_in_vain(pid, "is a link: not the JVM's")?;
    let nobody_came = listener.accept().is_err();
    ensure!(nobody_came);
    fs::remove_file(socket(pid))?;
    ask_well(pid)?;
    lives(&mut target)
}

#[test]
fn a_jvm_of_another_user_answers() -> Result<()> {
    for_each(&Jdk::some()?, |jdk, program| {
        let mut command = as_nobody(&[], &jdk.command(&[], program));
        let mut target = Target::start_with(command.current_dir("/"))?;
        ask_well(target.pid)?;
        ensure!(socket(target.pid).metadata()?.uid() == NOBODY);
        lives(&mut target)
    })
}

/// A JVM of nobody's that works in this folder, and what happens there.
fn jvm_of_nobody(program: &Program, folder: &Path) -> Result<(Target, Entries)> {
    let mut command = as_nobody(&[], &Jdk::full()?.command(&[], program));
    let target = Target::start_with(command.current_dir(folder))?;
    Ok((target, Entries::of(folder)?))
}

/// The same in a folder of nobody's.
fn jvm_in_its_users_folder(program: &Program) -> Result<(TempDir, Target, Entries)> {
    let folder = tempfile::tempdir()?;
    chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
    let (target, entries) = jvm_of_nobody(program, folder.path())?;
    Ok((folder, target, entries))
}

/// That the trigger file was made and removed, once.
fn was_asked_once(entries: &mut Entries, pid: u32) -> Result<()> {
    let happened = entries.happened(&format!(".attach_pid{pid}"))?;
    assert_eq!(happened, [Happened::Made, Happened::Removed]);
    Ok(())
}

/// The file is made as the JVM's user, and not given to him later.
#[test]
fn the_trigger_is_its_users_from_the_first_moment() -> Result<()> {
    let program = Program::copy("Heap")?;
    let (_folder, mut target, mut entries) = jvm_in_its_users_folder(&program)?;
    ask_well(target.pid)?;
    was_asked_once(&mut entries, target.pid)?;
    lives(&mut target)
}

/// Root may make files anywhere; the JVM's user may not.
#[test]
fn no_file_is_made_where_the_jvms_user_may_make_none() -> Result<()> {
    let program = Program::copy("Heap")?;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let (mut target, mut entries) = jvm_of_nobody(&program, folder.path())?;
    let mut in_tmp = Entries::of(Path::new("/tmp"))?;
    ask_well(target.pid)?;
    let name = format!(".attach_pid{}", target.pid);
    assert_eq!(entries.happened(&name)?, []);
    was_asked_once(&mut in_tmp, target.pid)?;
    lives(&mut target)
}

/// Whether a signal was sent to a process that it has not got yet.
fn is_pending(pid: u32, signal: i32) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let pending = u64::from_str_radix(pending.context("no ShdPnd")?.trim(), 16)?;
    Ok(pending & (1 << (signal - 1)) != 0)
}

/// A JVM that is asked while it is stopped, so that the trigger stays; then
/// `signal` for the tracer.
fn interrupted(target: &Target, signal: i32) -> Result<()> {
    let pid = target.pid;
    send_signal(pid, libc::SIGSTOP)?;
    let options = ["record", "-p", &pid.to_string(), "--java-heap"];
    let tracer = Tracer::start(&options)?;
    let [trigger, _] = triggers(pid);
    wait_until("the trigger file", || {
        Ok(trigger.symlink_metadata().is_ok().then_some(()))
    })?;
    // While the JVM is stopped, the signal stays on its way.
    wait_until("SIGQUIT", || {
        Ok(is_pending(pid, libc::SIGQUIT)?.then_some(()))
    })?;
    let begin = Instant::now();
    tracer.signal(signal)?;
    let finished = tracer.wait()?;
    ensure!(!finished.status.success());
    ensure!(
        begin.elapsed() < Duration::from_secs(9),
        "waited for the JVM"
    );
    Ok(())
}

#[test]
fn an_interrupted_attach_leaves_nothing() -> Result<()> {
    let program = Program::copy("Heap")?;
    let mut command = Jdk::full()?.command(&[], &program);
    let mut target = Target::start_with(&mut command)?;
    interrupted(&target, libc::SIGINT)?;
    leaves_no_trigger(target.pid)?;
    send_signal(target.pid, libc::SIGCONT)?;
    lives(&mut target)?;
    ask_well(target.pid)
}

/// The file is removed by who may remove it, at the exit too.
#[test]
fn an_interrupted_attach_leaves_nothing_in_another_users_folder() -> Result<()> {
    let program = Program::copy("Heap")?;
    let (_folder, mut target, mut entries) = jvm_in_its_users_folder(&program)?;
    interrupted(&target, libc::SIGINT)?;
    leaves_no_trigger(target.pid)?;
    was_asked_once(&mut entries, target.pid)?;
    send_signal(target.pid, libc::SIGCONT)?;
    lives(&mut target)
}

/// SIGKILL leaves an empty file of the JVM's user. The signal that was on its
/// way opens the socket; the file then means nothing to this JVM any more.
#[test]
fn a_killed_attach_leaves_nothing_that_matters() -> Result<()> {
    let program = Program::copy("Heap")?;
    let mut command = Jdk::full()?.command(&[], &program);
    let mut target = Target::start_with(command.current_dir(program.folder()))?;
    interrupted(&target, libc::SIGKILL)?;
    let [trigger, in_tmp] = triggers(target.pid);
    let left = trigger.symlink_metadata()?;
    ensure!(left.is_file() && left.len() == 0 && left.uid() == 0);
    ensure!(in_tmp.symlink_metadata().is_err());
    send_signal(target.pid, libc::SIGCONT)?;
    wait_until("the JVM's socket", || {
        Ok(socket(target.pid).exists().then_some(()))
    })?;
    lives(&mut target)?;
    let heap = ask(target.pid)?;
    ensure!(heap.problem.is_none(), "{:?}", heap.problem);
    Ok(())
}

#[test]
fn a_stopped_jvm_is_called_so() -> Result<()> {
    let program = Program::copy("Heap")?;
    let mut command = Jdk::full()?.command(&[], &program);
    let mut target = Target::start_with(&mut command)?;
    send_signal(target.pid, libc::SIGSTOP)?;
    ask_in_vain(target.pid, "the JVM is stopped")?;
    send_signal(target.pid, libc::SIGCONT)?;
    lives(&mut target)
}

#[test]
fn a_process_that_is_no_jvm_is_traced_all_the_same() -> Result<()> {
    let target = Target::start("leak")?;
    ask_in_vain(target.pid, "no HotSpot JVM")
}

/// A JVM in a container: other mounts, another `/tmp`, another pid.
#[test]
fn a_jvm_in_namespaces_of_its_own_answers() -> Result<()> {
    let program = Program::copy("Heap")?;
    let java = Jdk::full()?.command(&[], &program);
    // The classes are in the old /tmp, which the new one hides.
    let script = format!(
        "cp -r {classes} /run/unfreed-classes && mount -t tmpfs none /tmp \
         && cp -r /run/unfreed-classes {classes} && cd / && exec \"$@\"",
        classes = program.folder().display()
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args([
            "sh",
            "-c",
            &format!("mount -t tmpfs none /run && {script}"),
            "sh",
        ])
        .arg(java.get_program())
        .args(java.get_args());
    let mut target = Target::start_with(&mut command)?;
    ensure!(target.pid == 1, "pid {} for itself", target.pid);
    let pid = child_of(target.child_pid())?;
    let heap = ask(pid)?;
    ensure!(heap.problem.is_none(), "{:?}", heap.problem);
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    for name in [".attach_pid1", "tmp/.attach_pid1"] {
        let path = root.join(name);
        ensure!(path.symlink_metadata().is_err(), "{}", path.display());
    }
    ensure!(root.join("tmp/.java_pid1").exists());
    lives(&mut target)
}

/// To such a JVM our root is nobody, and its own root somebody else.
#[test]
fn a_jvm_with_users_of_its_own_answers() -> Result<()> {
    for_each(&Jdk::some()?, |jdk, program| {
        let own_users = ["unshare", "--user", "--map-root-user"];
        let mut command = as_nobody(&own_users, &jdk.command(&[], program));
        let mut target = Target::start_with(command.current_dir("/"))?;
        ask_well(target.pid)?;
        lives(&mut target)
    })
}
