//! Where in the VM's objects the things are that a walk over Java frames
//! reads, from the tables that the VM exports. No version numbers: what JDK
//! 8, 11, 17, 21 and 25 export differs, and tells by itself which form holds.

use super::fields::{Fields, Number, UnknownLayout};
use super::vmstructs::VmStructs;

/// A position in a blob's code. Older VMs keep it as a pointer, newer ones
/// (and JDK 8) as a distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The field at this offset holds the address.
    Pointer(u32),
    /// This number is the distance from the blob's start, bytes.
    FromStart(Number),
}

impl Position {
    /// The address, in the blob at `start` whose first bytes are `header`.
    pub fn of(self, start: u64, header: &[u8]) -> Option<u64> {
        match self {
            Position::Pointer(offset) => pointer(header, offset),
            Position::FromStart(distance) => start.checked_add_signed(distance.of(header)?),
        }
    }
}

/// The pointer at an offset of an object whose first bytes these are.
pub fn pointer(object: &[u8], offset: u32) -> Option<u64> {
    let bytes = object.get(offset as usize..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// A `CodeHeap`: a part of the code cache, cut into segments. All blobs begin
/// at a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeHeapLayout {
    /// The first address of the space reserved, a pointer.
    pub low: u32,
    /// The first address after it.
    pub high: u32,
    /// The first address of the segment map, a pointer: for each segment one
    /// byte, 255 if it is free, else how many segments back to go at least.
    pub segment_map: u32,
    /// The logarithm of a segment's size.
    pub log2_segment_size: Number,
}

/// A `HeapBlock`, which is before each blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapBlockLayout {
    /// Bytes before the blob.
    pub size: u32,
    /// Its length, segments.
    pub length: Number,
    /// Not zero if the block is in use.
    pub used: Number,
}

/// A `CodeBlob`: a compiled method, or a stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLayout {
    /// Its length with its header, bytes.
    pub size: Number,
    /// A pointer to its name, a C string.
    pub name: u32,
    /// What it is, if the VM tells by a number.
    pub kind: Option<Number>,
    /// The frame's size in words, without the return address's (but JDK 8 and
    /// all later count the saved frame pointer). Never negative for code that
    /// has frames.
    pub frame_size: Number,
    /// How far the code is when the frame is built, bytes from its beginning;
    /// negative if never.
    pub frame_complete: Number,
    /// Where instructions begin.
    pub code_begin: Position,
    /// Where they end.
    pub code_end: Position,
}

/// What a `nmethod` has beyond a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NmethodLayout {
    /// The length of all fields, bytes.
    pub header_size: u32,
    /// Counts compilations.
    pub compile_id: Number,
    /// 1 to 3 by C1, 4 by C2; 0 for a native wrapper.
    pub comp_level: Number,
    /// The `Method*`.
    pub method: u32,
    /// Where frames return to that are deoptimised.
    pub deopt_handler: Position,
    /// The same at calls of method handles.
    pub deopt_mh_handler: Option<Position>,
    /// Where in such a frame the original pc is, bytes from the stack
    /// pointer.
    pub orig_pc_offset: Number,
}

/// A `JavaThread`'s anchor: where its Java frames begin while it is not in
/// Java code. Offsets from the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorLayout {
    /// The stack pointer; zero without Java frames, or in Java code.
    pub sp: u32,
    /// The pc in the top Java frame; zero if it is the word below `sp`.
    pub pc: u32,
    /// The frame pointer; may be zero.
    pub fp: u32,
}

/// What interpreted frames need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterpreterLayout {
    /// Where the bytecode pointer is, words from the frame pointer.
    pub bcp_slot: i8,
    /// `Method::_constMethod`.
    pub const_method: u32,
    /// The size of a `ConstMethod`: bytecodes are behind it.
    pub const_method_size: u32,
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Code heaps.
    pub heap: CodeHeapLayout,
    /// Blocks of code heaps.
    pub block: HeapBlockLayout,
    /// Blobs in blocks.
    pub blob: BlobLayout,
    /// Compiled methods.
    pub nmethod: NmethodLayout,
    /// Threads.
    pub anchor: AnchorLayout,
    /// Interpreted frames.
    pub interpreter: InterpreterLayout,
}

