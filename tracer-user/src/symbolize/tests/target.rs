//! A C++ program that is built for a test, tells its addresses, and lives
//! until it is told to end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// `feed` holds the call of `here`, by way of `nested`, which is inlined.
const SOURCE: &str = r#"
#include <cstdio>
namespace zoo {
__attribute__((noinline)) void *here(int) { return __builtin_return_address(0); }
inline __attribute__((always_inline)) void *nested(int x) {
    void *address = here(x); // line 6
    asm volatile("" ::: "memory");
    return address;
}
__attribute__((noinline)) void *feed(int x, const char *) {
    asm volatile("nop" ::: "memory");
    void *address = nested(x); // line 12
    asm volatile("" ::: "memory");
    return address;
}
}
int main() {
    std::printf("%p %p\n", (void *)zoo::feed, zoo::feed(1, ""));
    std::fflush(stdout);
    std::getchar();
}
"#;

/// A temporary folder that is removed in the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("unfreed-symbolize-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path.canonicalize().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs a command in the folder.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program)
            .args(arguments)
            .current_dir(&self.0)
            .status();
        assert!(status.unwrap().success(), "{program} {arguments:?}");
    }

    /// Builds the program as `zoo`, with debug information.
    pub(super) fn build(&self, more: &[&str]) -> PathBuf {
        std::fs::write(self.path("zoo.cpp"), SOURCE).unwrap();
        self.run(
            "g++",
            &[&["-g", "-O1", "-o", "zoo", "zoo.cpp"], more].concat(),
        );
        self.path("zoo")
    }

    /// Moves the debug information of `zoo` to another file.
    pub(super) fn split(&self, debug: &str) {
        self.run("objcopy", &["--only-keep-debug", "zoo", debug]);
        self.run("strip", &["zoo"]);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, running.
pub(super) struct Target {
    child: Child,
    /// The first instruction of `feed`.
    pub(super) feed: u64,
    /// The return address of the call in `nested`.
    pub(super) returns_to: u64,
}

impl Target {
    pub(super) fn start(program: &Path) -> Self {
        Self::start_by(&mut Command::new(program))
    }

    pub(super) fn start_by(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
        let numbers: Vec<_> = line.split_whitespace().map(number).collect();
        Target {
            child,
            feed: numbers[0],
            returns_to: numbers[1],
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A stack as the kernel would give it.
    pub(super) fn stack(&self) -> [u64; 2] {
        [self.feed, self.returns_to]
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
