//! Compiled methods (`nmethod`): where each form of them keeps its debug
//! information.

use std::ops::Range;

use super::code_cache::Blob;
use super::fields::{Fields, Number, UnknownLayout};
use super::layout::{Layout, Position, pointer};
use super::memory::TargetMemory;
use super::scopes::{PcDescLayout, Scope, Scopes};
use super::stream::Encoding;
use super::unnamed::Unnamed;

/// No table of one method is longer, bytes.
const MAX_TABLE: u64 = 16 << 20;

/// How a method was compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    /// Levels 1 to 3.
    C1,
    /// Level 4: C2, or what stands for it.
    C2,
}

/// Where in a `nmethod` its tables are.
#[derive(Debug, Clone, Copy)]
pub struct TablesLayout {
    form: Form,
    pc_desc: PcDescLayout,
    encoding: Encoding,
}

/// The forms that there have been. The VM's tables tell which one holds by
/// the fields that they have.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// JDK 8 to 22: all behind the code, in this order.
    Whole {
        metadata: Position,
        stream: Position,
        pcs: Position,
        end: Position,
    },
    /// From JDK 23 on: descriptions are in a piece of memory of their own.
    Apart {
        metadata: Metadata,
        immutable: u32,
        immutable_size: Number,
        pcs: Number,
        stream: Number,
    },
}

/// Where the form [`Form::Apart`] has its metadata.
#[derive(Debug, Clone, Copy)]
enum Metadata {
    /// JDK 23 and 24: among the blob's data, which end with the blob.
    InData { data: Number, offset: Number },
    /// From JDK 25 on: in another piece, behind the relocations.
    Mutable {
        data: u32,
        size: Number,
        relocations: Number,
    },
}

impl TablesLayout {
    /// Finds out which form holds.
    ///
    /// # Errors
    /// Names the first thing that the VM does not export.
    pub fn of(fields: Fields<'_>, encoding: Encoding) -> Result<Self, UnknownLayout> {
        let form = match fields.find_offset(&[("nmethod", "_immutable_data")]) {
            Some(immutable) => apart(fields, immutable)?,
            None => whole(fields)?,
        };
        let pc_desc = PcDescLayout {
            size: fields.size("PcDesc")?,
            pc: fields.offset(&[("PcDesc", "_pc_offset")])?,
            scope: fields.offset(&[("PcDesc", "_scope_decode_offset")])?,
        };
        Ok(TablesLayout {
            form,
            pc_desc,
            encoding,
        })
    }

    /// Reads the tables of a method.
    fn read(&self, memory: &dyn TargetMemory, layout: &Layout, blob: &Blob) -> Option<Scopes> {
        let [metadata, stream, pcs] = self.places(layout, blob)?;
        let read = |place: Range<u64>| {
            let length = place.end.checked_sub(place.start)?;
            let length = (length < MAX_TABLE).then(|| usize::try_from(length).ok())??;
            memory.vec(place.start, length).ok()
        };
        Some(Scopes {
            pcs: read(pcs)?,
            stream: read(stream)?,
            metadata: read(metadata)?,
            encoding: self.encoding,
        })
    }

    /// Where metadata, stream and `PcDesc`s are.
    fn places(&self, layout: &Layout, blob: &Blob) -> Option<[Range<u64>; 3]> {
        let header = &blob.header;
        let position = |position: Position| position.of(blob.start, header);
        let distance = |number: Number| u64::try_from(number.of(header)?).ok();
        match self.form {
            Form::Whole {
                metadata,
                stream,
                pcs,
                end,
            } => {
                let (metadata, stream) = (position(metadata)?, position(stream)?);
                let (pcs, end) = (position(pcs)?, position(end)?);
                Some([metadata..stream, stream..pcs, pcs..end])
            }
            Form::Apart {
                metadata,
                immutable,
                immutable_size,
                pcs,
                stream,
            } => {
                let start = pointer(header, immutable)?;
                let at = |number| start.checked_add(distance(number)?);
                let (pcs, stream) = (at(pcs)?, at(stream)?);
                let end = at(immutable_size)?;
                let metadata = match metadata {
                    Metadata::InData { data, offset } => {
                        let start = blob.start.checked_add(distance(data)?)?;
                        let end = blob.start.checked_add(distance(layout.blob.size)?)?;
                        start.checked_add(distance(offset)?)?..end
                    }
                    Metadata::Mutable {
                        data,
                        size,
                        relocations,
                    } => {
                        let data = pointer(header, data)?;
                        let end = data.checked_add(distance(size)?)?;
                        data.checked_add(distance(relocations)?)?..end
                    }
                };
                Some([metadata, stream..end, pcs..stream])
            }
        }
    }
}

