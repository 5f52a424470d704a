//! Frames of a stack, each in one word.
// replaced by tracer_ebpf::frame::Frame when it lands

/// What a word of a stack stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// A native frame.
    Native {},
    /// A method that the interpreter runs: its `Method*`, and the lowest 16
    /// bits of the bytecode's address.
    Interpreted { method: u64, bytecode: u16 },
    /// Code of the code cache: a return address, and the lowest 13 bits of
    /// the compile id.
    Compiled { pc: u64, id: u16 },
    /// The class of a sampled object.
    Class { klass: u64 },
}

/// Compile ids are kept modulo this.
pub const IDS: u64 = 1 << 13;

#[expect(clippy::cast_possible_truncation, reason = "fields are cut out")]
impl Frame {
    /// What a word stands for.
    pub fn of(word: u64) -> Self {
        let address = word & ((1 << 47) - 1);
        match word >> 60 {
            0b0100 => Frame::Interpreted {
                method: (word & ((1 << 44) - 1)) << 3,
                bytecode: (word >> 44) as u16,
            },
            0b0010 => Frame::Compiled {
                pc: address,
                id: (word >> 47 & (IDS - 1)) as u16,
            },
            0b0001 => Frame::Class { klass: address },
            _ => Frame::Native {},
        }
    }
}
