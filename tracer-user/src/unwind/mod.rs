//! From an ELF file's call frame information to the rows by which the kernel
//! side unwinds (`tracer_ebpf::table`).
//!
//! The files may belong to anybody: whatever they hold costs bounded time and
//! memory, and gives rows, omissions or an error, never a panic.

mod balanced;
mod code;
mod effect;
mod expression;
mod framed;
mod frames;
mod go;
mod image;
mod keeping;
mod landmarks;
mod omitted;
mod program;
mod python;
mod rows;
mod section;
mod separate;
mod thrown;
mod undescribed;
mod v8;

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use object::ReadCache;
use object::elf::ELFMAG;
use tracer_ebpf::rule::Rule;

use crate::process::address::{ElfAddress, FileOffset};
use crate::process::bytes::{Bytes, Positioned};
use crate::process::file::RegularFile;
use code::Code;
use framed::Framed;
use frames::Frames;
use go::Go;
use image::Image;
pub use omitted::Omitted;
pub use python::Interpreter;
use rows::Rows;
use section::Section;
use undescribed::Undescribed;
pub use v8::{StringLayout, Structures, V8};

/// A module's unwind table.
#[derive(Debug)]
pub struct Table {
    /// Executable segments, sorted by address: they tell where the table's
    /// base is in a mapping.
    pub segments: Vec<Segment>,
    /// The address that rows count from: that of the first executable
    /// segment, rounded down to a page.
    pub base: ElfAddress,
    /// Rows for return addresses, looked up by the byte before: those that no
    /// call can end in take their neighbours' rules.
    pub returns: Vec<RuleRow>,
    /// Rows for any instruction: for the frame that a signal interrupted.
    pub full: Vec<RuleRow>,
    /// What was left out.
    pub omitted: Omitted,
    /// The function that allocates exceptions, if the file has it.
    pub thrower: Option<Range<FileOffset>>,
    /// What is known of CPython's interpreter, if the file has it.
    pub python: Option<Interpreter>,
    /// What is known of V8, if the file has it.
    pub v8: Option<V8>,
}

/// An executable segment, as far as it is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it is in the file.
    pub offset: FileOffset,
    /// Its address as linked.
    pub address: ElfAddress,
    /// Its bytes.
    pub size: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.address.0 + self.size
    }
}

/// From which offset on which rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleRow {
    /// Bytes from the table's base.
    pub offset: u32,
    /// The rule.
    pub rule: Rule,
}

/// Whether a file is something else than an ELF file: code that is made at run time may be
/// in such a one, whose memory is mapped twice.
pub fn is_no_elf(file: &RegularFile) -> bool {
    let mut magic = [0; ELFMAG.len()];
    file.fill(&mut magic, 0) == magic.len() && magic != ELFMAG
}

impl Table {
    /// Reads the table of an open file; `None` if the file has no call frame
    /// information at all. What it lacks may be in its debug file, which is found by
    /// `path`.
    ///
    /// # Errors
    /// Fails if it is not a readable 64-bit ELF file for x86-64, or beyond
    /// the limits. The error does not name the file.
    pub fn read(file: &RegularFile, path: &Path) -> Result<Option<Self>> {
        build(file, |image| separate::find(image, file, path))
    }

    /// The same for a file in memory.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn parse(image: &[u8]) -> Result<Option<Self>> {
        build(&image, |_| None)
    }
}

fn build(
    bytes: &dyn Bytes,
    separate: impl FnOnce(&Image) -> Option<Section<'static>>,
) -> Result<Option<Table>> {
    let cache = ReadCache::new(Positioned::new(bytes));
    let image = Image::parse(&cache)?;
    let Some(base) = image.base() else {
        return Ok(None);
    };
    let segments = &image.segments;
    let mut omitted = Omitted::default();
    let sections = image.call_frame_sections(&mut omitted)?;
    let table = image.go_functions(bytes);
    let go = table.and_then(|table| Go::new(bytes, table, segments));
    let code: u64 = segments.iter().map(|segment| segment.size).sum();
    let moved;
    let mut frames = Frames::collect(&sections, go, segments, &mut omitted)?;
    if frames.described() < code / 2 {
        moved = separate(&image);
        if let Some(section) = &moved {
            frames.add_section(section, segments, &mut omitted)?;
        }
    }
    let is_bare = frames.is_empty();
    let (regions, starts) = frames.between(segments);
    let otherwise = match is_bare {
        true => Rule::FRAME_POINTER,
        false => Rule::NONE,
    };
    let undescribed = Undescribed::new(regions, starts, otherwise);
    let v8 = v8::find(bytes, &image);
    let builtins = match v8 {
        Some(V8::Known(_)) => Rule::SCRIPT,
        _ => Rule::FRAME_POINTER,
    };
    if let Some(framed) = Framed::new(bytes, &image, segments, builtins) {
        frames.add_framed(framed, segments);
    }
    let code = Code::new(bytes, segments.clone(), image.has_text_relocations());
    let python = python::find(bytes, &image);
    let parts = python.as_ref().map(|found| found.parts(&image, &frames));
    let mut rows = Rows::new(code, base.0).with_undescribed(undescribed, image.entry);
    frames.emit(&image, &mut rows, &mut omitted)?;
    if is_bare && rows.told() == 0 {
        return Ok(None);
    }
    let (mut returns, mut full) = rows.finish();
    if let Some(parts) = parts {
        python::mark(&mut returns, &mut full, parts, base.0);
    }
    Ok(Some(Table {
        base,
        returns,
        full,
        omitted,
        thrower: thrown::find(bytes, &image),
        python: python.map(|found| found.interpreter),
        v8,
        segments: image.segments,
    }))
}

#[cfg(test)]
mod tests;
