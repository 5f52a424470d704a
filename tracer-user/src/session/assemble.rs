//! From what was collected to the report: names for addresses, one site for
//! each call path.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use tracer_ebpf::limits::LIFETIME_BUCKETS;

use super::Session;
use super::images::Image;
use crate::leak::collect::{CollectedSite, Cutoff, collect, lifetime_buckets};
use crate::process::address::FrameAddress;
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::maps::MappingName;
use crate::report::model::{
    Loss, MemoryKind, Module, Overhead, Process, ProcessEnd, Report, SCHEMA, Settings, Site,
    StackEnd, Stacks, Totals,
};
use crate::symbolize::Symbolizer;

impl Session {
    /// The report of what was traced until now.
    ///
    /// # Errors
    /// Fails if the kernel's maps cannot be read.
    pub fn report(&mut self) -> Result<Report> {
        let now = self.now();
        self.refresh_code(now);
        let collected = collect(&self.object, &self.images, &self.cutoffs(now))?;
        let mut symbolizer = Symbolizer::new();
        let (processes, index_of) = self.processes(&collected, now);
        let mut sites = Vec::new();
        let mut modules = Vec::new();
        let jvm = self.machine_reports(&index_of);
        for (image, index) in index_of {
            let Some(at) = self.images.index_of(image) else {
                continue;
            };
            let Some(image) = self.images.get(at) else {
                continue;
            };
            let Some(code) = self.images.code(image) else {
                continue;
            };
            let own: Vec<_> = collected
                .iter()
                .filter(|site| site.image == image.id)
                .cloned()
                .collect();
            let own = one_for_each_path(own, code);
            modules.extend(used_modules(&mut symbolizer, index, code, &own));
            let end = image.ended.map_or(now, |(time, _)| time);
            let machine = self.machines.get(image.id);
            sites.extend(own.into_iter().map(|(collected, end_reason)| {
                let mut site = self.site(&collected, end_reason, index, code, &mut symbolizer, end);
                site.oldest_survived =
                    machine.and_then(|machine| Some(machine.events.survived(collected.oldest?)));
                site
            }));
        }
        sites.sort_by_key(|site| {
            (
                std::cmp::Reverse((site.live_bytes, site.live_count, site.allocated_bytes)),
                site.id,
            )
        });
        for (id, site) in sites.iter_mut().enumerate() {
            site.id = id as u64 + 1;
        }
        let totals = self.sum(&sites);
        Ok(Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started(),
            duration: self.elapsed(),
            settings: self.settings(),
            processes,
            modules,
            overhead: self.overhead(&totals),
            stacks: Stacks::of(&sites),
            jvm,
            sites,
            totals,
            timeline: self.timeline.clone(),
            losses: self.losses(),
        })
    }

    /// Which live blocks of each image count, at `now`.
    fn cutoffs(&self, now: u64) -> HashMap<u64, Cutoff> {
        let images = self.images.iter();
        images
            .map(|image| (image.id, self.cutoff(image.id, now)))
            .collect()
    }

    /// How stacks end, as the kernel side has it.
    pub fn stacks(&self) -> Stacks {
        let known = |image| self.images.index_of(image).is_some();
        let sites = self
            .object
            .used_sites()
            .filter(|(_, site)| known(site.image));
        Stacks::count(sites.map(|(_, site)| (stack_end(site.end), site.allocated_count)))
    }

    /// Code that was mapped without an event that we saw.
    fn refresh_code(&mut self, now: u64) {
        let running: Vec<_> = self.images.running().collect();
        for index in running {
            self.images.refresh(index, now);
        }
    }

    /// The processes to report, and the index of each image among them:
    /// targets always, others if they allocated.
    fn processes(
        &self,
        collected: &[CollectedSite],
        now: u64,
    ) -> (Vec<Process>, Vec<(u64, usize)>) {
        let mut processes = Vec::new();
        let mut index_of = Vec::new();
        for image in self.images.iter() {
            let allocated = collected.iter().any(|site| site.image == image.id);
            let replaced = matches!(image.ended, Some((_, ProcessEnd::Exec)));
            let is_target = self.targets.iter().any(|target| target.pid == image.pid);
            if allocated || (is_target && !replaced) {
                index_of.push((image.id, processes.len()));
                processes.push(self.process(image, now));
            }
        }
        (processes, index_of)
    }

    fn process(&self, image: &Image, now: u64) -> Process {
        let (ended, end) = image.ended.unwrap_or((now, ProcessEnd::Running));
        let code = self.images.code(image);
        let executable = code.and_then(CodeSpace::executable);
        Process {
            pid: image.pid,
            name: self.images.name(image).to_owned(),
            executable: executable
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            end,
            began: self.since_start(image.began),
            ended: self.since_start(ended),
            probes: self.probes_of(image.pid, |file| {
                code.is_some_and(|code| code.current().any(|mapping| mapping.range.file == file))
            }),
        }
    }

    fn site(
        &self,
        site: &CollectedSite,
        stack_end: StackEnd,
        process: usize,
        code: &CodeSpace,
        symbolizer: &mut Symbolizer,
        end: u64,
    ) -> Site {
        Site {
            id: 0,
            process,
            kind: site.kind,
            live_bytes: site.live.1,
            live_count: site.live.0,
            allocated_bytes: site.allocated.1,
            allocated_count: site.allocated.0,
            freed_bytes: site.freed.1,
            freed_count: site.freed.0,
            oldest_age: site
                .oldest
                .map(|oldest| seconds(end.saturating_sub(oldest))),
            oldest_survived: None,
            first_seen: self.since_start(site.seen.0),
            last_seen: self.since_start(site.seen.1),
            lifetimes: lifetime_buckets(&site.lifetimes),
            lower_bound: site.untracked > 0,
            stack_end,
            frames: symbolizer.frames(code, &site.frames, site.seen.0),
        }
    }

    fn sum(&self, sites: &[Site]) -> Totals {
        let mut totals = Totals {
            untraced_frees: self.object.untraced_frees.get(0).unwrap_or(0),
            ..Totals::default()
        };
        for site in sites {
            totals.live_bytes += site.live_bytes;
            totals.live_count += site.live_count;
            totals.allocated_bytes += site.allocated_bytes;
            totals.allocated_count += site.allocated_count;
            totals.freed_bytes += site.freed_bytes;
            totals.freed_count += site.freed_count;
        }
        totals
    }

    fn losses(&self) -> Vec<Loss> {
        let mut losses: Vec<_> = self
            .kernel_losses()
            .map(|(cause, count)| Loss {
                cause: cause.name().to_owned(),
                count: count.events,
                meaning: cause.meaning().to_owned(),
            })
            .collect();
        losses.push(Loss {
            cause: "late_allocator".to_owned(),
            count: self.losses.late_allocators,
            meaning: "allocators found only after the process had mapped them: what they allocated before that, within some 0.1 s, is in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "code_events".to_owned(),
            count: self.losses.code_events,
            meaning: "records of newly mapped code that were lost: frames in it may have no name"
                .to_owned(),
        });
        losses.push(Loss {
            cause: "unpublished_code".to_owned(),
            count: self.losses.unpublished,
            meaning: "times that there was no room in the kernel for the code that a process has: stacks of that time are cut short".to_owned(),
        });
        losses
    }

    fn settings(&self) -> Settings {
        Settings {
            command: self.options.command.clone(),
            min_size: self.options.min_size,
            older_than: self.options.older_than.as_secs_f64(),
            survived: self.options.survived,
            follow: self.options.follow,
            max_live: u64::from(self.options.sizes.live),
            max_sites: u64::from(self.options.sizes.sites),
        }
    }

    fn overhead(&self, totals: &Totals) -> Overhead {
        // A counted allocation is an entry and a return, a free one entry.
        let probe_hits = 2 * totals.allocated_count
            + totals.freed_count
            + totals.untraced_frees
            + self.machines.hits(&self.object);
        Overhead {
            probe_hits,
            nanoseconds_per_hit: self.nanoseconds_per_hit,
            target_seconds: probe_hits as f64 * self.nanoseconds_per_hit / 1e9,
            kernel_bytes: self.footprint().fixed,
            tracer_seconds: own_cpu_time().as_secs_f64(),
        }
    }

    fn started(&self) -> String {
        let since_epoch = self.began.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
    }

    pub(super) fn since_start(&self, time: u64) -> f64 {
        seconds(time.saturating_sub(self.began.1))
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Says of stacks that end at an address without a known mapping what it is:
/// code that is newer than what the kernel side had been told of, or none at
/// all, which is no frame then. Adds up sites whose paths are the same.
fn one_for_each_path(
    sites: Vec<CollectedSite>,
    code: &CodeSpace,
) -> Vec<(CollectedSite, StackEnd)> {
    let mut merged: Vec<(CollectedSite, StackEnd)> = Vec::new();
    let mut known: HashMap<Path, usize> = HashMap::new();
    for mut site in sites {
        let mut end = stack_end(site.end);
        let mapping = |frame: FrameAddress| code.find(frame.lookup(), site.seen.0);
        let last = FrameAddress::of_stack(&site.frames).next_back();
        if end == StackEnd::NoMapping
            && let Some(last) = last
        {
            match mapping(last) {
                Some(mapping) => end = end_in(mapping),
                // The allocator and its caller are certain.
                None if site.frames.len() > 2 => {
                    site.frames.pop();
                    end = StackEnd::BadReturn;
                }
                None => {}
            }
        }
        let since = |frame| mapping(frame).map(|mapping| mapping.since_ns);
        let path = Path {
            mapped: FrameAddress::of_stack(&site.frames).map(since).collect(),
            frames: site.frames.clone(),
            end,
            is_heap: site.kind == MemoryKind::Heap,
        };
        match known.get(&path) {
            Some(at) => add(&mut merged[*at].0, &site),
            None => {
                known.insert(path, merged.len());
                merged.push((site, end));
            }
        }
    }
    merged
}

/// What makes two sites of an image the same.
#[derive(PartialEq, Eq, Hash)]
struct Path {
    frames: Vec<u64>,
    /// Since when the code of each frame is mapped: what is unmapped leaves
    /// its addresses to others.
    mapped: Vec<Option<u64>>,
    end: StackEnd,
    is_heap: bool,
}

/// Why a stack ended in a mapping that the kernel side did not know.
fn end_in(mapping: &CodeMapping) -> StackEnd {
    match &mapping.range.name {
        MappingName::Special(name) if name == "[uprobes]" => StackEnd::Hijacked,
        _ => StackEnd::NoRowYet,
    }
}

fn add(sum: &mut CollectedSite, site: &CollectedSite) {
    let pair = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
    sum.allocated = pair(sum.allocated, site.allocated);
    sum.freed = pair(sum.freed, site.freed);
    sum.live = pair(sum.live, site.live);
    sum.oldest = sum.oldest.into_iter().chain(site.oldest).min();
    sum.seen = (sum.seen.0.min(site.seen.0), sum.seen.1.max(site.seen.1));
    sum.untracked += site.untracked;
    for bucket in 0..LIFETIME_BUCKETS {
        sum.lifetimes[bucket] += site.lifetimes[bucket];
    }
}

fn stack_end(end: u32) -> StackEnd {
    use tracer_ebpf::stack::StackEnd as Kernel;
    let known = usize::try_from(end)
        .ok()
        .and_then(|number| Kernel::ALL.get(number));
    match known {
        Some(Kernel::Start) => StackEnd::Start,
        Some(Kernel::TooDeep) => StackEnd::TooDeep,
        Some(Kernel::Unreadable) => StackEnd::Unreadable,
        Some(Kernel::NoMapping) => StackEnd::NoMapping,
        Some(Kernel::NoRowYet) => StackEnd::NoRowYet,
        Some(Kernel::NoRow) => StackEnd::NoRow,
        Some(Kernel::NoFramePointer) => StackEnd::NoFramePointer,
        Some(Kernel::Hijacked) => StackEnd::Hijacked,
        Some(Kernel::Unsupported) => StackEnd::Unsupported,
        Some(Kernel::StartByFramePointers) => StackEnd::StartByFramePointers,
        Some(Kernel::BadReturn) | None => StackEnd::BadReturn,
    }
}

fn used_modules(
    symbolizer: &mut Symbolizer,
    process: usize,
    code: &CodeSpace,
    sites: &[(CollectedSite, StackEnd)],
) -> Vec<Module> {
    symbolizer.modules(
        process,
        code,
        sites
            .iter()
            .map(|(site, _)| (site.frames.as_slice(), site.seen.0)),
    )
}

/// CPU time that this process has used.
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
