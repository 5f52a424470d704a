//! Memory that a test wrote.

use std::collections::BTreeMap;
use std::io;

use crate::jvm::memory::TargetMemory;

/// Single bytes by address; what was not written is not mapped.
#[derive(Debug, Default, Clone)]
pub struct Synthetic(BTreeMap<u64, u8>);

impl Synthetic {
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        self.0.extend((address..).zip(bytes.iter().copied()));
    }
}

impl TargetMemory for Synthetic {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (address, byte) in (address..).zip(buffer) {
            *byte = *self.0.get(&address).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(())
    }
}
