//! When things go wrong: a clear message, nothing lost, nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use unfreed_tests::disk::Disk;
use unfreed_tests::model::ProcessEnd;
use unfreed_tests::{
    Finished, KernelObjects, Sums, Target, Tracer, binary, patched_bytes, send_signal, target_path,
    unfreed, wait_until,
};

fn record(pid: u32) -> Result<Finished> {
    unfreed(&["record", "-p", &pid.to_string(), "--duration", "1s"])
}

/// A child that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}

// --- what cannot be traced ---

#[test]
fn no_such_pid() -> Result<()> {
    let mut target = Target::start("leak")?;
    target.kill()?;
    let pid = target.pid.to_string();
    record(target.pid)?.fails_saying(&[&pid, "no process"])
}

#[test]
fn a_zombie() -> Result<()> {
    let child = Ended(Command::new("true").spawn()?);
    let pid = child.0.id();
    wait_until("a zombie", || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(state.contains(") Z ").then_some(()))
    })?;
    record(pid)?.fails_saying(&[&pid.to_string()])
}

#[test]
fn a_kernel_thread() -> Result<()> {
    let name = fs::read_to_string("/proc/2/comm").context("looking for a kernel thread")?;
    ensure!(
        name == "kthreadd\n",
        "this must run in the first pid namespace; pid 2 is {name}"
    );
    record(2)?.fails_saying(&["2", "kernel thread"])
}

/// A 32-bit executable without sections: `for (;;) pause();`.
fn pausing_32_bit_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u16 = 52 + 32;
    // mov $29, %eax; int $0x80; jmp back
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let size = u32::from(HEADERS) + 9;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |words: &[u32], halves: &[u16]| {
        words
            .iter()
            .for_each(|word| file.extend(word.to_le_bytes()));
        halves
            .iter()
            .for_each(|half| file.extend(half.to_le_bytes()));
    };
    put(&[], &[2, 3]); // ET_EXEC, EM_386
    put(
        &[1, BASE + u32::from(HEADERS), 52, 0, 0],
        &[52, 32, 1, 40, 0, 0],
    );
    put(&[1, 0, BASE, BASE, size, size, 5, 0x1000], &[]); // PT_LOAD, r-x
    file.extend(code);
    file
}

/// Starts a program that was just written. Until it has called `exec`, a child of
/// another test's may have the file open for writing as we did.
fn spawn_when_closed(program: &Path) -> Result<std::io::Result<Child>> {
    wait_until("the program's file to be closed", || {
        let spawned = Command::new(program).spawn();
        let busy = matches!(&spawned, Err(error) if error.raw_os_error() == Some(libc::ETXTBSY));
        Ok((!busy).then_some(spawned))
    })
}

#[test]
fn a_32_bit_process() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("pause32");
    write_program(&program, &pausing_32_bit_program())?;
    match spawn_when_closed(&program)? {
        Ok(child) => {
            let child = Ended(child);
            record(child.0.id())?.fails_saying(&["32-bit", &child.0.id().to_string()])
        }
        Err(error) => {
            // Without IA32 emulation there are no 32-bit processes to meet.
            assert_eq!(error.raw_os_error(), Some(libc::ENOEXEC), "{error}");
            Ok(())
        }
    }
}

fn write_program(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[test]
fn no_allocator_to_probe() -> Result<()> {
    let target = Target::start("no_allocator")?;
    let reason = ["no_allocator", "malloc", "free"];
    let followed = record(target.pid)?;
    ensure!(followed.status.success(), "{}", followed.stderr);
    for part in reason.into_iter().chain(["page faults are followed"]) {
        ensure!(followed.stderr.contains(part), "{}", followed.stderr);
    }
    // What page faults do not tell of is not answered by them.
    let pid = target.pid.to_string();
    let blocks = ["record", "-p", &pid, "--duration", "1s", "--min-size", "8"];
    unfreed(&blocks)?.fails_saying(&reason)
}

/// valgrind's program is refused before anything is placed, and lives on.
#[test]
fn a_program_under_valgrind() -> Result<()> {
    let program = target_path("leak")?;
    let mut command = Command::new("valgrind");
    command.arg("--quiet").arg(program);
    let mut target = Target::start_with(&mut command)?;
    record(target.pid)?.fails_saying(&["valgrind", "SIGTRAP", &target.pid.to_string()])?;
    // Code that it has not translated yet.
    target.command("leak_blocks")?;
    ensure!(target.finish()?.success(), "valgrind's program was harmed");
    Ok(())
}

/// Probes of everyone would be in its code too, so there are none.
#[test]
fn a_bystander_under_valgrind_when_children_are_followed() -> Result<()> {
    let mut command = Command::new("valgrind");
    command.arg("--quiet").arg(target_path("leak")?);
    let mut bystander = Target::start_with(&mut command)?;
    let target = Target::start("leak")?;
    let pid = target.pid.to_string();
    unfreed(&["record", "-p", &pid, "--follow", "--duration", "1s"])?.fails_saying(&[
        "valgrind",
        &bystander.pid.to_string(),
        "--follow",
    ])?;
    bystander.command("leak_blocks")?;
    ensure!(bystander.finish()?.success(), "the bystander was harmed");
    Ok(())
}

#[test]
fn no_such_program() -> Result<()> {
    unfreed(&["run", "--", "/nonexistent/program"])?.fails_saying(&["/nonexistent/program"])
}

#[test]
fn a_program_that_is_none() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("text");
    write_program(&path, b"\x7fELF but not really")?;
    let path = path.display().to_string();
    unfreed(&["run", "--", &path])?.fails_saying(&[&path])
}

