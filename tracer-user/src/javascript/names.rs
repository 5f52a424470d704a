//! Names of JavaScript's functions, by what their closures share.

use std::sync::Arc;

use tracer_ebpf::java::{Anywhere, WINDOW_WORDS};
use tracer_ebpf::v8::{self, Function, Identity, object, small};

use super::lines::Lines;
use super::scope::{Scope, TAIL};
use super::strings::Strings;
use crate::jvm::cache::Cache;
use crate::jvm::frames::{FrameKind, JavaFrame, Named};
use crate::jvm::memory::{ProcessMemory, TargetMemory};
use crate::jvm::unnamed::Unnamed;
use crate::process::handle::ProcessHandle;
use crate::unwind::Structures;

/// Names are remembered within so many bytes,
const MAX_REMEMBERED: usize = 16 << 20;

/// and the lines of scripts.
const MAX_LINES: usize = 16 << 20;

/// Scopes with more local variables that closures use are not looked at.
const MAX_LOCALS: u32 = 1 << 14;

/// A word of V8's.
const WORD: u64 = 8;

/// What a function without a name is called.
const ANONYMOUS: &str = "(anonymous)";

/// Memory as the kernel side reads it.
pub struct Objects<'a>(pub &'a dyn TargetMemory);

impl Anywhere for Objects<'_> {
    fn byte(&mut self, address: u64) -> Option<u8> {
        self.0.u8(address).ok()
    }

    fn int(&mut self, address: u64) -> Option<u32> {
        self.0.u32(address).ok()
    }

    fn long(&mut self, address: u64) -> Option<u64> {
        self.0.u64(address).ok()
    }
}

impl v8::Objects for Objects<'_> {}

/// The names of a process's functions.
pub struct JavaScriptNames {
    memory: Box<dyn TargetMemory>,
    structures: Structures,
    /// By word.
    known: Cache<Arc<[JavaFrame]>>,
    /// By the script's address, with its number and the length of its source.
    lines: Cache<((u32, u32), Arc<Lines>)>,
}

impl JavaScriptNames {
    /// Of a process that has this V8.
    ///
    /// # Errors
    /// Fails if the process is gone, or may not be read.
    pub fn open(process: &ProcessHandle, structures: Structures) -> Result<Self, Unnamed> {
        let memory = Box::new(ProcessMemory::open(process)?);
        Ok(Self::new(memory, structures))
    }

    pub(super) fn new(memory: Box<dyn TargetMemory>, structures: Structures) -> Self {
        JavaScriptNames {
            memory,
            structures,
            known: Cache::new(MAX_REMEMBERED),
            lines: Cache::new(MAX_LINES),
        }
    }

    /// The function of a word of a stack. `find` says where it was last.
    ///
    /// # Errors
    /// The reason why it has no name: [`Unnamed::NoJavaScript`] if it is not there (any
    /// more), as when it was moved.
    pub fn name(&mut self, word: u64, find: impl FnOnce() -> Option<Function>) -> Named {
        if let Some(known) = self.known.get(word) {
            return Ok(Arc::clone(known));
        }
        let function = find().ok_or(Unnamed::NoJavaScript)?;
        self.check(function)?;
        let frame = self.read(function)?;
        // It may have been moved while it was read.
        self.check(function)?;
        let frames: Arc<[JavaFrame]> = [frame].into();
        if frames[0].is_anonymous() || frames[0].file.is_none() {
            // What it is called may have been moved meanwhile.
            return Ok(frames);
        }
        let texts = frames[0].method.as_ref().map_or(0, |name| name.len())
            + frames[0].file.as_ref().map_or(0, |file| file.len());
        let bytes = size_of::<JavaFrame>() + texts;
        self.known.insert(word, Arc::clone(&frames), bytes);
        Ok(frames)
    }

    /// Whether the function is where it was.
    fn check(&self, function: Function) -> Result<(), Unnamed> {
        let layout = &self.structures.layout;
        let (mut window, mut memory) = ([0; WINDOW_WORDS], Objects(&*self.memory));
        let found = layout.identity(function.shared, &mut window, &mut memory);
        match found == Some(function.identity) {
            true => Ok(()),
            // A process that is gone has nothing.
            false => Err(match self.memory.u64(function.shared) {
                Ok(_) => Unnamed::NoJavaScript,
                Err(problem) => problem.into(),
            }),
        }
    }

