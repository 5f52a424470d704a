//! The VM's strings (`Symbol`): names of classes and methods, signatures.

use super::fields::{Fields, Number, UnknownLayout};
use super::memory::TargetMemory;

/// What is read at once: longer than most names.
const FIRST: usize = 96;

/// Longer names are not believed; the class file format allows 65,535.
const MAX_LENGTH: usize = 8192;

/// Where in a symbol its parts are.
#[derive(Debug, Clone, Copy)]
pub struct SymbolLayout {
    length: Number,
    body: u32,
}

impl SymbolLayout {
    /// Looks them up.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
        Ok(SymbolLayout {
            length: fields.number(&[("Symbol", "_length")])?,
            body: fields.offset(&[("Symbol", "_body"), ("Symbol", "_body[0]")])?,
        })
    }

    /// One with its parts at these places.
    #[cfg(test)]
    pub const fn of_parts(length: Number, body: u32) -> Self {
        SymbolLayout { length, body }
    }

    /// The text of the symbol at an address; none if there is none that could
    /// be a name.
    pub fn read(&self, memory: &dyn TargetMemory, address: u64) -> Option<String> {
        if address == 0 || !address.is_multiple_of(2) {
            return None;
        }
        let body = self.body as usize;
        // Near the end of what is mapped, less can be read.
        let head = memory
            .vec(address, body + FIRST)
            .or_else(|_| memory.vec(address, body + 2))
            .ok()?;
        let length = usize::try_from(self.length.of(&head)?).ok()?;
        if length == 0 || length > MAX_LENGTH {
            return None;
        }
        match head.get(body..body + length) {
            Some(text) => plausible(text),
            None => plausible(&memory.vec(address.wrapping_add(body as u64), length).ok()?),
        }
    }
}

/// A name, if these bytes are one. The VM's UTF-8 writes characters beyond
/// 16 bits as two surrogates, which show as replacement characters here.
fn plausible(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let printable = !text.chars().any(char::is_control);
    printable.then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::tests::synthetic::Synthetic;

    const LAYOUT: SymbolLayout = SymbolLayout {
        length: Number {
            offset: 4,
            width: 2,
            signed: false,
        },
        body: 6,
    };

    fn symbol(text: &[u8], length: u16) -> Synthetic {
        let mut memory = Synthetic::default();
        memory.put(0x1004, &length.to_le_bytes());
        memory.put(0x1000, &[1, 0, 0, 0]);
        memory.put(0x1006, text);
        memory
    }

    fn read(memory: &Synthetic) -> Option<String> {
        LAYOUT.read(memory, 0x1000)
    }

    #[test]
    fn short_and_long_names_are_read_to_their_end() {
        assert_eq!(read(&symbol(b"main(", 4)).as_deref(), Some("main"));
        let long = "x".repeat(5000);
        assert_eq!(read(&symbol(long.as_bytes(), 5000)), Some(long));
    }

    #[test]
    fn what_is_no_name_is_not_believed() {
        assert_eq!(read(&symbol(b"", 0)), None);
        assert_eq!(read(&symbol(b"ab\x1b[31m", 7)), None);
        assert_eq!(read(&symbol(b"cut", 60_000)), None);
        assert_eq!(read(&Synthetic::default()), None);
        assert_eq!(LAYOUT.read(&symbol(b"odd", 3), 0x1001), None);
    }
}
