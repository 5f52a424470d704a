//! How the resident sets of traced processes grow, and what explains it.

pub(super) mod look;
pub(super) mod opened;
pub(super) mod settle;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::kinship::MAX_ANCESTORS;
use tracer_ebpf::stated;

use self::look::Look;
use self::opened::{Opened, compare};
use self::settle::{Facts, LiveBlock, settle};
use super::Session;
use crate::model::balance::{Balance, CgroupBalance, change};
use crate::model::descriptors::DescriptorBalance;
use crate::model::{MemoryLimit, Process};
use crate::process::account::Account;
use crate::process::cgroup::{Cgroup, Charged};
use crate::process::descriptors;
use crate::process::handle::ProcessHandle;
use crate::process::resident::MAX_CHUNKS;
use crate::process::{machine, owner};
use crate::targets::estimate::Estimate;
use crate::targets::images::Image;

/// Processes whose pages are looked at, the largest first; of more than these the
/// account alone is told. Where pages are followed alone, all of them are looked at, since
/// nothing else says whose they are.
const MAX_LOOKS: usize = 32;
/// Processes that are told at all.
pub const MAX_PROCESSES: usize = 256;
/// What looking at all processes may take at the start, and at the end. It stops
/// nobody; 1 GiB of pages takes 20 to 60 ms.
const START: Duration = Duration::from_secs(1);
const END: Duration = Duration::from_secs(3);
/// During a run there are parts only if the look at the start took no longer, and
/// there are no more live blocks: kernel events wait meanwhile.
const CHEAP: Duration = Duration::from_millis(30);
const FEW_BLOCKS: u64 = 200_000;

/// Keys of live handles and threads, which are no addresses, are above.
const ADDRESSES: u64 = 1 << 62;

/// What was seen of the processes' memory.
#[derive(Default)]
pub(super) struct BalanceState {
    /// At the start, by image.
    pub(super) before: HashMap<u64, Look>,
    /// At the end, by image.
    pub(super) after: Option<HashMap<u64, Look>>,
    /// How many descriptors were open meanwhile.
    pub(super) opened: Opened,
    /// What control groups were charged at the start, and at the end.
    pub(super) cgroups: BTreeMap<String, (Cgroup, Charged, Option<Charged>)>,
}

impl BalanceState {
    /// Begins the account of a process's control group, unless it is kept already.
    pub(super) fn enter_cgroup(&mut self, process: &ProcessHandle) {
        if let Some(group) = Cgroup::of(process)
            && !self.cgroups.contains_key(&group.path)
            && let Some(charged) = group.charged()
        {
            let path = group.path.clone();
            self.cgroups.insert(path, (group, charged, None));
        }
    }
}

impl Session {
    /// Looks at all processes before anything counts.
    pub(super) fn begin_balance(&mut self) {
        self.balance.before = self.look_at_all(Some(START), false);
        let processes: Vec<_> = self
            .running_images()
            .filter_map(|it| self.process_of(it))
            .collect();
        for process in processes.into_iter().take(MAX_PROCESSES) {
            self.balance.enter_cgroup(&process);
        }
    }

    /// Looks at them again when nothing counts any more.
    pub(super) fn end_balance(&mut self) {
        self.balance.after = Some(self.look_at_all(Some(END), true));
        for (group, _, end) in self.balance.cgroups.values_mut() {
            *end = group.charged();
        }
    }

    /// The balance of each process that runs.
    ///
    /// # Errors
    /// Fails if the kernel's maps cannot be read.
    pub(super) fn balances(
        &self,
        rows: &[(u64, usize)],
        processes: &[Process],
        live: u64,
    ) -> Result<Vec<Balance>> {
        let now;
        let after = match &self.balance.after {
            Some(after) => after,
            None => {
                let is_cheap = self.looks_are_cheap() && live <= FEW_BLOCKS;
                now = self.look_at_all(is_cheap.then_some(START), is_cheap);
                &now
            }
        };
        let mut blocks = self.blocks_of(after)?;
        let mut balances = Vec::new();
        for image in self.running_images() {
            let Some(look) = after.get(&image.id) else {
                continue;
            };
            let Some(process) = row_of(image, rows, processes) else {
                continue;
            };
            let blocks = blocks.remove(&image.id).unwrap_or_default();
            let mut balance = settle(&self.facts(image, look, blocks));
            balance.process = process;
            balance.pid = image.pid;
            balance.descriptors = self.descriptors_of(image, look);
            self.find_owners(image, look, &mut balance);
            balances.push(balance);
        }
        balances.sort_by_key(|balance| Reverse(balance.growth.unsigned_abs()));
        Ok(balances)
    }

