//! Names in the code that the kernel maps into every process, `[vdso]`.

use super::demangle::demangle;
use super::elf::ElfImage;
use super::module::Names;
use crate::process::address::FileOffset;
use crate::process::code::CodeMapping;
use crate::process::maps::MappedRange;
use crate::process::vdso;

/// This process's vdso. It is the same in every process of the same size of
/// addresses.
pub struct Vdso {
    size: u64,
    bytes: Vec<u8>,
    image: ElfImage,
}

impl Vdso {
    /// Reads the vdso of this process.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    pub fn own() -> Result<Self, String> {
        let (size, bytes) = vdso::own()?;
        let image = ElfImage::read(&&bytes[..])?;
        Ok(Vdso { size, bytes, image })
    }

    /// The function at an offset of a process's vdso.
    pub fn look_up(&self, mapping: &CodeMapping, offset: FileOffset) -> Names {
        if size(&mapping.range) != self.size {
            return Names::unknown("the process has another vdso than this tracer");
        }
        let address = self.image.address(offset);
        match address.and_then(|address| self.image.symbols.find(address, &&self.bytes[..])) {
            Some(name) => Names::function(demangle(&name).into()),
            None => Names::unknown("no symbol covers this address"),
        }
    }
}

fn size(range: &MappedRange) -> u64 {
    range.end.0 - range.start.0
}
