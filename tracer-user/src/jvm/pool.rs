//! Constant pools, in which classes keep their names.

use super::fields::{Fields, Number, UnknownLayout};
use super::layout::pointer;
use super::memory::TargetMemory;

/// Where in a constant pool its parts are.
#[derive(Debug, Clone, Copy)]
pub struct PoolLayout {
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

impl PoolLayout {
    /// Looks them up.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
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
pub struct Pool {
    entries: u64,
    length: u64,
    /// The class that it belongs to.
    pub holder: u64,
    /// Index of the source file's name.
    pub source: Option<u64>,
}

impl Pool {
    /// Reads the pool at an address, if it can be one.
    pub fn read(layout: &PoolLayout, memory: &dyn TargetMemory, address: u64) -> Option<Self> {
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

    /// What is in an entry: a name's symbol, for example.
    pub fn entry(&self, memory: &dyn TargetMemory, index: u64) -> Option<u64> {
        let known = index != 0 && index < self.length.min(1 << 16);
        let address = self.entries.checked_add(index * 8)?;
        known.then(|| memory.u64(address).ok())?
    }
}

/// A pointer to an object of the VM, if it can be one.
pub fn aligned(pointer: u64) -> Option<u64> {
    (pointer != 0 && pointer.is_multiple_of(8) && pointer < 1 << 47).then_some(pointer)
}
