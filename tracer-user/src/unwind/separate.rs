//! Call frame information that was moved to a debug file, of code that has none in its
//! own.
//!
//! Debug files are looked for as whom the thread runs as, without capabilities, and in
//! our own root: that of a container is not.

use std::path::{Path, PathBuf};

use object::elf::{self, SectionHeader64};
use object::read::ReadCache;
use object::read::elf::SectionHeader;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::image::{ENDIAN, Image};
use super::section::Section;
use crate::process::bytes::Positioned;
use crate::process::debug_file::{DEBUG_ROOT, checksum, link_paths};
use crate::process::file::RegularFile;

/// A build id longer than this is not one.
const MAX_BUILD_ID: usize = 64;

/// A file's name in a link is not longer than this.
const MAX_LINK: u64 = 4096;

/// What tells the debug file that belongs to a file.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    build_id: Option<Vec<u8>>,
    /// The debug file's name, and its checksum.
    link: Option<(Vec<u8>, u32)>,
}

/// The call frame information in the debug file of a file, which is at this path.
pub fn find(image: &Image, module: &RegularFile, path: &Path) -> Option<Section<'static>> {
    let identity = Identity::of(image);
    identity.paths(path).into_iter().find_map(|path| {
        let located = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let file = RegularFile::open(&located).ok()?;
        (file.id() != module.id()).then_some(())?;
        identity.section(&file)
    })
}

impl Identity {
    fn of(image: &Image) -> Self {
        let sections = || image.sections.iter();
        Self {
            build_id: sections().find_map(|section| build_id(image, section)),
            link: image.debug_link(MAX_LINK),
        }
    }

    fn paths(&self, module: &Path) -> Vec<PathBuf> {
        let by_id = self.build_id.as_deref().and_then(|id| {
            let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
            let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = format!(".build-id/{first:02x}/{rest}.debug");
            Some(Path::new(DEBUG_ROOT).join(name))
        });
        let by_link = self
            .link
            .iter()
            .flat_map(|(name, _)| link_paths(name, module));
        by_id.into_iter().chain(by_link).collect()
    }

    /// Its call frame information, if it is the debug file.
    fn section(&self, file: &RegularFile) -> Option<Section<'static>> {
        let cache = ReadCache::new(Positioned::new(file));
        let image = Image::parse(&cache).ok()?;
        let belongs = match (&self.build_id, Self::of(&image).build_id, &self.link) {
            (Some(id), Some(other), _) => *id == other,
            (_, _, Some((_, crc))) => checksum(file).is_ok_and(|found| found == *crc),
            _ => false,
        };
        if !belongs {
            return None;
        }
        let section = image.debug_frame().ok()??;
        Some(section.into_owned())
    }
}

fn build_id(image: &Image, section: &SectionHeader64<object::Endianness>) -> Option<Vec<u8>> {
    if section.sh_type(ENDIAN) != elf::SHT_NOTE || section.sh_size(ENDIAN) > MAX_LINK {
        return None;
    }
    let mut notes = section.notes(ENDIAN, image.data).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(ENDIAN) == elf::NT_GNU_BUILD_ID {
            let id = note.desc();
            return (id.len() <= MAX_BUILD_ID).then(|| id.to_vec());
        }
    }
    None
}
