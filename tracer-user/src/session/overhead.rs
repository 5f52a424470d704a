//! What tracing has cost the targets, and the tracer itself.

use std::time::Duration;

use anyhow::Result;
use tracer_ebpf::hits::Kind;

use super::Session;
use crate::attach::plan::Returns;
use crate::engine::cost::Hits;
use crate::kernel::link::cookies;
use crate::kernel::object::SystemCalls;
use crate::model::{HitCost, MemoryKind, Overhead};
use crate::process::processor_time::own_thread_time;

/// What the target loses beyond the hits themselves, as a part of their time and at most:
/// tracing takes its place in caches and branch predictors, and processes that are traced
/// together wait for each other. By `cargo xtask bench overhead`, at equal load, loops lose
/// nothing more, redis and python 0.11, node 0.2, PostgreSQL 0.35, a Java server 0.5 and nginx
/// 0.54 of it.
const UNSEEN: f64 = 0.7;

impl Session {
    /// What tracing has cost until now. `machine_hits` are those of JVMs' own probes.
    ///
    /// # Errors
    /// Fails if the kernel's maps cannot be read.
    pub(super) fn overhead(&self, machine_hits: u64) -> Result<Overhead> {
        let mut hits = self.hits()?;
        let (entries, returns) = self.other_hits();
        hits[Kind::Entry as usize].count += entries + machine_hits;
        let at = match self.engine.probes.returns() {
            Returns::Replaced => Kind::Return,
            Returns::Instructions => Kind::End,
        };
        hits[at as usize].count += returns;
        let is_end = |hits: &&Hits| matches!(hits.kind, Kind::End | Kind::JumpEnd);
        let (ends, others): (Vec<&Hits>, Vec<&Hits>) = hits.iter().partition(is_end);
        let seconds: f64 = hits.iter().map(Hits::seconds).sum();
        let spread: f64 = hits.iter().map(Hits::spread).sum();
        let unknown = self.unknown_steps(&hits);
        Ok(Overhead {
            probe_hits: hits.iter().map(|hits| hits.count).sum(),
            nanoseconds_per_hit: mean(&others).unwrap_or(self.engine.nanoseconds_per_hit),
            return_hits: ends.iter().map(|hits| hits.count).sum(),
            nanoseconds_per_return: mean(&ends).unwrap_or(0.0),
            hits: hits
                .iter()
                .filter(|hits| hits.count > 0)
                .map(cost)
                .collect(),
            all_system_calls: self.system_calls() == SystemCalls::All,
            system_call_events: self.system_calls() == SystemCalls::Each,
            target_seconds: seconds,
            target_seconds_low: (seconds - spread).max(0.0),
            target_seconds_high: seconds * (1.0 + UNSEEN) + spread + unknown,
            kernel_bytes: self.footprint().fixed,
            tracer_seconds: self.own_seconds(),
        })
    }

    /// Processor time of the tracer, seconds. Of a session beside another it is that of its
    /// own thread, and of those that took probes away for it.
    pub(super) fn own_seconds(&self) -> f64 {
        let time = match self.options.is_beside {
            true => own_thread_time() + self.helpers,
            false => own_cpu_time(),
        };
        time.as_secs_f64()
    }

    /// The hits of the probes that follow blocks and mappings, by kind.
    pub(super) fn hits(&self) -> Result<Vec<Hits>> {
        let mut hits = self.engine.prices.of(&self.engine.object.costs()?);
        let in_passing = self.engine.object.in_passing()?;
        for (hits, in_passing) in hits.iter_mut().zip(in_passing) {
            hits.add_in_passing(in_passing);
        }
        hits.extend(self.faults_passed_over());
        Ok(hits)
    }

    /// What is to be added if all hits at entries were at single-stepped instructions,
    /// seconds: where probes have no cookies, programs cannot tell which were.
    fn unknown_steps(&self, hits: &[Hits]) -> f64 {
        let mut placed = self.engine.placed.iter().flat_map(|placed| &placed.probes);
        if cookies() || !placed.any(|probe| probe.placement.contains("single-stepped")) {
            return 0.0;
        }
        let is_entry = |hits: &&Hits| matches!(hits.kind, Kind::Entry | Kind::Free);
        let entries: u64 = hits.iter().filter(is_entry).map(|hits| hits.count).sum();
        entries as f64 * self.engine.prices.of_a_step() / 1e9
    }

    /// Hits of the probes of JVMs' handles and threads that were followed: at entries,
    /// and where calls ended. The end of a thread is no hit.
    fn other_hits(&self) -> (u64, u64) {
        let handles = self.engine.object.handles();
        let handles = handles.map(|(_, site)| (site.allocated_count, site.freed_count));
        let threads = self.engine.object.threads();
        let threads = threads.map(|(_, site)| (site.allocated_count, 0));
        let retired = self.retired.iter().map(|site| match site.kind {
            MemoryKind::JniHandle => (site.allocated.0, site.freed.0),
            MemoryKind::Thread => (site.allocated.0, 0),
            _ => (0, 0),
        });
        let all = handles.chain(threads).chain(retired);
        all.fold((0, 0), |(entries, returns), (made, deleted)| {
            (entries + made + deleted, returns + made)
        })
    }
}

/// Nanoseconds of a hit, of several kinds; `None` without hits.
fn mean(hits: &[&Hits]) -> Option<f64> {
    let count: u64 = hits.iter().map(|hits| hits.count).sum();
    let seconds: f64 = hits.iter().map(|hits| hits.seconds()).sum();
    (count > 0).then(|| seconds * 1e9 / count as f64)
}

fn cost(hits: &Hits) -> HitCost {
    HitCost {
        kind: match (hits.kind, hits.in_passing == hits.count) {
            (Kind::Fault, true) => "page_fault_passed_over",
            _ => hits.kind.name(),
        }
        .to_owned(),
        count: hits.count,
        timed: hits.timed,
        trap_nanoseconds: hits.trap.nanoseconds,
        program_nanoseconds: hits.program.nanoseconds,
    }
}

/// Processor time that this process has used.
fn own_cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer to a local.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let part = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    part(usage.ru_utime) + part(usage.ru_stime)
}
