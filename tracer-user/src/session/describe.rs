//! What is traced and how, in lines for people.

use super::Session;
use crate::model::{Probe, UnseenFunction};
use crate::process::maps::FileId;
use crate::report::units;
use crate::targets::images::Image;
use crate::visible::clean;

impl Session {
    /// One line for each target: who, and where it is probed.
    pub fn describe(&self) -> Vec<String> {
        let describe = |image: &Image| {
            let probes = self.probes_of(image.pid, |_| true);
            let mut modules: Vec<_> = probes.iter().map(|probe| probe.module.as_str()).collect();
            modules.dedup();
            let name = clean(self.images.name(image));
            if self.options.growth {
                return format!("{} ({name}): its page faults", image.pid);
            }
            if let Some(sampler) = self.describe_sampler(image) {
                let sampler = clean(&sampler);
                return format!("{} ({name}): samples of its own, by {sampler}", image.pid);
            }
            if self.options.sampler {
                return format!("{} ({name}): samples, by a sampler of ours", image.pid);
            }
            if probes.is_empty() {
                return format!(
                    "{} ({name}): its allocator is probed when it is mapped",
                    image.pid
                );
            }
            let modules = modules.join(", ");
            format!(
                "{} ({name}): {} functions in {}",
                image.pid,
                probes.len(),
                clean(&modules)
            )
        };
        let traced = self.images.iter().filter(|image| image.ended.is_none());
        let (asked, others): (Vec<_>, Vec<_>) =
            traced.partition(|image| self.is_asked_for(image.pid));
        let mut lines: Vec<_> = asked.into_iter().map(describe).collect();
        if !others.is_empty() {
            let count = units::counted(others.len() as u64, "living descendant");
            lines.push(format!("{count} too"));
        }
        lines
    }

    /// Each probe, for `-v`.
    pub fn describe_probes(&self) -> Vec<String> {
        let describe = |probe: &Probe| {
            let module = clean(&probe.module);
            format!(
                "{:>16} at {module}+{:#x}, {}{}{}",
                probe.function,
                probe.file_offset,
                probe.placement,
                if probe.result.is_empty() {
                    ""
                } else {
                    ", result at "
                },
                probe.result
            )
        };
        self.engine
            .placed
            .iter()
            .flat_map(|placed| &placed.probes)
            .map(describe)
            .collect()
    }

    /// Each unwind table, for `-v`.
    pub fn describe_tables(&self) -> Vec<String> {
        self.engine.tables.describe()
    }

    /// The functions that are not probed in a process, in files that `is_mapped`.
    pub(super) fn unseen_in(
        &self,
        pid: u32,
        is_mapped: impl Fn(FileId) -> bool,
    ) -> Vec<UnseenFunction> {
        self.engine
            .placed
            .iter()
            .filter(|placed| placed.scope == self.scope(pid) && is_mapped(placed.file))
            .flat_map(|placed| placed.unseen.clone())
            .collect()
    }

    /// The probes that fire in a process, in files that `is_mapped`.
    pub(super) fn probes_of(&self, pid: u32, is_mapped: impl Fn(FileId) -> bool) -> Vec<Probe> {
        self.engine
            .placed
            .iter()
            .filter(|placed| placed.scope == self.scope(pid) && is_mapped(placed.file))
            .flat_map(|placed| placed.probes.clone())
            .collect()
    }
}
