//! From the words of a stack to Java frames with names.

use std::sync::Arc;

use tracer_ebpf::class_name::ClassName;
use tracer_ebpf::frame::{Frame, IDS};

use super::cache::Cache;
use super::code_cache::{Blob, BlobKind};
use super::fields::{Fields, UnknownLayout};
use super::klass::class_name;
use super::layout::Layout;
use super::memory::TargetMemory;
use super::method::{Method, MethodLayout};
use super::nmethod::{Compiler, Nmethod, TablesLayout, method_of};
use super::places::Places;
use super::stream::Encoding;
use super::unnamed::Unnamed;
use super::vmstructs::VmStructs;

/// Names of words, methods, and tables of compiled methods are remembered
/// within so many bytes, of each.
const MAX_REMEMBERED: usize = 32 << 20;

/// What runs a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The interpreter.
    Interpreted,
    /// Code of the first compiler.
    C1,
    /// Code of the second compiler.
    C2,
    /// Compiled code of which the method alone is known: neither its line,
    /// nor what is inlined.
    Told,
    /// The call of a native method.
    Native,
    /// Code of the VM's own in the code cache; `method` is its name.
    Stub,
    /// Not a frame: the class of an object.
    Class,
    /// CPython's interpreter, which runs a function of Python: `method` is its qualified
    /// name, `line` its first one.
    Python,
    /// V8, which runs a function of JavaScript: `line` is where that begins.
    JavaScript,
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

impl JavaFrame {
    /// A method that the VM told of.
    pub fn told(class: String, method: String, signature: Option<String>) -> Self {
        JavaFrame {
            class: Some(class.into()),
            method: Some(method.into()),
            signature: signature.map(Into::into),
            ..bare_frame(FrameKind::Told)
        }
    }

    /// The class of an object, by the name that the VM told with it; `None`
    /// if it could not be read.
    pub fn of_told_class(name: &ClassName) -> Option<Self> {
        let text = String::from_utf8_lossy(name.bytes());
        let class = match name.is_cut() {
            true => format!("{}…", text.replace('/', ".")),
            false => class_name(&text)?,
        };
        Some(JavaFrame {
            class: Some(class.into()),
            ..bare_frame(FrameKind::Class)
        })
    }
}

/// The frames of a word, innermost first, or why they have no names.
pub type Named = Result<Arc<[JavaFrame]>, Unnamed>;

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

/// Gives names to words, and remembers what it read.
///
/// Compiled code has a number of its own, so that the names of its words stay
/// what they are. Methods and classes may give their addresses to others once
/// they are unloaded: a method is looked at again before it is used again, and
/// classes are not remembered at all.
pub struct JavaNames {
    layout: Result<NameLayout, UnknownLayout>,
    /// Of compiled code.
    words: Cache<Arc<[JavaFrame]>>,
    methods: Cache<Arc<Method>>,
    /// By address; with the compile id, which no two have in common.
    compiled: Cache<(i64, Arc<Nmethod>)>,
}

impl JavaNames {
    /// Nothing is read yet but the version.
    pub fn new(structs: &VmStructs, memory: &dyn TargetMemory) -> Self {
        JavaNames {
            layout: NameLayout::of(structs, memory),
            words: Cache::new(MAX_REMEMBERED),
            methods: Cache::new(MAX_REMEMBERED),
            compiled: Cache::new(MAX_REMEMBERED),
        }
    }

    /// The frames of a word, innermost first; never none.
    ///
    /// # Errors
    /// The reason why there are no names.
    pub fn name(&mut self, vm: Source<'_>, word: u64) -> Result<Arc<[JavaFrame]>, Unnamed> {
        if let Some(known) = self.words.get(word) {
            return Ok(Arc::clone(known));
        }
        match Frame::of(word) {
            Frame::Native { .. }
            | Frame::File { .. }
            | Frame::ClassName { .. }
            | Frame::Python { .. }
            | Frame::JavaScript { .. } => Err(Unnamed::NotJava),
            Frame::Interpreted { method, bytecode } => {
                Ok([self.interpreted(vm, method, bytecode)?].into())
            }
            Frame::Compiled { pc, id } => {
                let frames: Arc<[JavaFrame]> = self.compiled(vm, pc, id)?.into();
                let bytes = size_of_val(&*frames);
                self.words.insert(word, Arc::clone(&frames), bytes);
                Ok(frames)
            }
            Frame::Class { klass } => Ok([self.class_frame(vm, klass)?].into()),
        }
    }

    fn layout(&self) -> Result<NameLayout, Unnamed> {
        self.layout.clone().map_err(Unnamed::Layout)
    }

    fn interpreted(
        &mut self,
        vm: Source<'_>,
        method: u64,
        bytecode: Option<u16>,
    ) -> Result<JavaFrame, Unnamed> {
        let method = self.method(vm, method)?;
        let bci = bytecode.and_then(|bytecode| method.bci(bytecode));
        let is_elsewhere = bytecode.is_some() && bci.is_none();
        if is_elsewhere && !method.is_empty() {
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

    fn class_frame(&self, vm: Source<'_>, klass: u64) -> Result<JavaFrame, Unnamed> {
        let layout = self.layout()?.method;
        let class = layout.class_name(vm.memory, klass);
        Ok(JavaFrame {
            class: Some(class.ok_or(Unnamed::NotAClass)?.into()),
            ..bare_frame(FrameKind::Class)
        })
    }

    fn method(&mut self, vm: Source<'_>, address: u64) -> Result<Arc<Method>, Unnamed> {
        let layout = self.layout()?.method;
        if let Some(known) = self.methods.get(address)
            && layout.is_still(vm.memory, address, known)
        {
            return Ok(Arc::clone(known));
        }
        let method = Arc::new(layout.read(vm.memory, address)?);
        let bytes = method.bytes();
        self.methods.insert(address, Arc::clone(&method), bytes);
        Ok(method)
    }

    fn nmethod(
        &mut self,
        vm: Source<'_>,
        blob: &Blob,
        compile_id: i64,
    ) -> Result<Arc<Nmethod>, Unnamed> {
        if let Some((id, known)) = self.compiled.get(blob.start)
            && *id == compile_id
        {
            return Ok(Arc::clone(known));
        }
        let tables = self.layout()?.tables;
        let nmethod = Arc::new(Nmethod::read(vm.memory, vm.layout, &tables, blob)?);
        // It may have been freed while it was read.
        let now = Blob::at(vm.memory, vm.layout, &vm.places.heaps, blob.start)?;
        if vm.layout.nmethod.compile_id.of(&now.header) != Some(compile_id) {
            return Err(Unnamed::Recompiled);
        }
        let entry = (compile_id, Arc::clone(&nmethod));
        self.compiled.insert(blob.start, entry, nmethod.bytes());
        Ok(nmethod)
    }
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
