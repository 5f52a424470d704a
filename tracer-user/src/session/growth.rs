//! Growth without probes (`--growth`): whose pages came into memory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::block::{PAGE, page_of};
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::hits::Kind;

use super::Session;
use super::balance::look::Look;
use super::balance::row_of;
use super::balance::settle::of_accounts;
use super::faults::FaultsState;
use crate::model::Process;
use crate::model::balance::{Balance, GrownMapping, Part, PartName, change};
use crate::model::pages::PageKind;
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::resident::Residents;
use crate::targets::images::Image;
use crate::targets::touched::{Pages, Touch, Touched, given_back, inherited, settle, swapped_in};
use crate::window::collect::PagesOfImages;

/// How often it is looked whether there is room for pages, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// The same if what tracing costs is bounded: all pages are looked at.
const PAUSE_WITHIN_BUDGET: Duration = Duration::from_secs(10);

/// Of a range that is moved so many pages are looked at for each that is known.
const SPARSE: u64 = 16;

/// Mappings that are told, at most.
const MAX_GROWN: usize = 4;

/// What is kept of it between reports.
#[derive(Debug, Default)]
pub(super) struct GrowthState {
    /// When room was looked for.
    looked: Option<Instant>,
}

/// What is known of the pages of all processes at a moment.
#[derive(Default)]
pub(super) struct GrownPages {
    /// Whose the new pages are.
    pub(super) sites: PagesOfImages,
    /// The balance of each image.
    balances: HashMap<u64, Balance>,
    /// What was given back of what was touched.
    gone: Vec<(u64, Touch)>,
    /// Whether it was looked for.
    pub(super) is_told: bool,
}

impl Session {
    /// Whose the pages are that are in memory in these looks and were not at the start.
    pub(super) fn grown_pages(&self, after: &HashMap<u64, Look>) -> Result<GrownPages> {
        let mut grown = GrownPages {
            is_told: true,
            ..GrownPages::default()
        };
        let mut touches = self.touches()?;
        touches.values_mut().for_each(|own| own.sort_unstable());
        for (id, look) in after {
            let Some(image) = self.images.index_of(*id).and_then(|at| self.images.get(at)) else {
                continue;
            };
            let (mut balance, touched) = self.grown_pages_of(image, look, &touches);
            balance.descriptors = self.descriptors_of(image, look);
            grown.balances.insert(*id, balance);
            grown.sites.insert(*id, touched.sites);
            let gone = touched.gone.into_iter();
            grown.gone.extend(gone.map(|touch| (*id, touch)));
        }
        Ok(grown)
    }

    /// The same at the end of the run, or now.
    pub(super) fn grown_until_now(&self) -> Result<GrownPages> {
        match &self.balance.after {
            _ if !self.options.follows_pages() => Ok(GrownPages::default()),
            Some(after) => self.grown_pages(after),
            None if self.options.has_phases() && !self.looks_are_cheap() => {
                Ok(GrownPages::default())
            }
            None => self.grown_pages(&self.looks_now()),
        }
    }

    /// The balances of processes that run, largest growth first; `rows` are as for
    /// [`Session::balances`].
    pub(super) fn balances_of_pages(
        &self,
        grown: GrownPages,
        rows: &[(u64, usize)],
        processes: &[Process],
    ) -> Vec<Balance> {
        let mut balances = grown.balances;
        let balance = |image: &Image| {
            let balance = balances.remove(&image.id)?;
            Some(Balance {
                process: row_of(image, rows, processes)?,
                pid: image.pid,
                ..balance
            })
        };
        let mut balances: Vec<_> = self.running_images().filter_map(balance).collect();
        balances.sort_by_key(|balance| Reverse(balance.growth.unsigned_abs()));
        balances
    }

    /// What was touched, by image.
    fn touches(&self) -> Result<HashMap<u64, Vec<Touch>>> {
        let mut touches: HashMap<u64, Vec<Touch>> = HashMap::new();
        self.engine.object.for_each_block(|key, block| {
            if let Some(address) = page_of(key.address) {
                touches.entry(key.image).or_default().push(Touch {
                    address,
                    time: block.time,
                    site: block.site,
                });
            }
        })?;
        Ok(touches)
    }

