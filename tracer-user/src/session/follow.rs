//! Following what happens during a run: new code, forks, execs and exits.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::event::Event;
use tracer_ebpf::thread::image_pid;

use super::Session;
use super::java_objects::Watch;
use super::jvms::{HeapSource, Watched};
use super::names::Sources;
use super::target::Target;
use crate::attach::allocator::{self, Allocator, InFile};
use crate::attach::probes::Scope;
use crate::kernel::link::Road;
use crate::model::ProcessEnd;
use crate::process::clock::monotonic_ns;
use crate::process::maps::MappingName;
use crate::process::processor_time::Work;
use crate::process::watch::CodeEvent;
use crate::tables::JavaCode;
use crate::targets::images::Change;
use crate::targets::share::Ages;
use crate::window::collect::{Cutoff, last_heaps};

/// How often children are freed from probes, at most: the kernel looks into
/// every process that maps the allocator.
const RELEASE: Duration = Duration::from_secs(1);

/// How long ended images wait until they leave their blocks: at least this, and for so many times
/// the processor time that it took last, but not longer than this, nor if so many wait.
const SETTLE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
const SETTLING_TAKES: u32 = 1000;
const CROWD: usize = 64;

/// How often a process's mappings are looked at in a row, while they change.
const LOOKS: usize = 8;

