//! What is said of samples that processes took themselves, and of who took them.

use tracer_ebpf::frame::Frame;
use tracer_ebpf::stated::SamplerPlace;

use super::Session;
use super::samplers::Used;
use crate::model::sampling::rounded;
use crate::model::{self, MemoryKind};
use crate::targets::images::Image;
use crate::window::collect::CollectedSite;

impl Session {
    /// The sampler of an image, or of the one that it is a copy of.
    fn used_by(&self, image: &Image) -> Option<&Used> {
        let mut id = image.id;
        loop {
            if let Some(used) = self.samplers.of_image.get(&id) {
                return Some(used);
            }
            let known = self.images.index_of(id).and_then(|at| self.images.get(at));
            id = known.map(|image| image.parent).filter(|it| *it != 0)?;
        }
    }

    /// Whether an image takes samples itself.
    pub(super) fn has_sampler(&self, image: u64) -> bool {
        if self.samplers.of_image.is_empty() {
            return false;
        }
        self.samplers.of_image.contains_key(&image)
            || self.engine.object.samplers.has(image)
            || self
                .images
                .index_of(image)
                .and_then(|at| self.images.get(at))
                .is_some_and(|image| self.used_by(image).is_some())
    }

    /// Leaves out the frames by which a sampler in a library came to its probe, all but
    /// the function by which it was called: as if that were probed.
    pub(super) fn leave_sampler(&self, site: &mut CollectedSite) {
        if self.samplers.libraries.is_empty() || site.kind != MemoryKind::Heap {
            return;
        }
        let is_own = |word: &&u64| match Frame::of(**word) {
            Frame::File { file, .. } => {
                let file = self.engine.tables.files().get(file);
                file.is_some_and(|file| self.samplers.libraries.contains(&file.file.mapped))
            }
            _ => false,
        };
        let inner = site.frames.iter().take_while(is_own).count();
        let Some(left_out) = inner.checked_sub(1).filter(|count| *count > 0) else {
            return;
        };
        site.frames.drain(..left_out);
        if let Some(names) = &mut site.names {
            names.drain(..left_out.min(names.len()));
        }
        // Its call may be its last instruction; the first word is no return address.
        if let Some(door) = site.frames.first_mut() {
            *door -= 1;
        }
    }

    /// What is to be said of an image's sampler.
    pub(super) fn sampler_of(&self, image: &Image) -> Option<model::Sampler> {
        let used = self.used_by(image)?;
        let sampler = &used.sampler;
        let numbers = self.samplers.numbers.get(&sampler.file.mapped)?;
        let places: Vec<_> = numbers
            .iter()
            .filter_map(|number| self.engine.object.samplers.place(*number))
            .collect();
        let (allocs, frees) = places.split_at(sampler.allocs.len().min(places.len()));
        let hits = |places: &[SamplerPlace]| places.iter().map(|place| place.hits).sum();
        Some(model::Sampler {
            provider: sampler.provider.to_owned(),
            module: sampler.path.clone(),
            samples: hits(allocs),
            frees: hits(frees),
            interval: interval(allocs),
            unused: used.others.clone(),
        })
    }

    /// Whose samples an image's numbers are, in words.
    pub(super) fn describe_sampler(&self, image: &Image) -> Option<String> {
        Some(self.used_by(image)?.sampler.describe())
    }

    /// The largest mean interval of the samplers of all processes, bytes; 0 if none is
    /// known.
    pub(super) fn stated_interval(&self) -> u64 {
        let images = self.images.iter();
        let samplers = images.filter_map(|image| self.sampler_of(image));
        samplers.map(|it| it.interval).max().unwrap_or(0)
    }

    /// Whether any process takes samples itself.
    pub(super) fn has_any_sampler(&self) -> bool {
        !self.samplers.of_image.is_empty()
    }
}

/// R by a sample that stands for more than itself: W = S/(1 - e^(-S/R)) gives
/// R = S / ln(1 + S/(W - S)). 0 if nothing is known.
fn interval(places: &[SamplerPlace]) -> u64 {
    let of = |place: &SamplerPlace| match (place.size, place.excess) {
        (_, 0) => 0,
        (0, excess) => excess,
        (size, excess) => {
            let ratio = size as f64 / excess as f64;
            rounded(size as f64 / ratio.ln_1p())
        }
    };
    places.iter().map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::operand::Operand;

    use super::*;

    #[test]
    fn the_interval_follows_from_a_sample() {
        let place = |size: u64, interval: f64| {
            let p = -(-(size as f64) / interval).exp_m1();
            SamplerPlace {
                hits: 1,
                excess: rounded(size as f64 / p) - size,
                size,
                operands: [Operand::default(); 3],
            }
        };
        for size in [1, 100, 4096, 1 << 20] {
            let found = interval(&[place(size, 524_288.0)]);
            assert!(
                found.abs_diff(524_288) <= 1 + (size >> 18),
                "{size}: {found}"
            );
        }
        assert_eq!(interval(&[]), 0);
        assert_eq!(interval(&[place(1 << 40, 1024.0)]), 0);
    }
}
