//! The tables that HotSpot exports about itself (`vmStructs.cpp`), made for
//! the serviceability agent: its types' sizes, fields and constants. They are
//! the only source of layouts here.

use std::collections::HashMap;
use std::io;

use anyhow::{Context, Result, bail};

use super::libjvm::LibJvm;
use super::memory::{CachedMemory, TargetMemory};

/// More entries of one table than this are not read; JDK 11 has 1,300.
const MAX_ENTRIES: u64 = 16_384;

/// The longest entry: seven words or so.
const MAX_STRIDE: u64 = 256;

/// The longest name of a type or field, bytes.
const MAX_NAME: usize = 1024;

/// A table's own symbol, those that tell its entries' size, and those that
/// tell where in an entry its parts are.
struct Shape<const PARTS: usize> {
    table: &'static str,
    stride: &'static str,
    parts: [&'static str; PARTS],
}

const STRUCTS: Shape<6> = Shape {
    table: "gHotSpotVMStructs",
    stride: "gHotSpotVMStructEntryArrayStride",
    parts: [
        "gHotSpotVMStructEntryTypeNameOffset",
        "gHotSpotVMStructEntryFieldNameOffset",
        "gHotSpotVMStructEntryTypeStringOffset",
        "gHotSpotVMStructEntryIsStaticOffset",
        "gHotSpotVMStructEntryOffsetOffset",
        "gHotSpotVMStructEntryAddressOffset",
    ],
};

const TYPES: Shape<3> = Shape {
    table: "gHotSpotVMTypes",
    stride: "gHotSpotVMTypeEntryArrayStride",
    parts: [
        "gHotSpotVMTypeEntryTypeNameOffset",
        "gHotSpotVMTypeEntryIsUnsignedOffset",
        "gHotSpotVMTypeEntrySizeOffset",
    ],
};

const INTS: Shape<2> = Shape {
    table: "gHotSpotVMIntConstants",
    stride: "gHotSpotVMIntConstantEntryArrayStride",
    parts: [
        "gHotSpotVMIntConstantEntryNameOffset",
        "gHotSpotVMIntConstantEntryValueOffset",
    ],
};

const LONGS: Shape<2> = Shape {
    table: "gHotSpotVMLongConstants",
    stride: "gHotSpotVMLongConstantEntryArrayStride",
    parts: [
        "gHotSpotVMLongConstantEntryNameOffset",
        "gHotSpotVMLongConstantEntryValueOffset",
    ],
};

/// Where a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Bytes from the start of its object.
    Offset(u64),
    /// A static field's address in the process.
    Static(u64),
}

/// A field of a type of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Where it is.
    pub place: Place,
    /// Its type as the VM's source has it; empty if the VM does not tell.
    pub type_string: String,
}

#[derive(Debug, Clone, Copy)]
struct Type {
    size: u64,
    unsigned: bool,
}

/// The exported tables of one VM.
#[derive(Debug, Default)]
pub struct VmStructs {
    fields: HashMap<String, HashMap<String, Field>>,
    types: HashMap<String, Type>,
    ints: HashMap<String, i32>,
    longs: HashMap<String, u64>,
}

impl VmStructs {
    /// Reads the tables of a process's VM.
    ///
    /// # Errors
    /// Fails if the library does not export them, the process is gone, or
    /// they are not what such tables are.
    pub fn read(library: &LibJvm, memory: &dyn TargetMemory) -> Result<Self> {
        let mut wanted = Vec::new();
        wanted.extend(STRUCTS.symbols());
        wanted.extend(TYPES.symbols());
        wanted.extend(INTS.symbols());
        wanted.extend(LONGS.symbols());
        let symbols = library.exported(&wanted)?;
        Self::of_tables(&symbols, memory)
    }

