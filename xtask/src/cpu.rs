//! Processor time of the programs that xtask runs.
//!
//! Other work on the machine makes a run take longer, but hardly makes it compute
//! more. The kernel adds up what all children of a process took, and here parts of
//! a run go on side by side. So each child is asked when it has ended, and what it
//! took is noted for the thread that waited for it.

use std::cell::Cell;
use std::fs;
use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Units of processor time in `/proc`, in a second: `USER_HZ` of the kernel.
const TICKS: u64 = 100;

thread_local! {
    static NOTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Waits for a child, and notes what it took, with all that it waited for itself.
///
/// # Errors
/// It cannot be waited for.
pub(crate) fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    // Its account is there until it is waited for in earnest.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let pid = WaitId::Pid(Pid::from_child(child));
    if rustix::io::retry_on_intr(|| waitid(pid.clone(), ended)).is_ok() {
        note(
            fs::read_to_string(format!("/proc/{}/stat", child.id()))
                .ok()
                .and_then(|stat| taken(&stat))
                .unwrap_or_default(),
        );
    }
    child.wait()
}

/// Does work, and returns what was noted meanwhile by this thread too.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = NOTED.get();
    let result = work();
    (result, NOTED.get().saturating_sub(before))
}

/// Notes what another thread waited for on this one's behalf.
pub(crate) fn note(taken: Duration) {
    NOTED.set(NOTED.get() + taken);
}

/// What a process and the children that it waited for took, in user and kernel
/// mode: fields 14 to 17 of its `stat` (proc(5)).
fn taken(stat: &str) -> Option<Duration> {
    // The second field is a name in brackets, which may have any characters.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = 0;
    let mut fields = fields.split_whitespace().skip(11);
    for _ in 0..4 {
        ticks += fields.next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn user_and_kernel_time_of_a_process_and_its_children_add_up() {
        let stat = "7 (a) b) c) Z 1 7 7 0 -1 4194560 9 0 0 0 150 25 300 5 20 0 1 0 99 0 0";
        assert_eq!(taken(stat), Some(Duration::from_millis(4800)));
        assert_eq!(taken("7 (a) Z 1 7"), None);
        assert_eq!(taken(""), None);
    }

    /// What the kernel tells a shell of its children is the oracle.
    #[test]
    fn a_child_that_computes_is_noted_where_it_is_waited_for() {
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; times";
        let run = || {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let said = io::read_to_string(child.stdout.take().unwrap()).unwrap();
            assert!(wait(&mut child).unwrap().success());
            said
        };
        let (said, spent) = measured(run);
        let told: f64 = said.split_whitespace().map(seconds).sum();
        // The shell's own end comes after its words; each of eight times is rounded.
        let spent = spent.as_secs_f64();
        assert!(told > 0.05 && (spent - told).abs() < 0.1, "{spent} {said}");
        // Another thread's children are its own, until it hands them over.
        let (other, own) = measured(|| thread::scope(|s| s.spawn(|| measured(run).1).join()));
        assert_eq!(own, Duration::ZERO);
        assert!(other.unwrap() > Duration::ZERO);
    }

    /// `0m0.053000s` of a shell.
    fn seconds(time: &str) -> f64 {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    }
}
