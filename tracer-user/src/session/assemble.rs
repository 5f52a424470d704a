//! From what was collected to the report: names for addresses, one site for
//! each call path.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;

use super::Session;
use super::endings::kernel;
use super::images::Image;
use super::paths::{one_for_each_name, one_for_each_path};
use crate::leak::collect::{CollectedSite, Cutoff, collect, lifetime_buckets};
use crate::privilege::capability::{Phase, without};
use crate::process::code::CodeSpace;
use crate::report::long_names;
use crate::report::model::{
    Loss, Module, Overhead, Process, ProcessEnd, Report, SCHEMA, Settings, Shortened, Site,
    StackEnd, Stacks, Thread, Totals,
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
        if self.options.threads {
            self.threads.read_all(&self.images, &self.jvms);
        }
        let collected = collect(&self.object, &self.images, &self.cutoffs(now))?;
        let mut symbolizer = Symbolizer::new();
        let (processes, index_of) = self.processes(&collected, now);
        let mut sites = Vec::new();
        let mut modules = Vec::new();
        let jvm = self.machine_reports(&index_of);
        let java_native = self.java_native(&index_of);
        let losses = self.losses();
        let machine_hits = self.machines.hits(&self.object);
        // All is read that the kernel is asked for. Names come from files that
        // anybody may have made.
        let _until_named = self.give_up_for_naming()?;
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
            let own = own.into_iter().map(|(collected, end_reason)| {
                let mut site = self.site(&collected, end_reason, index, code, &mut symbolizer, end);
                site.oldest_survived =
                    machine.and_then(|machine| machine.survived(collected.oldest?));
                site
            });
            sites.extend(one_for_each_name(own.collect()));
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
        let totals = self.sum(sites.iter().filter(|site| site.kind.is_memory()));
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel(),
            started: self.started(),
            duration: self.elapsed(),
            settings: self.settings(),
            processes,
            left_alone: self.left_alone.clone(),
            modules,
            overhead: self.overhead(&totals, machine_hits),
            stacks: Stacks::of(&sites),
            jvm,
            sites,
            totals,
            timeline: self.timeline.clone(),
            losses,
            shortened: Shortened::default(),
            java_heap: self.java_heaps(&mut symbolizer),
            java_memory: self.java_memory(),
            java_native,
        };
        report.shortened = symbolizer.shortened();
        long_names::cut(&mut report, long_names::MAX_WRITTEN);
        Ok(report)
    }

    /// Leaves capabilities for the time that names are made, and for good if the
    /// probes are gone.
    fn give_up_for_naming(&self) -> Result<impl Drop + use<>> {
        if self.ended.is_some() {
            Phase::Reporting.start()?;
        }
        Ok(without())
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
        let is_mapped = |file| {
            code.is_some_and(|code| code.current().any(|mapping| mapping.range.file == file))
        };
        Process {
            pid: image.pid,
            name: self.images.name(image).to_owned(),
            executable: executable
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            end,
            outcome: self.outcome(image),
            suspicion: image.suspicion.clone(),
            began: self.since_start(image.began),
            ended: self.since_start(ended),
            probes: self.probes_of(image.pid, is_mapped),
            unseen: self.unseen_in(image.pid, is_mapped),
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
            thread: site.thread.as_ref().map(|thread| Thread {
                id: thread.id,
                name: self.threads.name(site.image, thread).to_owned(),
            }),
            frames: symbolizer.frames(
                code,
                &site.frames,
                &self.names.of(site.index, &site.frames, site.seen),
                site.seen.0,
            ),
        }
    }

    fn sum<'a>(&self, sites: impl Iterator<Item = &'a Site>) -> Totals {
        let mut totals = Totals {
            untraced_frees: self.untraced_frees(),
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
            count: self.late_allocators(),
            meaning: "allocators found only after the process had mapped them: what they allocated before that, within some 0.1 s, is in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "main_thread_ended".to_owned(),
            count: self.orphans.len() as u64,
            meaning: "processes that outlived their main thread, and whose probes the kernel took away because of that: what they allocated and freed since is in no number; --follow keeps the probes".to_owned(),
        });
        losses.push(Loss {
            cause: "left_alone".to_owned(),
            count: self.losses.left_alone,
            meaning: "functions of allocators that are not probed, since that would harm a process: what they do is in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "hooked_while_traced".to_owned(),
            count: self.losses.withdrawn,
            meaning: "files whose code was changed in memory while it was traced, and whose probes went at once: what was allocated and freed since is in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "unseen_function".to_owned(),
            count: self.unseen_functions() as u64,
            meaning: "functions of allocators that are not probed, since return addresses are left alone and it is not certain where their calls end: what they allocate and free is in no number; --returns replace shows them".to_owned(),
        });
        losses.push(Loss {
            cause: "code_events".to_owned(),
            count: self.losses.code_events,
            meaning: "records of newly mapped code that were lost: frames in it may have no name"
                .to_owned(),
        });
        losses.push(Loss {
            cause: "code_not_kept".to_owned(),
            count: self.images.code_not_kept(),
            meaning: "mappings of code, or parts of them, that were not remembered, since a process made so many: frames in what was there then, or before, may have no name".to_owned(),
        });
        losses.push(Loss {
            cause: "unpublished_code".to_owned(),
            count: self.losses.unpublished,
            meaning: "times that there was no room in the kernel for the code that a process has: stacks of that time are cut short".to_owned(),
        });
        losses.push(Loss {
            cause: "tracepoint_missed".to_owned(),
            count: self.object.left_out(),
            meaning: "starts and ends of threads and programs, and changed mappings, of any process, that the kernel kept from us while it preempted us: an upper bound of what we missed of these processes".to_owned(),
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
            return_instructions: self.why_instructions().unwrap_or_default().to_owned(),
            max_live: u64::from(self.options.sizes.live),
            max_sites: u64::from(self.options.sizes.sites),
        }
    }

    fn overhead(&self, totals: &Totals, machine_hits: u64) -> Overhead {
        // A counted allocation is an entry and a return, a free one entry.
        let probe_hits = 2 * totals.allocated_count
            + totals.freed_count
            + totals.untraced_frees
            + self.other_hits()
            + machine_hits;
        let (return_hits, nanoseconds_per_return) = self.return_hits();
        let others = probe_hits.saturating_sub(return_hits);
        let nanoseconds =
            others as f64 * self.nanoseconds_per_hit + return_hits as f64 * nanoseconds_per_return;
        Overhead {
            probe_hits,
            nanoseconds_per_hit: self.nanoseconds_per_hit,
            return_hits,
            nanoseconds_per_return,
            target_seconds: nanoseconds / 1e9,
            kernel_bytes: self.footprint().fixed,
            tracer_seconds: own_cpu_time().as_secs_f64(),
        }
    }

    /// Hits of the probes of JVMs' handles and threads that were followed. The
    /// end of a thread is no hit.
    fn other_hits(&self) -> u64 {
        let handles = self.object.handles();
        let handles = handles.map(|(_, site)| 2 * site.allocated_count + site.freed_count);
        let threads = self.object.threads();
        let threads = threads.map(|(_, site)| 2 * site.allocated_count);
        handles.chain(threads).sum()
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

pub(super) fn stack_end(end: u32) -> StackEnd {
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
        Some(Kernel::JavaCode) => StackEnd::JavaCode,
        Some(Kernel::Continuation) => StackEnd::Continuation,
        Some(Kernel::JavaLayout) => StackEnd::JavaLayout,
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
