//! The part of the report about Java virtual machines.

use tracer_ebpf::limits::MAX_PROCESSES;

use super::Session;
use super::jvm_probes::Machine;
use crate::jvm::events::pools::{self, Pool};
use crate::jvm::events::probe::Watched;
use crate::model::jvm::{
    ClassFailure, ClassGroup, Classes, Collection, Collections, Collector, Compiled, Jvm,
    LiveThread, Loader, MemoryPool, PoolPoint, Threads,
};

/// Rows of each list that is sorted by importance.
const MAX_ROWS: usize = 100;

impl Session {
    /// What the machines of these images told; `images` has the id of each and
    /// its index in the report.
    pub(super) fn machine_reports(&self, images: &[(u64, usize)]) -> Vec<Jvm> {
        images
            .iter()
            .filter_map(|(image, process)| {
                Some((*image, *process, self.java.machines.get(*image)?))
            })
            .take(MAX_PROCESSES as usize)
            .map(|(image, process, machine)| self.jvm(image, process, machine))
            .collect()
    }

    fn jvm(&self, image: u64, process: usize, machine: &Machine) -> Jvm {
        let hits = machine.hits(&self.engine.object);
        let count = |probe| hits.get(&probe).copied().unwrap_or(0);
        let events = &machine.events;
        Jvm {
            process,
            began: self.since_start(machine.since),
            probe_hits: hits.values().sum(),
            unreadable: events.unreadable,
            missing_probes: machine
                .missing
                .iter()
                .map(|probe| probe.name().to_owned())
                .collect(),
            problem: machine.problem.clone(),
            handle_problem: machine.handle_problem.clone(),
            thread_problem: machine.thread_problem.clone(),
            perf_map_problem: self.java.perf_maps.problem(image),
            collections: self.collections(machine),
            pools: events
                .pools
                .iter()
                .map(|(name, pool)| self.pool(name, pool))
                .collect(),
            classes: self.classes(machine, count(Watched::Initialised)),
            threads: self.threads(machine),
            compiled: Compiled {
                loaded: count(Watched::MethodLoaded),
                unloaded: count(Watched::MethodUnloaded),
            },
        }
    }

    fn collections(&self, machine: &Machine) -> Collections {
        let all = &machine.events.collections;
        let collectors: Vec<_> = all
            .collectors()
            .map(|(name, count)| Collector {
                name: name.to_owned(),
                count,
            })
            .collect();
        let (pauses, full_pauses) = all.pauses();
        Collections {
            count: collectors.iter().map(|collector| collector.count).sum(),
            full: all.full(),
            pauses,
            full_pauses,
            collectors,
            recent: all
                .recent()
                .map(|collection| Collection {
                    began: (collection.began > 0).then(|| self.since_start(collection.began)),
                    ended: self.since_start(collection.ended),
                    full: collection.full,
                })
                .collect(),
        }
    }

    fn pool(&self, name: &str, pool: &Pool) -> MemoryPool {
        let floors = pool.floors();
        let point = |point: &pools::Point| PoolPoint {
            at: self.since_start(point.time),
            used: point.used,
            committed: point.committed,
            max: point.max,
        };
        MemoryPool {
            name: name.to_owned(),
            old: pools::is_old(name),
            first_floor: floors.map(|(first, _)| first),
            last_floor: floors.map(|(_, last)| last),
            points: pool.points().iter().map(point).collect(),
        }
    }

    fn classes(&self, machine: &Machine, initialised: u64) -> Classes {
        let all = &machine.events.classes;
        let (loaders, failures) = (all.loaders(), all.failures());
        let named: u64 = failures.iter().map(|(_, known)| known.count).sum();
        Classes {
            loaded: all.total.loaded,
            unloaded: all.total.unloaded,
            initialised,
            failed: named + all.other_failures,
            loader_count: loaders.len() as u64,
            groups: first(all.groups(), |(name, counts)| ClassGroup {
                name: name.to_owned(),
                loaded: counts.loaded,
                unloaded: counts.unloaded,
            }),
            loaders: first(loaders, |(data, counts)| Loader {
                data,
                loaded: counts.loaded,
                unloaded: counts.unloaded,
            }),
            failures: first(failures, |(class, known)| ClassFailure {
                class: class.to_owned(),
                count: known.count,
                last: self.since_start(known.last),
            }),
        }
    }

    fn threads(&self, machine: &Machine) -> Threads {
        let all = &machine.events.threads;
        let live = all.live();
        Threads {
            started: all.started,
            stopped: all.stopped,
            live: live.len() as u64,
            oldest: first(live, |thread| LiveThread {
                name: thread.name.clone(),
                id: thread.id,
                began: self.since_start(thread.began),
                daemon: thread.daemon,
            }),
        }
    }
}

fn first<T, R>(rows: Vec<T>, row: impl FnMut(T) -> R) -> Vec<R> {
    rows.into_iter().take(MAX_ROWS).map(row).collect()
}
