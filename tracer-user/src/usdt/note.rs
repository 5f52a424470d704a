//! The stapsdt notes of an ELF file, as the systemtap wiki describes them
//! ("UserSpaceProbeImplementation"). Each is one site of a probe. The file may
//! belong to anybody, so what is read of it is bounded.

use anyhow::{Context, Result, bail};
use object::elf::{FileHeader64, NoteType, PN_XNUM, SHT_NOTE, SHT_PROGBITS};
use object::read::ReadRef;
use object::read::elf::{FileHeader, Note as ElfNote, SectionHeader, SectionTable};
use object::{Endianness, ReadCache};

use super::segment::Segments;
use crate::process::address::ElfAddress;
use crate::process::bytes::{Bytes, Positioned};

/// The owner and the type of a note that is a probe (`NT_STAPSDT`).
const OWNER: &[u8] = b"stapsdt";
const KIND: NoteType = NoteType(3);

/// The section whose address tells whether the file was moved by prelink.
const BASE: &[u8] = b".stapsdt.base";

/// More notes of one file are not read: HotSpot has some 600 of them.
const MAX_NOTES: usize = 1 << 16;

/// Bytes of all note sections together; HotSpot's have 70 KiB.
const MAX_BYTES: u64 = 16 << 20;

/// Longer providers, names and lists of arguments are none.
const MAX_STRING: usize = 4096;

/// Sections that could be [`BASE`] whose name is looked at.
const MAX_CANDIDATES: usize = 64;

/// One site of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Who offers the probe.
    pub provider: String,
    /// The probe.
    pub name: String,
    /// The instruction, a `nop` as it was compiled.
    pub pc: ElfAddress,
    /// A counter that must not be zero for the probe to be hit, if it has one.
    pub semaphore: Option<ElfAddress>,
    /// Its arguments, separated by spaces.
    pub arguments: String,
}

/// The notes of a file, and where its segments are.
///
/// # Errors
/// Fails if it is not a readable 64-bit ELF file, or claims too much. A file
/// without notes has none.
pub fn read(bytes: &dyn Bytes) -> Result<(Vec<Note>, Segments)> {
    let cache = ReadCache::new(Positioned::new(bytes));
    let data = &cache;
    let header = FileHeader64::<Endianness>::parse(data).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let elsewhere = header.e_shnum.get(endian) == 0 && header.e_shoff.get(endian) != 0;
    if header.e_phnum.get(endian) == PN_XNUM || elsewhere {
        bail!("it has too many segments or sections");
    }
    let segments = Segments::of(header, endian, data)?;
    let sections = header
        .sections(endian, data)
        .context("its section headers cannot be read")?;
    let base = base(&sections, endian);
    let mut notes = Vec::new();
    let mut left = MAX_BYTES;
    for section in sections.iter() {
        if section.sh_type(endian) != SHT_NOTE {
            continue;
        }
        left = left
            .checked_sub(section.sh_size(endian))
            .with_context(|| format!("its notes have more than {MAX_BYTES} bytes"))?;
        // Other notes than ours may well have a form of their own.
        let Ok(Some(mut all)) = section.notes(endian, data) else {
            continue;
        };
        while let Ok(Some(note)) = all.next() {
            notes.extend(parse(&note, endian, base));
            if notes.len() > MAX_NOTES {
                bail!("it has more than {MAX_NOTES} probes");
            }
        }
    }
    Ok((notes, segments))
}

/// The address of [`BASE`].
fn base<'data, R: ReadRef<'data>>(
    sections: &SectionTable<'data, FileHeader64<Endianness>, R>,
    endian: Endianness,
) -> Option<u64> {
    sections
        .iter()
        .filter(|section| section.sh_type(endian) == SHT_PROGBITS && section.sh_size(endian) == 1)
        .take(MAX_CANDIDATES)
        .find(|section| sections.section_name(endian, section) == Ok(BASE))
        .map(|section| section.sh_addr(endian))
}

/// `None` if the note is no probe. Its words were linked for a file whose
/// [`BASE`] is where the second of them says.
fn parse(
    note: &ElfNote<'_, FileHeader64<Endianness>>,
    endian: Endianness,
    base: Option<u64>,
) -> Option<Note> {
    if note.name() != OWNER || note.n_type(endian) != KIND {
        return None;
    }
    let (words, strings) = note.desc().split_at_checked(24)?;
    let word = |index: usize| -> Option<u64> {
        let bytes = words.get(index * 8..index * 8 + 8)?.try_into().ok()?;
        Some(match endian {
            Endianness::Little => u64::from_le_bytes(bytes),
            Endianness::Big => u64::from_be_bytes(bytes),
        })
    };
    let linked = word(1)?;
    let moved = base.map_or(0, |base| base.wrapping_sub(linked));
    let mut strings = strings.split(|byte| *byte == 0).map(text);
    let provider = strings.next()??;
    let name = strings.next()??;
    let arguments = strings.next()??;
    Some(Note {
        provider,
        name,
        pc: ElfAddress(word(0)?.wrapping_add(moved)),
        semaphore: match word(2)? {
            0 => None,
            address => Some(ElfAddress(address.wrapping_add(moved))),
        },
        arguments,
    })
}

fn text(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= MAX_STRING).then(|| String::from_utf8_lossy(bytes).into_owned())
}
