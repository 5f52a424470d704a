//! The code that the kernel maps into every process, `[vdso]`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::demangle::demangle;
use super::elf::ElfImage;
use super::module::Names;
use crate::process::address::FileOffset;
use crate::process::code::CodeMapping;
use crate::process::maps::{MappedRange, MappingName, read_executable};

/// The kernel's name for it.
pub const NAME: &str = "[vdso]";

/// It has two pages; more than this is something else.
const MAX_SIZE: u64 = 1 << 20;

/// This process's vdso. It is the same in every process of the same size of
/// addresses.
pub struct Vdso {
    size: u64,
    image: ElfImage,
}

impl Vdso {
    /// Reads the vdso of this process.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    pub fn own() -> Result<Self, String> {
        let text = |error: std::io::Error| format!("our own vdso cannot be read: {error}");
        let maps = File::open("/proc/self/maps")
            .and_then(read_executable)
            .map_err(text)?;
        let range = maps
            .into_iter()
            .find(|range| range.name == MappingName::Special(NAME.into()))
            .ok_or("we have no vdso")?;
        let size = size(&range);
        let length = usize::try_from(size.min(MAX_SIZE)).unwrap_or(0);
        let mut bytes = vec![0; length];
        let memory = File::open("/proc/self/mem").map_err(text)?;
        memory
            .read_exact_at(&mut bytes, range.start.0)
            .map_err(text)?;
        Ok(Vdso {
            size,
            image: ElfImage::parse(&bytes)?,
        })
    }

    /// The function at an offset of a process's vdso.
    pub fn look_up(&self, mapping: &CodeMapping, offset: FileOffset) -> Names {
        if size(&mapping.range) != self.size {
            return Names::unknown("the process has another vdso than this tracer");
        }
        let address = self.image.address(offset);
        match address.and_then(|address| self.image.symbols.find(address)) {
            Some(name) => Names::function(demangle(name)),
            None => Names::unknown("no symbol covers this address"),
        }
    }
}

fn size(range: &MappedRange) -> u64 {
    range.end.0 - range.start.0
}
