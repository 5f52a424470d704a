//! The probes in place.
//!
//! They are placed one by one while the target runs on. Those of a run's
//! beginning count nothing until all are there. For those that come later
//! (an allocator that was just mapped) the order matters: frees are probed
//! first, so that no block seems leaked that was freed meanwhile, and a
//! function's return before its entry, so that no call seems abandoned.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::programs::uprobe::UProbeLink;
use tracer_ebpf::call::Function;

use crate::allocator::{Allocator, AllocatorFunction, Probed};
use crate::kernel::object::Object;
use crate::process::maps::FileId;
use crate::report::model::Probe;

/// Which processes a probe fires in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One process. Others that map the same file are not touched.
    Process(u32),
    /// Every process that maps the file: what following children needs, since
    /// a child runs before a probe of its own could be placed.
    Everyone,
}

impl Scope {
    fn pid(self) -> Option<u32> {
        match self {
            Self::Process(pid) => Some(pid),
            Self::Everyone => None,
        }
    }
}

/// The order in which probes are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Frees,
    Returns,
    Entries,
}

const STAGES: [Stage; 3] = [Stage::Frees, Stage::Returns, Stage::Entries];

/// All probes of a run. Dropping it takes them away.
#[derive(Default)]
pub struct Probes {
    links: Vec<UProbeLink>,
    /// What is probed already.
    covered: Vec<(Scope, FileId)>,
}

impl Probes {
    /// Whether a file is probed in this scope.
    pub fn cover(&self, scope: Scope, file: FileId) -> bool {
        self.covered.contains(&(scope, file))
    }

    /// Probes an allocator.
    ///
    /// # Errors
    /// Fails if a probe that counts on the others cannot be placed; then
    /// those already placed stay until the end of the run.
    pub fn attach(
        &mut self,
        object: &mut Object,
        allocator: &Allocator,
        scope: Scope,
    ) -> Result<Vec<Probe>> {
        // The open file itself, so that no link or rename can lead elsewhere.
        let file = PathBuf::from(format!(
            "/proc/self/fd/{}",
            allocator.file.content.file().as_raw_fd()
        ));
        for function in &allocator.functions {
            for stage in STAGES {
                program(function.probed, stage).map_or(Ok(()), |name| object.load_program(name))?;
            }
        }
        for stage in STAGES {
            for function in &allocator.functions {
                let Some(program) = program(function.probed, stage) else {
                    continue;
                };
                let link = object
                    .attach(program, &file, function.probe_offset(), scope.pid())
                    .with_context(|| {
                        format!("cannot probe {} in {}", function.symbol, allocator.path)
                    })?;
                self.links.push(link);
            }
        }
        self.covered.push((scope, allocator.file.mapped));
        Ok(allocator
            .functions
            .iter()
            .map(|function| describe(function, &allocator.path))
            .collect())
    }

    /// Takes over probes that were placed otherwise.
    pub fn keep(&mut self, links: impl IntoIterator<Item = UProbeLink>) {
        self.links.extend(links);
    }

    /// Takes all probes away. The kernel takes 0.1 s over each, but over all
    /// at once if they are asked for at once.
    pub fn detach(&mut self) {
        self.covered.clear();
        std::thread::scope(|scope| {
            for link in self.links.drain(..) {
                scope.spawn(move || drop(link));
            }
        });
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach();
    }
}

fn describe(function: &AllocatorFunction, path: &str) -> Probe {
    Probe {
        function: function.symbol.to_owned(),
        module: path.to_owned(),
        file_offset: function.probe_offset(),
        displacement: function.placement.displacement,
        placement: function.placement.to_string(),
    }
}

/// The program that watches a function at a stage.
fn program(probed: Probed, stage: Stage) -> Option<&'static str> {
    let Probed::Call(function) = probed else {
        return (stage == Stage::Frees).then_some("uf_free");
    };
    let (entry, leave) = match function {
        Function::Malloc => ("uf_malloc", "uf_malloc_ret"),
        Function::Calloc => ("uf_calloc", "uf_calloc_ret"),
        Function::Realloc => ("uf_realloc", "uf_realloc_ret"),
        Function::Reallocarray => ("uf_reallocarr", "uf_reallocarr_r"),
        Function::PosixMemalign => ("uf_posix_mem", "uf_posix_mem_r"),
        Function::AlignedAlloc => ("uf_aligned", "uf_aligned_ret"),
        Function::Memalign => ("uf_memalign", "uf_memalign_ret"),
        Function::Valloc => ("uf_valloc", "uf_valloc_ret"),
        Function::Pvalloc => ("uf_pvalloc", "uf_pvalloc_ret"),
        Function::Mmap => ("uf_mmap", "uf_mmap_ret"),
        Function::Munmap => ("uf_munmap", "uf_munmap_ret"),
        Function::Mremap => ("uf_mremap", "uf_mremap_ret"),
    };
    match stage {
        Stage::Frees => None,
        Stage::Returns => Some(leave),
        Stage::Entries => Some(entry),
    }
}
