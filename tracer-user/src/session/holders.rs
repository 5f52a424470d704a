//! Who holds the blocks of the sites that hold most: what is looked for, and what was found.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::block::{Block, BlockKey, OTHERS};

use super::Session;
use crate::holders::{Found, Job, Key, Look, OfSite, Outcome, Traced, settle};
use crate::jvm::holders::search_natives;
use crate::model::{Link, Lost, MemoryKind};
use crate::process::clock::thread_cpu_ns;
use crate::targets::images::Image;
use crate::window::collect::CollectedSite;

/// Sites whose blocks are looked for: those that hold most bytes.
const MAX_SITES: usize = 64;
/// Blocks of each that are looked for: the oldest.
const MAX_BLOCKS: usize = 64;

/// Looks, by image.
pub type Looks = HashMap<u64, Look>;

/// What was found.
#[derive(Default)]
pub(super) struct HoldersState {
    /// The blocks that are looked for, with their sites.
    wanted: HashMap<(u64, Key), u32>,
    /// The images that run and have live blocks.
    images: HashSet<u64>,
    /// By the index of the site.
    found: HashMap<u32, Vec<Found>>,
    /// The same of all blocks that nothing leads to; `None` if that is not known.
    lost: Option<HashMap<u32, Lost>>,
    /// What was not searched, and why.
    unsearched: Vec<String>,
}

impl Session {
    /// What is to be looked at, each with the id of its image. With looks from before it is
    /// the same blocks, as far as they are live.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn holder_jobs(&mut self, before: Option<Looks>) -> Result<Vec<(u64, Job)>> {
        let mut live: HashMap<u64, Vec<Traced>> = HashMap::new();
        self.engine.object.for_each_live(|key, block| {
            if key.address < OTHERS {
                live.entry(key.image).or_default().push(traced(key, block));
            }
        })?;
        if before.is_none() {
            self.holders.wanted = wanted(&live);
            let running = self.running_images().map(|image| image.id);
            let images = running.filter(|id| live.contains_key(id)).collect();
            self.holders.images = images;
        }
        let mut before = before.unwrap_or_default();
        let mut jobs = Vec::new();
        for image in self.running_images() {
            let blocks = live.remove(&image.id).unwrap_or_default();
            let looks = before.remove(&image.id);
            jobs.extend(self.holder_job(image, blocks, looks));
        }
        Ok(jobs)
    }

    fn holder_job(
        &self,
        image: &Image,
        blocks: Vec<Traced>,
        before: Option<Look>,
    ) -> Option<(u64, Job)> {
        let wanted = self.holders.wanted.keys();
        let wanted = wanted.filter(|(of, _)| *of == image.id);
        let wanted: HashSet<Key> = wanted.map(|(_, key)| *key).collect();
        if wanted.is_empty() && (blocks.is_empty() || !self.options.check_lost) {
            return None;
        }
        let job = Job {
            process: self.process_of(image)?,
            code: Arc::new(self.images.code(image)?.view()),
            java_heap: image.java_heap.clone(),
            searches_java: self.java.jvms.readable().any(|(of, _)| of == image.id),
            blocks,
            wanted,
            per_gib: self.options.holders?,
            before,
        };
        Some((image.id, job))
    }

    /// Keeps what the second looks say.
    pub fn keep_holders(&mut self, looks: Looks) {
        let state = std::mem::take(&mut self.holders);
        let mut found: HashMap<u32, Vec<Found>> = HashMap::new();
        let mut unsearched: Vec<String> = Vec::new();
        let mut outcomes: HashMap<(u64, Key), Outcome> = HashMap::new();
        let lost = lost(&state.images, &looks);
        for (image, look) in looks {
            let settled = settle(&look).into_iter();
            outcomes.extend(settled.map(|(key, outcome)| ((image, key), outcome)));
            unsearched.extend(look.unsearched);
            let searched = self.searched.get_or_insert_default();
            searched.bytes += look.read;
            searched.processor_seconds += look.time.as_secs_f64();
        }
        let mut codes = HashMap::new();
        for ((image, key), site) in &state.wanted {
            let code = codes.entry(*image).or_insert_with(|| {
                let image = self.images.get(self.images.index_of(*image)?)?;
                Some(Arc::new(self.images.code(image)?.view()))
            });
            let Some(code) = code else { continue };
            // One whose process is gone is undecided.
            let outcome = outcomes.remove(&(*image, *key));
            found.entry(*site).or_default().push(Found {
                code: Arc::clone(code),
                outcome: outcome.unwrap_or(Outcome::Undecided),
                image: *image,
                by_java: None,
            });
        }
        unsearched.sort();
        unsearched.dedup();
        self.holders = HoldersState {
            wanted: state.wanted,
            images: state.images,
            found,
            lost,
            unsearched,
        };
    }

    /// Looks for the Java objects that hold native blocks, once the run has ended.
    pub(super) fn find_java_objects(&mut self) {
        let mut pieces: HashMap<u64, Vec<Range<u64>>> = HashMap::new();
        for found in self.holders.found.values().flatten() {
            let piece = found.in_java().filter(|_| found.by_java.is_none());
            pieces
                .entry(found.image)
                .or_default()
                .extend(piece.cloned());
        }
        let begin = (Instant::now(), thread_cpu_ns());
        let mut links: HashMap<(u64, Range<u64>), Vec<Link>> = HashMap::new();
        for (image, mut pieces) in pieces {
            pieces.sort_unstable_by_key(|piece| (piece.start, piece.end));
            pieces.dedup();
            let mut machines = self.java.jvms.readable();
            let machine = machines.find(|(of, _)| *of == image);
            let Some((_, jvm)) = machine.filter(|_| !pieces.is_empty()) else {
                continue;
            };
            match search_natives(jvm, &pieces) {
                Ok(found) => {
                    let named = pieces.into_iter().zip(found);
                    let named = named.filter_map(|(piece, found)| Some(((image, piece), found?)));
                    links.extend(named);
                }
                Err(problem) => self.holders.unsearched.push(format!("{problem:#}")),
            }
        }
        for found in self.holders.found.values_mut().flatten() {
            if let Some(piece) = found.in_java() {
                found.by_java = links.get(&(found.image, piece.clone())).cloned();
            }
        }
        if let Some(searched) = &mut self.searched {
            let time = Duration::from_nanos(thread_cpu_ns().saturating_sub(begin.1));
            searched.seconds += begin.0.elapsed().as_secs_f64();
            searched.processor_seconds += time.as_secs_f64();
        }
    }

    /// Enters what was found.
    pub(super) fn add_holders(&self, sites: &mut [CollectedSite]) {
        for site in sites.iter_mut() {
            if site.kind == MemoryKind::Heap {
                let found = self.holders.found.get(&site.index);
                let lost = self.holders.lost.as_ref();
                site.holders = OfSite {
                    found: found.cloned().unwrap_or_default(),
                    lost: lost.map(|lost| lost.get(&site.index).copied().unwrap_or_default()),
                };
                site.indices = vec![site.index];
            }
        }
    }

    /// Whether the search found all blocks that nothing leads to.
    pub fn knows_what_is_lost(&self) -> bool {
        self.holders.lost.is_some()
    }

    /// What was not searched, and why.
    pub(super) fn unsearched(&self) -> Vec<String> {
        self.holders.unsearched.clone()
    }
}