impl Layout {
    /// Looks everything up.
    ///
    /// # Errors
    /// Names the first thing that the VM does not export.
    pub fn of(structs: &VmStructs) -> Result<Self, UnknownLayout> {
        let fields = Fields(structs);
        Ok(Layout {
            heap: heap(fields)?,
            block: block(fields)?,
            blob: blob(fields)?,
            nmethod: nmethod(fields)?,
            anchor: anchor(fields)?,
            interpreter: interpreter(fields)?,
        })
    }
}

fn heap(fields: Fields<'_>) -> Result<CodeHeapLayout, UnknownLayout> {
    let memory = fields.offset(&[("CodeHeap", "_memory")])?;
    let segment_map = fields.offset(&[("CodeHeap", "_segmap")])?;
    let low = fields.offset(&[("VirtualSpace", "_low_boundary")])?;
    let high = fields.offset(&[("VirtualSpace", "_high_boundary")])?;
    let start = fields.offset(&[("VirtualSpace", "_low")])?;
    Ok(CodeHeapLayout {
        low: memory + low,
        high: memory + high,
        segment_map: segment_map + start,
        log2_segment_size: fields.number(&[("CodeHeap", "_log2_segment_size")])?,
    })
}

fn block(fields: Fields<'_>) -> Result<HeapBlockLayout, UnknownLayout> {
    let header = fields.offset(&[("HeapBlock", "_header")])?;
    let inner = |name| {
        let number = fields.number(&[("HeapBlock::Header", name)])?;
        let offset = number.offset + header;
        Ok(Number { offset, ..number })
    };
    Ok(HeapBlockLayout {
        size: fields.size("HeapBlock")?,
        length: inner("_length")?,
        used: inner("_used")?,
    })
}

fn blob(fields: Fields<'_>) -> Result<BlobLayout, UnknownLayout> {
    let number = |name| fields.number(&[("CodeBlob", name)]);
    Ok(BlobLayout {
        size: number("_size")?,
        name: fields.offset(&[("CodeBlob", "_name")])?,
        kind: fields.find_number(&[("CodeBlob", "_kind")]),
        frame_size: number("_frame_size")?,
        frame_complete: number("_frame_complete_offset")?,
        code_begin: position(
            fields,
            &[("CodeBlob", "_code_begin")],
            &[("CodeBlob", "_code_offset")],
        )?,
        // The data begin where the instructions end.
        code_end: position(
            fields,
            &[("CodeBlob", "_code_end")],
            &[("CodeBlob", "_data_offset")],
        )?,
    })
}

fn nmethod(fields: Fields<'_>) -> Result<NmethodLayout, UnknownLayout> {
    Ok(NmethodLayout {
        header_size: fields.size("nmethod")?,
        compile_id: fields.number(&[("nmethod", "_compile_id")])?,
        comp_level: fields.number(&[("nmethod", "_comp_level")])?,
        method: fields.offset(&[("nmethod", "_method"), ("CompiledMethod", "_method")])?,
        deopt_handler: position(
            fields,
            &[("CompiledMethod", "_deopt_handler_begin")],
            &[
                ("nmethod", "_deopt_handler_offset"),
                ("nmethod", "_deopt_handler_entry_offset"),
                ("nmethod", "_deoptimize_offset"),
            ],
        )?,
        deopt_mh_handler: position(
            fields,
            &[("CompiledMethod", "_deopt_mh_handler_begin")],
            &[
                ("nmethod", "_deopt_mh_handler_offset"),
                ("nmethod", "_deoptimize_mh_offset"),
            ],
        )
        .ok(),
        orig_pc_offset: fields.number(&[("nmethod", "_orig_pc_offset")])?,
    })
}

fn anchor(fields: Fields<'_>) -> Result<AnchorLayout, UnknownLayout> {
    let anchor = fields.offset(&[("JavaThread", "_anchor")])?;
    let within = |name| Ok(anchor + fields.offset(&[("JavaFrameAnchor", name)])?);
    Ok(AnchorLayout {
        sp: within("_last_Java_sp")?,
        pc: within("_last_Java_pc")?,
        fp: within("_last_Java_fp")?,
    })
}

fn interpreter(fields: Fields<'_>) -> Result<InterpreterLayout, UnknownLayout> {
    // Interpreted frames got one more slot (the class's mirror) in JDK 9, and
    // the code cache several heaps.
    let one_heap = fields.find_address(&[("CodeCache", "_heap")]).is_some();
    Ok(InterpreterLayout {
        bcp_slot: if one_heap { -7 } else { -8 },
        const_method: fields.offset(&[("Method", "_constMethod")])?,
        const_method_size: fields.size("ConstMethod")?,
    })
}

