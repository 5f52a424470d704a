//! Which traced process is of which service.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::config::Depth;
use super::container::Container;
use super::discovery::Found;
use crate::model::Process;
use crate::session::MAX_PROCESSES;
use crate::session::split::Share;

/// A process since it is watched.
#[derive(Debug, Clone, PartialEq)]
struct Watched {
    found: Found,
    /// Since when, seconds from the run's start.
    since: f64,
    /// Whether it is traced still.
    runs: bool,
}

/// What is watched.
#[derive(Debug, Default)]
pub struct Services {
    /// By process id, the last one last.
    watched: HashMap<u32, Vec<Watched>>,
    /// Processes that cannot be traced.
    refused: HashSet<(u32, u64)>,
    /// Processes that there was no room for.
    left_out: usize,
}

/// What has to be done so that what is found is what is watched.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Processes to watch.
    pub begin: Vec<Found>,
    /// Processes to watch no more.
    pub end: Vec<u32>,
}

impl Services {
    /// Compares what is watched with what is to be. A process whose service has another name
    /// now is of that one, with all that was seen of it.
    pub fn compare(&mut self, found: &[Found]) -> Changes {
        let mut changes = Changes::default();
        let mut wanted = HashSet::new();
        for found in found {
            wanted.insert((found.pid, found.started));
            if let Some(watched) = self.running_mut(found) {
                watched.found.service.clone_from(&found.service);
                watched.found.depth = found.depth;
            } else if !self.refused.contains(&(found.pid, found.started)) {
                changes.begin.push(found.clone());
            }
        }
        self.refused.retain(|process| wanted.contains(process));
        let running = self.watched.values().flatten().filter(|it| it.runs);
        let ends = running.filter(|it| !wanted.contains(&(it.found.pid, it.found.started)));
        changes.end = ends.map(|it| it.found.pid).collect();
        changes.end.sort_unstable();
        let room = MAX_PROCESSES.saturating_sub(self.running());
        self.left_out = changes.begin.len().saturating_sub(room);
        changes.begin.truncate(room);
        changes
    }

    /// Enters a process that is traced from now on, seconds from the run's start.
    pub fn begin(&mut self, found: Found, since: f64) {
        let all = self.watched.entry(found.pid).or_default();
        all.push(Watched {
            found,
            since,
            runs: true,
        });
    }

    /// Enters one that cannot be traced.
    pub fn refuse(&mut self, found: &Found) {
        self.refused.insert((found.pid, found.started));
    }

    /// Enters the end of a process, or of its tracing.
    pub fn end(&mut self, pid: u32) {
        let watched = self.watched.get_mut(&pid);
        for watched in watched.into_iter().flatten() {
            watched.runs = false;
        }
    }

    /// How many processes are watched.
    pub fn running(&self) -> usize {
        let all = self.watched.values().flatten();
        all.filter(|watched| watched.runs).count()
    }

    /// How many processes there was no room for at the last look.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The services that have a process, each with how closely it is looked at, as the rule of
    /// the process says that is watched for longest, and its processes.
    pub fn running_by_service(&self) -> BTreeMap<&str, (Depth, Vec<u32>)> {
        let all = self.watched.values().flatten();
        let mut running: Vec<&Watched> = all.filter(|it| it.runs).collect();
        running.sort_unstable_by(|one, other| one.since.total_cmp(&other.since));
        let mut services = BTreeMap::new();
        for Watched { found, .. } in running {
            let of = services.entry(found.service.as_str());
            let (_, pids) = of.or_insert((found.depth, Vec::new()));
            pids.push(found.pid);
        }
        services
    }

    /// The processes of a report, by service.
    pub fn shares(&self, processes: &[Process]) -> BTreeMap<String, Share> {
        let mut shares: BTreeMap<String, Share> = BTreeMap::new();
        for (index, process) in processes.iter().enumerate() {
            let Some(watched) = self.of(process) else {
                continue;
            };
            let found = &watched.found;
            let share = shares.entry(found.service.clone()).or_default();
            share.processes.push(index);
            if !share.cgroups.contains(&found.cgroup) {
                share.cgroups.push(found.cgroup.clone());
            }
        }
        shares
    }

    /// The containers of each service's processes.
    pub fn containers(&self) -> HashMap<String, Vec<Container>> {
        let mut all: HashMap<String, Vec<Container>> = HashMap::new();
        for watched in self.watched.values().flatten() {
            let Some(container) = &watched.found.container else {
                continue;
            };
            let of_service = all.entry(watched.found.service.clone()).or_default();
            if !of_service.contains(container) {
                of_service.push(container.clone());
            }
        }
        for containers in all.values_mut() {
            containers.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        }
        all
    }

    /// Forgets what ended: its last numbers were told.
    pub fn forget_ended(&mut self) {
        for all in self.watched.values_mut() {
            all.retain(|watched| watched.runs);
        }
        self.watched.retain(|_, all| !all.is_empty());
    }

    /// The process that a row of a report is of: the last one under its id that was watched
    /// when it began. (What it executes begins later.)
    fn of(&self, process: &Process) -> Option<&Watched> {
        let all = self.watched.get(&process.pid)?;
        all.iter().rfind(|watched| watched.since <= process.began)
    }

    fn running_mut(&mut self, found: &Found) -> Option<&mut Watched> {
        let mut all = self.watched.get_mut(&found.pid)?.iter_mut();
        all.find(|it| it.runs && it.found.started == found.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn found(pid: u32, started: u64, service: &str) -> Found {
        Found {
            pid,
            started,
            service: service.to_owned(),
            cgroup: format!("/{service}"),
            container: None,
            depth: Depth::default(),
        }
    }

    fn process(pid: u32, began: f64) -> Process {
        Process {
            pid,
            began,
            ..sample::report().processes[0].clone()
        }
    }

    #[test]
    fn a_process_under_an_id_that_was_used_before_is_another() {
        let mut services = Services::default();
        let first = found(7, 1, "a");
        let changes = services.compare(std::slice::from_ref(&first));
        assert_eq!(changes.begin.first(), Some(&first));
        services.begin(first, 1.0);
        let second = found(7, 2, "b");
        let changes = services.compare(std::slice::from_ref(&second));
        assert_eq!((changes.end, changes.begin.len()), (vec![7], 1));
        services.end(7);
        services.begin(second, 5.0);
        let shares = services.shares(&[process(7, 1.5), process(7, 5.5), process(8, 1.0)]);
        assert_eq!(shares["a"].processes, [0]);
        assert_eq!(shares["b"].processes, [1]);
        assert_eq!(shares["b"].cgroups, ["/b"]);
        services.forget_ended();
        assert!(!services.shares(&[process(7, 1.5)]).contains_key("a"));
    }

    #[test]
    fn rules_that_change_give_a_process_another_service() {
        let mut services = Services::default();
        services.begin(found(7, 1, "a"), 1.0);
        assert_eq!(services.compare(&[found(7, 1, "b")]), Changes::default());
        assert!(services.shares(&[process(7, 2.0)]).contains_key("b"));
        assert_eq!(services.compare(&[]).end, [7]);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut services = Services::default();
        let all: Vec<_> = (1..=300).map(|pid| found(pid, 1, "a")).collect();
        assert_eq!(services.compare(&all).begin.len(), MAX_PROCESSES);
        assert_eq!(services.left_out(), 300 - MAX_PROCESSES);
        services.refuse(&all[0]);
        assert_eq!(services.compare(&all).begin[0], all[1]);
    }
}