fn traced(key: BlockKey, block: Block) -> Traced {
    Traced {
        start: key.address,
        size: block.size,
        site: block.site,
        time: block.time,
    }
}

/// The blocks that nothing leads to, by site; `None` if an image's are not known.
fn lost(images: &HashSet<u64>, looks: &Looks) -> Option<HashMap<u32, Lost>> {
    let mut lost: HashMap<u32, Lost> = HashMap::new();
    for image in images {
        for block in looks.get(image)?.lost.as_ref()? {
            lost.entry(block.site).or_default().add(Lost {
                blocks: 1,
                bytes: block.size,
            });
        }
    }
    Some(lost)
}

/// The blocks that are looked for.
fn wanted(live: &HashMap<u64, Vec<Traced>>) -> HashMap<(u64, Key), u32> {
    let blocks = live.iter();
    let blocks = blocks.flat_map(|(image, blocks)| blocks.iter().map(|block| (*image, block)));
    let mut held: HashMap<u32, u64> = HashMap::new();
    for (_, block) in blocks.clone() {
        let bytes = held.entry(block.site).or_default();
        *bytes = bytes.saturating_add(block.size);
    }
    let mut largest: Vec<(u64, u32)> = held.into_iter().map(|(site, it)| (it, site)).collect();
    largest.sort_unstable_by(|one, other| other.cmp(one));
    largest.truncate(MAX_SITES);
    let mut of_sites: HashMap<u32, Vec<(u64, u64, u64)>> = largest
        .iter()
        .map(|(_, site)| (*site, Vec::new()))
        .collect();
    for (image, block) in blocks {
        if let Some(all) = of_sites.get_mut(&block.site) {
            all.push((block.time, block.start, image));
        }
    }
    let mut wanted = HashMap::new();
    for (site, mut blocks) in of_sites {
        blocks.sort_unstable();
        let oldest = blocks.into_iter().take(MAX_BLOCKS);
        wanted.extend(oldest.map(|(time, start, image)| ((image, (start, time)), site)));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_blocks_of_the_largest_sites_are_looked_for() {
        let block = |number: u64, site: u32, size: u64| Traced {
            start: number * 4096,
            size,
            site,
            time: 1_000_000 - number,
        };
        let small = (0..MAX_SITES as u64 + 3).map(|at| {
            let site = u32::try_from(at).unwrap() + 10;
            block(10_000 + at, site, at + 1)
        });
        let many = (1..=100).map(|number| block(number, 1, 1000));
        let live = HashMap::from([(7, many.chain(small).collect::<Vec<_>>())]);
        let wanted = wanted(&live);
        let of_many = wanted.iter().filter(|(_, site)| **site == 1);
        let mut times: Vec<u64> = of_many.map(|((_, (_, time)), _)| *time).collect();
        times.sort_unstable();
        let expected: Vec<u64> = (37..=100).map(|number| 1_000_000 - number).rev().collect();
        assert_eq!(times, expected);
        let sites: HashSet<u32> = wanted.values().copied().collect();
        assert_eq!(sites.len(), MAX_SITES);
        assert!(!sites.contains(&10), "the one that holds least");
    }
}
