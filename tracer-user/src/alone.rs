//! Tests that measure their process: other tests must not run in it meanwhile.

use std::process::Command;

/// Set in the process that a test runs in alone.
const ALONE: &str = "UNFREED_TEST_ALONE";

/// Runs a test's body in a process of its own: `module` is its `module_path!()`.
pub fn run(module: &str, test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    // The harness knows the test without the crate's name.
    let module = module.split_once("::").map_or("", |(_, module)| module);
    let name = format!("{module}::{test}");
    let output = Command::new("/proc/self/exe")
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    print!("{said}");
    assert!(output.status.success(), "{name}: {said}{errors}");
    assert!(said.contains("1 passed"), "there is no test {name}: {said}");
}

/// A figure of this process's memory, bytes: `VmRSS` is what is resident,
/// `VmHWM` the most that ever was.
pub fn memory(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    let kib = line.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
    kib.unwrap() << 10
}
