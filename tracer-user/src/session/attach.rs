//! Targets and their allocators: from a process to its probes.

use std::fmt;

use anyhow::{Context, Result, bail};

use super::Session;
use super::left_alone::{HeapLeftAlone, Sound};
use super::target::Target;
use crate::attach::allocator::{self, Allocator, AllocatorFunction, describe_stripped};
use crate::attach::probes::{Described, Scope};
use crate::jvm::attach::is_jvm;
use crate::kernel::link::Road;
use crate::kernel::object::SystemCalls;
use crate::model::{LeftAlone, UnseenFunction, Untraced};
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeSpace;
use crate::process::maps::FileId;

/// A process without an allocator.
#[derive(Debug)]
struct NoAllocator {
    pid: u32,
    /// Where one was looked for.
    files: Vec<String>,
}

impl fmt::Display for NoAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} has no allocator to probe: looked for {} among its files:\n{}\na statically linked program in C, C++ or Rust needs its symbol table for that (do not strip it)",
            self.pid,
            allocator::LOOKED_FOR,
            self.files.join("\n")
        )
    }
}

impl std::error::Error for NoAllocator {}

/// No process can be traced, since none has an allocator that can be probed.
#[derive(Debug)]
pub struct NothingToProbe {
    reason: String,
    /// What stands in the way of probes.
    pub left_alone: Vec<LeftAlone>,
}

impl fmt::Display for NothingToProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for NothingToProbe {}

impl Session {
    /// Begins to trace live processes, with `--follow` their living descendants
    /// too. One that cannot be traced is no other's failure.
    ///
    /// # Errors
    /// Fails if none can be traced, and says why of each: with [`NothingToProbe`] if that is
    /// why of all.
    pub fn attach_all(&mut self, targets: Vec<Target>) -> Result<()> {
        let mut pids = Vec::new();
        for target in targets {
            let pid = target.pid;
            pids.push(pid);
            let admitted = self.admit(target);
            self.or_give_up(pid, admitted)?;
        }
        if self.options.follow {
            pids.extend(self.adopt_descendants(&pids)?);
        }
        // How results are taken is for all: none is to be probed in vain.
        for pid in &pids {
            self.unpublished.push(*pid);
            self.reconsider_or_give_up(*pid)?;
        }
        let (mut traced, mut without) = (0, 0);
        for pid in pids {
            if self.images.current(pid).is_none() {
                continue;
            }
            match self.probe_process(pid) {
                Ok(()) => traced += 1,
                // It may call exec, and may have children.
                Err(error) if self.options.follow && error.is::<NoAllocator>() => {
                    let error = error.context("only what it executes and its children are traced");
                    self.note_untraced(vec![Untraced::never(pid, &error)]);
                }
                Err(error) => {
                    let is_without = error.is::<NoAllocator>() || error.is::<HeapLeftAlone>();
                    without += usize::from(is_without);
                    self.give_up(pid, &error)?;
                }
            }
        }
        match self.check_any_traced(traced) {
            Err(error) if without == self.untraced.len() => Err(NothingToProbe {
                reason: error.to_string(),
                left_alone: self.left_alone.clone(),
            }
            .into()),
            checked => checked,
        }
    }

    /// Probes the allocators of a process.
    ///
    /// # Errors
    /// Says why it cannot be traced; for one without an allocator, what was
    /// looked for and where.
    fn probe_process(&mut self, pid: u32) -> Result<()> {
        if self.options.growth {
            return Ok(());
        }
        let code = self
            .images
            .current_code(pid)
            .context("the process is gone")?;
        let (allocators, searched) = allocator::find(code, &self.options.allocators);
        let scope = self.scope(pid);
        if self.use_sampler(pid)? {
            for allocator in &allocators {
                self.note_allocator(pid, allocator)?;
            }
            return self.watch_machines(pid);
        }
        for file in &searched {
            let Some(other) = &file.other else {
                continue;
            };
            self.engine
                .without_allocator
                .insert(other.id, other.stripped);
            if let Some(name) = other.stripped {
                self.note_stripped(scope, other.id.0, &file.path, name);
            }
        }
        if allocators.is_empty() {
            let files: Vec<_> = searched
                .iter()
                .map(|file| match &file.problem {
                    Some(problem) => format!("  {}: {problem}", file.path),
                    None => format!("  {}", file.path),
                })
                .collect();
            return Err(self.without_allocator(pid, files).into());
        }
        let mut heaps = 0;
        for allocator in allocators {
            heaps += usize::from(self.probe(pid, &allocator)?);
        }
        self.check_any_heap(pid, heaps)?;
        self.watch_machines(pid)
    }

