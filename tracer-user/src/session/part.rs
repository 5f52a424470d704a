//! A report of some of its processes alone.

use crate::model::{Growth, MemoryLimit, Report, Totals};

impl Report {
    /// What the report says of the processes with these indices, which come in this order
    /// then, and of the control groups with these paths. What is of no process in particular
    /// (losses, what tracing cost, the budget) stays as it is: it is of all.
    ///
    /// Totals, stacks and timeline are for who enters the sites; see
    /// [`Report::count_again`].
    #[must_use]
    pub fn part(&self, processes: &[usize], cgroups: &[String]) -> Self {
        let place = |old: usize| processes.iter().position(|process| *process == old);
        /// Clones those that are of these processes, with their new indices.
        macro_rules! of {
            ($all:expr) => {
                $all.iter()
                    .filter_map(|it| place(it.process).map(|process| (process, it.clone())))
                    .map(|(process, mut it)| {
                        it.process = process;
                        it
                    })
                    .collect()
            };
        }
        let of_processes: Vec<_> = processes
            .iter()
            .filter_map(|process| self.processes.get(*process).cloned())
            .collect();
        let pids: Vec<u32> = of_processes.iter().map(|process| process.pid).collect();
        Self {
            untraced: Vec::new(),
            left_alone: Vec::new(),
            modules: of!(self.modules),
            sites: of!(self.sites),
            jvm: of!(self.jvm),
            java_heap: Vec::new(),
            java_memory: self
                .java_memory
                .iter()
                .filter(|it| pids.contains(&it.pid))
                .cloned()
                .collect(),
            java_native: of!(self.java_native),
            balance: of!(self.balance),
            growth: self.growth.as_ref().map(|growth| Growth {
                sites: of!(growth.sites),
                balance: of!(growth.balance),
            }),
            cgroups: self
                .cgroups
                .iter()
                .filter(|it| cgroups.contains(&it.path))
                .cloned()
                .collect(),
            limits: self
                .limits
                .iter()
                .filter(|limit| holds(limit, cgroups))
                .cloned()
                .collect(),
            timeline: Vec::new(),
            older_frees: Vec::new(),
            window: None,
            findings: Vec::new(),
            changes: Vec::new(),
            processes: of_processes,
            ..self.clone_head()
        }
    }

    /// The report without anything that is of single processes.
    fn clone_head(&self) -> Self {
        Self {
            schema: self.schema.clone(),
            version: self.version.clone(),
            kernel: self.kernel.clone(),
            started: self.started.clone(),
            duration: self.duration,
            searched: None,
            settings: self.settings.clone(),
            processes: Vec::new(),
            untraced: Vec::new(),
            left_alone: Vec::new(),
            modules: Vec::new(),
            sites: Vec::new(),
            totals: self.totals,
            stacks: self.stacks.clone(),
            jvm: Vec::new(),
            sampling: self.sampling,
            budget: self.budget.clone(),
            growth: None,
            timeline: Vec::new(),
            older_frees: Vec::new(),
            window: None,
            losses: self.losses.clone(),
            shortened: self.shortened,
            overhead: self.overhead.clone(),
            java_heap: Vec::new(),
            java_memory: Vec::new(),
            java_native: Vec::new(),
            balance: Vec::new(),
            cgroups: Vec::new(),
            findings: Vec::new(),
            changes: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Makes the totals those of its sites of memory.
    pub fn count_again(&mut self) {
        let mut totals = Totals::default();
        for site in self.memory() {
            totals.count(
                (site.allocated_count, site.allocated_bytes),
                (site.freed_count, site.freed_bytes),
                (site.live_count, site.live_bytes),
            );
        }
        self.totals = totals;
    }
}

/// Whether a limit holds for processes in one of these control groups. One of a group holds
/// for itself, whichever group above it has set it.
fn holds(limit: &MemoryLimit, cgroups: &[String]) -> bool {
    match limit.name.strip_prefix("cgroup ") {
        Some(path) => cgroups.iter().any(|cgroup| cgroup == path),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_part_has_what_is_of_its_processes() {
        let mut report = sample::report();
        let mut other = report.processes[0].clone();
        other.pid += 1;
        report.processes.push(other);
        let mut site = report.sites[0].clone();
        site.process = 1;
        site.live_bytes = 7919;
        report.sites.push(site);
        let limit = |name: &str| MemoryLimit {
            name: name.to_owned(),
            bytes: 10,
            left: 5,
        };
        report.limits = vec![limit("cgroup /a"), limit("cgroup /b"), limit("machine")];
        let mut part = report.part(&[1], &["/b".to_owned()]);
        part.count_again();
        assert_eq!(part.processes, report.processes[1..]);
        let sites: Vec<_> = part
            .sites
            .iter()
            .map(|it| (it.process, it.live_bytes))
            .collect();
        assert_eq!(sites, [(0, 7919)]);
        assert_eq!(part.totals.live_bytes, 7919);
        assert_eq!(part.limits, report.limits[1..]);
        let both = report.part(&[1, 0], &[]);
        assert_eq!(both.sites.len(), report.sites.len());
        assert_eq!(both.sites.last().map(|site| site.process), Some(0));
    }
}
