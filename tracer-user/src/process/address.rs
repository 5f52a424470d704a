//! Addresses that carry their meaning, so that one kind is never taken for
//! another.

use std::fmt;

use tracer_ebpf::frame::Frame;

/// The address of an instruction in a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeAddress(pub u64);

/// The address that a call returns to: the instruction *after* the call.
///
/// The call itself is what a stack frame stands for, and it may be the last
/// instruction of its function, line or mapping. So names are looked up one
/// byte earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReturnAddress(pub u64);

impl ReturnAddress {
    /// An address inside the call instruction.
    pub fn call(self) -> CodeAddress {
        CodeAddress(self.0.saturating_sub(1))
    }
}

/// Where a frame's address came from, and so how it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameAddress {
    /// The instruction at which the stack was taken.
    Instruction(CodeAddress),
    /// Any frame further out.
    Return(ReturnAddress),
    /// A place in a file, wherever that is mapped.
    File(FilePlace),
    /// A frame in a JVM's code, which an address alone does not name.
    Java(JavaWord),
}

/// A place in a numbered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePlace {
    /// The file's number; see [`super::numbered`].
    pub file: u32,
    /// Where it is, as it was found: of a return address, after the call.
    pub offset: FileOffset,
    /// Whether it is a return address.
    pub is_return: bool,
}

impl FilePlace {
    /// The place to look up: of a return address, in the call.
    pub fn lookup(self) -> FileOffset {
        FileOffset(self.offset.0.saturating_sub(u64::from(self.is_return)))
    }
}

/// The word of a Java frame; see [`tracer_ebpf::frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JavaWord(pub u64);

impl FrameAddress {
    /// The frames of a stack as the kernel side has them, innermost first: the
    /// first address is the instruction at which the stack was taken.
    pub fn of_stack(leaf_first: &[u64]) -> impl DoubleEndedIterator<Item = FrameAddress> {
        leaf_first
            .iter()
            .enumerate()
            .map(|(depth, &word)| match Frame::of(word) {
                Frame::Native {
                    address,
                    interrupted,
                } if depth == 0 || interrupted => FrameAddress::Instruction(CodeAddress(address)),
                Frame::Native { address, .. } => FrameAddress::Return(ReturnAddress(address)),
                Frame::File {
                    file,
                    offset,
                    interrupted,
                } => FrameAddress::File(FilePlace {
                    file,
                    offset: FileOffset(offset),
                    is_return: depth > 0 && !interrupted,
                }),
                _ => FrameAddress::Java(JavaWord(word)),
            })
    }

    /// The address to look up, if an address names the frame.
    pub fn lookup(self) -> Option<CodeAddress> {
        match self {
            FrameAddress::Instruction(address) => Some(address),
            FrameAddress::Return(address) => Some(address.call()),
            FrameAddress::File(_) | FrameAddress::Java(_) => None,
        }
    }

    /// The address as it was found on the stack; of an interpreted Java frame
    /// that of its method, of a place in a file the offset.
    pub fn raw(self) -> u64 {
        match self {
            FrameAddress::Instruction(address) => address.0,
            FrameAddress::Return(address) => address.0,
            FrameAddress::File(place) => place.offset.0,
            FrameAddress::Java(JavaWord(word)) => match Frame::of(word) {
                Frame::Native { address, .. } => address,
                Frame::File { offset, .. } => offset,
                Frame::Interpreted { method, .. } => method,
                Frame::Compiled { pc, .. } => pc,
                Frame::Class { klass } => klass,
                Frame::ClassName { .. } | Frame::JavaScript { .. } => 0,
                Frame::Python { code, .. } => code,
            },
        }
    }
}

/// A position in a file, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

/// An address as an ELF file states it (`st_value`, `p_vaddr`), before the
/// loader moved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElfAddress(pub u64);

macro_rules! hexadecimal {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{:#x}", self.0)
            }
        }
    )*};
}
hexadecimal!(CodeAddress, ReturnAddress, FileOffset, ElfAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_leaf_is_looked_up_where_it_is() {
        let frames: Vec<_> = FrameAddress::of_stack(&[0x1000, 0x2000, 0]).collect();
        let lookups: Vec<_> = frames
            .iter()
            .map(|frame| frame.lookup().unwrap().0)
            .collect();
        assert_eq!(lookups, [0x1000, 0x1fff, 0]);
        let word = tracer_ebpf::frame::compiled(0x7000, 5);
        let java = FrameAddress::of_stack(&[0x1000, word]).next_back();
        assert_eq!(java, Some(FrameAddress::Java(JavaWord(word))));
        assert_eq!(java.map(FrameAddress::raw), Some(0x7000));
        let place = tracer_ebpf::frame::in_file(3, 0x500, 0);
        let lookups: Vec<_> = FrameAddress::of_stack(&[place, place])
            .map(|frame| match frame {
                FrameAddress::File(place) => place.lookup().0,
                _ => 0,
            })
            .collect();
        assert_eq!(lookups, [0x500, 0x4ff]);
        assert_eq!(frames[1].raw(), 0x2000);
        assert_eq!(CodeAddress(0x1f).to_string(), "0x1f");
    }
}