    fn grown_pages_of(
        &self,
        image: &Image,
        look: &Look,
        touches: &HashMap<u64, Vec<Touch>>,
    ) -> (Balance, Touched) {
        let nothing = Residents::nothing();
        let own = self.balance.before.get(&image.id);
        let is_forked = own.is_none() && image.parent != 0;
        let before = own.or_else(|| is_forked.then(|| self.parent_before(image)).flatten());
        let of_parent = touches.get(&image.parent).filter(|_| is_forked);
        let mut balance = of_accounts(own, look);
        let (Some(before), Some(after)) = (
            before.map_or(Some(&nothing), |look| look.pages.as_ref()),
            &look.pages,
        ) else {
            balance.explain([]);
            return (balance, Touched::default());
        };
        let pages = Pages {
            before,
            after,
            as_of: look.began,
            mapped: self.kinds_of(image, look),
            touches: touches.get(&image.id).map_or(&[], Vec::as_slice),
            inherited: of_parent.map_or(Vec::new(), |all| inherited(all, image.began)),
            has_gaps: self.faults.as_ref().is_some_and(FaultsState::has_gaps),
        };
        let touched = settle(&pages);
        balance.older = before.present.with(&after.present, &(0..u64::MAX));
        balance.explain(parts(&pages, &touched, is_forked.then_some(balance.older)));
        balance.grown = untold(look, &pages, &touched);
        if !before.is_whole || !after.is_whole {
            let problem = "not all pages could be looked at in the time and the memory that there are: some that were touched may have been given back";
            balance.problem = Some(problem.to_owned());
        }
        (balance, touched)
    }

    /// What is mapped, with the kind of each part.
    fn kinds_of(&self, image: &Image, look: &Look) -> Vec<(Range<u64>, PageKind)> {
        let java = self.java_ranges(image);
        let mut parts = Vec::new();
        for mapping in &look.mappings {
            let kind = kind_of(mapping, &look.stacks);
            if let Some(kind) = kind {
                cut(&mapping.range, kind, &java, &mut parts);
            }
        }
        parts
    }

    /// What a JVM has of an image's memory, in order.
    fn java_ranges(&self, image: &Image) -> Vec<(Range<u64>, PageKind)> {
        let heap = image.java_heap.iter().cloned();
        let code = self.java_code_ranges(image).into_iter();
        let mut ranges: Vec<_> = heap
            .map(|range| (range, PageKind::JavaHeap))
            .chain(code.map(|range| (range, PageKind::JavaCode)))
            .collect();
        ranges.sort_by_key(|(range, _)| range.start);
        ranges
    }

    /// Moves pages that a process has moved by `mremap`. Whether the event told so.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub(super) fn move_pages(&mut self, event: &Event) -> Result<bool> {
        if event.kind != EventKind::PagesMove as u32 {
            return Ok(false);
        }
        let old = event.address / PAGE * PAGE;
        let pages = event.length.div_ceil(PAGE);
        // Whoever moves addresses without end has not touched most of them.
        let known = self.engine.object.page_count();
        for number in 0..pages.min(known.saturating_mul(SPARSE)) {
            let from = old.saturating_add(number * PAGE);
            let to = event.other.saturating_add(number * PAGE);
            let object = &self.engine.object;
            object.move_page(event.image, from, to, event.time)?;
        }
        Ok(true)
    }

    /// Takes out what was given back, if room for more pages is short.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub(super) fn make_room_for_pages(&mut self) -> Result<()> {
        let pause = match &self.faults {
            Some(_) => PAUSE_WITHIN_BUDGET,
            None => PAUSE,
        };
        let rested = self.growth.looked.is_none_or(|at| at.elapsed() >= pause);
        let half = u64::from(self.options.sizes.live) / 2;
        // There are no more pages than faults, which are counted already.
        let faults = self.engine.object.handed_over()[Kind::Fault as usize].hits;
        if !self.options.follows_pages() || !rested || faults <= half {
            return Ok(());
        }
        if self.engine.object.page_count() > half {
            self.growth.looked = Some(Instant::now());
            self.take_out_given_back()?;
        }
        let is_full = self.engine.object.page_count() > half;
        if let Some(faults) = &mut self.faults {
            // Blocks want room too.
            faults.note_room(is_full);
        }
        Ok(())
    }

    fn take_out_given_back(&self) -> Result<()> {
        let grown = self.grown_pages(&self.looks_now())?;
        let gone = grown.gone.iter();
        gone.map(|(image, touch)| (*image, touch.address, touch.site))
            .try_for_each(|(image, address, site)| {
                self.engine.object.give_back(image, address, site)
            })
    }
}