    /// What it holds by its descriptors, if that grew.
    pub(super) fn descriptors_of(&self, image: &Image, after: &Look) -> Option<DescriptorBalance> {
        let before = self.balance.before.get(&image.id);
        let before = before.and_then(|look| look.descriptors.as_ref());
        let rises = self.balance.opened.rises(image.id);
        let balance = compare(before, after.descriptors.as_ref()?, rises)?;
        let limit = self
            .process_of(image)
            .and_then(|it| descriptors::limit(&it));
        Some(DescriptorBalance { limit, ..balance })
    }

    /// Counts what processes have open, if it is time.
    pub(super) fn count_descriptors(&mut self) {
        let is_due = self.balance.opened.is_due(Instant::now());
        if !is_due || !self.engine.object.is_active() {
            return;
        }
        let images: Vec<_> = self.running_images().take(MAX_PROCESSES).collect();
        let processes: Vec<_> = images
            .into_iter()
            .filter_map(|image| Some((image.id, self.process_of(image)?)))
            .collect();
        let processes = processes.iter().map(|(image, process)| (*image, process));
        self.balance.opened.count(processes);
    }

    /// The accounts of control groups.
    pub(super) fn cgroup_balances(&self) -> Vec<CgroupBalance> {
        let traced: HashSet<u32> = self.running_images().map(|image| image.pid).collect();
        let balance = |(group, start, end): &(Cgroup, Charged, Option<Charged>)| {
            let others = group.pids().into_iter().filter(|pid| !traced.contains(pid));
            let end = (*end).or_else(|| group.charged())?;
            Some(CgroupBalance {
                path: group.path.clone(),
                start: start.all,
                end: end.all,
                growth: change(start.all, end.all),
                processes: change(start.processes, end.processes),
                shared: change(start.shared, end.shared),
                page_cache: change(start.page_cache, end.page_cache),
                kernel: change(start.kernel, end.kernel),
                untraced: others.count() as u64,
            })
        };
        self.balance.cgroups.values().filter_map(balance).collect()
    }

    /// What bounds the memory of the processes, which have these accounts.
    pub(super) fn limits(&self, balances: &[Balance]) -> Vec<MemoryLimit> {
        let used = balances.iter().map(|balance| balance.resident_end);
        let used = used.fold(0, u64::saturating_add);
        let asked = self.options.limit.map(|bytes| MemoryLimit {
            name: "--limit".to_owned(),
            bytes,
            left: bytes.saturating_sub(used),
        });
        let groups = self.balance.cgroups.values();
        let groups = groups.filter_map(|(group, ..)| group.limit());
        asked
            .into_iter()
            .chain(groups)
            .chain(machine::memory())
            .collect()
    }

    /// Whether a look at all pages takes so little that it may be taken during the run.
    pub(super) fn looks_are_cheap(&self) -> bool {
        let looks = self.balance.before.values().map(|look| look.took);
        looks.sum::<Duration>() <= CHEAP
    }

    /// Looks at all processes that run, while the run goes on.
    pub(super) fn looks_now(&self) -> HashMap<u64, Look> {
        self.look_at_all(Some(START), true)
    }

    /// A look at each process that runs: with its pages if there is a time for that,
    /// and `closer` with what the end of a run asks for.
    fn look_at_all(&self, budget: Option<Duration>, closer: bool) -> HashMap<u64, Look> {
        let deadline = budget.map(|budget| Instant::now() + budget);
        let mut known: Vec<_> = self
            .running_images()
            .filter_map(|image| {
                let process = self.process_of(image)?;
                let account = Account::glance(&process).ok()?;
                Some((account.resident, image.id, process))
            })
            .collect();
        known.sort_by_key(|(resident, ..)| Reverse(*resident));
        known.truncate(MAX_PROCESSES);
        let most = match self.options.growth {
            true => MAX_PROCESSES,
            false => MAX_LOOKS,
        };
        let mut looks = HashMap::new();
        let mut room = MAX_CHUNKS;
        for (number, (_, image, process)) in known.into_iter().enumerate() {
            let look = match deadline.filter(|_| number < most) {
                Some(deadline) => Look::take(&process, deadline, &mut room),
                None => Look::glance(&process),
            };
            // One that is gone has nothing in memory.
            let Ok(mut look) = look else {
                continue;
            };
            if closer {
                look.look_closer(&process);
            }
            looks.insert(image, look);
        }
        looks
    }

    pub(super) fn running_images(&self) -> impl Iterator<Item = &Image> {
        let images = self.images.iter();
        images.filter(|image| image.ended.is_none())
    }

