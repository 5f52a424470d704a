//! Methods (`Method`, `ConstMethod`): their names and line numbers.

use std::sync::Arc;

use super::fields::{Fields, Number, UnknownLayout};
use super::klass::KlassLayout;
use super::layout::pointer;
use super::line_table::LineTable;
use super::memory::TargetMemory;
use super::stream::Encoding;
use super::symbol::SymbolLayout;
use super::unnamed::Unnamed;

/// The access flag of native methods (JVM specification, table 4.6-A).
const NATIVE: u16 = 0x100;

/// Words of a `ConstMethod`, at most: bytecodes are at most 64 KiB, and the
/// tables behind them grow with them.
const MAX_WORDS: u64 = 1 << 18;

/// More of a line table is not read, bytes: two for each bytecode.
const MAX_LINES: u64 = 128 << 10;

/// A method, read once.
#[derive(Debug)]
pub struct Method {
    /// Its class; see [`class_name`](super::klass::class_name).
    pub class: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its parameters and what it returns, as a descriptor.
    pub signature: Arc<str>,
    /// The source file, without folders, if the class has it.
    pub source: Option<Arc<str>>,
    /// The address of its bytecodes.
    bytecodes: u64,
    /// Bytes of bytecodes.
    code_size: u16,
    lines: Option<LineTable>,
}

impl Method {
    /// The bytecode whose address ends in these 16 bits, if it is one of this
    /// method. A method has less than 64 KiB of them.
    pub fn bci(&self, address: u16) -> Option<u16> {
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^16")]
        let start = self.bytecodes as u16;
        let bci = address.wrapping_sub(start);
        (bci < self.code_size).then_some(bci)
    }

    /// Whether it has no bytecodes: it is native or abstract.
    pub fn is_empty(&self) -> bool {
        self.code_size == 0
    }

    /// The source line of a bytecode. A native method has none.
    pub fn line(&self, bci: u16) -> Option<u32> {
        self.lines.as_ref()?.line(bci.into())
    }
}

/// Where in a method, and in what belongs to it, things are.
#[derive(Debug, Clone, Copy)]
pub struct MethodLayout {
    const_method: u32,
    access_flags: u32,
    header: ConstMethodLayout,
    pool: PoolLayout,
    klass: KlassLayout,
    symbols: SymbolLayout,
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy)]
struct ConstMethodLayout {
    size: u32,
    constants: u32,
    words: Number,
    flags: Number,
    has_lines: i64,
    code_size: Number,
    name: Number,
    signature: Number,
}

#[derive(Debug, Clone, Copy)]
struct PoolLayout {
    /// The first entry is behind the header.
    size: u32,
    holder: u32,
    length: Number,
    source: Source,
}

/// Where the index of the source file's name is.
#[derive(Debug, Clone, Copy)]
enum Source {
    OfPool(Number),
    OfClass(Number),
    None,
}

impl MethodLayout {
    /// Looks all of it up.
    ///
    /// # Errors
    /// Names the first thing that the VM does not export.
    pub fn of(fields: Fields<'_>, encoding: Encoding) -> Result<Self, UnknownLayout> {
        Ok(MethodLayout {
            const_method: fields.offset(&[("Method", "_constMethod")])?,
            access_flags: fields.offset(&[("Method", "_access_flags")])?,
            header: ConstMethodLayout::of(fields)?,
            pool: PoolLayout::of(fields)?,
            klass: KlassLayout::of(fields)?,
            symbols: SymbolLayout::of(fields)?,
            encoding,
        })
    }

    /// The name of a class.
    pub fn class_name(&self, memory: &dyn TargetMemory, klass: u64) -> Option<String> {
        self.klass.name(memory, &self.symbols, klass)
    }

    /// Reads the method at an address. `class` gives the name of a class, so
    /// that it can remember it.
    ///
    /// # Errors
    /// [`Unnamed::NotAMethod`] unless all of it is plausible: its constant
    /// part and pool, its name, and the name of its class.
    pub fn read(
        &self,
        memory: &dyn TargetMemory,
        method: u64,
        class: impl FnOnce(u64) -> Option<Arc<str>>,
    ) -> Result<Method, Unnamed> {
        if method == 0 || !method.is_multiple_of(8) {
            return Err(Unnamed::NotAMethod);
        }
        self.parse(memory, method, class).ok_or(Unnamed::NotAMethod)
    }

