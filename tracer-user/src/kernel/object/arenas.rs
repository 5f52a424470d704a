//! What the kernel remembers of arenas: pools that let all their objects go at once.

use std::collections::HashSet;
use std::os::fd::AsFd;

use anyhow::Result;
use aya::Ebpf;
use aya::maps::MapData;
use tracer_ebpf::block::{Block, BlockKey, Object as ArenaObject};
use tracer_ebpf::site::NO_SITE;

use super::{Object, map_data, take};
use crate::kernel::batch;

/// Its maps.
pub(super) struct ArenaMaps {
    objects: MapData,
    /// The object that each arena has handed out last.
    arenas: MapData,
}

impl ArenaMaps {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            objects: map_data(take(ebpf, "OBJECTS")?)?,
            arenas: map_data(take(ebpf, "ARENAS")?)?,
        })
    }

    /// Calls `each` with every live object.
    pub(super) fn for_each_object(&self, mut each: impl FnMut(BlockKey, Block)) -> Result<()> {
        batch::for_each(self.objects.fd().as_fd(), |key, object: ArenaObject| {
            // What the kernel refused to remove has no site.
            if object.block.site != NO_SITE {
                each(key, object.block);
            }
        })
    }
}

impl Object {
    /// Calls `each` with every live object of arenas.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_object(&self, each: impl FnMut(BlockKey, Block)) -> Result<()> {
        self.arenas.for_each_object(each)
    }

    /// Forgets the arenas of images that have ended, and their objects.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn forget_arenas(&self, ended: &HashSet<u64>) -> Result<()> {
        let (mut objects, mut arenas) = (Vec::new(), Vec::new());
        let is_ended = |key: &BlockKey| ended.contains(&key.image);
        batch::for_each(self.arenas.objects.fd().as_fd(), |key, _: ArenaObject| {
            objects.extend(Some(key).filter(is_ended));
        })?;
        batch::for_each(self.arenas.arenas.fd().as_fd(), |key, _: u64| {
            arenas.extend(Some(key).filter(is_ended));
        })?;
        batch::delete(self.arenas.objects.fd().as_fd(), &objects)?;
        batch::delete(self.arenas.arenas.fd().as_fd(), &arenas)
    }
}
