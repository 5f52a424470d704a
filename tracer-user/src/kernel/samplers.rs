//! The kernel side of samplers in processes: where they tell, and what they told.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use tracer_ebpf::operand::Operand;
use tracer_ebpf::stated::{ARGUMENTS, MAX_SAMPLERS, SamplerPlace, StatedSite};

use super::batch;
use super::mapped::MappedArray;

/// The maps of samplers.
pub struct SamplerMaps {
    pub(super) places: MappedArray<SamplerPlace>,
    pub(super) images: HashMap<MapData, u64, u64>,
    pub(super) stated: MapData,
    /// Places that are in use; their numbers are never given to others.
    pub(super) used: u32,
}

impl SamplerMaps {
    /// Has the programs know a place: returns its number.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn add(&mut self, operands: [Operand; ARGUMENTS]) -> Result<u32> {
        let number = self.used;
        if number >= MAX_SAMPLERS {
            anyhow::bail!("there is no room for more than {MAX_SAMPLERS} places of samplers");
        }
        self.places.set(
            number,
            SamplerPlace {
                hits: 0,
                excess: 0,
                size: 0,
                operands,
            },
        );
        self.used += 1;
        Ok(number)
    }

    /// What a place told until now.
    pub fn place(&self, number: u32) -> Option<SamplerPlace> {
        self.places.get(number)
    }

    /// Whether any process was found that takes samples itself.
    pub fn are_used(&self) -> bool {
        self.used > 0
    }

    /// Notes that an image takes samples itself.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn note(&mut self, image: u64) -> Result<()> {
        self.images
            .insert(image, 1, 0)
            .context("there is no room for more processes with a sampler")
    }

    /// Whether an image takes samples itself: it was noted, or a copy of one that was.
    pub fn has(&self, image: u64) -> bool {
        self.are_used() && self.images.get(&image, 0).is_ok()
    }

    /// Forgets an image.
    pub fn forget(&mut self, image: u64) {
        if self.are_used() {
            // It need not be there.
            let _ = self.images.remove(&image);
        }
    }

    /// What the samples of a site stand for, if it has any.
    pub fn stated(&self, site: u32) -> Option<StatedSite> {
        if !self.are_used() {
            return None;
        }
        batch::find(self.stated.fd().as_fd(), &site).ok().flatten()
    }

    /// Forgets the samples of a site.
    pub(super) fn forget_site(&self, site: u32) {
        if self.are_used() {
            // It need not be there.
            let _ = batch::remove(self.stated.fd().as_fd(), &site);
        }
    }
}
