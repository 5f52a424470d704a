//! Who holds the blocks of the sites that hold most: what is looked for, and what was found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use tracer_ebpf::block::{Block, BlockKey, OTHERS};
use tracer_ebpf::site::SiteKey;

use super::Session;
use crate::holders::{ByJava, Found, Job, Key, Look, OfSite, Outcome, Traced, settle};
use crate::model::{Lost, MemoryKind};
use crate::targets::images::Image;
use crate::window::collect::CollectedSite;

/// Sites whose blocks are looked for: those that hold most bytes.
const MAX_SITES: usize = 64;
/// Blocks of each that are looked for: the oldest.
const MAX_BLOCKS: usize = 64;

/// How far two looks are apart: what was on its way has arrived by then.
pub const BETWEEN: Duration = Duration::from_millis(200);

/// Said where frees are missed.
const MISSED_FREES: &str = "whether what nothing leads to is lost, or was freed: within a budget \
     (--overhead) frees are not seen all the time";

/// What is asked for, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Who holds what holds most, when the run has been counted.
    AtTheEnd,
    /// While it goes on: who holds the blocks of these sites, and of what holds most beside.
    Now(Vec<u32>),
}

/// Looks, by image.
pub type Looks = HashMap<u64, Look>;

/// What was found.
#[derive(Default)]
pub(super) struct HoldersState {
    /// The sites that were asked for, last ones first.
    asked: Vec<u32>,
    /// The call paths that had these indices when it was looked for them.
    paths: HashMap<u32, SiteKey>,
    /// The blocks that are looked for, with their sites.
    wanted: HashMap<(u64, Key), u32>,
    /// The images that run and have live blocks.
    images: HashSet<u64>,
    /// By the index of the site.
    pub(super) found: HashMap<u32, Vec<Found>>,
    /// The same of all blocks that nothing leads to; `None` if that is not known.
    lost: Option<HashMap<u32, Lost>>,
    /// What was not searched, and why.
    pub(super) unsearched: Vec<String>,
}

