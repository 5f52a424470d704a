//! Samplers in processes: files that tell by USDT probes of allocations that they have
//! chosen by chance; see `tracer_ebpf::stated`.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tracer_ebpf::operand::Operand;
use tracer_ebpf::stated::ARGUMENTS;

use super::guarded::Guarded;
use super::inspect::require;
use super::library::function;
use super::probes::Scope;
use crate::kernel::link::Link;
use crate::kernel::object::Object;
use crate::kernel::program::Counted;
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::usdt::{self, Probe, Site};

/// Who offers such probes, the first first: OpenTelemetry's contract, and Datadog's
/// sampler, which had it under its own name before (`libdd-heap-sampler`, `probes.h`).
const PROVIDERS: [&str; 2] = ["otel_memory", "ddheap"];

/// The probe of a sample, `(ptr, size, weighted_bytes)`.
const ALLOC: &str = "alloc";
/// That of one that was freed, `(ptr)`.
const FREE: &str = "free";

/// A part of the path of the sampler that `unfreed run --sampler` preloads.
pub const OWN: &str = "unfreed-sampler";

/// A file with a sampler in it.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// The file.
    pub file: Arc<ModuleFile>,
    /// Its path as the process sees it.
    pub path: String,
    /// Who offers its probes.
    pub provider: &'static str,
    /// Where it tells of samples.
    pub allocs: Vec<Spot>,
    /// Where it tells that they were freed.
    pub frees: Vec<Spot>,
}

/// A place where a sampler tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The instruction, by its offset in the file.
    pub offset: u64,
    /// The semaphore that makes it tell anything, in the same way; 0 if there is none.
    pub counter: u64,
    /// What it tells.
    pub operands: [Operand; ARGUMENTS],
}

/// What a file is to somebody who looks for samplers.
#[derive(Debug, Clone)]
pub enum Found {
    /// It has none.
    None,
    /// It has one.
    Sampler(Arc<Sampler>),
    /// It has one that is of no use: why.
    Unusable(String),
}

/// The sampler of a file.
pub fn in_file(file: &Arc<ModuleFile>, path: &str) -> Found {
    // A file that is none, or claims too much, has none.
    let probes = usdt::read(&file.content).unwrap_or_default();
    let mut problem = None;
    for provider in PROVIDERS {
        let of = |name| {
            let mut probes = probes.iter();
            probes.find(|probe| probe.provider == provider && probe.name == name)
        };
        let Some(alloc) = of(ALLOC) else {
            continue;
        };
        match (
            spots(alloc, ARGUMENTS),
            of(FREE).map_or(Ok(Vec::new()), |free| spots(free, 1)),
        ) {
            (Ok(_), Ok(frees)) if frees.is_empty() => {
                problem = Some(format!("{provider} does not tell of what is freed"));
            }
            (Ok(allocs), Ok(frees)) => {
                return Found::Sampler(Arc::new(Sampler {
                    file: Arc::clone(file),
                    path: path.to_owned(),
                    provider,
                    allocs,
                    frees,
                }));
            }
            (Err(why), _) | (_, Err(why)) => problem = Some(why),
        }
    }
    problem.map_or(Found::None, Found::Unusable)
}

/// The places of a probe, with the arguments that are wanted; all of them, or else what
/// is told at one is not seen.
fn spots(probe: &Probe, wanted: usize) -> Result<Vec<Spot>, String> {
    let name = || format!("{}:{}", probe.provider, probe.name);
    let spot = |site: &Site| {
        let at = format!("{} at {:#x}", name(), site.pc.0);
        let Some(offset) = site.offset else {
            return Err(format!("{at} is not in code"));
        };
        let counter = match site.semaphore {
            None => 0,
            Some(semaphore) => match semaphore.offset {
                Some(offset) => offset.0,
                None => return Err(format!("{at} has a semaphore that is not in the file")),
            },
        };
        let mut operands = [Operand::default(); ARGUMENTS];
        for (number, operand) in operands.iter_mut().enumerate().take(wanted) {
            *operand = match site.arguments.get(number).map(|it| it.operand) {
                Some(Ok(operand)) => operand,
                Some(Err(why)) => {
                    return Err(format!("{at}: argument {}: {why}", number + 1));
                }
                None => return Err(format!("{at} has no argument {}", number + 1)),
            };
        }
        Ok(Spot {
            offset: offset.0,
            counter,
            operands,
        })
    };
    probe.sites.iter().map(spot).collect()
}

/// What is found in the files that a process has mapped; `in_file` looks at one.
pub fn find(
    code: &CodeSpace,
    mut in_file: impl FnMut(&Arc<ModuleFile>, &CodeMapping) -> Found,
) -> Vec<(FileId, Found)> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for mapping in code.current() {
        let Ok(file) = &mapping.file else {
            continue;
        };
        if seen.contains(&file.mapped) {
            continue;
        }
        seen.push(file.mapped);
        match in_file(file, mapping) {
            Found::None => {}
            other => found.push((file.mapped, other)),
        }
    }
    found
}

impl Sampler {
    /// Which file and whose probes, in words.
    pub fn describe(&self) -> String {
        format!("{} of {}", self.provider, self.path)
    }

    /// Where its probes are to be placed; `number` is that of each place, the samples'
    /// first.
    pub fn counted(&self, numbers: &[u32]) -> [Vec<Counted>; 2] {
        let counted = |(spot, number): (&Spot, &u32)| Counted {
            offset: spot.offset,
            counter: spot.counter,
            cookie: u64::from(*number),
        };
        let (allocs, frees) = numbers.split_at(self.allocs.len().min(numbers.len()));
        [
            self.allocs.iter().zip(allocs).map(counted).collect(),
            self.frees.iter().zip(frees).map(counted).collect(),
        ]
    }

    /// All its places.
    pub fn spots(&self) -> impl Iterator<Item = &Spot> {
        self.allocs.iter().chain(&self.frees)
    }

    /// Places the probes, those of frees first: so no block seems leaked that was freed
    /// meanwhile. `numbers` are as for [`Sampler::counted`].
    ///
    /// # Errors
    /// Fails if the code in memory is not the file's, or the kernel refuses.
    pub fn place(&self, object: &mut Object, scope: Scope, numbers: &[u32]) -> Result<Guarded> {
        let stretches = self
            .spots()
            .map(|spot| function("USDT probe", spot.offset))
            .collect();
        let mut guarded = Guarded::new(scope, &self.file, &self.path, stretches);
        guarded.counters = self
            .spots()
            .map(|spot| (spot.offset, spot.counter))
            .collect();
        require(scope, &self.file, &self.path, &guarded.stretches)?;
        let [allocs, frees] = self.counted(numbers);
        ensure!(
            allocs.len() == self.allocs.len() && frees.len() == self.frees.len(),
            "a place of a sampler has no number"
        );
        let path = self.file.descriptor_path();
        guarded.hold(object.attach_sampler(true, &frees, &path, scope.pid())?);
        guarded.hold(object.attach_sampler(false, &allocs, &path, scope.pid())?);
        Ok(guarded)
    }

    /// Empty probes at all its places: when they go, the kernel takes breakpoints out of
    /// processes that nobody wants there.
    ///
    /// # Errors
    /// Fails when the kernel refuses.
    pub fn place_empty(&self, object: &mut Object, scope: Scope) -> Result<Vec<Link>> {
        let places: Vec<_> = self
            .spots()
            .map(|spot| Counted {
                offset: spot.offset,
                counter: spot.counter,
                cookie: 0,
            })
            .collect();
        object.attach_empty_counted(&places, &self.file.descriptor_path(), scope.pid())
    }
}
