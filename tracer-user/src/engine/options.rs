//! What was asked for, resolved.

use std::time::Duration;

use anyhow::{Result, bail};
use tracer_ebpf::v8::MAX_FUNCTIONS;

use crate::attach::allocator::Declared;
use crate::budget::Budget;
use crate::cli::args::{ReturnsChoice, TraceArgs};
use crate::holders::Allowance;
use crate::kernel::footprint::{Sizes, Threads};
use crate::kernel::memory::threads;
use crate::kernel::program::Programs;

/// The interval of samples that a budget decides on, bytes.
const SAMPLED_INTERVAL: u64 = 512 << 10;

/// What a service has room for: pages that came since their processes are watched, call
/// paths, rows of unwind tables, and threads.
const SERVICE_PAGES: u32 = 37 << 11;
const SERVICE_SITES: u32 = 5 << 10;
const SERVICE_ROWS: u32 = 1 << 19;
const SERVICE_THREADS: u32 = 1 << 10;

/// What a closer look has room for: live blocks, call paths, rows of unwind tables, and
/// threads.
const CLOSER_BLOCKS: u32 = 1 << 15;
const CLOSER_SITES: u32 = 1 << 10;
const CLOSER_ROWS: u32 = 1 << 18;
const CLOSER_THREADS: u32 = 1 << 8;

/// What was asked for, resolved.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command line, for the report.
    pub command: String,
    /// Smallest allocation to trace.
    pub min_size: u64,
    /// The memory that all processes may have, bytes, if that was said.
    pub limit: Option<u64>,
    /// The interval at which allocations are sampled, bytes; 0 if all count.
    pub sample: u64,
    /// What tracing may cost, if that is bounded.
    pub budget: Option<Budget>,
    /// Least age of what is reported.
    pub older_than: Duration,
    /// Least number of collections that what is reported of a JVM survived.
    pub survived: u32,
    /// Whether JVMs' own probes are watched.
    pub jvm_probes: bool,
    /// Whether JVMs are asked for the names of their code.
    pub jvm_attach: bool,
    /// Whether samplers in processes are left alone, and allocators are probed.
    pub no_samplers: bool,
    /// Whether programs are started with a sampler of ours.
    pub sampler: bool,
    /// Whether pages are followed, and no allocations.
    pub growth: bool,
    /// Whether that is since there is nothing to probe.
    pub growth_instead: bool,
    /// Whether children are traced.
    pub follow: bool,
    /// Whether each process has call paths of its own, also with `follow`.
    pub per_process: bool,
    /// Whether targets come and go, and what ended is forgotten.
    pub service: bool,
    /// Whether another session of this process follows page faults: this one follows none,
    /// and what it costs is its own thread's time.
    pub is_beside: bool,
    /// How the results of calls are taken.
    pub returns: ReturnsChoice,
    /// Whether call paths are told apart by thread.
    pub threads: bool,
    /// Allocators with names of their own.
    pub allocators: Vec<Declared>,
    /// Files whose calls are followed, if not all are.
    pub modules: Vec<String>,
    /// The same of functions.
    pub only: Vec<String>,
    /// What searching for who holds live blocks may take, if that is asked for.
    pub holders: Option<Allowance>,
    /// Whether the program waits at its end, until it is known what is lost.
    pub check_lost: bool,
    /// Sizes of the kernel maps.
    pub sizes: Sizes,
    /// 1: what is probed; 2: the kernel side's log.
    pub verbose: u8,
    /// Which programs are attached.
    pub programs: Programs,
}

