//! Files and memory that are read at offsets, by whoever wants to.

use std::io;
use std::os::unix::fs::FileExt;

use object::read::ReadCacheOps;

use super::file::RegularFile;

/// Something that is read at offsets.
pub trait Bytes {
    /// Reads up to `buffer.len()` bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Its length in bytes.
    fn size(&self) -> u64;

    /// Reads until the buffer is full, or there is nothing more; returns how
    /// many bytes there are.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> usize {
        let mut filled = 0;
        while let Ok(read @ 1..) =
            self.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64))
        {
            filled += read;
        }
        filled
    }
}

impl Bytes for RegularFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file().read_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        RegularFile::size(self)
    }
}

impl Bytes for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(offset..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// [`Bytes`] with a position, as `object` reads them.
pub struct Positioned<'a> {
    bytes: &'a dyn Bytes,
    at: u64,
}

impl<'a> Positioned<'a> {
    pub fn new(bytes: &'a dyn Bytes) -> Self {
        Positioned { bytes, at: 0 }
    }
}

impl ReadCacheOps for Positioned<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.bytes.size())
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.at = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let count = self.bytes.read_at(buffer, self.at).map_err(drop)?;
        self.at = self.at.checked_add(count as u64).ok_or(())?;
        Ok(count)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        if self.bytes.fill(buffer, self.at) < buffer.len() {
            return Err(());
        }
        self.at = self.at.checked_add(buffer.len() as u64).ok_or(())?;
        Ok(())
    }
}