    fn read(&mut self, function: Function) -> Result<JavaFrame, Unnamed> {
        let Structures { layout, names } = self.structures;
        let field = |at: u64, offset: u64| self.memory.u64(at.wrapping_add(offset));
        let script = field(function.shared, layout.script.into())?;
        let script = object(script).ok_or(Unnamed::NoJavaScript)?;
        let source = field(script, layout.source.into())?;
        let (file, name) = (
            field(script, names.script_name)?,
            field(function.shared, names.name)?,
        );
        self.check_settled(file)?;
        self.check_settled(name)?;
        let strings = self.strings();
        let file = match strings.is_string(file) {
            true => strings.text(file)?,
            false => String::new(),
        };
        let scope = self.scope(name, function.identity.length);
        let name = if strings.is_string(name) {
            strings.text(name)?
        } else {
            let text = |word: Option<u64>| word.map(|word| strings.text(word)).transpose();
            let own = text(scope.name)?.filter(|name| !name.is_empty());
            match own {
                Some(own) => own,
                None => text(scope.inferred)?.unwrap_or_default(),
            }
        };
        let start = scope.place.map(|(start, _)| start);
        let line = start.and_then(|start| self.line(function, (script, source), start));
        Ok(JavaFrame::javascript(name, &file, line))
    }

    /// That an object is not being moved: what was moved has no type.
    fn check_settled(&self, word: u64) -> Result<(), Unnamed> {
        let mut memory = Objects(&*self.memory);
        let kind = |at| self.structures.layout.kind_of(at, &mut memory);
        match object(word).map(kind) {
            Some(None) => Err(Unnamed::NoJavaScript),
            _ => Ok(()),
        }
    }

    fn strings(&self) -> Strings<'_> {
        Strings {
            memory: &*self.memory,
            layout: &self.structures.layout,
            strings: &self.structures.names.strings,
        }
    }

    /// What a function's scope says, if a word is one.
    fn scope(&self, word: u64, length: u32) -> Scope {
        self.find_scope(word, length).unwrap_or_default()
    }

    fn find_scope(&self, word: u64, length: u32) -> Option<Scope> {
        let Structures { layout, names } = &self.structures;
        let at = object(word)?;
        if layout.kind_of(at, &mut Objects(&*self.memory))? != names.scope_kind {
            return None;
        }
        let strings = self.strings();
        let read = |index: u64| {
            let offset = WORD.checked_add(index.checked_mul(WORD)?)?;
            self.memory.u64(at.checked_add(offset)?).ok()
        };
        let locals = small(read(names.scope.locals)?)?;
        if locals > MAX_LOCALS {
            return None;
        }
        let locals = u64::from(locals);
        let place = |at| Some((small(read(at)?)?, small(read(at + 1)?)?));
        let before = match names.scope.has_place {
            true => place(names.scope.locals + 1),
            false => None,
        };
        let mut first = names.scope.first;
        if locals != 0 && small(read(first)?).is_some() {
            // Of a module how many variables others can have.
            first += 1;
        }
        // Many have their names in a table.
        let named = match locals {
            0 => 0,
            _ if strings.is_string(read(first)?) => locals,
            _ => 1,
        };
        let tail = (0..TAIL as u64).map_while(|index| read(first + named + locals + index));
        let words: Vec<u64> = tail.collect();
        let is_string = |word| strings.is_string(word);
        Some(Scope::of(&words, before, length, is_string))
    }

    /// The line of a place in a function's script.
    fn line(
        &mut self,
        function: Function,
        (script, source): (u64, u64),
        position: u32,
    ) -> Option<u32> {
        let Identity {
            script: number,
            length,
            ..
        } = function.identity;
        if let Some((of, lines)) = self.lines.get(script)
            && *of == (number, length)
        {
            return lines.of(position);
        }
        let characters = self.strings().characters(source).ok()?;
        let lines = Arc::new(Lines::read(&*self.memory, characters).ok()?);
        let line = lines.of(position);
        let bytes = lines.bytes();
        self.lines.insert(script, ((number, length), lines), bytes);
        line
    }
}

impl JavaFrame {
    /// Whether it is a function of JavaScript that has no name.
    pub fn is_anonymous(&self) -> bool {
        self.method.as_deref() == Some(ANONYMOUS)
    }

    /// A function of JavaScript. Modules have addresses for names.
    fn javascript(name: String, file: &str, line: Option<u32>) -> Self {
        let name = match name.is_empty() {
            true => ANONYMOUS.to_owned(),
            false => name,
        };
        let file = file.strip_prefix("file://").unwrap_or(file);
        JavaFrame {
            class: None,
            method: Some(name.into()),
            signature: None,
            file: (!file.is_empty()).then(|| file.into()),
            line,
            kind: FrameKind::JavaScript,
            inlined: false,
        }
    }
}
