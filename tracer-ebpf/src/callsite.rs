//! Call instructions before return addresses: what is not preceded by one is
//! not a return address.

#![expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of words"
)]

/// Bytes of code that are looked at: the longest call, without prefixes.
pub const CALL_BYTES: usize = 7;

/// Whether the [`CALL_BYTES`] bytes before a return address, the first of them
/// in the lowest byte, end in a call: `e8`, or a form of `ff /2` (Intel's
/// manual, volume 2, "CALL").
#[inline(always)]
pub const fn ends_in_call(code: u64) -> bool {
    byte(code, 2) == 0xe8
        || (is_indirect(code, 5) && extra_bytes(code, 6) == 0)
        || (is_indirect(code, 4) && extra_bytes(code, 5) == 1)
        || (is_indirect(code, 3) && extra_bytes(code, 4) == 2)
        || (is_indirect(code, 1) && extra_bytes(code, 2) == 4)
        || (is_indirect(code, 0) && extra_bytes(code, 1) == 5)
}

#[inline(always)]
const fn byte(code: u64, index: u32) -> u8 {
    (code >> (8 * index)) as u8
}

/// Whether there is `ff`, and a ModRM byte that makes it a call.
#[inline(always)]
const fn is_indirect(code: u64, index: u32) -> bool {
    byte(code, index) == 0xff && (byte(code, index + 1) >> 3) & 7 == 2
}

/// How many bytes follow the ModRM byte at `index`: those of a scaled index
/// and a displacement.
#[inline(always)]
const fn extra_bytes(code: u64, index: u32) -> u32 {
    let (mode, register) = (byte(code, index) >> 6, byte(code, index) & 7);
    let scale = (mode != 3 && register == 4) as u32;
    let displacement = match mode {
        0 if register == 5 => 4,
        0 if scale == 1 && index < 6 && byte(code, index + 1) & 7 == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    scale + displacement
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instruction at the end of seven bytes.
    fn at_end(instruction: &[u8]) -> u64 {
        let mut bytes = [0x90; 8];
        bytes[7 - instruction.len()..7].copy_from_slice(instruction);
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn every_form_of_a_call_is_seen() {
        for call in [
            &[0xe8, 1, 2, 3, 4][..],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd4],
            &[0xff, 0x10],
            &[0xff, 0x14, 0x24],
            &[0x41, 0xff, 0x14, 0x24],
            &[0xff, 0x50, 8],
            &[0xff, 0x54, 0x24, 8],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x90, 1, 2, 3, 4],
            &[0xff, 0x94, 0x24, 1, 2, 3, 4],
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4],
            &[0xff, 0x14, 0x25, 1, 2, 3, 4],
        ] {
            assert!(ends_in_call(at_end(call)), "{call:x?}");
        }
    }

    #[test]
    fn what_is_no_call_is_not_taken_for_one() {
        for other in [
            &[][..],
            &[0xe9, 1, 2, 3, 4],
            &[0xff, 0xe0],
            &[0xff, 0x25, 1, 2, 3, 4],
            &[0xff, 0x14],
            &[0xff, 0x50],
            &[0xff, 0xd0, 0x90],
            &[0xe8, 1, 2, 3, 4, 0x90],
        ] {
            assert!(!ends_in_call(at_end(other)), "{other:x?}");
        }
    }
}
