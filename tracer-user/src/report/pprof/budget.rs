//! What a profile would take in memory, before it is decoded: two bytes can
//! stand for a record of a hundred.

use anyhow::{Result, ensure};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Memory that a decoded profile may take, bytes.
const MAX_MEMORY: u64 = 512 << 20;

/// The field of the string table; see [`Profile`](super::proto::Profile).
const STRING_TABLE: u32 = 6;

/// What a record or string of the profile takes besides its content, bytes.
const RECORD: u64 = 96;

/// What one byte of a record can become: an id, or half of an empty record.
const GROWTH: u64 = 12;

/// Checks that decoding stays within [`MAX_MEMORY`].
///
/// # Errors
/// Fails if it does not, or if this is no message.
pub fn check(mut profile: &[u8]) -> Result<()> {
    let mut memory = 0_u64;
    while !profile.is_empty() {
        let (tag, kind) = decode_key(&mut profile)?;
        memory += RECORD;
        if kind == WireType::LengthDelimited {
            let mut rest = profile;
            let length = decode_varint(&mut rest)?;
            let growth = if tag == STRING_TABLE { 1 } else { GROWTH };
            memory = memory.saturating_add(length.saturating_mul(growth));
        }
        ensure!(
            memory <= MAX_MEMORY,
            "its records would take more than {} MiB of memory, the most that a profile may",
            MAX_MEMORY >> 20
        );
        skip_field(kind, tag, &mut profile, DecodeContext::default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_records_without_end_are_refused() {
        // Locations (tag 4) of no bytes.
        let many = [0x22, 0].repeat(1 << 20);
        check(&many).unwrap();
        let error = check(&many.repeat(6)).unwrap_err().to_string();
        assert!(error.contains("more than 512 MiB"), "{error}");
    }

    #[test]
    fn strings_count_as_they_are() {
        let mut strings = vec![0x32, 0x80, 0x80, 0x80, 0x64];
        strings.resize(5 + (200 << 20), b'x');
        check(&strings).unwrap();
        strings[0] = 0x22;
        assert!(check(&strings).is_err(), "a location of that size");
    }
}
