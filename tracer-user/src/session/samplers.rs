//! Processes that take samples of their allocations themselves: what their samplers tell
//! is in the place of their allocators' probes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use tracer_ebpf::block::{BlockKey, OTHERS};
use tracer_ebpf::operand::Operand;
use tracer_ebpf::stated;
use tracer_ebpf::usdt::{MAX_ARGUMENTS, MAX_TEXTS, Place, PlaceKey, TextArguments, tells};

use super::Session;
use super::left_alone::Notice;
use crate::attach::allocator::Allocator;
use crate::attach::probes::Scope;
use crate::attach::sampler::{self, Found, OWN, Sampler};
use crate::kernel::link::cookies;
use crate::kernel::object::SystemCalls;
use crate::kernel::program::Programs;
use crate::kernel::tables::wait_for_programs;
use crate::process::code::CodeMapping;
use crate::process::maps::FileId;
use crate::visible::clean;

/// What is known of samplers.
#[derive(Default)]
pub(super) struct Samplers {
    /// The one of each image that has one.
    pub(super) of_image: HashMap<u64, Used>,
    /// What each file that was looked at has.
    pub(super) files: HashMap<FileId, Found>,
    /// The numbers of a file's places.
    pub(super) numbers: HashMap<FileId, Vec<u32>>,
    /// Whose probes are in place, and where they fire.
    placed: Vec<(Scope, Arc<Sampler>)>,
    /// The files of those that are libraries.
    pub(super) libraries: HashSet<FileId>,
    /// Problems that were said, of files.
    said: HashSet<FileId>,
    /// Images whose allocators were probed before: calls of then may have ended since.
    taken_over: Vec<u64>,
}

/// The sampler of an image.
pub(super) struct Used {
    pub(super) sampler: Arc<Sampler>,
    /// Others that it has, which would tell of the same allocations.
    pub(super) others: Vec<String>,
    /// Where its places are, on kernels where probes do not say it.
    places: Vec<PlaceKey>,
}

impl Samplers {
    /// Forgets what is probed in a scope, whose probes fire no more.
    pub(super) fn uncover(&mut self, scope: Scope) {
        self.placed.retain(|(placed, _)| *placed != scope);
        if let Some(pid) = scope.pid() {
            self.of_image
                .retain(|image, _| tracer_ebpf::thread::image_pid(*image) != pid);
        }
    }

    /// The samplers whose probes are in place.
    pub(super) fn placed(&self) -> &[(Scope, Arc<Sampler>)] {
        &self.placed
    }
}

impl Session {
    /// Whether a process takes samples itself; if so, its sampler's probes are in place.
    ///
    /// # Errors
    /// Fails if they cannot be placed.
    pub(super) fn use_sampler(&mut self, pid: u32) -> Result<bool> {
        let is_asked_for = !self.options.no_samplers && !self.origins.are_asked_for();
        if !is_asked_for || self.options.programs != Programs::Counting {
            return Ok(false);
        }
        if self.options.budget.is_some() {
            self.leave_to_bursts(pid);
            return Ok(false);
        }
        let current = self.images.current(pid).and_then(|at| self.images.get(at));
        let Some(image) = current.map(|image| image.id) else {
            return Ok(false);
        };
        if self.samplers.of_image.contains_key(&image) {
            return Ok(true);
        }
        let Some((sampler, others)) = self.find_sampler(pid) else {
            return Ok(false);
        };
        self.begin_sampler(pid, image, &sampler, others)?;
        Ok(true)
    }

    /// Says that a process's sampler is not used: bursts are of allocators' probes.
    fn leave_to_bursts(&mut self, pid: u32) {
        let Some((sampler, _)) = self.find_sampler(pid) else {
            return;
        };
        if self.samplers.said.insert(sampler.file.mapped) {
            let text = format!(
                "process {pid} takes samples of its allocations itself, by {}: with --overhead they are not used, and its allocators are probed; without it they cost next to nothing",
                sampler.describe()
            );
            self.notices.push(Notice::Remark(clean(&text).into_owned()));
        }
    }

    /// The sampler of a process to go by, and others that it has.
    fn find_sampler(&mut self, pid: u32) -> Option<(Arc<Sampler>, Vec<String>)> {
        let code = self.images.current_code(pid)?;
        let files = &mut self.samplers.files;
        let found = sampler::find(code, |file, mapping| {
            let known = files.entry(file.mapped);
            known
                .or_insert_with(|| sampler::in_file(file, &mapping.display_name()))
                .clone()
        });
        let mut samplers = Vec::new();
        for (file, found) in found {
            match found {
                Found::Sampler(sampler) => samplers.push(sampler),
                Found::Unusable(why) if self.samplers.said.insert(file) => {
                    let text = format!("the sampler of process {pid} is not used: {why}");
                    self.notices
                        .push(Notice::Warning(clean(&text).into_owned()));
                }
                _ => {}
            }
        }
        // Ours sees what the others choose from, too.
        let own = samplers.iter().position(|it| it.path.contains(OWN));
        if samplers.is_empty() {
            return None;
        }
        let used = samplers.remove(own.unwrap_or(0));
        let others = samplers.iter().map(|it| it.describe()).collect();
        Some((used, others))
    }