    fn parse(
        &self,
        memory: &dyn TargetMemory,
        method: u64,
        class: impl FnOnce(u64) -> Option<Arc<str>>,
    ) -> Option<Method> {
        let field = |offset: u32| method.checked_add(offset.into());
        let address = aligned(memory.u64(field(self.const_method)?).ok()?)?;
        // The flags' width changed; those of the class file are the lowest.
        let flags = memory.u16(field(self.access_flags)?).ok()?;
        let native = flags & NATIVE != 0;
        let layout = &self.header;
        let header = memory.vec(address, layout.size as usize).ok()?;
        let number = |number: Number| u64::try_from(number.of(&header)?).ok();
        let code_size = u16::try_from(number(layout.code_size)?).ok()?;
        let bytes = number(layout.words).filter(|words| *words < MAX_WORDS)? * 8;
        let code_end = u64::from(layout.size) + u64::from(code_size);
        if code_end > bytes {
            return None;
        }
        let pool = Pool::read(
            &self.pool,
            memory,
            aligned(pointer(&header, layout.constants)?)?,
        )?;
        let text = |index: u64| self.symbols.read(memory, pool.entry(memory, index)?);
        let has_lines = layout.flags.of(&header)? & layout.has_lines != 0;
        let lines = (has_lines && !native)
            .then(|| usize::try_from((bytes - code_end).min(MAX_LINES)).ok())
            .flatten()
            .and_then(|length| memory.vec(address + code_end, length).ok());
        Some(Method {
            class: class(pool.holder)?,
            name: text(number(layout.name)?)?.into(),
            signature: text(number(layout.signature)?)?.into(),
            source: pool.source.and_then(text).map(Into::into),
            bytecodes: address + u64::from(layout.size),
            code_size: if native { 0 } else { code_size },
            lines: lines.map(|bytes| LineTable::new(bytes, self.encoding)),
        })
    }
}

impl ConstMethodLayout {
    fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
        let number = |name| fields.number(&[("ConstMethod", name)]);
        let constants = [
            "ConstMethod::_has_linenumber_table",
            "ConstMethodFlags::_misc_has_linenumber_table",
        ];
        let has_lines = constants
            .iter()
            .find_map(|name| fields.0.int_constant(name));
        let has_lines = has_lines.ok_or_else(|| UnknownLayout {
            what: constants[0].into(),
        })?;
        Ok(ConstMethodLayout {
            size: fields.size("ConstMethod")?,
            constants: fields.offset(&[("ConstMethod", "_constants")])?,
            words: number("_constMethod_size")?,
            flags: number("_flags").or_else(|_| number("_flags._flags"))?,
            has_lines: has_lines.into(),
            code_size: number("_code_size")?,
            name: number("_name_index")?,
            signature: number("_signature_index")?,
        })
    }
}

impl PoolLayout {
    fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
        let name = "_source_file_name_index";
        let of_pool = fields.find_number(&[("ConstantPool", name)]);
        let of_class = fields.find_number(&[("InstanceKlass", name)]);
        Ok(PoolLayout {
            size: fields.size("ConstantPool")?,
            holder: fields.offset(&[("ConstantPool", "_pool_holder")])?,
            length: fields.number(&[("ConstantPool", "_length")])?,
            source: match (of_pool, of_class) {
                (Some(index), _) => Source::OfPool(index),
                (None, Some(index)) => Source::OfClass(index),
                (None, None) => Source::None,
            },
        })
    }
}

/// A constant pool.
struct Pool {
    entries: u64,
    length: u64,
    holder: u64,
    /// Index of the source file's name.
    source: Option<u64>,
}

impl Pool {
    fn read(layout: &PoolLayout, memory: &dyn TargetMemory, address: u64) -> Option<Self> {
        let header = memory.vec(address, layout.size as usize).ok()?;
        let holder = aligned(pointer(&header, layout.holder)?)?;
        let source = match layout.source {
            Source::OfPool(index) => index.of(&header),
            Source::OfClass(index) => index.read(memory, holder).ok(),
            Source::None => None,
        };
        Some(Pool {
            entries: address.checked_add(layout.size.into())?,
            length: u64::try_from(layout.length.of(&header)?).ok()?,
            holder,
            // The pool has no entry 0.
            source: source
                .and_then(|index| u64::try_from(index).ok())
                .filter(|index| *index != 0),
        })
    }

    /// What is in an entry.
    fn entry(&self, memory: &dyn TargetMemory, index: u64) -> Option<u64> {
        let known = index != 0 && index < self.length.min(1 << 16);
        let address = self.entries.checked_add(index * 8)?;
        known.then(|| memory.u64(address).ok())?
    }
}

/// A pointer to an object of the VM, if it can be one.
fn aligned(pointer: u64) -> Option<u64> {
    (pointer != 0 && pointer.is_multiple_of(8) && pointer < 1 << 47).then_some(pointer)
}