// --- privileges ---

const NOBODY: u32 = 65534;

/// A copy of the tracer that everybody may execute.
fn tracer_for_all() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("unfreed");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok((folder, copy))
}

fn as_nobody(arguments: &[&str]) -> Result<(String, bool)> {
    let (_folder, tracer) = tracer_for_all()?;
    let output = Command::new(tracer)
        .args(arguments)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    Ok((String::from_utf8(output.stderr)?, output.status.success()))
}

#[test]
fn missing_privileges_are_named() -> Result<()> {
    let mut sleeper = Command::new("sleep");
    let own = Ended(sleeper.arg("1000").uid(NOBODY).gid(NOBODY).spawn()?);
    let other = Target::start("leak")?;
    for pid in [own.0.id(), other.pid] {
        let (said, success) = as_nobody(&["record", "-p", &pid.to_string()])?;
        assert!(!success && said.contains("CAP_"), "{said}");
        assert!(
            said.contains("sudo") || said.contains("setcap"),
            "no remedy: {said}"
        );
    }
    Ok(())
}

#[test]
fn missing_privileges_are_found_before_the_program_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let mark = folder.path().join("ran").display().to_string();
    let (said, success) = as_nobody(&["run", "--", "touch", &mark])?;
    assert!(!success && said.contains("CAP_"), "{said}");
    assert!(!Path::new(&mark).exists(), "the program ran untraced");
    Ok(())
}

// --- outputs ---

#[test]
fn an_output_that_cannot_be_written_is_found_before_tracing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mark = folder.path().join("ran").display().to_string();
    let here = folder.path().display().to_string();
    for output in [
        "/nonexistent/folder/report.json",
        &format!("{here}/folder.json"),
    ] {
        if output.starts_with(&here) {
            fs::create_dir(output)?;
        }
        let finished = unfreed(&["run", "-o", output, "--", "touch", &mark])?;
        finished.fails_saying(&[output])?;
        assert!(
            !Path::new(&mark).exists(),
            "the program ran: {}",
            finished.stderr
        );
    }
    Ok(())
}

#[test]
fn an_output_of_unknown_format_is_found_before_tracing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mark = folder.path().join("ran").display().to_string();
    let output = folder.path().join("report.docx").display().to_string();
    unfreed(&["run", "-o", &output, "--", "touch", &mark])?
        .fails_saying(&["report.docx", "json"])?;
    assert!(!Path::new(&mark).exists() && !Path::new(&output).exists());
    Ok(())
}

#[test]
fn a_full_device_is_named_and_costs_no_other_output() -> Result<()> {
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &["-o", "/dev/full", "--format", "folded"])?;
    let truth = target.command("leak_blocks")?;
    let finished = tracer.stop()?;
    finished.fails_saying(&["/dev/full", "No space left"])?;
    finished.report_of_any_end()?.agrees_with(&truth)?;
    assert!(
        finished.stdout.contains("leak_blocks"),
        "no table:\n{}",
        finished.stdout
    );
    Ok(())
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left_on_it() -> Result<()> {
    // Of one page.
    let disk = Disk::of(4096)?;
    let output = disk.path().join("leak.svg").display().to_string();
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &["-o", &output])?;
    let truth = target.command("leak_blocks")?;
    let finished = tracer.stop()?;
    finished.fails_saying(&[&output, "No space left"])?;
    finished.report_of_any_end()?.agrees_with(&truth)?;
    let left: Vec<_> = fs::read_dir(disk.path())?.collect::<Result<_, _>>()?;
    let stray: Vec<_> = left
        .iter()
        .filter(|entry| entry.file_name() != "leak.svg")
        .collect();
    assert!(stray.is_empty(), "{stray:?}");
    Ok(())
}

// --- ends ---

#[test]
fn sigint_and_sigterm_end_with_the_whole_report() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut target = Target::start("leak")?;
        let tracer = Tracer::record(target.pid, &[])?;
        let truth = target.command("leak_blocks")?;
        tracer.signal(signal)?;
        let report = tracer.wait()?.report()?;
        report.agrees_with(&truth)?;
        assert_eq!(report.processes[0].end, ProcessEnd::Running);
        // The target goes on, and nothing watches it.
        target.command("leak_blocks")?;
        assert_eq!(patched_bytes(target.pid)?, 0);
        assert!(target.finish()?.success());
    }
    Ok(())
}