    fn begin_sampler(
        &mut self,
        pid: u32,
        image: u64,
        sampler: &Arc<Sampler>,
        others: Vec<String>,
    ) -> Result<()> {
        let scope = self.scope(pid);
        let numbers = self.numbers_of(sampler)?;
        let places = self.tell_places(pid, image, sampler, &numbers)?;
        let is_placed = |(placed, known): &(Scope, Arc<Sampler>)| {
            *placed == scope && known.file.mapped == sampler.file.mapped
        };
        if !self.samplers.placed.iter().any(is_placed) {
            let guarded = sampler.place(&mut self.engine.object, scope, &numbers)?;
            self.engine.probes.guard(guarded);
            self.samplers.placed.push((scope, Arc::clone(sampler)));
        }
        let code = self.images.current_code(pid);
        if !code.is_some_and(|code| code.is_program_file(sampler.file.mapped)) {
            self.samplers.libraries.insert(sampler.file.mapped);
        }
        self.engine.object.note_sampler(image)?;
        self.take_over(scope, image)?;
        let used = Used {
            sampler: Arc::clone(sampler),
            others,
            places,
        };
        if self.engine.object.is_active() {
            let text = format!(
                "process {pid} takes samples of its allocations itself, by {}",
                sampler.describe()
            );
            self.notices.push(Notice::Remark(clean(&text).into_owned()));
        }
        self.samplers.of_image.insert(image, used);
        Ok(())
    }

    fn numbers_of(&mut self, sampler: &Sampler) -> Result<Vec<u32>> {
        if let Some(known) = self.samplers.numbers.get(&sampler.file.mapped) {
            return Ok(known.clone());
        }
        let spots = sampler.spots();
        let numbers = spots
            .map(|spot| self.engine.object.samplers.add(spot.operands))
            .collect::<Result<Vec<_>>>()?;
        let known = (sampler.file.mapped, numbers.clone());
        self.samplers.numbers.insert(known.0, known.1);
        Ok(numbers)
    }

    /// Where probes have no cookies: tells the kernel side by their addresses which they
    /// are.
    fn tell_places(
        &mut self,
        pid: u32,
        image: u64,
        sampler: &Sampler,
        numbers: &[u32],
    ) -> Result<Vec<PlaceKey>> {
        let mut keys = Vec::new();
        if cookies() {
            return Ok(keys);
        }
        let Some(code) = self.images.current_code(pid) else {
            return Ok(keys);
        };
        let own = code
            .current()
            .filter(|mapping| mapping.range.file == sampler.file.mapped);
        let own: Vec<CodeMapping> = own.cloned().collect();
        for (spot, number) in sampler.spots().zip(numbers) {
            for mapping in &own {
                let into = spot.offset.checked_sub(mapping.range.file_offset.0);
                let address = into.and_then(|into| mapping.range.start.0.checked_add(into));
                let Some(ip) = address.filter(|at| *at < mapping.range.end.0) else {
                    continue;
                };
                let key = PlaceKey { image, ip };
                self.engine.object.usdt.watch(key, &place(*number)?)?;
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Takes the probes of allocators away that only this scope has, and follows no
    /// longer what they told of an image: nobody will tell of its end.
    fn take_over(&mut self, scope: Scope, image: u64) -> Result<()> {
        if scope != Scope::Everyone {
            self.engine.probes.give_up_allocators(scope);
            self.engine.placed.retain(|placed| placed.scope != scope);
        }
        if self.engine.object.is_active() {
            self.lose_track_of(&[image])?;
            // Of calls that are under way there may be more.
            self.samplers.taken_over.push(image);
        }
        Ok(())
    }

    /// Looks once more for what calls have left that were under way when a sampler was
    /// found.
    pub(super) fn finish_taking_over(&mut self) -> Result<()> {
        match std::mem::take(&mut self.samplers.taken_over) {
            none if none.is_empty() => Ok(()),
            images => self.lose_track_of(&images),
        }
    }

    fn lose_track_of(&mut self, images: &[u64]) -> Result<()> {
        wait_for_programs();
        let mut blocks = Vec::new();
        self.engine.object.for_each_block(|key: BlockKey, block| {
            let is_exact = !stated::is_word(block.certain) && key.address < OTHERS;
            if is_exact && images.contains(&key.image) {
                blocks.push((key, block));
            }
        })?;
        self.engine.object.lose_track(&blocks)?;
        self.engine.losses.taken_over += blocks.len() as u64;
        Ok(())
    }

    /// Notes an allocator of a process whose sampler tells what it allocates: its calls of
    /// the kernel are its own, and it gets no probes but those that tell of mappings
    /// where the kernel does not.
    pub(super) fn note_allocator(&mut self, pid: u32, allocator: &Allocator) -> Result<()> {
        self.engine.probes.know(allocator);
        if self.engine.object.system_calls() == SystemCalls::None {
            let mappings = allocator.with_mappings_only();
            if !mappings.functions.is_empty() {
                self.probe(pid, &mappings)?;
            }
        }
        Ok(())
    }

    /// Takes breakpoints out of untraced children; see `Probes::release_children`.
    pub(super) fn release_from_samplers(&mut self) {
        for (scope, sampler) in self.samplers.placed() {
            // If the process is gone, so are the breakpoints.
            if let Ok(links) = sampler.place_empty(&mut self.engine.object, *scope) {
                std::thread::spawn(move || drop(links));
            }
        }
    }

    /// An image has ended.
    pub(super) fn forget_sampler(&mut self, image: u64) {
        self.engine.object.samplers.forget(image);
        if let Some(used) = self.samplers.of_image.get_mut(&image) {
            for key in used.places.drain(..) {
                self.engine.object.usdt.forget(key);
            }
        }
    }
}

/// A place that has this number, and tells nothing else.
fn place(number: u32) -> Result<Place> {
    Ok(Place {
        hits: 0,
        probe: u16::try_from(number)?,
        tells: tells::NOTHING,
        texts: [TextArguments::NONE; MAX_TEXTS],
        operands: [Operand::default(); MAX_ARGUMENTS],
    })
}