fn whole(fields: Fields<'_>) -> Result<Form, UnknownLayout> {
    let from_start = |name| fields.number(&[("nmethod", name)]).map(Position::FromStart);
    let stream = fields.find_offset(&[("CompiledMethod", "_scopes_data_begin")]);
    Ok(Form::Whole {
        metadata: from_start("_metadata_offset")?,
        stream: match stream {
            Some(offset) => Position::Pointer(offset),
            None => from_start("_scopes_data_offset")?,
        },
        pcs: from_start("_scopes_pcs_offset")?,
        end: from_start("_dependencies_offset")?,
    })
}

fn apart(fields: Fields<'_>, immutable: u32) -> Result<Form, UnknownLayout> {
    let number = |name| fields.number(&[("nmethod", name)]);
    let of_blob = |name| fields.number(&[("CodeBlob", name)]);
    let metadata = match fields.find_offset(&[("CodeBlob", "_mutable_data")]) {
        Some(data) => Metadata::Mutable {
            data,
            size: of_blob("_mutable_data_size")?,
            relocations: of_blob("_relocation_size")?,
        },
        None => Metadata::InData {
            data: of_blob("_data_offset")?,
            offset: number("_metadata_offset")?,
        },
    };
    Ok(Form::Apart {
        metadata,
        immutable,
        immutable_size: number("_immutable_data_size")?,
        pcs: number("_scopes_pcs_offset")?,
        stream: number("_scopes_data_offset")?,
    })
}

/// A compiled method, read once.
#[derive(Debug)]
pub struct Nmethod {
    /// Which compiler made it.
    pub compiler: Compiler,
    code: Range<u64>,
    scopes: Scopes,
    pc_desc: PcDescLayout,
}

impl Nmethod {
    /// Reads a method's tables.
    ///
    /// # Errors
    /// Fails if they cannot be read.
    pub fn read(
        memory: &dyn TargetMemory,
        layout: &Layout,
        tables: &TablesLayout,
        blob: &Blob,
    ) -> Result<Self, Unnamed> {
        let position = |position: Position| position.of(blob.start, &blob.header);
        let code = position(layout.blob.code_begin).zip(position(layout.blob.code_end));
        let (start, end) = code.ok_or(Unnamed::NoCode)?;
        let level = layout.nmethod.comp_level.of(&blob.header);
        Ok(Nmethod {
            compiler: match level {
                Some(1..=3) => Compiler::C1,
                _ => Compiler::C2,
            },
            code: start..end,
            scopes: tables.read(memory, layout, blob).ok_or(Unnamed::NoScope)?,
            pc_desc: tables.pc_desc,
        })
    }

    /// The methods at a return address, innermost first.
    ///
    /// # Errors
    /// Fails if the code tells none.
    pub fn scopes(&self, pc: u64) -> Result<Vec<Scope>, Unnamed> {
        let distance = pc
            .checked_sub(self.code.start)
            .filter(|_| pc <= self.code.end);
        let distance = distance.and_then(|distance| i32::try_from(distance).ok());
        let scopes = distance.and_then(|distance| self.scopes.at(self.pc_desc, distance));
        scopes
            .filter(|scopes| !scopes.is_empty())
            .ok_or(Unnamed::NoScope)
    }
}

#[cfg(test)]
impl Nmethod {
    /// All addresses that have a description of methods.
    pub fn places(&self) -> Vec<u64> {
        let described = self.scopes.described(self.pc_desc);
        let address = |distance: i32| self.code.start.wrapping_add_signed(distance.into());
        described.into_iter().map(address).collect()
    }
}

/// The `Method*` of a compiled method or native wrapper.
pub fn method_of(layout: &Layout, blob: &Blob) -> Option<u64> {
    pointer(&blob.header, layout.nmethod.method).filter(|method| *method != 0)
}
