//! Profiles and reports as others take them: compressed by gzip.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Compresses it.
///
/// # Errors
/// There is no room for it.
pub fn pack(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    file.write_all(bytes)?;
    file.finish().context("cannot compress an answer")
}

/// What was compressed.
///
/// # Errors
/// It is damaged.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .context("an answer of ours cannot be unpacked")?;
    Ok(bytes)
}
