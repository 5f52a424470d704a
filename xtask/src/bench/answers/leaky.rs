//! The programs that leak, in `tests/targets`.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use super::truth::Truth;
use crate::bench::PYTHON;
use crate::bench::process::Lines;
use crate::bench::service::{Launch, Started};
use crate::{java, shell, targets};

/// How long one may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    C,
    Cpp,
    Java,
    Python,
    Node,
}

/// Their names on the command line.
pub(in crate::bench) fn keys() -> impl Iterator<Item = &'static str> {
    Subject::all().map(Subject::key)
}

impl Subject {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Self::C, Self::Cpp, Self::Java, Self::Python, Self::Node].into_iter()
    }

    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Java => "java",
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// What it does, measured without a tracer.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::C => "C: 500,000 allocations a second, 1 % of the bytes leaks",
            Self::Cpp => "C++: 92,000 a second, 1.5 % of the bytes leaks",
            Self::Java => "Java: 7,000 a second (deflaters), 0.08 % of the bytes leaks",
            Self::Python => "python3: 18,000 a second, 0.4 % of the bytes leaks",
            Self::Node => "node: 12,000 a second (buffers), 0.4 % of the bytes leaks",
        }
    }

    /// What stands in the name of a function of the leak's path, and of no other's.
    pub(super) const fn function(self) -> &'static str {
        match self {
            Self::C => "leak",
            Self::Cpp => "register_listener",
            Self::Java => "Leaky.leak",
            Self::Python => "PyByteArray_Resize",
            Self::Node => "NodeArrayBufferAllocator::Allocate(",
        }
    }

    /// Its words, and the name of its process.
    fn program(self) -> Result<(Vec<OsString>, &'static str)> {
        let script = |name: &str| {
            workspace()
                .join("tests/targets")
                .join(name)
                .into_os_string()
        };
        Ok(match self {
            Self::C => (vec![targets::build_one("c/leaky.c")?.into()], "leaky"),
            Self::Cpp => {
                let program = targets::build_one("cpp/leaky_cpp.cpp")?;
                (vec![program.into()], "leaky_cpp")
            }
            Self::Java => {
                java::build()?;
                let classes = java::folder().into_os_string();
                let words = vec!["java".into(), "-cp".into(), classes, "Leaky".into()];
                (words, "java")
            }
            Self::Python => (vec![PYTHON.into(), script("python/leaky.py")], "python3"),
            Self::Node => (vec!["node".into(), script("node/leaky.js")], "node"),
        })
    }
}

/// One that runs.
pub(super) struct Leaky {
    started: Started,
    lines: Lines,
}

impl Leaky {
    /// Starts it and waits until it leaks.
    ///
    /// # Errors
    /// Fails if it does not.
    pub(super) fn start(subject: Subject, launch: &Launch<'_>) -> Result<Self> {
        let (program, name) = subject.program()?;
        let mut command = launch.command(&program, &[], None);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("it has no output")?;
        let lines = Lines::of(vec![Box::new(output)]);
        let started = Started::find(child, name, "TERM")?;
        lines.after("ready", PATIENCE)?;
        Ok(Self { started, lines })
    }

    pub(super) fn pid(&self) -> String {
        self.started.pid().to_owned()
    }

    pub(super) fn root(&self) -> String {
        self.started.root()
    }

    /// Ends it, and returns what it said.
    ///
    /// # Errors
    /// Fails if it does not end, or said nothing.
    pub(super) fn end(mut self) -> Result<Truth> {
        self.started.close();
        let mut truth = Truth::default();
        while let Some(line) = self.lines.next(PATIENCE)? {
            truth.hear(&line);
        }
        Ok(truth)
    }
}