fn position(
    fields: Fields<'_>,
    pointers: &[super::fields::Name],
    distances: &[super::fields::Name],
) -> Result<Position, UnknownLayout> {
    if let Some(offset) = fields.find_offset(pointers) {
        return Ok(Position::Pointer(offset));
    }
    fields.number(distances).map(Position::FromStart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::vmstructs::Place;

    /// What JDK 8 exports; the offsets are invented.
    const JDK_8: [(&str, &str, &str); 30] = [
        ("CodeHeap", "_memory", "VirtualSpace"),
        ("CodeHeap", "_segmap", "VirtualSpace"),
        ("CodeHeap", "_log2_segment_size", "int"),
        ("VirtualSpace", "_low_boundary", "char*"),
        ("VirtualSpace", "_high_boundary", "char*"),
        ("VirtualSpace", "_low", "char*"),
        ("HeapBlock", "_header", "HeapBlock::Header"),
        ("HeapBlock::Header", "_length", "size_t"),
        ("HeapBlock::Header", "_used", "bool"),
        ("CodeBlob", "_name", "const char*"),
        ("CodeBlob", "_size", "int"),
        ("CodeBlob", "_code_offset", "int"),
        ("CodeBlob", "_frame_complete_offset", "int"),
        ("CodeBlob", "_data_offset", "int"),
        ("CodeBlob", "_frame_size", "int"),
        ("nmethod", "_method", "Method*"),
        ("nmethod", "_deoptimize_offset", "int"),
        ("nmethod", "_deoptimize_mh_offset", "int"),
        ("nmethod", "_orig_pc_offset", "int"),
        ("nmethod", "_metadata_offset", "int"),
        ("nmethod", "_scopes_data_offset", "int"),
        ("nmethod", "_scopes_pcs_offset", "int"),
        ("nmethod", "_dependencies_offset", "int"),
        ("nmethod", "_compile_id", "int"),
        ("nmethod", "_comp_level", "int"),
        ("JavaThread", "_anchor", "JavaFrameAnchor"),
        ("JavaFrameAnchor", "_last_Java_sp", "intptr_t*"),
        ("JavaFrameAnchor", "_last_Java_pc", "address"),
        ("JavaFrameAnchor", "_last_Java_fp", "intptr_t*"),
        ("Method", "_constMethod", "ConstMethod*"),
    ];

    fn jdk_8(without: &str) -> VmStructs {
        let place = |index: usize| Place::Offset(8 * index as u64);
        let mut fields: Vec<_> = JDK_8
            .iter()
            .enumerate()
            .map(|(index, (kind, name, of))| (*kind, *name, *of, place(index)))
            .filter(|field| field.1 != without)
            .collect();
        fields.push(("CodeCache", "_heap", "CodeHeap*", Place::Static(0x7000)));
        let types = [
            ("int", 4),
            ("bool", 1),
            ("size_t", 8),
            ("HeapBlock", 16),
            ("nmethod", 280),
            ("ConstMethod", 48),
        ];
        VmStructs::of_parts(&fields, &types, &[])
    }

    #[test]
    fn the_layout_of_jdk_8_is_known() {
        let layout = Layout::of(&jdk_8("")).unwrap();
        assert_eq!(layout.interpreter.bcp_slot, -7);
        assert_eq!(layout.block.length.width, 8);
        assert!(matches!(
            layout.nmethod.deopt_handler,
            Position::FromStart(_)
        ));
        assert!(layout.nmethod.deopt_mh_handler.is_some());
        let Position::FromStart(begin) = layout.blob.code_begin else {
            panic!("{layout:?}");
        };
        let mut header = vec![0; 280];
        header[begin.offset as usize] = 0x40;
        assert_eq!(layout.blob.code_begin.of(0x1000, &header), Some(0x1040));
        assert_eq!(layout.blob.code_begin.of(0x1000, &[]), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (without, what) in [
            ("_frame_size", "CodeBlob::_frame_size"),
            ("_used", "HeapBlock::Header::_used"),
            ("_deoptimize_offset", "nmethod::_deopt_handler_offset"),
            ("_last_Java_pc", "JavaFrameAnchor::_last_Java_pc"),
        ] {
            let unknown = Layout::of(&jdk_8(without)).unwrap_err();
            assert_eq!(unknown.what, what);
        }
    }
}
