//! The tracer's call paths as bare positions in the code.

use std::fmt;

use crate::gdb::{GENERATED, Position, cut_at_generated_code};
use crate::interpreter;
use crate::model::{Frame, MemoryKind, Origin, Site};
use crate::report::View;

/// A stack as the tracer reports it.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Innermost first, without frames that were inlined. Python functions that one frame of
    /// the interpreter runs are one.
    pub frames: Vec<Position>,
    /// How many there are, each Python function counted.
    pub depth: usize,
    /// Why there are no more, as in the JSON export.
    pub end: String,
    /// How many allocations.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Stack {
    /// See [`Backtrace::cut_at_generated_code`].
    ///
    /// [`Backtrace::cut_at_generated_code`]: crate::gdb::Backtrace::cut_at_generated_code
    pub fn cut_at_generated_code(&mut self) {
        if cut_at_generated_code(&mut self.frames) {
            self.end = GENERATED.to_owned();
        }
    }
}

impl View {
    /// The heap's call paths, without names.
    pub fn stacks(&self) -> Vec<Stack> {
        self.sites
            .iter()
            .filter(|site| site.kind == MemoryKind::Heap)
            .map(|site| self.stack(site))
            .collect()
    }

    /// The same of one process (an index into `processes`).
    pub fn stacks_of(&self, process: usize) -> Vec<Stack> {
        self.sites
            .iter()
            .filter(|site| site.process == process && site.kind == MemoryKind::Heap)
            .map(|site| self.stack(site))
            .collect()
    }

    /// One site's call path.
    pub fn stack(&self, site: &Site) -> Stack {
        let depth = site.frames.iter().filter(|frame| !frame.inlined).count();
        let physical = site.frames.iter().rev().filter(|frame| !frame.inlined);
        let end = serde_json::to_value(site.stack_end).unwrap_or_default();
        let mut frames: Vec<Position> = physical
            .map(|frame| match frame.origin {
                Origin::Python => interpreter::mark(),
                _ => self.position(site.process, frame),
            })
            .collect();
        interpreter::join_marks(&mut frames);
        Stack {
            frames,
            depth,
            end: end.as_str().unwrap_or("?").to_owned(),
            count: site.allocated_count,
            bytes: site.allocated_bytes,
        }
    }

    fn position(&self, process: usize, frame: &Frame) -> Position {
        let address = frame.address;
        let module = self.modules.iter().find(|module| {
            module.process == process && (module.start..module.end).contains(&address)
        });
        match module {
            Some(module) => Position {
                address,
                path: module.path.clone(),
                offset: address - module.start + module.file_offset,
            },
            None => Position {
                address,
                path: String::new(),
                offset: address,
            },
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.count, self.bytes)?;
        write_frames(f, &self.frames)?;
        write!(f, " ({})", self.end)
    }
}

/// Files and offsets, the innermost first.
pub(crate) fn write_frames(f: &mut fmt::Formatter<'_>, frames: &[Position]) -> fmt::Result {
    for frame in frames {
        let file = frame.path.rsplit('/').next().unwrap_or_default();
        write!(f, " {file}+{:#x}", frame.offset)?;
    }
    Ok(())
}