    pub(super) fn process_of(&self, image: &Image) -> Option<ProcessHandle> {
        let code = self.images.code(image)?;
        Some(code.process().clone())
    }

    /// Where a JVM keeps compiled code.
    pub(super) fn java_code_ranges(&self, image: &Image) -> Vec<Range<u64>> {
        let mut machines = self.java.jvms.readable();
        let machine = machines.find(|(id, _)| *id == image.id);
        machine.map_or(Vec::new(), |(_, jvm)| {
            let heaps = jvm.places.heaps.iter();
            heaps.map(|heap| heap.reserved.clone()).collect()
        })
    }

    fn facts<'a>(&'a self, image: &Image, after: &'a Look, blocks: Vec<LiveBlock>) -> Facts<'a> {
        let before = self.balance.before.get(&image.id);
        let uncharged = image.ledger.uncharged();
        let mut mapped: Vec<_> = image.ledger.ranges().chain(uncharged.others()).collect();
        mapped.sort_unstable_by_key(|range| range.start);
        let is_forked = before.is_none() && image.parent != 0;
        Facts {
            before,
            after,
            mapped,
            allocators: uncharged.allocators().collect(),
            parent: is_forked.then(|| self.parent_before(image)).flatten(),
            java_heap: image.java_heap.clone(),
            java_code: self.java_code_ranges(image),
            blocks,
            is_sampled: self.engine.object.sampling.is_on() || self.has_sampler(image.id),
            leaves_out: self.engine.object.leaves_out() || self.has_sampler(image.id),
            is_forked,
        }
    }

    /// The look at the start at the process that an image was forked from, maybe
    /// through others that began during the run too.
    pub(super) fn parent_before(&self, image: &Image) -> Option<&Look> {
        let mut parent = image.parent;
        for _ in 0..MAX_ANCESTORS {
            if let Some(look) = self.balance.before.get(&parent) {
                return look.pages.as_ref().map(|_| look);
            }
            let index = self.images.index_of(parent)?;
            parent = self.images.get(index)?.parent;
        }
        None
    }

    /// The live blocks of processes whose pages were looked at, in order.
    fn blocks_of(&self, looks: &HashMap<u64, Look>) -> Result<HashMap<u64, Vec<LiveBlock>>> {
        let mut blocks: HashMap<u64, Vec<LiveBlock>> = looks
            .iter()
            .filter(|(_, look)| look.pages.is_some())
            .map(|(image, _)| (*image, Vec::new()))
            .collect();
        if blocks.is_empty() {
            return Ok(blocks);
        }
        let sampling = self.engine.object.sampling;
        let mut add = |key: BlockKey, block: Block| {
            if let Some(blocks) = blocks.get_mut(&key.image)
                && key.address < ADDRESSES
            {
                let is_certain = block.certain != 0 || !sampling.is_on();
                let estimate = match stated::is_word(block.certain) {
                    true => Estimate::of_sample(block.size, block.certain),
                    false => Estimate::of_block(block.size, is_certain, &sampling),
                };
                blocks.push(LiveBlock {
                    address: key.address,
                    size: block.size,
                    stands_for: estimate.count,
                });
            }
        };
        self.engine.object.for_each_live(&mut add)?;
        self.engine.object.for_each_in_flight(&mut add)?;
        blocks
            .values_mut()
            .for_each(|blocks| blocks.sort_unstable_by_key(|block| block.address));
        Ok(blocks)
    }

    /// Names the files that have most pointers into what grew.
    fn find_owners(&self, image: &Image, look: &Look, balance: &mut Balance) {
        let (Some(process), Some(pages)) = (self.process_of(image), &look.pages) else {
            return;
        };
        let grown = balance.grown.iter_mut();
        let unknown: Vec<_> = grown.filter(|mapping| mapping.name.is_empty()).collect();
        if unknown.is_empty() {
            return;
        }
        let Ok(memory) = process.open_proc("mem") else {
            return;
        };
        let ranges: Vec<_> = unknown.iter().map(|it| it.start..it.end).collect();
        let owners = owner::find(&memory, &look.mappings, &pages.present, &ranges);
        for (mapping, owner) in unknown.into_iter().zip(owners) {
            mapping.owner = owner;
        }
    }
}

/// The process of a report that an image is one of, or the one that it is itself.
pub(super) fn row_of(image: &Image, rows: &[(u64, usize)], processes: &[Process]) -> Option<usize> {
    let row = rows.iter().find(|(id, _)| *id == image.id);
    let alone = || {
        let mut processes = processes.iter();
        processes.position(|process| process.pid == image.pid)
    };
    row.map(|(_, row)| *row).or_else(alone)
}