impl Options {
    /// From the arguments.
    ///
    /// # Errors
    /// Fails if a size is beyond what the kernel's maps can have.
    pub fn new(args: &TraceArgs) -> Result<Self> {
        let sites = u32::try_from(args.max_sites)?;
        if sites > 1 << 20 {
            bail!("--max-sites {sites} is too large: at most 1M");
        }
        if args.max_rows > 1 << 26 {
            bail!("--max-rows {} is too large: at most 64M", args.max_rows);
        }
        Ok(Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            min_size: args.min_size,
            limit: args.limit,
            sample: match args.overhead {
                Some(_) if !args.growth => SAMPLED_INTERVAL,
                _ => args.sample.unwrap_or(0),
            },
            budget: args.overhead,
            older_than: args.older_than.unwrap_or_default(),
            survived: args.survived.unwrap_or(0),
            // Benchmarks compare the allocators' probes.
            jvm_probes: !args.no_jvm_probes && !args.growth && args.programs == Programs::Counting,
            jvm_attach: args.jvm_attach,
            no_samplers: args.no_samplers,
            sampler: false,
            growth: args.growth,
            growth_instead: args.growth_instead,
            follow: args.follow,
            per_process: args.per_process,
            service: false,
            is_beside: false,
            returns: args.returns,
            threads: args.threads,
            allocators: allocators(args),
            modules: args.modules.clone(),
            only: args.only.clone(),
            holders: args.holders.then(|| args.allowance()),
            check_lost: false,
            sizes: Sizes {
                is_sampled: args.sample.is_some() || (args.overhead.is_some() && !args.growth),
                has_budget: args.overhead.is_some() && !args.growth,
                has_arenas: args.pools,
                has_calls: true,
                has_told: true,
                has_origins: !(args.modules.is_empty() && args.only.is_empty()),
                live: u32::try_from(args.max_live)?,
                sites,
                rows: u32::try_from(args.max_rows)?,
                kernel_stacks: if args.programs == Programs::Stackid {
                    1024
                } else {
                    1
                },
                scripts: MAX_FUNCTIONS,
                threads: threads()?,
            },
            verbose: args.verbose,
            programs: args.programs,
        })
    }

    /// Leaves it to a sampler in the program to choose which allocations count.
    pub fn leave_to_sampler(&mut self) {
        self.sampler = true;
        self.sample = 0;
        self.sizes.is_sampled = false;
    }

    /// Whether page faults are followed: alone, or beside allocations within a budget, which
    /// then knows when something grows.
    pub fn follows_pages(&self) -> bool {
        let is_beside_them = self.budget.is_some() && !self.is_beside;
        self.growth || (is_beside_them && self.programs == Programs::Counting)
    }

    /// Whether a budget decides which allocations are followed.
    pub fn has_phases(&self) -> bool {
        self.budget.is_some() && !self.growth
    }

    /// Whether processes that run the same program share their call paths. Where
    /// threads are told apart there is nothing to share.
    pub fn by_program(&self) -> bool {
        self.follow && !self.per_process && !self.threads
    }

    /// Page faults of targets that come and go, within a budget and 64 MiB of the kernel's
    /// memory.
    ///
    /// # Errors
    /// Fails if the kernel's release is not of the usual form.
    pub fn service(budget: Budget) -> Result<Self> {
        let smallest = Self::smallest()?;
        let threads = Threads {
            most: smallest.sizes.threads.most.min(SERVICE_THREADS),
            ..smallest.sizes.threads
        };
        Ok(Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            budget: Some(budget),
            growth: true,
            per_process: true,
            service: true,
            sizes: Sizes {
                has_calls: false,
                has_told: false,
                live: SERVICE_PAGES,
                sites: SERVICE_SITES,
                rows: SERVICE_ROWS,
                threads,
                ..smallest.sizes
            },
            ..smallest
        })
    }

    /// Allocations of a few processes for some minutes, within a budget, beside a session of
    /// page faults ([`Self::service`]).
    ///
    /// # Errors
    /// Fails if the kernel's release is not of the usual form.
    pub fn closer(budget: Budget) -> Result<Self> {
        let smallest = Self::smallest()?;
        let threads = Threads {
            most: smallest.sizes.threads.most.min(CLOSER_THREADS),
            ..smallest.sizes.threads
        };
        Ok(Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            budget: Some(budget),
            sample: SAMPLED_INTERVAL,
            is_beside: true,
            sizes: Sizes {
                is_sampled: true,
                has_budget: true,
                has_told: false,
                live: CLOSER_BLOCKS,
                sites: CLOSER_SITES,
                rows: CLOSER_ROWS,
                threads,
                ..smallest.sizes
            },
            ..smallest
        })
    }

    /// The least that loads.
    ///
    /// # Errors
    /// Fails if the kernel's release is not of the usual form.
    pub fn smallest() -> Result<Self> {
        Ok(Self {
            command: String::new(),
            min_size: 0,
            limit: None,
            sample: 0,
            budget: None,
            older_than: Duration::ZERO,
            survived: 0,
            jvm_probes: false,
            jvm_attach: false,
            no_samplers: false,
            sampler: false,
            growth: false,
            growth_instead: false,
            follow: false,
            per_process: false,
            service: false,
            is_beside: false,
            returns: ReturnsChoice::Auto,
            threads: false,
            allocators: Vec::new(),
            modules: Vec::new(),
            only: Vec::new(),
            holders: None,
            check_lost: false,
            sizes: Sizes {
                is_sampled: false,
                has_budget: false,
                has_arenas: false,
                has_origins: false,
                has_calls: true,
                has_told: true,
                live: 1024,
                sites: 16,
                rows: 1 << 18,
                kernel_stacks: 1,
                scripts: MAX_FUNCTIONS / 16,
                threads: threads()?,
            },
            verbose: 0,
            programs: Programs::Counting,
        })
    }
}

/// Allocators that are probed beside those that always are.
fn allocators(args: &TraceArgs) -> Vec<Declared> {
    let pools = args.pools.then(Declared::pools);
    args.allocators.iter().cloned().chain(pools).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A closer look beside it included; each has 2 MiB of buffers on two processors.
    #[test]
    fn a_service_takes_64_mib_of_the_kernel_with_the_buffers_of_two_processors() {
        let share = Budget::Share(0.01);
        let both = [Options::service(share), Options::closer(share)].map(|options| {
            let options = options.unwrap();
            options.sizes.footprint(options.follow).bound
        });
        assert!(both[0] + both[1] <= 60 << 20, "{both:?}");
    }
}
