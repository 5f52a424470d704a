//! Functions that no call frame information describes, but that keep rbp as a frame
//! pointer: by what their code does, and by their names if they are V8's.

use std::ops::{ControlFlow, Range};

use anyhow::Result;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    Register,
};
use object::elf;
use object::read::elf::Sym;
use tracer_ebpf::rule::Rule;

use super::Segment;
use super::code::Code;
use super::frames::{Found, Frame, Source};
use super::image::{ENDIAN, Image};
use super::omitted::Omitted;
use super::rows::Rows;
use crate::process::bytes::Bytes;
use crate::process::symtab;

/// Longer functions are not decoded.
const MAX_DECODED: u64 = 256 << 10;

/// Nor are more bytes of a file.
const MAX_TOTAL: u64 = 64 << 20;

/// More bytes of symbols are not read.
const MAX_TABLE: u64 = 256 << 20;

/// V8's built-in functions, made by its own compiler. All keep rbp, or leave it to
/// their caller, whose frame they share. (V8's `src/snapshot/embedded`.)
const V8: &[u8] = b"Builtins_";

/// The functions of a file's symbol table.
pub struct Framed<'a> {
    bytes: &'a dyn Bytes,
    symbols: Range<u64>,
    names: Range<u64>,
    /// Where the program begins.
    entry: u64,
    code: Code<'a>,
    info: InstructionInfoFactory,
    /// Bytes that may still be decoded.
    left: u64,
    /// The rule of V8's built-in functions.
    builtins: Rule,
}

impl<'a> Framed<'a> {
    /// Those of this file, if it has symbols.
    /// `builtins` is the rule of V8's.
    pub fn new(
        bytes: &'a dyn Bytes,
        image: &Image,
        segments: &[Segment],
        builtins: Rule,
    ) -> Option<Self> {
        let (symbols, names) = image.symbols()?;
        Some(Self {
            bytes,
            symbols: symbols.start..symbols.end.min(symbols.start.saturating_add(MAX_TABLE)),
            names,
            entry: image.entry,
            code: Code::new(bytes, segments.to_vec(), false),
            info: InstructionInfoFactory::new(),
            left: MAX_TOTAL,
            builtins,
        })
    }

    /// From where on rbp points to the function's frame, if that is so at each of its
    /// calls.
    fn frame_from(&mut self, code: Range<u64>) -> Option<u64> {
        let size = code.end - code.start;
        if size > MAX_DECODED.min(self.left) {
            return None;
        }
        self.left -= size;
        let bytes = self.code.bytes(code.clone())?;
        let decoder = Decoder::with_ip(64, bytes, code.start, DecoderOptions::NONE);
        let (mut pushed, mut from) = (false, None);
        for instruction in decoder {
            match (instruction.mnemonic(), instruction.op0_register()) {
                (Mnemonic::Push, Register::RBP) => pushed = true,
                (Mnemonic::Mov, Register::RBP)
                    if pushed && instruction.op1_register() == Register::RSP =>
                {
                    from = from.or(Some(instruction.next_ip()));
                }
                (Mnemonic::Pop, Register::RBP) | (Mnemonic::Leave, _) => {}
                _ if instruction.is_invalid() || writes_rbp(&mut self.info, &instruction) => {
                    return None;
                }
                _ if is_call(&instruction) && from.is_none() => return None,
                _ => {}
            }
        }
        from
    }
}

impl Source for Framed<'_> {
    fn entries(&mut self, _: Option<u64>, _: &mut Omitted, found: &mut Found) {
        symtab::each(self.bytes, self.symbols.clone(), |symbol| {
            let (start, size) = (symbol.st_value(ENDIAN), symbol.st_size(ENDIAN));
            let is_function = symbol.st_type() == elf::STT_FUNC && size > 0;
            match start.checked_add(size).filter(|_| is_function) {
                Some(end) if !found(start, end, symbol.st_name(ENDIAN) as usize) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        });
    }

    fn emit(&mut self, frame: &Frame, from: u64, rows: &mut Rows, _: &mut Omitted) -> Result<()> {
        let mut name = [0; V8.len()];
        let name = symtab::string(self.bytes, &self.names, frame.offset as u64, &mut name);
        let is_builtin = name == V8;
        let rule = match is_builtin {
            true => self.builtins,
            false => Rule::FRAME_POINTER,
        };
        let framed = match is_builtin {
            true => Some(from),
            // Of two that overlap, the second is not what it seems.
            false if from > frame.start => None,
            false => self.frame_from(frame.start..frame.end),
        };
        let framed = framed.unwrap_or(frame.end).max(from);
        rows.gap(from, framed, self.entry)?;
        rows.row(framed, frame.end, rule)
    }
}

fn is_call(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    )
}

fn writes_rbp(info: &mut InstructionInfoFactory, instruction: &Instruction) -> bool {
    let used = info.info(instruction).used_registers();
    used.iter().any(|used| {
        used.register().full_register() == Register::RBP
            && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
    })
}
