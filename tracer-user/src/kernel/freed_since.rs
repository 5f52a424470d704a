//! What processes have freed since they forked, for as long as anybody may have a
//! copy of it.

use std::collections::HashSet;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use aya::maps::{HashMap, IterableMap, Map, MapData, MapError};
use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::kinship::FreedSince;
use tracer_ebpf::{as_bytes, read_record};

use super::batch;

type KeyWords = [u64; size_of::<BlockKey>() / 8];
type ValueWords = [u64; size_of::<FreedSince>() / 8];

/// The kernel's map of it.
pub struct FreedSinceMap {
    map: HashMap<MapData, KeyWords, ValueWords>,
}

impl FreedSinceMap {
    /// Takes over the map.
    ///
    /// # Errors
    /// Fails if it is another one.
    pub fn new(map: Map) -> Result<Self> {
        Ok(Self {
            map: map.try_into()?,
        })
    }

    /// Remembers blocks that images had when they ended, all of which have
    /// forked: their children still have a copy. How many there is no room for.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn keep(&mut self, blocks: &[(BlockKey, Block)]) -> Result<u64> {
        let mut lost = 0;
        for (key, block) in blocks {
            let key = [key.address, key.image];
            let known = match self.map.get(&key, 0) {
                Ok(words) => record(&words),
                Err(MapError::KeyNotFound) => None,
                Err(error) => return Err(error).context("cannot read a kernel map"),
            };
            let mut since = known.unwrap_or_default();
            since.add(block.time, u64::MAX);
            // Full, or busy.
            lost += u64::from(self.map.insert(key, words(&since), 0).is_err());
        }
        Ok(lost)
    }

    /// Forgets all of these images.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn forget(&self, images: &HashSet<u64>) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let map = self.map.map().fd().as_fd();
        let mut keys = Vec::new();
        batch::for_each(map, |key: BlockKey, _: FreedSince| {
            if images.contains(&key.image) {
                keys.push(key);
            }
        })?;
        batch::delete(map, &keys)
    }
}

fn record(words: &ValueWords) -> Option<FreedSince> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    read_record(&bytes)
}

fn words(since: &FreedSince) -> ValueWords {
    let bytes = as_bytes(since);
    std::array::from_fn(|index| read_record(&bytes[index * 8..]).unwrap_or_default())
}
