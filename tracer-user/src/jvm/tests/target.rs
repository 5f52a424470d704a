//! The JDKs of this machine, and a Java program that lives until it is told
//! to end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::process::code::CodeSpace;
use crate::process::file::ModuleFiles;

/// Further JDKs or JREs to test, their folders separated by colons.
const MORE: &str = "UNFREED_TEST_JDKS";

/// A JDK or JRE.
#[derive(Debug, Clone)]
pub(super) struct Jdk {
    home: PathBuf,
}

impl Jdk {
    /// All at hand, at least one.
    pub(super) fn all() -> Vec<Jdk> {
        let mut homes: Vec<PathBuf> = std::fs::read_dir("/usr/lib/jvm")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.path().canonicalize().ok())
            .collect();
        let more = std::env::var_os(MORE).unwrap_or_default();
        homes.extend(std::env::split_paths(&more));
        homes.retain(|home| home.join("bin/java").exists());
        homes.sort();
        homes.dedup();
        assert!(!homes.is_empty(), "no JDK in /usr/lib/jvm or {MORE}");
        homes.into_iter().map(|home| Jdk { home }).collect()
    }

    /// One that can compile.
    pub(super) fn compiler() -> Jdk {
        let has_javac = |jdk: &Jdk| jdk.tool("javac").exists();
        Jdk::all().into_iter().find(has_javac).expect("no javac")
    }

    pub(super) fn tool(&self, name: &str) -> PathBuf {
        self.home.join("bin").join(name)
    }

    /// The folder, to name it in messages.
    pub(super) fn name(&self) -> String {
        self.home.display().to_string()
    }
}

/// Classes compiled into a temporary folder.
pub(super) struct Classes(tempfile::TempDir);

impl Classes {
    /// Compiles one source file, for all JDKs that are tested.
    pub(super) fn compile(name: &str, source: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{name}.java"));
        std::fs::write(&file, source).unwrap();
        let status = Command::new(Jdk::compiler().tool("javac"))
            .args(["--release", "8", "-g", "-Xlint:-options", "-d"])
            .arg(folder.path())
            .arg(&file)
            .status();
        assert!(status.unwrap().success());
        Classes(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A running Java program.
pub(super) struct JavaTarget {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl JavaTarget {
    /// Starts a class's `main`; what follows its name are its arguments.
    pub(super) fn start(jdk: &Jdk, classes: &Classes, options: &[&str], main: &[&str]) -> Self {
        let mut child = Command::new(jdk.tool("java"))
            .args(options)
            .arg("-cp")
            .arg(classes.path())
            .args(main)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        JavaTarget {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the target ended: {line:?}");
        line.trim_end().to_owned()
    }

    pub(super) fn code(&self) -> CodeSpace {
        CodeSpace::attach(self.pid(), 1, &mut ModuleFiles::new()).unwrap()
    }
}

impl Drop for JavaTarget {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
