//! The few DWARF expressions that compilers and linkers put into call frame
//! information (DWARF 5, section 2.5), recognised by their bytes.

use gimli::{EndianSlice, LittleEndian, Reader, constants as dw};

/// What an expression computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expression {
    /// A register plus bytes.
    Register(u16, i64),
    /// The word at a register plus bytes.
    Deref(u16, i64),
    /// In a stub of the procedure linkage table: rsp + 8, and 8 more from this
    /// byte of the stub on.
    Plt(u8),
    /// Anything else.
    Other,
}

/// Registers as DWARF numbers them on x86-64 (psABI, figure 3.36).
pub mod register {
    pub const RBX: u16 = 3;
    pub const RBP: u16 = 6;
    pub const RSP: u16 = 7;
    pub const RETURN_ADDRESS: u16 = 16;
}

impl Expression {
    /// Recognises an expression.
    pub fn of(bytes: &[u8]) -> Self {
        Self::recognise(bytes).unwrap_or(Expression::Other)
    }

    fn recognise(bytes: &[u8]) -> Option<Self> {
        let (operation, rest) = bytes.split_first()?;
        let register = operation.checked_sub(dw::DW_OP_breg0.0)?;
        if *operation > dw::DW_OP_breg31.0 {
            return None;
        }
        let register = u16::from(register);
        let mut rest = EndianSlice::new(rest, LittleEndian);
        let offset = rest.read_sleb128().ok()?;
        match rest.slice() {
            [] => Some(Expression::Register(register, offset)),
            [operation] if *operation == dw::DW_OP_deref.0 => {
                Some(Expression::Deref(register, offset))
            }
            stub if (register, offset) == (register::RSP, 8) => plt(stub),
            _ => None,
        }
    }
}

/// `((rip & 15) >= threshold) << 3`, added to what is on the stack: what GNU ld
/// says of the stubs in `.plt`.
fn plt(bytes: &[u8]) -> Option<Expression> {
    let [breg, 0, mask, and, threshold, ge, shift, shl, plus] = bytes else {
        return None;
    };
    let operations = [*breg, *mask, *and, *ge, *shift, *shl, *plus];
    let expected = [
        dw::DW_OP_breg16,
        dw::DW_OP_lit15,
        dw::DW_OP_and,
        dw::DW_OP_ge,
        dw::DW_OP_lit3,
        dw::DW_OP_shl,
        dw::DW_OP_plus,
    ];
    let threshold = threshold.checked_sub(dw::DW_OP_lit0.0)?;
    (operations == expected.map(|operation| operation.0) && threshold < 16)
        .then_some(Expression::Plt(threshold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_hold_is_recognised() {
        let of = Expression::of;
        assert_eq!(of(&[0x76, 0x78, 0x06]), Expression::Deref(6, -8));
        assert_eq!(of(&[0x77, 0xa0, 0x01, 0x06]), Expression::Deref(7, 160));
        assert_eq!(of(&[0x76, 0x00]), Expression::Register(6, 0));
        let stub = |literal| {
            [
                0x77, 8, 0x80, 0, 0x3f, 0x1a, literal, 0x2a, 0x33, 0x24, 0x22,
            ]
        };
        assert_eq!(of(&stub(0x3b)), Expression::Plt(11));
        assert_eq!(of(&stub(0x39)), Expression::Plt(9));
        assert_eq!(of(&stub(0x40)), Expression::Other);
    }

    #[test]
    fn anything_else_is_other() {
        for bytes in [
            &[][..],
            &[0x06],
            &[0x76],
            &[0x76, 0x80],
            &[0x77, 0x78, 0x06, 0x23, 0x08],
            &[0x90, 0x00],
            &[0xff; 40],
        ] {
            assert_eq!(Expression::of(bytes), Expression::Other, "{bytes:x?}");
        }
    }
}