/// The first signal makes the tracer write its report into a pipe that nobody
/// reads; only the second can end that.
#[test]
fn a_second_sigint_leaves_at_once() -> Result<()> {
    let mut target = Target::start("overload")?;
    let mut command = Command::new(binary()?);
    command.args([
        "record",
        "-o",
        "-",
        "--format",
        "json",
        "-p",
        &target.pid.to_string(),
    ]);
    let mut tracer = Ended(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    wait_for_tracing(&mut tracer.0)?;
    target.command("many_paths")?;
    send_signal(tracer.0.id(), libc::SIGINT)?;
    let full = tracer.0.stdout.as_ref().context("no pipe")?;
    wait_until("a full pipe", || {
        Ok((waiting_bytes(full)? >= 4096).then_some(()))
    })?;
    assert!(
        tracer.0.try_wait()?.is_none(),
        "the report fitted into the pipe"
    );
    let asked = Instant::now();
    send_signal(tracer.0.id(), libc::SIGINT)?;
    let status = wait_until("the tracer's end", || Ok(tracer.0.try_wait()?))?;
    assert!(!status.success(), "{status}");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        asked.elapsed()
    );
    target.command("deep_stack")?;
    Ok(())
}

fn wait_for_tracing(tracer: &mut Child) -> Result<()> {
    use std::io::{BufRead, BufReader};
    let mut stderr = BufReader::new(tracer.stderr.take().context("no standard error")?);
    let mut said = String::new();
    while stderr.read_line(&mut said)? > 0 {
        if said
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("tracing "))
        {
            // Somebody must go on reading, or the tracer would meet a closed pipe.
            std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
            return Ok(());
        }
    }
    anyhow::bail!("the tracer ended:\n{said}")
}

/// Bytes in a pipe that were not read.
fn waiting_bytes(pipe: &impl std::os::fd::AsRawFd) -> Result<i32> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int, to `bytes`.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    ensure!(result == 0, "FIONREAD: {}", std::io::Error::last_os_error());
    Ok(bytes)
}

#[test]
fn a_target_that_is_killed_ends_the_run_with_everything_gathered() -> Result<()> {
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("leak_blocks")?;
    target.kill()?;
    let report = tracer.wait()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(report.processes[0].end, ProcessEnd::Exited);
    Ok(())
}

#[test]
fn a_killed_tracer_leaves_nothing_in_the_kernel() -> Result<()> {
    let mut target = Target::start("leak")?;
    assert_eq!(patched_bytes(target.pid)?, 0);
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("leak_blocks")?;
    let objects = KernelObjects::of_process(tracer.pid())?;
    assert!(
        !objects.programs.is_empty() && !objects.maps.is_empty(),
        "{objects:?}"
    );
    assert!(
        patched_bytes(target.pid)? > 0,
        "no probe is to be seen while tracing"
    );

    tracer.signal(libc::SIGKILL)?;
    let finished = tracer.wait()?;
    assert!(!finished.status.success());
    wait_until("the kernel to drop programs, maps and links", || {
        Ok(objects.remaining()?.is_empty().then_some(()))
    })?;
    wait_until("the probes to leave the target's code", || {
        Ok((patched_bytes(target.pid)? == 0).then_some(()))
    })?;
    target.command("cache_blocks")?;
    assert!(target.finish()?.success());
    Ok(())
}

/// In a loop of allocations, so that threads are inside of probes when the
/// tracer dies.
#[test]
fn a_tracer_killed_in_the_middle_of_work_harms_no_target() -> Result<()> {
    let mut target = Target::start("churn")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let before = cpu_time(target.pid)?;
    target.tell("churn")?;
    wait_until("the churn to run", || {
        Ok((cpu_time(target.pid)? > before + 20).then_some(()))
    })?;
    tracer.signal(libc::SIGKILL)?;
    assert!(!tracer.wait()?.status.success());
    target.command("leak_blocks")?; // answers for the first
    assert!(target.finish()?.success());
    Ok(())
}

/// User and system time of a process, in clock ticks.
fn cpu_time(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

// --- company ---

#[test]
fn two_tracers_on_one_target_are_both_exact() -> Result<()> {
    let mut target = Target::start("leak")?;
    let first = Tracer::record(target.pid, &[])?;
    let mut truth = target.command("leak_blocks")?;
    let second = Tracer::record(target.pid, &[])?;
    let cache = target.command("cache_blocks")?;
    truth.add(cache.clone());
    second.stop()?.report()?.agrees_with(&cache)?;
    truth.add(target.command("scratch_blocks")?);
    first.stop()?.report()?.agrees_with(&truth)
}

#[test]
fn a_process_that_runs_the_same_libc_is_not_counted() -> Result<()> {
    let (mut target, mut other) = (Target::start("leak")?, Target::start("leak")?);
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("leak_blocks")?;
    other.command("leak_blocks")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.heap("leak_blocks"), Sums::live(1009, 7));
    report.agrees_with(&truth)
}
