//! Descendants that live already when a process is attached to.
//!
//! From the moment on at which the kernel side knows a process it takes each
//! child at its fork. So all that are there are entered first, and then looked
//! for again, until a look finds nobody new: a child that was forked meanwhile
//! was either seen, or is the kernel side's already.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use super::Session;
use super::target::Target;
use crate::attach::inspect::all_processes;
use crate::process::clock::monotonic_ns;
use crate::process::stat::Stat;

/// Looks at all processes, at most. Each goes one generation further, at
/// least, and living generations are few.
const LOOKS: usize = 64;

/// Who is whose child on this machine, at one moment.
pub(super) struct Families {
    children: HashMap<u32, Vec<u32>>,
    started: HashMap<u32, u64>,
    /// Ourselves, and who has led to us.
    own: HashSet<u32>,
}

impl Families {
    /// Reads all processes. Those that come or go meanwhile may be missing.
    pub(super) fn read() -> Self {
        let mut families = Self {
            children: HashMap::new(),
            started: HashMap::new(),
            own: HashSet::new(),
        };
        let mut parents = HashMap::new();
        for pid in all_processes() {
            let Ok(stat) = Stat::read(pid) else {
                continue;
            };
            families.children.entry(stat.parent).or_default().push(pid);
            families.started.insert(pid, stat.started);
            parents.insert(pid, stat.parent);
        }
        let mut next = Some(std::process::id());
        while let Some(pid) = next.filter(|pid| families.own.insert(*pid)) {
            next = parents.get(&pid).copied();
        }
        families
    }

    /// The descendants of a process, without those that `stop` names and
    /// theirs. The tracer is none, nor who has called it.
    pub(super) fn descendants(&self, root: u32, stop: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = vec![root];
        let mut seen = HashSet::from([root]);
        while let Some(pid) = next.pop() {
            for child in self.children.get(&pid).into_iter().flatten() {
                if *child == std::process::id() || stop(*child) || !seen.insert(*child) {
                    continue;
                }
                next.push(*child);
                if !self.own.contains(child) {
                    found.push(*child);
                }
            }
        }
        found
    }
}

/// A descendant that the kernel side knows, and user space does not yet.
struct Adopted {
    pid: u32,
    image: u64,
    time: u64,
    started: Option<u64>,
}

impl Session {
    /// Begins to trace the living descendants of processes that are traced.
    /// Returns those that are new.
    pub(super) fn adopt_descendants(&mut self, roots: &[u32]) -> Result<Vec<u32>> {
        let mut known: HashSet<u32> = roots.iter().copied().collect();
        let mut adopted = Vec::new();
        for _ in 0..LOOKS {
            let new = self.adopt_once(roots, &mut known)?;
            if new.is_empty() {
                break;
            }
            adopted.extend(new);
        }
        let mut pids = Vec::new();
        for child in adopted {
            if self.admit_adopted(&child)? {
                pids.push(child.pid);
            }
        }
        Ok(pids)
    }

    fn adopt_once(&mut self, roots: &[u32], known: &mut HashSet<u32>) -> Result<Vec<Adopted>> {
        let families = Families::read();
        let mut new = Vec::new();
        let found = roots
            .iter()
            .flat_map(|root| families.descendants(*root, |_| false));
        for pid in found {
            if !known.insert(pid) {
                continue;
            }
            let time = monotonic_ns();
            match self.engine.object.adopt(pid, time) {
                Ok(Some(image)) => new.push(Adopted {
                    pid,
                    image,
                    time,
                    started: families.started.get(&pid).copied(),
                }),
                // The kernel side has taken it at its fork.
                Ok(None) => {}
                Err(error) => self.give_up(pid, &error)?,
            }
        }
        Ok(new)
    }

