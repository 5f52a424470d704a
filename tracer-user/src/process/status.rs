//! What the kernel says of each thread (proc_pid_status(5)).

use std::fs;

/// Whether the `status` of any thread of a process is such; `false` once the
/// process is gone.
pub fn any_thread(pid: u32, is_such: impl Fn(&str) -> bool) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().any(|task| {
        let status = fs::read_to_string(task.path().join("status"));
        status.is_ok_and(|status| is_such(&status))
    })
}
