//! Processes that do not run their code where it lies.
//!
//! valgrind, DynamoRIO, Pin and QEMU's user mode read a program's instructions
//! and run a translation of them. The kernel's breakpoints are instructions to
//! them: they translate the breakpoint, run into it somewhere else, where the
//! kernel knows of none, and the process dies of SIGTRAP.

use std::path::Path;

use anyhow::Result;

use super::handle::ProcessHandle;
use super::maps::read_executable;

/// What to call a translator, by the start of the name of a file with code
/// that it has mapped: its own executable, or a library that it brings.
const BY_FILE: [(&str, &str); 8] = [
    ("libdynamorio.so", "DynamoRIO"),
    ("pinbin", "Intel Pin"),
    ("libpinvm", "Intel Pin"),
    ("qemu-x86_64", "QEMU's user mode"),
    ("qemu-aarch64", "QEMU's user mode"),
    ("qemu-arm", "QEMU's user mode"),
    ("qemu-i386", "QEMU's user mode"),
    ("qemu-riscv64", "QEMU's user mode"),
];

/// valgrind's tools are programs of their own, `memcheck-amd64-linux` for
/// example, in a folder of its name.
const TOOL: (&str, &str, &str) = ("valgrind", "-amd64-linux", "valgrind");

/// The translator that runs a process, if one does.
///
/// # Errors
/// Fails once the process is gone.
pub fn of_process(process: &ProcessHandle) -> Result<Option<&'static str>> {
    let ranges = process.open_proc("maps").and_then(read_executable)?;
    let paths = ranges.iter().filter_map(|range| range.name.path());
    Ok(of_files(paths))
}

/// The translator that the files with code of a process betray.
pub fn of_files<'a>(paths: impl Iterator<Item = &'a Path>) -> Option<&'static str> {
    paths.filter_map(of_file).next()
}

fn of_file(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let (folder, suffix, tool) = TOOL;
    if name.ends_with(suffix) && path.parent()?.file_name()? == folder {
        return Some(tool);
    }
    BY_FILE
        .iter()
        .find(|(start, _)| name.starts_with(start))
        .map(|(_, translator)| *translator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Option<&'static str> {
        of_files(paths.iter().map(Path::new))
    }

    #[test]
    fn translators_are_known_by_their_files() {
        for (path, translator) in [
            ("/usr/libexec/valgrind/memcheck-amd64-linux", "valgrind"),
            ("/opt/valgrind/massif-amd64-linux", "valgrind"),
            ("/opt/dr/lib64/release/libdynamorio.so.10.0", "DynamoRIO"),
            ("/opt/pin/intel64/bin/pinbin", "Intel Pin"),
            ("/usr/bin/qemu-x86_64-static", "QEMU's user mode"),
        ] {
            assert_eq!(of(&["/usr/bin/cat", path]), Some(translator), "{path}");
        }
    }

    #[test]
    fn other_programs_are_none() {
        let others = [
            "/usr/bin/cat",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/bin/valgrind",
            "/usr/bin/qemu-system-x86_64",
            "/home/me/build/x-amd64-linux",
        ];
        assert_eq!(of(&others), None);
    }
}