    /// Enters a descendant. One that is gone, or was, is no error.
    fn admit_adopted(&mut self, child: &Adopted) -> Result<bool> {
        let Adopted {
            pid, image, time, ..
        } = *child;
        if Target::start_of_living(pid) != child.started {
            self.engine.object.dismiss(pid, image);
            return Ok(false);
        }
        let admitted = Target::find(pid).and_then(|target| {
            self.images.attach(pid, image, time)?;
            Ok(target)
        });
        match admitted {
            Ok(target) => {
                self.targets.push(target.found_as_descendant());
                Ok(true)
            }
            Err(error) => {
                self.engine.object.dismiss(pid, image);
                if Target::start_of_living(pid) == child.started {
                    self.give_up(pid, &error)?;
                }
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::event::{Event, EventKind};
    use tracer_ebpf::site::NO_SITE;
    use tracer_ebpf::thread::image_id;

    use super::*;
    use crate::process::watch::CodeEvent;
    use crate::targets::images::{Change, Images};

    fn families(pairs: &[(u32, u32)]) -> Families {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (parent, child) in pairs {
            children.entry(*parent).or_default().push(*child);
        }
        Families {
            children,
            started: HashMap::new(),
            own: HashSet::new(),
        }
    }

    fn sorted(mut pids: Vec<u32>) -> Vec<u32> {
        pids.sort_unstable();
        pids
    }

    #[test]
    fn descendants_are_children_and_theirs() {
        let all = families(&[(1, 2), (2, 3), (2, 4), (4, 5), (1, 6), (5, 2)]);
        assert_eq!(sorted(all.descendants(2, |_| false)), [3, 4, 5]);
        assert_eq!(sorted(all.descendants(1, |pid| pid == 4)), [2, 3, 6]);
        assert!(all.descendants(6, |_| false).is_empty());
    }

    #[test]
    fn the_tracer_and_who_called_it_are_none() {
        let own = std::process::id();
        let mut all = families(&[(1, 2), (2, own), (own, 7), (2, 8)]);
        all.own = HashSet::from([own, 2, 1]);
        assert_eq!(sorted(all.descendants(1, |_| false)), [8]);
    }

    const PARENT: u64 = image_id(1, 0);

    /// We are attached to, as `image` at a time.
    fn attached(image: u64, time: u64) -> Images {
        let mut images = Images::default();
        images.attach(std::process::id(), image, time).unwrap();
        images
    }

    fn fork_of(child: u64, time: u64) -> Event {
        Event {
            kind: EventKind::Fork as u32,
            thread: 1,
            image: PARENT,
            time,
            address: 0,
            length: 0,
            flags: 0,
            other: child,
            site: NO_SITE,
            padding: 0,
        }
    }

    #[test]
    fn a_child_that_was_seen_before_its_fork_was_told_is_one() {
        let pid = std::process::id();
        let (early, late) = (image_id(pid, 1 << 20), image_id(pid, 2 << 20));
        let mut images = attached(early, 1 << 20);
        let renamed = Change::Renamed { old: early, pid };
        assert_eq!(images.apply(&fork_of(late, 2 << 20)), renamed);
        // perf tells of it, too, and later of what follows.
        let fork = |time_ns| CodeEvent::Fork {
            pid,
            parent: 1,
            time_ns,
        };
        images.apply_code(fork(2 << 20), true);
        assert_eq!(images.running().count(), 1);
        assert_eq!(images.index_of(early), None);
        let image = images.get(images.index_of(late).unwrap()).unwrap();
        assert_eq!((image.id, image.parent), (late, PARENT));
        assert!(images.current_code(pid).unwrap().current().count() > 0);
    }

    #[test]
    fn a_child_that_gets_the_pid_of_one_that_ended_is_another() {
        let pid = std::process::id();
        let (first, second) = (image_id(pid, 1 << 20), image_id(pid, 2 << 20));
        let mut images = attached(first, 1 << 20);
        let exit = Event {
            kind: EventKind::Exit as u32,
            image: first,
            thread: pid,
            ..fork_of(0, 1 << 20)
        };
        assert_eq!(images.apply(&exit), Change::None);
        assert_eq!(images.apply(&fork_of(second, 2 << 20)), Change::None);
        assert!(images.index_of(first) != images.index_of(second));
    }

    #[test]
    fn what_perf_tells_of_before_is_not_news() {
        let pid = std::process::id();
        let mut images = attached(image_id(pid, 1 << 20), 1 << 20);
        let exec = |time_ns| CodeEvent::Exec {
            pid,
            time_ns,
            name: "other".into(),
        };
        let code = |images: &Images| images.current_code(pid).unwrap().id();
        let before = code(&images);
        images.apply_code(exec((1 << 20) - 1), true);
        assert_eq!(code(&images), before);
        images.apply_code(exec((1 << 20) + 1), true);
        assert_ne!(code(&images), before);
    }

    #[test]
    fn we_are_found_among_all_processes() {
        let all = Families::read();
        assert!(all.own.contains(&std::process::id()));
        assert!(all.started.contains_key(&std::process::id()));
    }
}
