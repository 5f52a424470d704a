//! CPython's interpreter on gdb's stacks: where it runs Python functions, the tracer has
//! those in the place of its function.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::gdb::{Backtrace, Position};

/// What stands for one or more Python functions, and for the interpreter's own.
const MARK: &str = "[Python]";

/// The function that runs Python functions.
pub struct Interpreter {
    path: PathBuf,
    /// Its parts, offsets in the file.
    parts: Vec<Range<u64>>,
}

impl Interpreter {
    /// That of a file.
    ///
    /// # Errors
    /// The file is no interpreter, or binutils are missing.
    pub fn of(path: &Path) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/interpreter.py");
        let path = path.canonicalize()?;
        let output = Command::new("python3").arg(script).arg(&path).output()?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        let part = |line: &str| {
            let (start, end) = line.split_once(' ').context(text.clone())?;
            Ok(start.parse()?..end.parse()?)
        };
        let parts: Vec<_> = text.lines().map(part).collect::<Result<_>>()?;
        Ok(Self { path, parts })
    }

    /// Puts the mark in the place of its frames.
    pub fn mark(&self, trace: &mut Backtrace) {
        for frame in trace.frames.iter_mut().skip(1) {
            // A return address may be the first one behind a call that does not return.
            let call = frame.offset.wrapping_sub(1);
            let is_there = self.parts.iter().any(|part| part.contains(&call));
            if is_there && Path::new(&frame.path) == self.path {
                *frame = mark();
            }
        }
        join_marks(&mut trace.frames);
    }
}

pub(crate) fn mark() -> Position {
    Position {
        path: MARK.to_owned(),
        ..Position::default()
    }
}

/// Makes neighbouring marks one.
pub(crate) fn join_marks(frames: &mut Vec<Position>) {
    frames.dedup_by(|one, other| one.path == MARK && other.path == MARK);
}