impl Session {
    /// What is to be looked at first, each with the id of its image. What calls the search off
    /// is `is_off`.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn holder_jobs(
        &mut self,
        asked: Asked,
        is_off: &Arc<AtomicBool>,
    ) -> Result<Vec<(u64, Job)>> {
        let live = self.live_blocks()?;
        let state = &mut self.holders;
        if let Asked::Now(sites) = asked {
            state.asked.retain(|site| !sites.contains(site));
            state.asked.splice(0..0, sites);
            state.asked.truncate(MAX_SITES);
        }
        state.wanted = wanted(&live, &state.asked);
        let sites: HashSet<u32> = live.values().flatten().map(|block| block.site).collect();
        let path = |site: u32| Some((site, self.engine.object.sites.get(site)?.key));
        state.paths = sites.into_iter().filter_map(path).collect();
        let running = self.running_images().map(|image| image.id);
        self.holders.images = running.filter(|id| live.contains_key(id)).collect();
        Ok(self.jobs_of(live, Looks::new(), is_off))
    }

    /// The same blocks again, as far as they are live, with the first looks.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn second_holder_jobs(
        &self,
        before: Looks,
        is_off: &Arc<AtomicBool>,
    ) -> Result<Vec<(u64, Job)>> {
        Ok(self.jobs_of(self.live_blocks()?, before, is_off))
    }

    /// The traced live blocks of each image.
    pub(super) fn live_blocks(&self) -> Result<HashMap<u64, Vec<Traced>>> {
        let mut live: HashMap<u64, Vec<Traced>> = HashMap::new();
        self.engine.object.for_each_live(|key, block| {
            if key.address < OTHERS {
                live.entry(key.image).or_default().push(traced(key, block));
            }
        })?;
        Ok(live)
    }

    fn jobs_of(
        &self,
        mut live: HashMap<u64, Vec<Traced>>,
        mut before: Looks,
        is_off: &Arc<AtomicBool>,
    ) -> Vec<(u64, Job)> {
        let mut jobs: Vec<(u64, Job)> = Vec::new();
        for image in self.running_images() {
            let blocks = live.remove(&image.id).unwrap_or_default();
            let look = before.remove(&image.id);
            jobs.extend(self.holder_job(image, blocks, look, is_off));
        }
        let processes = jobs.len();
        for (_, job) in &mut jobs {
            job.allowed = job.allowed.among(processes);
        }
        jobs
    }

    fn holder_job(
        &self,
        image: &Image,
        blocks: Vec<Traced>,
        before: Option<Look>,
        is_off: &Arc<AtomicBool>,
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
            allowed: self.options.holders?,
            before,
            is_off: Arc::clone(is_off),
        };
        Some((image.id, job))
    }

    /// Keeps what the second looks say.
    pub fn keep_holders(&mut self, looks: Looks) {
        let state = std::mem::take(&mut self.holders);
        let mut found: HashMap<u32, Vec<Found>> = HashMap::new();
        let mut unsearched: Vec<String> = Vec::new();
        let mut outcomes: HashMap<(u64, Key), Outcome> = HashMap::new();
        let misses_frees = self.misses_frees();
        let lost = lost(&state.images, &looks).filter(|_| !misses_frees);
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
            let outcome = outcome.unwrap_or(Outcome::Undecided);
            let may_be_freed = misses_frees && outcome == Outcome::Lost;
            if may_be_freed {
                unsearched.push(MISSED_FREES.to_owned());
            }
            found.entry(*site).or_default().push(Found {
                code: Arc::clone(code),
                outcome: match may_be_freed {
                    true => Outcome::Undecided,
                    false => outcome,
                },
                image: *image,
                by_java: ByJava::NotSearched,
                named: Arc::default(),
            });
        }
        unsearched.sort();
        unsearched.dedup();
        self.holders = HoldersState {
            found,
            lost,
            unsearched,
            ..state
        };
    }

    /// Enters what was found.
    pub(super) fn add_holders(&self, sites: &mut [CollectedSite]) {
        for site in sites.iter_mut().filter(|it| it.kind == MemoryKind::Heap) {
            site.indices = vec![site.index];
            // The index may be another path's since the search.
            let path = self.holders.paths.get(&site.index);
            if path.is_some_and(|path| *path == site.key) {
                let found = self.holders.found.get(&site.index);
                let lost = self.holders.lost.as_ref();
                site.holders = OfSite {
                    found: found
                        .into_iter()
                        .flatten()
                        .map(|it| self.as_known_now(it))
                        .collect(),
                    lost: lost.map(|lost| lost.get(&site.index).copied().unwrap_or_default()),
                };
            }
        }
    }

    /// What was found, as it can be told now: a holder whose path is not kept any more has no name.
    fn as_known_now(&self, found: &Found) -> Found {
        let is_kept = |site: u32| {
            let now = self.engine.object.sites.get(site).map(|site| site.key);
            now.is_some() && self.holders.paths.get(&site).copied() == now
        };
        match found.outcome.sites().all(is_kept) {
            true => found.clone(),
            false => Found {
                outcome: Outcome::Undecided,
                ..found.clone()
            },
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

/// The blocks that are looked for: of the sites that were asked for, and of those that hold most.
fn wanted(live: &HashMap<u64, Vec<Traced>>, asked: &[u32]) -> HashMap<(u64, Key), u32> {
    let blocks = live.iter();
    let blocks = blocks.flat_map(|(image, blocks)| blocks.iter().map(|block| (*image, block)));
    let mut held: HashMap<u32, u64> = HashMap::new();
    for (_, block) in blocks.clone() {
        let bytes = held.entry(block.site).or_default();
        *bytes = bytes.saturating_add(block.size);
    }
    let is_asked = |site: u32| asked.contains(&site);
    let largest = held
        .into_iter()
        .map(|(site, it)| (is_asked(site), it, site));
    let mut largest: Vec<(bool, u64, u32)> = largest.collect();
    largest.sort_unstable_by(|one, other| other.cmp(one));
    largest.truncate(MAX_SITES);
    let mut of_sites: HashMap<u32, Vec<(u64, u64, u64)>> = largest
        .iter()
        .map(|(.., site)| (*site, Vec::new()))
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
        let wanted_of = |asked: &[u32]| wanted(&live, asked);
        let most = wanted_of(&[]);
        let of_many = most.iter().filter(|(_, site)| **site == 1);
        let mut times: Vec<u64> = of_many.map(|((_, (_, time)), _)| *time).collect();
        times.sort_unstable();
        let expected: Vec<u64> = (37..=100).map(|number| 1_000_000 - number).rev().collect();
        assert_eq!(times, expected);
        let sites: HashSet<u32> = most.values().copied().collect();
        assert_eq!(sites.len(), MAX_SITES);
        assert!(!sites.contains(&10), "the one that holds least");
        let asked: HashSet<u32> = wanted_of(&[10, 4711]).into_values().collect();
        assert!(asked.contains(&10) && asked.contains(&1), "{asked:?}");
        assert_eq!(asked.len(), MAX_SITES);
    }
}