    fn of_tables(symbols: &HashMap<&'static str, u64>, memory: &dyn TargetMemory) -> Result<Self> {
        let tables = Tables {
            symbols,
            memory: CachedMemory::new(memory),
        };
        let mut structs = VmStructs::default();
        tables.each(
            &STRUCTS,
            |text, [kind, name, of, is_static, offset, address]| {
                let place = match tables.memory.i32(is_static)? {
                    0 => Place::Offset(tables.memory.u64(offset)?),
                    _ => Place::Static(tables.memory.u64(address)?),
                };
                let type_string = text(of)?.unwrap_or_default();
                let field = Field { place, type_string };
                let (Some(kind), Some(name)) = (text(kind)?, text(name)?) else {
                    return Ok(false);
                };
                structs.fields.entry(kind).or_default().insert(name, field);
                Ok(true)
            },
        )?;
        tables.each(&TYPES, |text, [name, unsigned, size]| {
            let size = tables.memory.u64(size)?;
            let unsigned = tables.memory.i32(unsigned)? != 0;
            let Some(name) = text(name)? else {
                return Ok(false);
            };
            structs.types.insert(name, Type { size, unsigned });
            Ok(true)
        })?;
        tables.each(&INTS, |text, [name, value]| {
            let value = tables.memory.i32(value)?;
            Ok(text(name)?
                .map(|name| structs.ints.insert(name, value))
                .is_some())
        })?;
        tables.each(&LONGS, |text, [name, value]| {
            let value = tables.memory.u64(value)?;
            Ok(text(name)?
                .map(|name| structs.longs.insert(name, value))
                .is_some())
        })?;
        Ok(structs)
    }

    /// A field of a type, if the VM exports it.
    pub fn field(&self, kind: &str, name: &str) -> Option<&Field> {
        self.fields.get(kind)?.get(name)
    }

    /// The size of a type, bytes.
    pub fn type_size(&self, name: &str) -> Option<u64> {
        self.types.get(name).map(|kind| kind.size)
    }

    /// The size of a number's type, bytes, and whether it has no sign.
    pub fn number(&self, name: &str) -> Option<(u64, bool)> {
        let plain = name.trim_start_matches("const ");
        let plain = plain.trim_start_matches("volatile ");
        let kind = self.types.get(name).or_else(|| self.types.get(plain))?;
        Some((kind.size, kind.unsigned))
    }

    /// A constant of type `int` (an enumerator, for example).
    pub fn int_constant(&self, name: &str) -> Option<i32> {
        self.ints.get(name).copied()
    }

    /// A constant of a machine word.
    pub fn long_constant(&self, name: &str) -> Option<u64> {
        self.longs.get(name).copied()
    }
}

impl<const PARTS: usize> Shape<PARTS> {
    fn symbols(&self) -> impl Iterator<Item = &'static str> {
        [self.table, self.stride].into_iter().chain(self.parts)
    }
}

/// The tables' symbols, and the memory that they are in.
struct Tables<'a> {
    symbols: &'a HashMap<&'static str, u64>,
    memory: CachedMemory<'a>,
}

impl Tables<'_> {
    /// What the word under a symbol is.
    fn word(&self, symbol: &'static str) -> Result<u64> {
        let address = self
            .symbols
            .get(symbol)
            .with_context(|| format!("the Java VM does not export {symbol}"))?;
        let word = self.memory.u64(*address);
        word.with_context(|| format!("cannot read {symbol} of the Java VM"))
    }

    /// Calls `entry` with the addresses of the parts of each entry, until it
    /// says that the last was behind the end. Its first argument reads the
    /// name that a part points to.
    fn each<const PARTS: usize>(
        &self,
        shape: &Shape<PARTS>,
        mut entry: impl FnMut(
            &dyn Fn(u64) -> io::Result<Option<String>>,
            [u64; PARTS],
        ) -> io::Result<bool>,
    ) -> Result<()> {
        let table = self.word(shape.table)?;
        let stride = self.word(shape.stride)?;
        let mut offsets = [0; PARTS];
        for (offset, symbol) in offsets.iter_mut().zip(shape.parts) {
            *offset = self.word(symbol)?;
        }
        if stride == 0 || stride > MAX_STRIDE || offsets.iter().any(|offset| *offset >= stride) {
            bail!("{} of the Java VM is of an unknown form", shape.table);
        }
        let text = |address| self.text(address);
        for index in 0..MAX_ENTRIES {
            let start = table.wrapping_add(index * stride);
            let more = entry(&text, offsets.map(|offset| start.wrapping_add(offset)));
            if !more.with_context(|| format!("cannot read {} of the Java VM", shape.table))? {
                return Ok(());
            }
        }
        bail!("{} of the Java VM has no end", shape.table)
    }

    fn text(&self, pointer: u64) -> io::Result<Option<String>> {
        match self.memory.u64(pointer)? {
            0 => Ok(None),
            address => {
                let name = self.memory.c_string(address, MAX_NAME)?;
                Ok(Some(String::from_utf8_lossy(&name).into_owned()))
            }
        }
    }
}