impl Session {
    /// Reads what happened since the last call.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn poll(&mut self) -> Result<()> {
        self.engine.object.flush_log();
        // Right before: what it places would go over a hook.
        self.guard_code();
        self.release_children();
        self.java.jvms.poll();
        self.java.jvms.find_heaps(&mut self.images);
        self.java.native.begin(&self.java.jvms);
        self.java.codes.drain(&mut self.engine.object);
        let mut sources = Sources {
            jvms: &mut self.java.jvms,
            codes: &self.java.codes,
            pythons: &mut self.java.pythons,
            javascripts: &mut self.java.javascripts,
            images: &self.images,
            tables: &self.engine.tables,
        };
        self.java.names.poll(&self.engine.object, &mut sources);
        self.poll_code()?;
        if self.options.threads {
            self.threads
                .poll(&self.engine.object, &self.images, &self.java.jvms);
        }
        self.note_orphans();
        self.look_at_configurations()?;
        let gone: Vec<_> = self
            .images
            .running()
            .filter(|index| !self.is_alive(*index))
            .collect();
        if !gone.is_empty() {
            // Their last events, which may say that an image was replaced.
            self.drain_code()?;
            self.drain_events()?;
            self.note_exits(&gone)?;
        }
        self.settle_ended(false)?;
        self.take_curves();
        self.finish_taking_over()?;
        self.look_at_mappings(false);
        self.make_room_for_pages()?;
        self.make_room()
    }

    /// Reads what happened to code since the last call, which must not wait:
    /// until the kernel side knows new code, stacks end there.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn poll_code(&mut self) -> Result<()> {
        self.drain_code()?;
        self.drain_events()?;
        self.publish_code();
        self.probe_machines();
        self.drain_machines();
        self.java.codes.drain(&mut self.engine.object);
        Ok(())
    }

    /// The same for a program that waits meanwhile: tables are built first,
    /// as far as they are within `patience`.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn settle_code(&mut self, patience: Duration) -> Result<()> {
        self.poll_code()?;
        self.engine.tables.settle(patience);
        self.unpublished
            .extend(self.engine.tables.pending().into_iter().map(image_pid));
        self.publish_code();
        Ok(())
    }

    /// Frees children that were forked since the last time from the probes.
    fn release_children(&mut self) {
        let forks = self.engine.object.forks.get(0).unwrap_or(0);
        let (known, at) = self.engine.released;
        if self.engine.object.road() == Road::Multi && forks != known && at.elapsed() >= RELEASE {
            self.engine.probes.release_children(&mut self.engine.object);
            self.release_from_samplers();
            self.engine.released = (forks, Instant::now());
        }
    }

    pub(super) fn drain_code(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        let (images, follow, losses) = (
            &mut self.images,
            self.options.follow,
            &mut self.engine.losses,
        );
        let tables = &mut self.engine.tables;
        self.engine.watch.drain(&mut |event| {
            let mut place = None;
            match &event {
                CodeEvent::Lost { count, .. } => losses.code_events += count,
                CodeEvent::Map {
                    pid,
                    time_ns,
                    range,
                } => place = Some((*pid, range.start, *time_ns)),
                _ => {}
            }
            changes.push(images.apply_code(event, follow));
            // It may be gone before the process's mappings are looked at.
            if let Some((pid, start, time)) = place
                && let Some(code) = images.current_code(pid)
            {
                tables.request(code.find(start, time).into_iter());
            }
        });
        let mut pids: Vec<u32> = changes
            .into_iter()
            .filter_map(|change| {
                if let Change::NewCode(pid) = change {
                    Some(pid)
                } else {
                    None
                }
            })
            .collect();
        pids.sort_unstable();
        pids.dedup();
        self.unpublished.extend(&pids);
        self.java.machines.look_at(&pids);
        self.guard_changed(&pids);
        for pid in pids {
            self.reconsider_or_give_up(pid)?;
            let probed = self.probe_new_code(pid);
            self.or_give_up(pid, probed)?;
        }
        Ok(())
    }

    /// Tells the kernel side of code that is new, or whose table is.
    pub(super) fn publish_code(&mut self) {
        let mut pids = std::mem::take(&mut self.unpublished);
        if self.engine.tables.settle(Duration::ZERO) {
            pids.extend(self.engine.tables.pending().into_iter().map(image_pid));
        }
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            self.publish_code_of(pid);
        }
    }

    /// Publishes a process's mappings once two looks agree, and looks until one after
    /// that agrees too: what changes then, the kernel side notices itself. What
    /// changes between the second look and the publishing it does not, for a
    /// moment, so that has to be short.
    pub(super) fn publish_code_of(&mut self, pid: u32) {
        let Some(index) = self.images.current(pid) else {
            return;
        };
        let (mut seen, mut published) = (None, None);
        for _ in 0..LOOKS {
            let Some(image) = self.images.get(index).map(|image| image.id) else {
                return;
            };
            let as_of = self.engine.tables.replaced(image);
            let Some(code) = self.images.look(index, monotonic_ns()) else {
                return;
            };
            let ranges: Vec<_> = code.iter().map(|mapping| mapping.range.clone()).collect();
            if published.as_ref() == Some(&ranges) {
                self.note_copied(pid);
                return;
            }
            if seen.as_ref() != Some(&ranges) {
                seen = Some(ranges);
                continue;
            }
            published = Some(ranges);
            self.publish_origins(index, image, &code);
            let java = self.java_code(index, image);
            if self
                .engine
                .tables
                .publish(image, &code, &java, as_of)
                .is_err()
            {
                self.engine.losses.unpublished += 1;
                return;
            }
        }
        // It changes all the time: look again at the next opportunity.
        self.unpublished.push(pid);
    }

    /// What the anonymous code of an image is, by its JVM.
    fn java_code(&mut self, index: usize, image: u64) -> JavaCode {
        let Some(code) = self.images.get(index).and_then(|at| self.images.code(at)) else {
            return JavaCode::None;
        };
        let scope = self.scope(image_pid(image));
        let mut watch = Watch {
            probes: &mut self.engine.probes,
            object: &mut self.engine.object,
            machines: &mut self.java.machines,
            own_probes: self.options.jvm_probes,
        };
        let (wants_heap, codes) = (!self.java.heaps.is_empty(), &mut self.java.codes);
        self.java.jvms.look(image, code, |jvm| {
            let (library, object) = (&jvm.library, &mut *watch.object);
            let freed_code = watch.probes.watch_freed_code(object, library, scope);
            if freed_code.is_ok() {
                codes.begin(image);
            }
            let heap = match wants_heap {
                true => watch.heap(image, jvm, scope),
                false => Ok(HeapSource::Samples),
            };
            Watched {
                freed_code: freed_code.is_ok(),
                heap: heap.map_err(|problem| format!("{problem:#}")),
            }
        })
    }

    /// Probes allocators that a process mapped after it was attached.
    fn probe_new_code(&mut self, pid: u32) -> Result<()> {
        if self.ended.is_some() || self.options.growth {
            return Ok(());
        }
        let scope = self.scope(pid);
        let uses_sampler = self.use_sampler(pid)?;
        let Some(code) = self.images.current_code(pid) else {
            return Ok(());
        };
        let mut found: Vec<Allocator> = Vec::new();
        let mut others = Vec::new();
        let declared = &self.options.allocators;
        for mapping in code.current() {
            let Ok(file) = &mapping.file else {
                continue;
            };
            let id = (file.mapped, code.is_program(mapping));
            if self.engine.probes.cover(scope, file.mapped)
                || (uses_sampler && self.engine.probes.knows(file.mapped))
            {
                continue;
            }
            // Each file is read once, however many processes map it.
            if let Some(stripped) = self.engine.without_allocator.get(&id) {
                let stripped = *stripped;
                others.extend(stripped.map(|name| (id.0, mapping.display_name(), name)));
                continue;
            }
            let other = match allocator::in_file(file, &mapping.display_name(), id.1, declared) {
                Ok(InFile::Allocator(allocator)) => {
                    found.push(allocator);
                    continue;
                }
                Ok(InFile::Nothing { has_symbols }) => allocator::stripped(file, has_symbols),
                Err(_) => None,
            };
            self.engine.without_allocator.insert(id, other);
            others.extend(other.map(|name| (id.0, mapping.display_name(), name)));
        }
        for (file, path, name) in others {
            self.note_stripped(scope, file, &path, name);
        }
        for allocator in found {
            if uses_sampler {
                self.note_allocator(pid, &allocator)?;
                continue;
            }
            if self.engine.probes.cover(scope, allocator.file.mapped) {
                continue;
            }
            match self.probe(pid, &allocator) {
                Ok(_) => self.note_late(pid),
                // The process may be gone by now.
                Err(error) if self.targets.iter().any(|t| t.pid == pid && t.is_alive()) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.engine.object.events.next()?;
            let event = tracer_ebpf::read_record::<Event>(&item);
            drop(item);
            if let Some(event) = event
                && !self.is_by_allocator(&event)
            {
                return Some(self.without_elsewhere(self.without_loaders(event)));
            }
        }
    }

    pub(super) fn drain_events(&mut self) -> Result<()> {
        let mut replaced = Vec::new();
        let mut orphaned = Vec::new();
        let mut fresh = Vec::new();
        while let Some(event) = self.next_event() {
            if self.move_pages(&event)? {
                continue;
            }
            match self.images.apply(&event) {
                Change::Replaced { index, by_thread } => {
                    replaced.push(index);
                    fresh.push(image_pid(event.other));
                    if by_thread {
                        orphaned.push(image_pid(event.other));
                    }
                }
                Change::NewCode(pid) => self.unpublished.push(pid),
                Change::Renamed { old, pid } => {
                    self.engine.tables.forget(old);
                    self.unpublished.push(pid);
                }
                Change::ReplacedCode(image) => {
                    let sharers = self.engine.tables.sharers(image);
                    self.unpublished.extend(sharers.into_iter().map(image_pid));
                    self.unpublished.push(image_pid(image));
                }
                Change::None => {}
            }
        }
        for pid in orphaned {
            let probed = self.probe_again(pid);
            self.or_give_up(pid, probed)?;
        }
        for pid in fresh {
            // What was hooked in the old image is not in the new one.
            let scope = self.scope(pid);
            if scope != Scope::Everyone && self.engine.probes.forgive(scope) {
                let probed = self.probe_new_code(pid);
                self.or_give_up(pid, probed)?;
            }
        }
        if replaced.is_empty() {
            Ok(())
        } else {
            self.retire(&replaced)
        }
    }

    /// Probes a process whose probes went with its first thread. What it
    /// allocated meanwhile is lost.
    fn probe_again(&mut self, pid: u32) -> Result<()> {
        let scope = self.scope(pid);
        if scope == Scope::Everyone {
            return Ok(());
        }
        self.engine.losses.late_allocators += 1;
        self.engine.probes.uncover(scope);
        self.samplers.uncover(scope);
        self.java.machines.uncover(scope);
        // Its frees are not told any more.
        self.java.codes.forget_process(pid);
        self.java.machines.look_at(&[pid]);
        self.probe_new_code(pid)
    }

    fn is_alive(&self, index: usize) -> bool {
        let Some(image) = self.images.get(index) else {
            return false;
        };
        // A later process may get a target's pid.
        let is_it = |target: &&Target| target.pid == image.pid && !target.has_ended();
        match self.targets.iter().find(is_it) {
            Some(target) => target.is_alive(),
            None => Target::find(image.pid).is_ok(),
        }
    }

    fn note_exits(&mut self, gone: &[usize]) -> Result<()> {
        let running: Vec<_> = self
            .images
            .running()
            .filter(|index| gone.contains(index))
            .collect();
        for index in &running {
            let time = self.images.exit_time(*index).unwrap_or_else(|| self.now());
            self.images.end(*index, time, ProcessEnd::Exited);
            if let Some(image) = self.images.get(*index) {
                let pid = image.pid;
                self.engine.object.dismiss(pid, image.id);
                let mut targets = self.targets.iter_mut();
                if let Some(target) = targets.find(|target| target.pid == pid) {
                    target.end();
                }
                self.guard_no_more(pid);
            }
            self.announce_end(*index);
        }
        self.retire(&running)
    }

    /// Remembers the ages of what was live when images ended, and frees their
    /// places in the kernel's map.
    pub(super) fn retire(&mut self, ended: &[usize]) -> Result<()> {
        self.drain_machines();
        for image in ended.iter().filter_map(|index| self.images.get(*index)) {
            self.engine.tables.forget(image.id);
            self.java.machines.retire(&mut self.engine.object, image.id);
            self.java.jvms.forget(image.id);
            self.java.pythons.forget(image.id);
            self.java.javascripts.forget(image.id);
            self.java.codes.forget(image.id);
            self.noted_copies.retain(|(noted, ..)| *noted != image.id);
        }
        let ids: Vec<u64> = ended
            .iter()
            .filter_map(|index| Some(self.images.get(*index)?.id))
            .collect();
        for image in ids {
            self.forget_sampler(image);
            self.forget_origins(image);
        }
        for index in ended {
            self.forget_signs(*index);
        }
        let unseen = ended
            .iter()
            .filter(|index| self.may_have_hidden_allocator(**index))
            .count();
        self.engine.losses.late_allocators += unseen as u64;
        self.leaving.next.extend_from_slice(ended);
        Ok(())
    }

    /// Has images that ended leave what they held to their groups, at most so
    /// often: all live blocks have to be read for that.
    pub(super) fn settle_ended(&mut self, at_once: bool) -> Result<()> {
        let leaving = &mut self.leaving.next;
        let nobody = leaving.is_empty() && self.leaving.kept.is_empty();
        let may_wait = !at_once && leaving.len() < CROWD;
        if nobody || (may_wait && self.leaving.at.elapsed() < self.leaving.rest) {
            return Ok(());
        }
        let work = Work::begin();
        let mut leaving = std::mem::take(leaving);
        let images = leaving.iter().filter_map(|index| self.images.get(*index));
        let ended: HashMap<u64, Cutoff> = images
            .filter(|image| image.group.is_some() && !image.has_left)
            .filter_map(|image| Some((image.id, self.cutoff(image.id, image.ended?.0))))
            .collect();
        let mut ages = self.retire_heaps(&ended)?;
        let ids: Vec<u64> = leaving
            .iter()
            .filter_map(|index| Some(self.images.get(*index)?.id))
            .collect();
        self.forget_the_childless(&ids)?;
        let ended = ids.iter().copied().collect();
        self.settle_internal_frees(&ended)?;
        self.settle_unseen_blocks(&ended)?;
        let makers: HashSet<u64> = self.engine.object.local_makers().collect();
        leaving.extend(std::mem::take(&mut self.leaving.kept));
        for index in leaving {
            let Some((id, pid)) = self.images.get(index).map(|image| (image.id, image.pid)) else {
                continue;
            };
            let held = ages.remove(&id).unwrap_or_default();
            self.images.note_end(index, &held);
            let is_target = self.is_asked_for(pid);
            if self.images.remembered.contains(&id) {
                // Descendants of it run, and have copies of its blocks.
                self.leaving.kept.insert(index);
            } else if !makers.contains(&id) && !is_target {
                self.images.forget(index);
            }
        }
        self.leaving.at = Instant::now();
        let (least, most) = SETTLE;
        self.leaving.rest = (work.taken() * SETTLING_TAKES).clamp(least, most);
        Ok(())
    }

    /// Takes the live blocks of ended images out of the kernel's map, and tells
    /// their ages at each image's end.
    fn retire_heaps(&mut self, ended: &HashMap<u64, Cutoff>) -> Result<HashMap<u64, Ages>> {
        if ended.is_empty() {
            return Ok(HashMap::new());
        }
        let heaps = last_heaps(&self.engine.object, ended)?;
        // First: their children have a copy.
        self.leave_to_children(&heaps.blocks)?;
        let keys: Vec<_> = heaps.blocks.iter().map(|(key, _)| *key).collect();
        self.engine.object.delete_live(&keys)?;
        let ended = ended.keys().copied().collect();
        self.engine.object.forget_arenas(&ended)?;
        Ok(heaps.ages)
    }

    /// Whether an image ended before its files could be looked at, and none of
    /// those that could is probed.
    fn may_have_hidden_allocator(&self, index: usize) -> bool {
        if self.options.growth {
            return false;
        }
        let Some(image) = self.images.get(index) else {
            return false;
        };
        let Some(code) = self.images.code(image) else {
            return false;
        };
        if self.has_sampler(image.id) {
            return false;
        }
        let scope = self.scope(image.pid);
        let is_probed = |file| self.engine.probes.cover(scope, file);
        let is_file = |name: &MappingName| matches!(name, MappingName::File(_));
        !code.current().any(|mapping| is_probed(mapping.range.file))
            && code
                .current()
                .any(|mapping| is_file(&mapping.range.name) && mapping.file.is_err())
    }
}
