//! The programs of the suite, in `tests/targets/verdicts`.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tracer_ebpf_build::workspace;

use crate::bench::PYTHON;
use crate::bench::process::Lines;
use crate::bench::service::{Launch, Started};
use crate::{java, shell, targets};

/// How long one may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program is written in: there is one in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Language {
    C,
    Cpp,
    Rust,
    Python,
    Node,
    Java,
}

impl Language {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [
            Self::C,
            Self::Cpp,
            Self::Rust,
            Self::Python,
            Self::Node,
            Self::Java,
        ]
        .into_iter()
    }

    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Node => "node",
            Self::Java => "java",
        }
    }

    /// Builds it, if it has changed, and returns its words and the name of its process.
    ///
    /// # Errors
    /// Fails if it cannot be built.
    pub(super) fn build(self) -> Result<Program> {
        let built = |source: &str| Ok(vec![targets::build_one(source)?.into_os_string()]);
        let script = |name: &str| {
            let folder = workspace().join("tests/targets/verdicts");
            folder.join(name).into_os_string()
        };
        let (words, process) = match self {
            Self::C => (built("verdicts/verdicts_c.c"), "verdicts_c"),
            Self::Cpp => (built("verdicts/verdicts_cpp.cpp"), "verdicts_cpp"),
            Self::Rust => (built("verdicts/verdicts_rust.rs"), "verdicts_rust"),
            Self::Python => (Ok(vec![PYTHON.into(), script("verdicts.py")]), "python3"),
            Self::Node => {
                let words = ["node".into(), "--expose-gc".into(), script("verdicts.js")];
                (Ok(words.into()), "node")
            }
            Self::Java => (java_words(), "java"),
        };
        Ok(Program {
            words: words?,
            process,
        })
    }
}

/// A small heap, of which the young part is collected every two seconds.
fn java_words() -> Result<Vec<OsString>> {
    java::build()?;
    let options = ["java", "-XX:+UseSerialGC", "-Xmx24m", "-Xmn2m", "-cp"];
    let mut words: Vec<OsString> = options.map(OsString::from).into();
    words.extend([java::folder().into_os_string(), "Verdicts".into()]);
    Ok(words)
}

/// How a program is started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    words: Vec<OsString>,
    process: &'static str,
}

/// One that runs in a mode.
pub(super) struct Behaviour {
    started: Started,
    lines: Lines,
}

impl Behaviour {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Fails if it does not get there.
    pub(super) fn start(program: &Program, mode: &str) -> Result<Self> {
        let mut words = program.words.clone();
        words.push(mode.into());
        let mut command = Launch::Plain.command(&words, &[], None);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("it has no output")?;
        let lines = Lines::of(vec![Box::new(output)]);
        let started = Started::find(child, program.process, "TERM")?;
        let ready = format!("{} ready", started.pid());
        lines.after(&ready, PATIENCE)?;
        Ok(Self { started, lines })
    }

    pub(super) fn pid(&self) -> &str {
        self.started.pid()
    }

    /// Has it begin.
    ///
    /// # Errors
    /// Fails if it has ended.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.started.tell("go")
    }

    /// Ends it, and returns the lines that it said.
    ///
    /// # Errors
    /// Fails if it does not end.
    pub(super) fn end(mut self) -> Result<Vec<String>> {
        self.started.close();
        let mut lines = Vec::new();
        while let Some(line) = self.lines.next(PATIENCE)? {
            lines.push(line);
        }
        Ok(lines)
    }
}
