//! Source lines and inlined functions, by blazesym.
//!
//! blazesym maps a file by its path. It is handed `/proc/self/fd/N`, and a
//! reader of its own for each file, so that its caches (by path) cannot take
//! one file for another. Two things are kept from it: a file that another
//! user may change is copied first, since the owner could truncate it and so
//! end the tracer by a signal; and such a file's links to other files are not
//! followed, since they could lead to a fifo or a device.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use flate2::read::ZlibDecoder;
use rustix::fs::{MemfdFlags, memfd_create};

use super::demangle::MAX_NAME;
use super::elf::ElfImage;
use crate::process::address::ElfAddress;
use crate::process::bytes::Bytes;
use crate::process::file::RegularFile;

/// A file that others may change and that is larger than this is not copied,
/// and so has no lines.
const MAX_COPY: u64 = 384 << 20;

/// More functions inlined at one place are left out; 4,096 frames of a stack
/// are read of a report.
const MAX_INLINED: usize = 31;

/// Compressed debug information that is larger than this when it is unpacked is
/// not read: blazesym keeps all of a section in memory.
const MAX_UNPACKED: u64 = 512 << 20;

/// Headers of compressed sections, bytes: `Elf64_Chdr`, of which the second
/// word says how large the content is; and that of `.zdebug_` sections, `ZLIB`
/// and a size in big-endian order.
const CHDR: usize = 24;
const ZLIB: &[u8; 4] = b"ZLIB";

/// A position in source code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The file.
    pub file: String,
    /// The line.
    pub line: Option<u32>,
}

/// What the debug information says of one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceNames {
    /// The function's mangled name.
    pub function: Option<String>,
    /// Where in that function: at the call of the first inlined one, if any.
    pub line: Option<SourceLine>,
    /// Functions inlined there, the outermost first: their mangled names,
    /// and where in them.
    pub inlined: Vec<(String, Option<SourceLine>)>,
}

/// The debug information of one file.
pub struct DwarfReader {
    symbolizer: Symbolizer,
    source: Source<'static>,
    /// Holds the descriptor that `source` names.
    _file: File,
    /// Bytes of memory that its copy and what is unpacked of it take.
    memory: usize,
}

impl DwarfReader {
    /// Prepares to read an open file; none if it has no debug information
    /// that may be read.
    pub fn open(file: &RegularFile, image: &ElfImage) -> Option<Self> {
        if !image.has_dwarf || (image.names_files && !file.safe_from_others()) {
            return None;
        }
        let unpacked = unpacked(file, &image.packed, MAX_UNPACKED)?;
        let (file, copied) = if file.safe_from_others() {
            (file.file().try_clone().ok()?, 0)
        } else {
            (copy(file).ok()?, file.size())
        };
        let memory = usize::try_from(copied.saturating_add(unpacked)).ok()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_demangling(false)
            .build();
        Some(DwarfReader {
            symbolizer,
            source: Source::Elf(Elf::new(path)),
            _file: file,
            memory,
        })
    }

    /// Bytes of memory that its file and what is unpacked of it take.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Looks up addresses, all at once.
    ///
    /// # Errors
    /// Fails if the debug information is broken; the reader should then be
    /// dropped.
    pub fn look_up(&self, addresses: &[ElfAddress]) -> Result<Vec<SourceNames>, String> {
        let addresses: Vec<u64> = addresses.iter().map(|address| address.0).collect();
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.symbolizer
                .symbolize(&self.source, Input::VirtOffset(&addresses))
        }));
        match result {
            Ok(Ok(found)) => Ok(found.into_iter().map(names).collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the debug information is broken".into()),
        }
    }
}

fn names(found: Symbolized<'_>) -> SourceNames {
    match found {
        // Without a size it is a guess from the symbol table.
        Symbolized::Sym(symbol) if symbol.size.is_some() || symbol.code_info.is_some() => {
            known(&symbol)
        }
        _ => SourceNames::default(),
    }
}

fn known(symbol: &Sym<'_>) -> SourceNames {
    let certain = symbol.size.is_some() && !symbol.name.is_empty();
    SourceNames {
        function: certain.then(|| bounded(&symbol.name)),
        line: symbol.code_info.as_deref().and_then(line),
        inlined: symbol
            .inlined
            .iter()
            .take(MAX_INLINED)
            .map(|function| {
                (
                    bounded(&function.name),
                    function.code_info.as_ref().and_then(line),
                )
            })
            .collect(),
    }
}

fn line(info: &CodeInfo<'_>) -> Option<SourceLine> {
    let file = bounded(&info.to_path().to_string_lossy());
    // DWARF's line 0 is code that stems from no line.
    let line = info.line.filter(|&line| line > 0);
    (!file.is_empty()).then_some(SourceLine { file, line })
}

/// A name, cut where it is longer than any: it may be all of `.debug_str`.
fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME)].to_owned()
}

/// How large sections are when they are unpacked, if not larger than `limit`
/// together: both as their headers say, for which memory is reserved, and, if
/// somebody but root can have made the file, in truth.
fn unpacked(file: &RegularFile, packed: &[Range<u64>], limit: u64) -> Option<u64> {
    let mut left = limit;
    for section in packed {
        let mut header = [0; CHDR];
        if file.fill(&mut header, section.start) < CHDR {
            return None;
        }
        let (skip, said) = match header.split_first_chunk::<4>() {
            Some((start, rest)) if start == ZLIB => (
                ZLIB.len() + 8,
                rest.first_chunk().map(|size| u64::from_be_bytes(*size)),
            ),
            _ => (
                CHDR,
                header[8..]
                    .first_chunk()
                    .map(|size| u64::from_le_bytes(*size)),
            ),
        };
        let said = said.filter(|said| *said <= left)?;
        left -= said;
        if file.safe_from_others() {
            continue;
        }
        let content = Section {
            file,
            place: section.start.saturating_add(skip as u64)..section.end,
        };
        // Of zstd, which blazesym does not unpack, nothing comes.
        let mut unpacked = ZlibDecoder::new(content).take(said.saturating_add(1));
        let size = io::copy(&mut unpacked, &mut io::sink());
        if size.is_ok_and(|size| size > said) {
            return None;
        }
    }
    Some(limit - left)
}

/// A part of a file, read from its beginning on.
struct Section<'a> {
    file: &'a RegularFile,
    place: Range<u64>,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.place.end.saturating_sub(self.place.start);
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.place.start)?;
        self.place.start += count as u64;
        Ok(count)
    }
}

/// Copies a file into memory that no one else can change.
fn copy(file: &RegularFile) -> io::Result<File> {
    let mut copy = File::from(memfd_create(c"unfreed-module", MemfdFlags::CLOEXEC)?);
    file.each_piece(MAX_COPY, |piece| copy.write_all(piece))?;
    Ok(copy)
}
