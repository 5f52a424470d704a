//! Names of Python functions, by their code objects.

use std::sync::Arc;

use tracer_ebpf::frame::Frame;
use tracer_ebpf::python::{Gap, Layout, check};

use super::text::Characters;
use crate::jvm::cache::Cache;
use crate::jvm::frames::{FrameKind, JavaFrame, Named};
use crate::jvm::memory::{ProcessMemory, TargetMemory};
use crate::jvm::unnamed::Unnamed;
use crate::process::handle::ProcessHandle;
use crate::unwind::Interpreter;

/// Names are remembered within so many bytes.
const MAX_REMEMBERED: usize = 16 << 20;

/// Where an object's type is (`Include/object.h`), and in a type its name
/// (`Include/cpython/object.h`).
const TYPE: u64 = 8;
const TYPE_NAME: u64 = 24;

/// What of a code object tells it from others at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    name: u64,
    file: u64,
    line: u32,
}

/// The names of an interpreter's functions.
pub struct PythonNames {
    memory: Box<dyn TargetMemory>,
    layout: Layout,
    characters: Characters,
    /// Where `co_filename` is in a code object.
    file: u64,
    /// By the address of the code object.
    known: Cache<(Identity, Arc<[JavaFrame]>)>,
    /// The type of code objects, once it is known.
    code_type: Option<u64>,
}

impl PythonNames {
    /// Of a process that has this interpreter.
    ///
    /// # Errors
    /// Fails if the process is gone, may not be read, or its structures are not known.
    pub fn open(process: &ProcessHandle, interpreter: &Interpreter) -> Result<Self, Unnamed> {
        let memory = Box::new(ProcessMemory::open(process)?);
        Self::new(memory, interpreter)
    }

    pub(super) fn new(
        memory: Box<dyn TargetMemory>,
        interpreter: &Interpreter,
    ) -> Result<Self, Unnamed> {
        Ok(PythonNames {
            memory,
            layout: interpreter.layout.ok_or(Unnamed::NoPython)?,
            characters: Characters::of(interpreter.version),
            file: match interpreter.version {
                (3, ..=10) => 104,
                _ => 112,
            },
            known: Cache::new(MAX_REMEMBERED),
            code_type: None,
        })
    }

    /// The function of a word of a stack.
    ///
    /// # Errors
    /// The reason why it has no name.
    pub fn name(&mut self, word: u64) -> Named {
        let Frame::Python { code, check: of } = Frame::of(word) else {
            return Err(Unnamed::NoPython);
        };
        if let Some(gap) = Gap::of(code) {
            return Err(Unnamed::Python(gap));
        }
        let identity = self.identity(code)?;
        if check(identity.name, identity.line) != u64::from(of) {
            return Err(Unnamed::NoPython);
        }
        if let Some((known, frame)) = self.known.get(code)
            && *known == identity
        {
            return Ok(Arc::clone(frame));
        }
        let frame = self.read(code, identity)?;
        // It may have been freed while it was read.
        if self.identity(code)? != identity {
            return Err(Unnamed::NoPython);
        }
        let frames: Arc<[JavaFrame]> = [frame].into();
        let texts = frames[0].method.as_ref().map_or(0, |name| name.len())
            + frames[0].file.as_ref().map_or(0, |file| file.len());
        let bytes = size_of::<JavaFrame>() + texts;
        self.known
            .insert(code, (identity, Arc::clone(&frames)), bytes);
        Ok(frames)
    }

    fn identity(&self, code: u64) -> Result<Identity, Unnamed> {
        let at = |offset: u64| code.checked_add(offset).ok_or(Unnamed::NoPython);
        Ok(Identity {
            name: self.memory.u64(at(self.layout.name.into())?)?,
            file: self.memory.u64(at(self.file)?)?,
            line: self.memory.u32(at(self.layout.first_line.into())?)?,
        })
    }

    fn read(&mut self, code: u64, identity: Identity) -> Result<JavaFrame, Unnamed> {
        let kind = self
            .memory
            .u64(code.checked_add(TYPE).ok_or(Unnamed::NoPython)?)?;
        if !self.is_of_code(kind) {
            return Err(Unnamed::NoPython);
        }
        let text = |address| self.characters.read(&*self.memory, address);
        let name = text(identity.name)?;
        let file = text(identity.file)?;
        Ok(JavaFrame::python(name, file, identity.line))
    }

    /// Whether a type is that of code objects, by its name.
    fn is_of_code(&mut self, kind: u64) -> bool {
        if self.code_type == Some(kind) {
            return true;
        }
        let name = kind.checked_add(TYPE_NAME);
        let name = name.and_then(|at| self.memory.u64(at).ok());
        let name = name.and_then(|at| self.memory.c_string(at, 16).ok());
        let is = name.as_deref() == Some(b"code");
        if is {
            self.code_type = Some(kind);
        }
        is
    }
}

impl JavaFrame {
    /// A function of Python.
    fn python(name: String, file: String, first_line: u32) -> Self {
        JavaFrame {
            class: None,
            method: Some(name.into()),
            signature: None,
            file: Some(file.into()),
            line: Some(first_line),
            kind: FrameKind::Python,
            inlined: false,
        }
    }
}
