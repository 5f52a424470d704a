//! Targets and their allocators: from a process to its probes.

use anyhow::{Context, Result, bail};

use super::Session;
use super::left_alone::Sound;
use super::target::Target;
use crate::allocator::{self, Allocator, AllocatorFunction, Probed};
use crate::attach::probes::Scope;
use crate::process::clock::monotonic_ns;

impl Session {
    /// Begins to trace a live process.
    ///
    /// # Errors
    /// Says why it cannot be traced; for one without an allocator, what was
    /// looked for and where.
    pub fn attach(&mut self, target: Target) -> Result<()> {
        let pid = target.pid;
        self.admit(target)?;
        self.unpublished.push(pid);
        self.reconsider_returns(pid)?;
        let code = self
            .images
            .current_code(pid)
            .context("the process is gone")?;
        let (allocators, searched) = allocator::find(code);
        if allocators.is_empty() {
            let files: Vec<_> = searched
                .iter()
                .map(|file| match &file.problem {
                    Some(problem) => format!("  {}: {problem}", file.path),
                    None => format!("  {}", file.path),
                })
                .collect();
            bail!(
                "process {pid} has no allocator to probe: looked for {} among its files:\n{}\na program that is linked statically needs its symbol table (do not strip it)",
                allocator::LOOKED_FOR,
                files.join("\n")
            );
        }
        let mut heaps = 0;
        for allocator in allocators {
            heaps += usize::from(self.probe(pid, &allocator)?);
        }
        self.check_any_heap(pid, heaps)?;
        self.machines.look_at(&[pid]);
        self.probe_machines();
        if self.options.survived > 0 {
            self.check_survived(pid)?;
        }
        Ok(())
    }

    /// Begins to trace a process of our own that waits to call `exec`:
    /// `allocators` are those that its program will map.
    ///
    /// # Errors
    /// Fails if a probe cannot be placed.
    pub fn attach_waiting(
        &mut self,
        target: Target,
        name: String,
        allocators: &[Allocator],
    ) -> Result<()> {
        let pid = target.pid;
        self.admit(target)?;
        self.images.rename(pid, name);
        self.reconsider_returns(pid)?;
        let mut heaps = 0;
        for allocator in allocators {
            heaps += usize::from(self.probe(pid, allocator)?);
        }
        self.check_any_heap(pid, heaps)
    }

    pub(super) fn scope(&self, pid: u32) -> Scope {
        if self.options.follow {
            Scope::Everyone
        } else {
            Scope::Process(pid)
        }
    }

    pub(super) fn admit(&mut self, target: Target) -> Result<()> {
        let time = monotonic_ns();
        let image = self.object.admit(target.pid, time)?;
        self.images.attach(target.pid, image, time)?;
        if !target.is_alive() {
            bail!("process {} ended while it was being attached", target.pid);
        }
        self.targets.push(target);
        Ok(())
    }

    /// Probes an allocator, as far as that harms no process. Whether its heap is
    /// probed.
    pub(super) fn probe(&mut self, pid: u32, allocator: &Allocator) -> Result<bool> {
        let scope = self.scope(pid);
        if self.probes.cover(scope, allocator.file.mapped) {
            let heap = |function: &AllocatorFunction| function.probed == Probed::Free;
            let free = allocator.functions.iter().find(|function| heap(function));
            let mut places = self.probes.places(scope);
            return Ok(places.any(|(file, offsets)| {
                file.mapped == allocator.file.mapped
                    && free.is_some_and(|free| offsets.contains(&free.probe_offset()))
            }));
        }
        let Sound {
            allocator,
            has_heap,
        } = self.sound_part(scope, allocator);
        if allocator.functions.is_empty() {
            return Ok(false);
        }
        let placed = self.probes.attach(&mut self.object, &allocator, scope)?;
        self.placed.push(placed);
        Ok(has_heap)
    }
}
