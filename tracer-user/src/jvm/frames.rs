//! From the words of a stack to Java frames with names.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use tracer_ebpf::frame::{Frame, IDS};

use super::code_cache::{Blob, BlobKind};
use super::fields::{Fields, UnknownLayout};
use super::layout::Layout;
use super::memory::TargetMemory;
use super::method::{Method, MethodLayout};
use super::nmethod::{Compiler, Nmethod, TablesLayout, method_of};
use super::places::Places;
use super::stream::Encoding;
use super::unnamed::Unnamed;
use super::vmstructs::VmStructs;

/// Words, methods and classes that are remembered, of each.
const MAX_KNOWN: usize = 1 << 18;

/// Compiled methods whose tables are remembered.
const MAX_COMPILED: usize = 1 << 12;

/// What runs a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The interpreter.
    Interpreted,
    /// Code of the first compiler.
    C1,
    /// Code of the second compiler.
    C2,
    /// The call of a native method.
    Native,
    /// Code of the VM's own in the code cache; `method` is its name.
    Stub,
    /// Not a frame: the class of an object.
    Class,
}

/// A Java frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JavaFrame {
    /// The class, written as in source; what differs from run to run is left
    /// out (see [`class_name`](super::klass::class_name)). A stub has none.
    pub class: Option<Arc<str>>,
    /// The method's name. A class has none.
    pub method: Option<Arc<str>>,
    /// Its descriptor, if it is a method.
    pub signature: Option<Arc<str>>,
    /// The source file, without folders.
    pub file: Option<Arc<str>>,
    /// The line of the call.
    pub line: Option<u32>,
    /// What runs it.
    pub kind: FrameKind,
    /// Whether it is part of the next frame's code.
    pub inlined: bool,
}

/// The frames of a word, innermost first, or why they have no names.
pub type Named = Result<Arc<[JavaFrame]>, Unnamed>;