/// What kind of memory a mapping is; none if it is the kernel's.
fn kind_of(mapping: &Mapping, stacks: &[u64]) -> Option<PageKind> {
    Some(match mapping.kind {
        MappingKind::Kernel => return None,
        MappingKind::Heap => PageKind::Heap,
        MappingKind::Stack => PageKind::Stack,
        MappingKind::File => PageKind::File,
        MappingKind::Shared => PageKind::SharedMemory,
        MappingKind::Anonymous => {
            let is_stack = stacks.iter().any(|at| mapping.range.contains(at));
            match is_stack {
                true => PageKind::Stack,
                false => PageKind::Anonymous,
            }
        }
    })
}

/// Adds a mapping in parts: those that `others` have, which are in order, are theirs.
fn cut(
    range: &Range<u64>,
    kind: PageKind,
    others: &[(Range<u64>, PageKind)],
    parts: &mut Vec<(Range<u64>, PageKind)>,
) {
    let mut at = range.start;
    for (other, own) in others {
        let (start, end) = (other.start.max(at), other.end.min(range.end));
        if start >= end {
            continue;
        }
        if at < start {
            parts.push((at..start, kind));
        }
        parts.push((start..end, *own));
        at = end;
    }
    if at < range.end {
        parts.push((at..range.end, kind));
    }
}

/// What explains a growth. `older` is what a forked process had from the start.
fn parts(pages: &Pages<'_>, touched: &Touched, older: Option<u64>) -> Vec<Part> {
    let signed = |bytes: u64| change(0, bytes);
    let all = touched.sites.values();
    let (bytes, around) = all.fold((0, 0), |(bytes, around), sums| {
        (bytes + sums.bytes(), around + sums.around)
    });
    let (given_back, swapped_out) = match older {
        // What its parent had is no loss of its own.
        Some(_) => (0, 0),
        None => given_back(pages.before, pages.after),
    };
    let swapped = signed(swapped_in(pages.before, pages.after)) - signed(swapped_out);
    let untold: u64 = touched.untold.values().sum();
    let part = |name, bytes| Part { name, bytes };
    vec![
        part(
            PartName::Inherited,
            signed(touched.inherited + older.unwrap_or(0)),
        ),
        part(PartName::FirstTouched, signed(bytes - around)),
        part(PartName::BroughtAlong, signed(around)),
        part(PartName::Untold, signed(untold)),
        part(PartName::NotFollowed, signed(touched.not_followed)),
        part(PartName::GivenBack, -signed(given_back)),
        part(PartName::Swapped, swapped),
    ]
}

/// The mappings with most pages whose coming was not told of.
fn untold(look: &Look, pages: &Pages<'_>, touched: &Touched) -> Vec<GrownMapping> {
    let mapping = |(number, bytes): (&usize, &u64)| {
        let (range, _) = pages.mapped.get(*number)?;
        let mut mappings = look.mappings.iter();
        let mapped = mappings.find(|mapping| mapping.range.contains(&range.start))?;
        Some(GrownMapping {
            start: range.start,
            end: range.end,
            growth: *bytes,
            name: mapped.name.clone(),
            ..GrownMapping::default()
        })
    };
    let mut grown: Vec<_> = touched.untold.iter().filter_map(mapping).collect();
    grown.sort_by_key(|mapping| Reverse(mapping.growth));
    grown.truncate(MAX_GROWN);
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_cut_where_a_jvm_has_a_part_of_it() {
        let others = [
            (10..20, PageKind::JavaHeap),
            (30..40, PageKind::JavaCode),
            (90..95, PageKind::JavaCode),
        ];
        let mut parts = Vec::new();
        cut(&(15..35), PageKind::Anonymous, &others, &mut parts);
        cut(&(50..60), PageKind::Heap, &others, &mut parts);
        assert_eq!(
            parts,
            [
                (15..20, PageKind::JavaHeap),
                (20..30, PageKind::Anonymous),
                (30..35, PageKind::JavaCode),
                (50..60, PageKind::Heap),
            ]
        );
    }
}
