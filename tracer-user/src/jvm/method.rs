//! Methods (`Method`, `ConstMethod`): their names and line numbers.

use std::sync::Arc;

use super::fields::{Fields, Number, UnknownLayout};
use super::klass::KlassLayout;
use super::layout::pointer;
use super::line_table::LineTable;
use super::memory::TargetMemory;
use super::pool::{Pool, PoolLayout, aligned};
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
    /// Its constant part, as it was read.
    header: Vec<u8>,
    /// The address of its bytecodes, which are behind that.
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

    /// About the bytes that it takes.
    pub fn bytes(&self) -> usize {
        let names = self.class.len() + self.name.len() + self.signature.len();
        let lines = self.lines.as_ref().map_or(0, LineTable::bytes);
        size_of::<Self>() + names + self.header.len() + lines
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

    /// Whether the method at an address is one that was read before: its
    /// constant part is at the same place, and the same. Unloaded methods'
    /// addresses are used again.
    pub fn is_still(&self, memory: &dyn TargetMemory, address: u64, known: &Method) -> bool {
        let pointer = address.wrapping_add(self.const_method.into());
        let header = known.bytecodes.wrapping_sub(self.header.size.into());
        memory.u64(pointer).is_ok_and(|now| now == header)
            && memory
                .vec(header, known.header.len())
                .is_ok_and(|now| now == known.header)
    }

    /// Reads the method at an address.
    ///
    /// # Errors
    /// [`Unnamed::NotAMethod`] unless all of it is plausible: its constant
    /// part and pool, its name, and the name of its class.
    pub fn read(&self, memory: &dyn TargetMemory, method: u64) -> Result<Method, Unnamed> {
        if method == 0 || !method.is_multiple_of(8) {
            return Err(Unnamed::NotAMethod);
        }
        // It may have been unloaded while it was read.
        self.parse(memory, method)
            .filter(|read| self.is_still(memory, method, read))
            .ok_or(Unnamed::NotAMethod)
    }

    fn parse(&self, memory: &dyn TargetMemory, method: u64) -> Option<Method> {
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
            class: self.class_name(memory, pool.holder)?.into(),
            name: text(number(layout.name)?)?.into(),
            signature: text(number(layout.signature)?)?.into(),
            source: pool.source.and_then(text).map(Into::into),
            header,
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