impl fmt::Display for JavaFrame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [&self.class, &self.method].into_iter().flatten();
        for (index, name) in names.enumerate() {
            write!(out, "{}{name}", if index > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

/// The layouts that names need.
#[derive(Debug, Clone, Copy)]
struct NameLayout {
    method: MethodLayout,
    tables: TablesLayout,
}

impl NameLayout {
    fn of(structs: &VmStructs, memory: &dyn TargetMemory) -> Result<Self, UnknownLayout> {
        let fields = Fields(structs);
        let encoding = Encoding::of(fields, memory)?;
        Ok(NameLayout {
            method: MethodLayout::of(fields, encoding)?,
            tables: TablesLayout::of(fields, encoding)?,
        })
    }
}

/// The VM that frames are of.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its memory.
    pub memory: &'a dyn TargetMemory,
    /// Where in its objects things are.
    pub layout: &'a Layout,
    /// Where its code is.
    pub places: &'a Places,
}

/// Gives names to words, and remembers them: by then the code may have been
/// freed.
pub struct JavaNames {
    layout: Result<NameLayout, UnknownLayout>,
    words: HashMap<u64, Arc<[JavaFrame]>>,
    methods: HashMap<u64, Arc<Method>>,
    classes: HashMap<u64, Arc<str>>,
    /// By address; with the compile id, which no two have in common.
    compiled: HashMap<u64, (i64, Arc<Nmethod>)>,
}

impl JavaNames {
    /// Nothing is read yet but the version.
    pub fn new(structs: &VmStructs, memory: &dyn TargetMemory) -> Self {
        JavaNames {
            layout: NameLayout::of(structs, memory),
            words: HashMap::new(),
            methods: HashMap::new(),
            classes: HashMap::new(),
            compiled: HashMap::new(),
        }
    }

    /// Forgets what may be another's by now: classes are unloaded, and their
    /// addresses and those of their methods used again. Compiled code is known
    /// by its id.
    pub fn forget_classes(&mut self) {
        self.words.clear();
        self.methods.clear();
        self.classes.clear();
    }

    /// The frames of a word, innermost first; never none.
    ///
    /// # Errors
    /// The reason why there are no names.
    pub fn name(&mut self, vm: Source<'_>, word: u64) -> Result<Arc<[JavaFrame]>, Unnamed> {
        if let Some(known) = self.words.get(&word) {
            return Ok(Arc::clone(known));
        }
        let frames: Arc<[JavaFrame]> = match Frame::of(word) {
            Frame::Native { .. } => return Err(Unnamed::NotJava),
            Frame::Interpreted { method, bytecode } => {
                [self.interpreted(vm, method, bytecode)?].into()
            }
            Frame::Compiled { pc, id } => self.compiled(vm, pc, id)?.into(),
            Frame::Class { klass } => [self.class_frame(vm, klass)?].into(),
        };
        remember(&mut self.words, word, Arc::clone(&frames), MAX_KNOWN);
        Ok(frames)
    }

    fn layout(&self) -> Result<NameLayout, Unnamed> {
        self.layout.clone().map_err(Unnamed::Layout)
    }

    fn interpreted(
        &mut self,
        vm: Source<'_>,
        method: u64,
        bytecode: u16,
    ) -> Result<JavaFrame, Unnamed> {
        let method = self.method(vm, method)?;
        let bci = method.bci(bytecode);
        if bci.is_none() && !method.is_empty() {
            return Err(Unnamed::NotAMethod);
        }
        Ok(method_frame(&method, bci, FrameKind::Interpreted))
    }

    fn compiled(&mut self, vm: Source<'_>, pc: u64, id: u16) -> Result<Vec<JavaFrame>, Unnamed> {
        if vm.places.interpreter.contains(&pc) {
            return Ok(vec![stub_frame("Interpreter")]);
        }
        let blob = Blob::at(vm.memory, vm.layout, &vm.places.heaps, pc)?;
        let kind = blob.kind(vm.memory, vm.layout)?;
        if let BlobKind::Stub(name) = &kind {
            return Ok(vec![stub_frame(name)]);
        }
        let compile_id = vm.layout.nmethod.compile_id.of(&blob.header);
        let compile_id = compile_id.ok_or(Unnamed::NoCode)?;
        if compile_id.cast_unsigned() % IDS != u64::from(id) {
            return Err(Unnamed::Recompiled);
        }
        if kind == BlobKind::NativeWrapper {
            let method = method_of(vm.layout, &blob).ok_or(Unnamed::NotAMethod)?;
            let method = self.method(vm, method)?;
            return Ok(vec![method_frame(&method, None, FrameKind::Native)]);
        }
        let nmethod = self.nmethod(vm, &blob, compile_id)?;
        match self.scopes(vm, &nmethod, pc) {
            Err(Unnamed::NoScope) => Ok(vec![self.somewhere_in(vm, &blob, nmethod.compiler)?]),
            named => named,
        }
    }

    /// A place that the code tells nothing of, such as a barrier's call of the
    /// VM: the method that was compiled, at no line.
    fn somewhere_in(
        &mut self,
        vm: Source<'_>,
        blob: &Blob,
        compiler: Compiler,
    ) -> Result<JavaFrame, Unnamed> {
        let method = method_of(vm.layout, blob).ok_or(Unnamed::NoScope)?;
        let method = self.method(vm, method)?;
        Ok(JavaFrame {
            line: None,
            ..method_frame(&method, None, kind_of(compiler))
        })
    }

    fn scopes(
        &mut self,
        vm: Source<'_>,
        nmethod: &Nmethod,
        pc: u64,
    ) -> Result<Vec<JavaFrame>, Unnamed> {
        let kind = kind_of(nmethod.compiler);
        let mut frames = Vec::new();
        for scope in nmethod.scopes(pc)? {
            let method = self.method(vm, scope.method)?;
            let mut frame = method_frame(&method, scope.bci, kind);
            frame.inlined = true;
            frames.push(frame);
        }
        if let Some(outermost) = frames.last_mut() {
            outermost.inlined = false;
        }
        Ok(frames)
    }

    fn class_frame(&mut self, vm: Source<'_>, klass: u64) -> Result<JavaFrame, Unnamed> {
        let layout = self.layout()?.method;
        let class = class(&mut self.classes, &layout, vm.memory, klass);
        Ok(JavaFrame {
            class: Some(class.ok_or(Unnamed::NotAClass)?),
            ..bare_frame(FrameKind::Class)
        })
    }

    fn method(&mut self, vm: Source<'_>, address: u64) -> Result<Arc<Method>, Unnamed> {
        if let Some(known) = self.methods.get(&address) {
            return Ok(Arc::clone(known));
        }
        let layout = self.layout()?.method;
        let classes = &mut self.classes;
        let method = layout.read(vm.memory, address, |klass| {
            class(classes, &layout, vm.memory, klass)
        });
        let method = Arc::new(method?);
        remember(&mut self.methods, address, Arc::clone(&method), MAX_KNOWN);
        Ok(method)
    }

    fn nmethod(
        &mut self,
        vm: Source<'_>,
        blob: &Blob,
        compile_id: i64,
    ) -> Result<Arc<Nmethod>, Unnamed> {
        if let Some((id, known)) = self.compiled.get(&blob.start)
            && *id == compile_id
        {
            return Ok(Arc::clone(known));
        }
        let tables = self.layout()?.tables;
        let nmethod = Arc::new(Nmethod::read(vm.memory, vm.layout, &tables, blob)?);
        let entry = (compile_id, Arc::clone(&nmethod));
        remember(&mut self.compiled, blob.start, entry, MAX_COMPILED);
        Ok(nmethod)
    }
}

/// The name of a class, read once.
fn class(
    known: &mut HashMap<u64, Arc<str>>,
    layout: &MethodLayout,
    memory: &dyn TargetMemory,
    klass: u64,
) -> Option<Arc<str>> {
    if let Some(name) = known.get(&klass) {
        return Some(Arc::clone(name));
    }
    let name: Arc<str> = layout.class_name(memory, klass)?.into();
    remember(known, klass, Arc::clone(&name), MAX_KNOWN);
    Some(name)
}

fn remember<K: Hash + Eq, V>(known: &mut HashMap<K, V>, key: K, value: V, limit: usize) {
    if known.len() >= limit {
        known.clear();
    }
    known.insert(key, value);
}

fn kind_of(compiler: Compiler) -> FrameKind {
    match compiler {
        Compiler::C1 => FrameKind::C1,
        Compiler::C2 => FrameKind::C2,
    }
}

fn bare_frame(kind: FrameKind) -> JavaFrame {
    JavaFrame {
        class: None,
        method: None,
        signature: None,
        file: None,
        line: None,
        kind,
        inlined: false,
    }
}

fn stub_frame(name: &str) -> JavaFrame {
    JavaFrame {
        method: Some(name.into()),
        ..bare_frame(FrameKind::Stub)
    }
}

/// A frame of a method at a bytecode, or at none.
fn method_frame(method: &Method, bci: Option<u16>, kind: FrameKind) -> JavaFrame {
    JavaFrame {
        class: Some(Arc::clone(&method.class)),
        method: Some(Arc::clone(&method.name)),
        signature: Some(Arc::clone(&method.signature)),
        file: method.source.clone(),
        line: method.line(bci.unwrap_or(0)),
        ..bare_frame(kind)
    }
}
