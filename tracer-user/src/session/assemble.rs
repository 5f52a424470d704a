//! From what was collected to a snapshot: all of a report but the names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Result;

use super::Session;
use super::endings::kernel;
use super::snapshot::{NamelessGroup, NamelessSite, Snapshot, stack_end};
use crate::model::{
    Growth, Loss, Process, ProcessEnd, Report, SCHEMA, Sampling, Settings, Shortened, Stacks,
    Totals,
};
use crate::process::code::CodeSpace;
use crate::targets::estimate::Estimates;
use crate::targets::images::Image;
use crate::window::collect::{CollectedSite, Cutoff};

impl Session {
    /// What was traced until now, all but the names: those come from files, take
    /// their time, and are nothing that the kernel is asked for.
    ///
    /// # Errors
    /// Fails if the kernel's maps cannot be read.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let counted = match self.counted.take() {
            Some(counted) => counted,
            None => self.count()?,
        };
        let (now, grown, mut collected) = (counted.now, counted.grown, counted.sites);
        self.find_java_objects();
        self.add_holders(collected.get_mut(..counted.own).unwrap_or_default());
        let totals = self.sum(&collected);
        let sampling = self.sampling(&collected);
        let mut by_group: HashMap<u64, Vec<CollectedSite>> = HashMap::new();
        for site in collected {
            by_group.entry(site.group).or_default().push(site);
        }
        let (processes, index_of) = self.processes(&by_group, now);
        let rows = self.rows_of_images(&index_of);
        let is_told = grown.is_told;
        let pages = self.balances_of_pages(grown, &rows, &processes);
        let (balance, growth) = match self.options.growth {
            true => (pages, None),
            false => {
                let balance = self.balances(&rows, &processes, totals.live_count)?;
                (balance, is_told.then(|| Growth::of(pages)))
            }
        };
        let mut groups = Vec::new();
        for (group, process) in index_of {
            let own = by_group.remove(&group).unwrap_or_default();
            groups.extend(self.nameless(group, process, own));
        }
        let (java_heap, samples) = self.java_heaps();
        let machine_hits = self.java.machines.hits(&self.engine.object);
        let limits = self.limits(&balance);
        let report = Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel(),
            started: self.started(),
            duration: self.since_start(counted.at),
            searched: self.searched,
            settings: self.settings(),
            processes,
            untraced: self.untraced.clone(),
            left_alone: self.left_alone.clone(),
            modules: Vec::new(),
            overhead: self.overhead(machine_hits)?,
            stacks: Stacks::default(),
            jvm: self.machine_reports(&rows),
            sites: Vec::new(),
            totals,
            sampling,
            budget: self.budget_report(),
            growth,
            timeline: self.timeline.points().to_vec(),
            older_frees: self.curves.older_frees(),
            window: None,
            losses: self.losses(),
            shortened: Shortened::default(),
            java_heap,
            java_memory: self.java_memory(),
            java_native: self.java_native(&rows),
            balance,
            cgroups: self.cgroup_balances(),
            findings: Vec::new(),
            changes: Vec::new(),
            limits,
        };
        Ok(Snapshot {
            report,
            groups,
            samples,
            files: self.engine.tables.files().clone(),
            unsearched: self.unsearched(),
            began: self.began.1,
        })
    }

    /// The sites of a group, with what has to be known to name them.
    fn nameless(
        &self,
        group: u64,
        process: usize,
        sites: Vec<CollectedSite>,
    ) -> Option<NamelessGroup> {
        let (_, code) = self.images.shown(group)?;
        let shown = Arc::new(code.view());
        let mut codes: HashMap<u64, Arc<CodeSpace>> = HashMap::new();
        let site = |mut site: CollectedSite| {
            if site.names.is_none() {
                site.names = Some(self.java.names.of(site.index, &site.frames, site.seen));
            }
            self.leave_sampler(&mut site);
            if let Some(thread) = &mut site.thread {
                thread.name = self.threads.name(site.image, thread).to_owned();
            }
            let machine = self.java.machines.get(site.image);
            let survived = machine.and_then(|machine| machine.survived(site.oldest?));
            let code = codes.entry(site.image).or_insert_with(|| {
                let own = self.code_of(&site).map(|code| Arc::new(code.view()));
                own.unwrap_or_else(|| Arc::clone(&shown))
            });
            NamelessSite {
                code: Arc::clone(code),
                survived,
                site,
            }
        };
        let sites = sites.into_iter().map(site).collect();
        Some(NamelessGroup {
            process,
            code: shown,
            sites,
        })
    }

    /// The sums over all sites of memory.
    fn sum(&self, sites: &[CollectedSite]) -> Totals {
        let mut totals = self.unknown_frees();
        for site in sites.iter().filter(|site| self.is_counted(site.kind)) {
            totals.count(site.allocated, site.freed, site.live);
        }
        totals
    }

    /// The standard errors of these sums, if they are estimates.
    fn sampling(&self, sites: &[CollectedSite]) -> Option<Sampling> {
        if self.has_seen_all() && !self.has_any_sampler() {
            return None;
        }
        let mut all = Estimates::default();
        let estimates = sites.iter().filter_map(|site| site.estimates.as_ref());
        estimates.for_each(|site| all.add(site));
        Some(Sampling {
            interval: self.sample_interval().max(self.stated_interval()),
            bursts: self.bursts(),
            errors: all.errors(),
        })
    }

    /// Which live blocks of each image count, at `now`.
    pub(super) fn cutoffs(&self, now: u64) -> HashMap<u64, Cutoff> {
        let images = self.images.iter();
        images
            .map(|image| {
                let cutoff = self.cutoff(image.id, now);
                let end = image.ended.map_or(now, |(time, _)| time);
                (image.id, Cutoff { end, ..cutoff })
            })
            .collect()
    }

    /// How stacks end, as the kernel side has it.
    pub fn stacks(&self) -> Stacks {
        let known = |image| self.images.index_of(image).is_some();
        let sites = self
            .engine
            .object
            .used_sites()
            .filter(|(_, site)| known(site.image));
        Stacks::count(sites.map(|(_, site)| (stack_end(site.end), site.allocated_count)))
    }

    /// Code that was mapped without an event that we saw.
    pub(super) fn refresh_code(&mut self, now: u64) {
        let running: Vec<_> = self.images.running().collect();
        for index in running {
            self.images.refresh(index, now);
        }
    }

    /// The code of the image that made a site, if there is anything to say of
    /// it yet.
    fn code_of(&self, site: &CollectedSite) -> Option<&CodeSpace> {
        let image = self.images.get(self.images.index_of(site.image)?)?;
        self.images.code(image)
    }

    /// The processes to report, and the index of each group among them: those of
    /// targets always, others if they allocated.
    fn processes(
        &self,
        by_group: &HashMap<u64, Vec<CollectedSite>>,
        now: u64,
    ) -> (Vec<Process>, Vec<(u64, usize)>) {
        let mut processes = Vec::new();
        let mut index_of = Vec::new();
        for (index, image) in self.images.indexed() {
            let group = image
                .group
                .and_then(|id| Some((id, self.images.group(id)?)));
            let replaced = matches!(image.ended, Some((_, ProcessEnd::Exec)));
            let is_target = self.is_asked_for(image.pid);
            let alone = is_target && !replaced;
            match group {
                Some((id, group))
                    if group.first == index && (by_group.contains_key(&id) || alone) =>
                {
                    index_of.push((id, processes.len()));
                    processes.push(self.group_process(id, image, now));
                }
                Some(_) => {}
                None if alone => processes.push(self.process(image, now)),
                None => {}
            }
        }
        (processes, index_of)
    }

    /// Whether somebody has asked for a process, and not for an ancestor alone.
    pub(super) fn is_asked_for(&self, pid: u32) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| target.pid == pid && !target.descends)
    }

    /// The images of the groups in a report, and where these are in it.
    fn rows_of_images(&self, index_of: &[(u64, usize)]) -> Vec<(u64, usize)> {
        let index_of: HashMap<u64, usize> = index_of.iter().copied().collect();
        let row = |image: &Image| Some((image.id, *index_of.get(&image.group?)?));
        self.images.iter().filter_map(row).collect()
    }

    /// A group, as its first image and what there is to say of the others.
    fn group_process(&self, id: u64, first: &Image, now: u64) -> Process {
        let members = || self.images.iter().filter(|image| image.group == Some(id));
        let running = members().filter(|image| image.ended.is_none()).count() as u64;
        let processes = self.images.group(id).map_or(1, |group| group.images);
        let mut process = self.process(first, now);
        if processes > 1 && running > 0 {
            process.end = ProcessEnd::Running;
            process.ended = self.since_start(now);
            process.outcome = None;
        }
        let suspicion = || members().find_map(|image| image.suspicion.clone());
        process.suspicion = process.suspicion.or_else(suspicion);
        process.processes = processes;
        process.running = running;
        process
    }

    fn process(&self, image: &Image, now: u64) -> Process {
        let (ended, end) = image.ended.unwrap_or((now, ProcessEnd::Running));
        let code = self.images.code(image);
        let executable = code.and_then(CodeSpace::executable);
        let is_last = end != ProcessEnd::Exec;
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
            age: image.age.as_secs_f64(),
            ended: self.since_start(ended),
            probes: self.probes_of(image.pid, is_mapped),
            sampler: self.sampler_of(image),
            unseen: self.unseen_in(image.pid, is_mapped),
            processes: 1,
            running: u64::from(image.ended.is_none()),
            mappings: image.mappings,
            children: if is_last {
                self.children_of(image.pid)
            } else {
                None
            },
        }
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
            cause: "late_code".to_owned(),
            count: self.late_code(),
            meaning: "files with code that --module or --only means, which a process had mapped a moment before their calls were followed: what they asked for meanwhile, within some milliseconds, is in no number; `unfreed run` has the program wait".to_owned(),
        });
        losses.push(Loss {
            cause: "main_thread_ended".to_owned(),
            count: self.orphans.len() as u64,
            meaning: "processes that outlived their main thread, and whose probes the kernel took away because of that: what they allocated and freed since is in no number; --follow keeps the probes".to_owned(),
        });
        losses.push(Loss {
            cause: "left_alone".to_owned(),
            count: self.engine.losses.left_alone,
            meaning: "functions of allocators that are not probed, since that would harm a process, or since a process has them where no probe can be: what they do is in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "hooked_while_traced".to_owned(),
            count: self.engine.losses.withdrawn,
            meaning: "files whose code was changed in memory while it was traced, and whose probes went at once: what was allocated and freed since is in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "sampler_took_over".to_owned(),
            count: self.engine.losses.taken_over,
            meaning: "blocks that were live when a sampler was found in a process, whose allocators were probed until then: they are counted as allocated, and are followed no more".to_owned(),
        });
        losses.push(Loss {
            cause: "unseen_function".to_owned(),
            count: self.unseen_functions() as u64,
            meaning: "functions of allocators that are not probed, for the reasons that are told of each: what they allocate and free is in no number".to_owned(),
        });
        losses.push(self.unseen_blocks());
        losses.push(Loss {
            cause: "code_events".to_owned(),
            count: self.engine.losses.code_events,
            meaning: "records of newly mapped code that were lost: frames in it may have no name"
                .to_owned(),
        });
        losses.push(Loss {
            cause: "code_not_kept".to_owned(),
            count: self.images.code_not_kept(),
            meaning: "mappings of code, or parts of them, that were not remembered, since a process made so many: frames in what was there then, or before, may have no name".to_owned(),
        });
        losses.push(Loss {
            cause: "paths_not_kept".to_owned(),
            count: self.retired.not_kept(),
            meaning: "call paths without anything live in a process that runs, and that there was no room to keep apart: they are in the numbers, together, without their frames; raise --max-sites".to_owned(),
        });
        losses.push(Loss {
            cause: "unpublished_code".to_owned(),
            count: self.engine.losses.unpublished,
            meaning: "times that there was no room in the kernel for the code that a process has: stacks of that time are cut short".to_owned(),
        });
        losses.push(Loss {
            cause: "system_calls".to_owned(),
            count: self.engine.losses.system_calls,
            meaning: "this kernel cannot trace its own functions: mappings are seen where libc's mmap, munmap and mremap make them, anonymous ones alone; what other code maps, files, and threads' stacks are in no number".to_owned(),
        });
        losses.push(Loss {
            cause: "tracepoint_missed".to_owned(),
            count: self.engine.object.left_out(),
            meaning: "starts and ends of threads and programs, and changed mappings, of any process, that the kernel kept from us while it had preempted us, or (at trace events) any change of a BPF map: an upper bound of what we missed of these processes".to_owned(),
        });
        losses
    }

    fn settings(&self) -> Settings {
        Settings {
            command: self.options.command.clone(),
            min_size: self.options.min_size,
            modules: self.options.modules.clone(),
            only: self.options.only.clone(),
            unmet: self.names_without_meaning(),
            sample: match self.options.budget {
                Some(_) => 0,
                None => self.options.sample,
            },
            older_than: self.options.older_than.as_secs_f64(),
            survived: self.options.survived,
            growth: self.options.growth,
            growth_instead: self.options.growth_instead,
            follow: self.options.follow,
            return_instructions: self.why_instructions().unwrap_or_default().to_owned(),
            max_live: u64::from(self.options.sizes.live),
            max_sites: u64::from(self.options.sizes.sites),
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
