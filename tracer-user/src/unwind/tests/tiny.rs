//! A tiny ELF file, made by hand.

#![expect(
    clippy::cast_possible_truncation,
    reason = "distances within it are small"
)]

use object::elf;

/// Where its code is.
pub const CODE: u64 = 0x1000;
/// Where its `.eh_frame` is: after the code, on a page of its own.
pub const FRAMES: u64 = 0x2000;

/// A head as gcc writes it: `zR`, pointers relative, CFA = rsp + 8, the return
/// address below it.
pub const HEAD: [u8; 24] = [
    0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0,
];

/// What a file is made of.
pub struct Tiny {
    pub code: Vec<u8>,
    pub frames: Vec<u8>,
    pub entry: u64,
    /// Whether there are section headers; else `.eh_frame` is found by its
    /// header alone.
    pub has_sections: bool,
}

impl Tiny {
    /// Code with no entries but a head.
    pub fn new(code: &[u8]) -> Self {
        Tiny {
            code: code.to_vec(),
            frames: HEAD.to_vec(),
            entry: 0,
            has_sections: true,
        }
    }

    /// Adds an entry for code from an offset on.
    pub fn function(&mut self, offset: u64, length: u32, instructions: &[u8]) -> &mut Self {
        let at = self.frames.len();
        let padded = instructions.len().next_multiple_of(4);
        // After the length: pointer to the head, start, length, no more data.
        let size = 4 + 4 + 4 + 4 + padded;
        let start = (CODE + offset).wrapping_sub(FRAMES + at as u64 + 8) as u32;
        self.frames.extend((size as u32).to_le_bytes());
        self.frames.extend((at as u32 + 4).to_le_bytes());
        self.frames.extend(start.to_le_bytes());
        self.frames.extend(length.to_le_bytes());
        // An augmentation of 3 bytes keeps the instructions aligned.
        self.frames.extend([3, 0, 0, 0]);
        self.frames.extend(instructions);
        self.frames.resize(at + 4 + size, 0);
        self
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut image = vec![0; 0x2000];
        let size = self.code.len() as u64;
        image[0x1000..0x1000 + self.code.len()].copy_from_slice(&self.code);
        image.extend(&self.frames);
        image.extend([0; 4]);
        let frames = image.len() as u64 - FRAMES;
        let header = image.len() as u64;
        image.extend([1, 0x1b, 3, 0x3b]);
        image.extend((FRAMES.wrapping_sub(header + 4) as u32).to_le_bytes());
        image.extend(100_u32.to_le_bytes());
        let names_at = image.len() as u64;
        let names = b"\0.eh_frame\0.shstrtab\0";
        image.extend(names);
        let sections = image.len() as u64;
        if self.has_sections {
            image.extend([0; 64]);
            image.extend(section(1, elf::SHT_PROGBITS.0, FRAMES, frames));
            image.extend(section(11, elf::SHT_STRTAB.0, names_at, names.len() as u64));
        }
        let mut head = Vec::new();
        head.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        head.extend([3, 0, 62, 0, 1, 0, 0, 0]);
        let at = if self.has_sections { sections } else { 0 };
        for word in [self.entry, 64, at] {
            head.extend(word.to_le_bytes());
        }
        let count = if self.has_sections { 3 } else { 0 };
        head.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 3, 64, count, 2] {
            head.extend(half.to_le_bytes());
        }
        head.extend(program(elf::PT_LOAD.0, 5, CODE, size));
        head.extend(program(elf::PT_LOAD.0, 4, FRAMES, sections - FRAMES));
        head.extend(program(elf::PT_GNU_EH_FRAME.0, 4, header, 12));
        image[..head.len()].copy_from_slice(&head);
        image
    }
}

fn program(kind: u32, flags: u32, at: u64, size: u64) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    for word in [at, at, at, size, size, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn section(name: u32, kind: u32, at: u64, size: u64) -> Vec<u8> {
    let mut bytes = [name.to_le_bytes(), kind.to_le_bytes()].concat();
    for word in [2, at, at, size, 0, 8, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}