    /// The error, with the files of which there are copies alone.
    fn without_allocator(&mut self, pid: u32, mut files: Vec<String>) -> NoAllocator {
        if let Some(index) = self.images.current(pid) {
            self.images.look(index, monotonic_ns());
        }
        let code = self.images.current_code(pid).into_iter();
        for copied in code.flat_map(CodeSpace::copied) {
            let path = copied.range.name.path().unwrap_or("?".as_ref());
            files.push(format!(
                "  {}: its code was copied to memory without a file, where the kernel places no probes",
                path.display()
            ));
        }
        NoAllocator { pid, files }
    }

    /// Watches a process's virtual machine, if it has one.
    ///
    /// # Errors
    /// Fails if its collections are to be counted and cannot be.
    fn watch_machines(&mut self, pid: u32) -> Result<()> {
        self.java.machines.look_at(&[pid]);
        self.probe_machines();
        let was_asked_for = |target: &Target| target.pid == pid && !target.descends;
        if self.options.survived > 0 && self.targets.iter().any(was_asked_for) {
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
        self.origins.waits_for_exec = true;
        self.admit(target)?;
        self.images.rename(pid, name);
        if self.options.growth {
            return Ok(());
        }
        if self.options.sampler {
            // Its sampler is mapped before them.
            return allocators
                .iter()
                .try_for_each(|allocator| self.note_allocator(pid, allocator));
        }
        self.reconsider_returns(pid)?;
        let mut heaps = 0;
        for allocator in allocators {
            heaps += usize::from(self.probe(pid, allocator)?);
        }
        self.check_any_heap(pid, heaps)
    }

    /// Whether probes may have to be placed by perf events yet: on that road,
    /// and in JVMs.
    pub fn may_open_events(&self) -> bool {
        let has_jvm = |target: &Target| {
            let code = self.images.current_code(target.pid);
            code.is_none_or(|code| is_jvm(code.process()))
        };
        self.road() == Road::PerfEvents || self.options.follow || self.targets.iter().any(has_jvm)
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
        let image = self.engine.object.admit(target.pid, time)?;
        if let Err(error) = self.images.attach(target.pid, image, time) {
            self.engine.object.dismiss(target.pid, image);
            return Err(error);
        }
        if !target.is_alive() {
            bail!("process {} ended while it was being attached", target.pid);
        }
        self.targets.push(target);
        Ok(())
    }

    /// Notes an allocator of which a file has nothing but messages.
    pub(super) fn note_stripped(&mut self, scope: Scope, file: FileId, path: &str, name: &str) {
        let mut known = self.engine.placed.iter();
        if known.any(|placed| placed.scope == scope && placed.file == file) {
            return;
        }
        let (function, reason) = describe_stripped(name);
        self.engine.placed.push(Described {
            is_pool: false,
            scope,
            file,
            probes: Vec::new(),
            unseen: vec![UnseenFunction {
                function,
                module: path.to_owned(),
                reason: reason.to_owned(),
                seen_elsewhere: false,
                was_told: false,
            }],
        });
    }

    /// Probes an allocator, as far as that harms no process. Whether its heap is
    /// probed.
    pub(super) fn probe(&mut self, pid: u32, allocator: &Allocator) -> Result<bool> {
        let scope = self.scope(pid);
        if self.engine.probes.cover(scope, allocator.file.mapped) {
            let heap = |function: &AllocatorFunction| function.probed.frees();
            let free = allocator.functions.iter().find(|function| heap(function));
            let mut places = self.engine.probes.places(scope);
            return Ok(places.any(|(file, offsets)| {
                file.mapped == allocator.file.mapped
                    && free.is_some_and(|free| offsets.contains(&free.probe_offset()))
            }));
        }
        let Sound {
            allocator,
            has_heap,
        } = match self.engine.object.system_calls() {
            SystemCalls::None => self.sound_part(scope, allocator),
            _ => self.sound_part(scope, &allocator.without_mappings()),
        };
        if allocator.functions.is_empty() {
            return Ok(false);
        }
        let parts = match self.budget.is_some() {
            // They come and go, and those of mappings stay.
            true => vec![allocator.with_mappings_only(), allocator.without_mappings()],
            false => vec![allocator],
        };
        for part in parts.iter().filter(|part| !part.functions.is_empty()) {
            let probes = &mut self.engine.probes;
            let placed = probes.attach(&mut self.engine.object, part, scope)?;
            self.engine.placed.push(placed);
        }
        Ok(has_heap)
    }
}
