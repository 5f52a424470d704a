//! Following what happens during a run: new code, forks, execs and exits.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::event::Event;
use tracer_ebpf::thread::image_pid;

use super::Session;
use super::images::Change;
use super::java_objects::Watch;
use super::jvms::{HeapSource, Watched};
use super::target::Target;
use crate::allocator::{self, Allocator};
use crate::attach::probes::Scope;
use crate::kernel::link::Road;
use crate::leak::collect::{Cutoff, retire_heaps};
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeMapping;
use crate::process::maps::MappingName;
use crate::process::watch::CodeEvent;
use crate::report::model::ProcessEnd;
use crate::tables::JavaCode;

/// How often children are freed from probes, at most: the kernel looks into
/// every process that maps the allocator.
const RELEASE: Duration = Duration::from_secs(1);

/// How often a process's mappings are looked at in a row, while they change.
const LOOKS: usize = 4;

impl Session {
    /// Reads what happened since the last call.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn poll(&mut self) -> Result<()> {
        self.object.flush_log();
        // Right before: what it places would go over a hook.
        self.guard_code();
        self.release_children();
        self.jvms.poll();
        self.jvms.find_heaps(&mut self.images);
        self.native.begin(&self.jvms);
        self.codes.drain(&mut self.object);
        self.names.poll(&self.object, &mut self.jvms, &self.codes);
        self.poll_code()?;
        if self.options.threads {
            self.threads.poll(&self.object, &self.images, &self.jvms);
        }
        self.note_orphans();
        self.look_at_configurations()?;
        let gone: Vec<_> = self
            .images
            .running()
            .filter(|index| !self.is_alive(*index))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        // Their last events, which may say that an image was replaced.
        self.drain_code()?;
        self.drain_events()?;
        self.note_exits(&gone)
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
        self.codes.drain(&mut self.object);
        Ok(())
    }

    /// The same for a program that waits meanwhile: tables are built first,
    /// as far as they are within `patience`.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn settle_code(&mut self, patience: Duration) -> Result<()> {
        self.poll_code()?;
        self.tables.settle(patience);
        self.unpublished
            .extend(self.tables.pending().into_iter().map(image_pid));
        self.publish_code();
        Ok(())
    }

    /// Frees children that were forked since the last time from the probes.
    fn release_children(&mut self) {
        let forks = self.object.forks.get(0).unwrap_or(0);
        let (known, at) = self.released;
        if self.object.road() == Road::Multi && forks != known && at.elapsed() >= RELEASE {
            self.probes.release_children(&mut self.object);
            self.released = (forks, Instant::now());
        }
    }

    pub(super) fn drain_code(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        let (images, follow, losses) = (&mut self.images, self.options.follow, &mut self.losses);
        self.watch.drain(&mut |event| {
            if let CodeEvent::Lost { count, .. } = event {
                losses.code_events += count;
            }
            changes.push(images.apply_code(event, follow));
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
        self.machines.look_at(&pids);
        self.guard_changed(&pids);
        for pid in pids {
            self.reconsider_returns(pid)?;
            self.probe_new_code(pid)?;
        }
        Ok(())
    }

    /// Tells the kernel side of code that is new, or whose table is.
    pub(super) fn publish_code(&mut self) {
        let mut pids = std::mem::take(&mut self.unpublished);
        if self.tables.settle(Duration::ZERO) {
            pids.extend(self.tables.pending().into_iter().map(image_pid));
        }
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            self.publish_code_of(pid);
        }
    }

    /// Looks at a process's mappings until two looks agree: what changes
    /// after that, the kernel side notices itself.
    pub(super) fn publish_code_of(&mut self, pid: u32) {
        let Some(index) = self.images.current(pid) else {
            return;
        };
        let mut last = None;
        for _ in 0..LOOKS {
            let Some(image) = self.images.get(index).map(|image| image.id) else {
                return;
            };
            let as_of = self.tables.replaced(image);
            let Some(code) = self.images.look(index, monotonic_ns()) else {
                return;
            };
            let ranges: Vec<_> = code.iter().map(|mapping| mapping.range.clone()).collect();
            if last.as_ref() == Some(&ranges) {
                return;
            }
            last = Some(ranges);
            let java = self.java_code(index, image);
            if self.tables.publish(image, &code, &java, as_of).is_err() {
                self.losses.unpublished += 1;
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
            probes: &mut self.probes,
            object: &mut self.object,
            machines: &mut self.machines,
            own_probes: self.options.jvm_probes,
        };
        let (wants_heap, codes) = (!self.java_heaps.is_empty(), &mut self.codes);
        self.jvms.look(image, code, |jvm| {
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
        let scope = self.scope(pid);
        let Some(code) = self.images.current_code(pid) else {
            return Ok(());
        };
        let unknown = |mapping: &&CodeMapping| {
            mapping
                .file
                .as_ref()
                .is_ok_and(|file| !self.probes.cover(scope, file.mapped))
        };
        let found: Vec<Allocator> = code
            .current()
            .filter(unknown)
            .filter_map(|mapping| {
                let file = mapping.file.as_ref().ok()?;
                allocator::in_file(file, &mapping.display_name(), code.is_program(mapping)).ok()?
            })
            .collect();
        for allocator in found {
            if self.probes.cover(scope, allocator.file.mapped) {
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

    fn drain_events(&mut self) -> Result<()> {
        let mut replaced = Vec::new();
        let mut orphaned = Vec::new();
        let mut fresh = Vec::new();
        while let Some(item) = self.object.events.next() {
            let Some(event) = tracer_ebpf::read_record::<Event>(&item) else {
                continue;
            };
            match self.images.apply(&event) {
                Change::Replaced { index, by_thread } => {
                    replaced.push(index);
                    fresh.push(image_pid(event.other));
                    if by_thread {
                        orphaned.push(image_pid(event.other));
                    }
                }
                Change::NewCode(pid) => self.unpublished.push(pid),
                Change::ReplacedCode(image) => {
                    let sharers = self.tables.sharers(image);
                    self.unpublished.extend(sharers.into_iter().map(image_pid));
                    self.unpublished.push(image_pid(image));
                }
                Change::None => {}
            }
        }
        for pid in orphaned {
            self.probe_again(pid)?;
        }
        for pid in fresh {
            // What was hooked in the old image is not in the new one.
            let scope = self.scope(pid);
            if scope != Scope::Everyone && self.probes.forgive(scope) {
                self.probe_new_code(pid)?;
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
        self.losses.late_allocators += 1;
        self.probes.uncover(scope);
        self.machines.uncover(scope);
        // Its frees are not told any more.
        self.codes.forget_process(pid);
        self.machines.look_at(&[pid]);
        self.probe_new_code(pid)
    }

    fn is_alive(&self, index: usize) -> bool {
        let Some(image) = self.images.get(index) else {
            return false;
        };
        match self.targets.iter().find(|target| target.pid == image.pid) {
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
                self.object.dismiss(pid, image.id);
                self.guard_no_more(pid);
            }
            self.announce_end(*index);
        }
        self.retire(&running)
    }

    /// Remembers the ages of what was live when images ended, and frees their
    /// places in the kernel's map.
    fn retire(&mut self, ended: &[usize]) -> Result<()> {
        self.drain_machines();
        for image in ended.iter().filter_map(|index| self.images.get(*index)) {
            self.tables.forget(image.id);
            self.machines.retire(&mut self.object, image.id);
            self.jvms.forget(image.id);
            self.codes.forget(image.id);
        }
        let unseen = ended
            .iter()
            .filter(|index| self.may_have_hidden_allocator(**index))
            .count();
        self.losses.late_allocators += unseen as u64;
        let with_live: HashSet<u64> = self
            .object
            .followed_sites()
            .filter(|(_, site)| site.live_count() > 0)
            .map(|(_, site)| site.image)
            .collect();
        let ended: HashMap<u64, Cutoff> = ended
            .iter()
            .filter_map(|index| self.images.get(*index))
            .filter(|image| with_live.contains(&image.id))
            .filter_map(|image| Some((image.id, self.cutoff(image.id, image.ended?.0))))
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        for (id, ages) in retire_heaps(&self.object, &ended)? {
            if let Some(image) = self
                .images
                .index_of(id)
                .and_then(|at| self.images.get_mut(at))
            {
                image.last_live = Some(ages);
            }
        }
        Ok(())
    }

    /// Whether an image ended before its files could be looked at, and none of
    /// those that could is probed.
    fn may_have_hidden_allocator(&self, index: usize) -> bool {
        let Some(image) = self.images.get(index) else {
            return false;
        };
        let Some(code) = self.images.code(image) else {
            return false;
        };
        let scope = self.scope(image.pid);
        let is_probed = |file| self.probes.cover(scope, file);
        let is_file = |name: &MappingName| matches!(name, MappingName::File(_));
        !code.current().any(|mapping| is_probed(mapping.range.file))
            && code
                .current()
                .any(|mapping| is_file(&mapping.range.name) && mapping.file.is_err())
    }
}
