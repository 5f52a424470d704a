//! apt-get, which other programs keep waiting: an update that runs by itself, or
//! a person's own. apt has an option to wait for one of its locks, dpkg's
//! (`DPkg::Lock::Timeout`), and none for those of its lists and its archives.

use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cpu;
use crate::shell::{cannot_run, echo, say};

/// What apt-get's error says of a lock, in the language of [`LANGUAGE`]:
/// `Could not get lock FILE. It is held by process PID (NAME)`.
const LOCKED: &str = "E: Could not get lock ";
/// The variable by which apt-get speaks it.
pub(crate) const LANGUAGE: (&str, &str) = ("LC_ALL", "C.UTF-8");

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// In all.
    most: Duration,
    /// From one word about it to the next.
    word: Duration,
    /// From one attempt to the next.
    attempt: Duration,
}

impl Patience {
    /// An upgrade of a whole release takes minutes.
    const USUAL: Self = Self {
        most: Duration::from_secs(10 * 60),
        word: Duration::from_secs(30),
        attempt: Duration::from_secs(2),
    };
}

/// A lock that another program did not give back in time.
#[derive(Debug)]
pub(crate) struct Held {
    /// The lock and who holds it, in apt's words.
    lock: String,
    waited: Duration,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, waited } = self;
        let seconds = waited.as_secs();
        write!(
            f,
            "another program holds apt's lock, and did for {seconds} s: {lock}; \
             run this again when it has ended"
        )
    }
}

impl std::error::Error for Held {}

/// Runs a command of apt-get's to its end. While another program holds a lock
/// that it needs, it is tried again.
///
/// # Errors
/// Fails when it cannot start or does not end well; with [`Held`] when the lock
/// is not given back.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    echo(command);
    run_with(command, Patience::USUAL, &|text| say(text))
}

fn run_with(command: &mut Command, patience: Patience, say: &dyn Fn(String)) -> Result<()> {
    let start = Instant::now();
    let mut last_word: Option<Instant> = None;
    loop {
        let Some(lock) = attempt(command, say)? else {
            return Ok(());
        };
        let waited = start.elapsed();
        if waited >= patience.most {
            return Err(Held { lock, waited }.into());
        }
        if last_word.is_none_or(|last| last.elapsed() >= patience.word) {
            say(match last_word {
                None => format!(
                    "apt-get waits, for {} s at most, while another program holds its lock: {lock}",
                    patience.most.as_secs()
                ),
                Some(_) => format!("apt-get still waits, after {} s: {lock}", waited.as_secs()),
            });
            last_word = Some(Instant::now());
        }
        thread::sleep(patience.attempt);
    }
}

/// Runs it once. The result is the lock that was in the way, if one was.
fn attempt(command: &mut Command, say: &dyn Fn(String)) -> Result<Option<String>> {
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(command))?;
    let mut errors = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr
            .read_to_end(&mut errors)
            .with_context(|| cannot_run(command))?;
    }
    let status = cpu::wait(&mut child).with_context(|| cannot_run(command))?;
    let errors = String::from_utf8_lossy(&errors);
    if status.success() {
        if !errors.is_empty() {
            say(errors.trim_end().to_owned());
        }
        return Ok(None);
    }
    if let Some(lock) = lock_in(&errors) {
        return Ok(Some(lock.to_owned()));
    }
    say(errors.trim_end().to_owned());
    bail!("apt-get failed: {status}")
}

/// The lock that apt-get's errors complain of, and who holds it.
fn lock_in(errors: &str) -> Option<&str> {
    errors.lines().find_map(|line| line.strip_prefix(LOCKED))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::Child;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::packages::Packages;

    const QUICK: Patience = Patience {
        most: Duration::from_secs(60),
        word: Duration::from_millis(1),
        attempt: Duration::from_millis(20),
    };

    /// Another program that holds a lock the way apt does. It lets go when its
    /// standard input is closed.
    struct Holder(Child);

    impl Holder {
        fn of(lock: &Path) -> Self {
            let script = "import fcntl, sys\n\
                          file = open(sys.argv[1], 'w')\n\
                          fcntl.lockf(file, fcntl.LOCK_EX)\n\
                          print('held', flush=True)\n\
                          sys.stdin.read()";
            let mut child = Command::new("/usr/bin/python3")
                .args(["-c", script])
                .arg(lock)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            assert_eq!(line, "held\n");
            Self(child)
        }

        fn let_go(mut self) {
            drop(self.0.stdin.take());
            assert!(self.0.wait().unwrap().success());
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            let _reaped_before = self.0.wait();
        }
    }

    /// Each lock of apt's, below its folders, and a command that needs it.
    const LOCKS: [(&str, &[&str]); 4] = [
        ("lists/lock", &["update"]),
        ("cache/archives/lock", &["clean"]),
        ("state/lock-frontend", &["install", "-y"]),
        ("state/lock", &["install", "-y"]),
    ];

    #[test]
    fn a_held_lock_is_waited_for_and_told_of() {
        for (lock, arguments) in LOCKS {
            let folder = tempfile::tempdir().unwrap();
            let apt = Packages::new(folder.path().to_owned(), "").unwrap();
            let holder = Holder::of(&folder.path().join(lock));
            let pid = holder.0.id();
            let (said, words) = channel();
            let mut command = apt.command("apt-get");
            command.arg("-qq").args(arguments);
            let run = thread::spawn(move || {
                run_with(&mut command, QUICK, &|text| said.send(text).unwrap())
            });
            let first = words.recv().unwrap();
            let path = folder.path().join(lock).display().to_string();
            assert!(first.contains(&path), "{first}");
            assert!(first.contains(&format!("process {pid} ")), "{first}");
            let second = words.recv().unwrap();
            assert!(second.contains("still waits"), "{second}");
            assert!(!run.is_finished(), "{lock}");
            holder.let_go();
            run.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_lock_that_is_not_given_back_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let apt = Packages::new(folder.path().to_owned(), "").unwrap();
        let holder = Holder::of(&folder.path().join("lists/lock"));
        let soon = Patience {
            most: Duration::from_millis(50),
            ..QUICK
        };
        let mut update = apt.command("apt-get");
        let error = run_with(update.args(["-qq", "update"]), soon, &drop).unwrap_err();
        assert!(error.is::<Held>(), "{error:?}");
        assert!(error.to_string().contains("lists/lock"), "{error}");
        holder.let_go();
    }

    #[test]
    fn another_failure_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let apt = Packages::new(folder.path().to_owned(), "").unwrap();
        // Not a lock: a source that apt cannot read.
        fs::write(folder.path().join("sources.list"), "nonsense\n").unwrap();
        let mut update = apt.command("apt-get");
        let error = run_with(update.args(["-qq", "update"]), QUICK, &drop).unwrap_err();
        assert!(!error.is::<Held>(), "{error:?}");
    }

    #[test]
    fn a_lock_is_found_among_other_errors() {
        let errors = "W: something else\n\
                      E: Could not get lock /v/lists/lock. It is held by process 7 (apt)\n\
                      E: Unable to lock directory /v/lists/\n";
        assert_eq!(
            lock_in(errors),
            Some("/v/lists/lock. It is held by process 7 (apt)")
        );
        assert_eq!(lock_in("E: Unable to locate package x\n"), None);
    }
}
