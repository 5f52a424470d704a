//! One snapshot as several, each of processes that belong together.

use super::snapshot::Snapshot;
use crate::model::Process;

/// The processes of a snapshot that belong together.
#[derive(Debug, Clone, Default)]
pub struct Share {
    /// Their indices in the report.
    pub processes: Vec<usize>,
    /// The control groups that they are in, by path.
    pub cgroups: Vec<String>,
}

impl Snapshot {
    /// The processes, in the order of their indices.
    pub fn processes(&self) -> &[Process] {
        &self.report.processes
    }

    /// A snapshot for each share, in the same order. A process is in one share at most; what
    /// is of no process in particular is in all.
    pub fn split(self, shares: &[Share]) -> Vec<Self> {
        let mut parts: Vec<Self> = shares
            .iter()
            .map(|share| Self {
                report: self.report.part(&share.processes, &share.cgroups),
                groups: Vec::new(),
                samples: Vec::new(),
                files: self.files.clone(),
                unsearched: self.unsearched.clone(),
                began: self.began,
            })
            .collect();
        for mut group in self.groups {
            let mut shares = shares.iter().enumerate();
            let place = shares.find_map(|(at, share)| {
                let mut processes = share.processes.iter();
                Some((at, processes.position(|it| *it == group.process)?))
            });
            if let Some((at, process)) = place {
                group.process = process;
                parts[at].groups.push(group);
            }
        }
        parts
    }
}
