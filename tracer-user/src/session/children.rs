//! Whether a target's children, which are not traced, hold the memory that is
//! looked for.

use std::collections::{HashMap, HashSet};

use super::Session;
use super::family::Families;
use super::left_alone::Notice;
use crate::model::Children;
use crate::process::account::Account;
use crate::report::text::children_sentence;
use crate::visible::clean;

/// What targets and their children held, by the target's pid.
#[derive(Default)]
pub(super) struct ChildrenState {
    seen: HashMap<u32, Children>,
}

/// What a process has resident in anonymous memory, bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Account::of_status(&status)?.anonymous)
}

impl ChildrenState {
    /// Forgets all but these processes.
    pub(super) fn retain(&mut self, pids: &HashSet<u32>) {
        self.seen.retain(|pid, _| pids.contains(pid));
    }
}

impl Session {
    /// Looks when the run begins, and says at once what is to be seen then.
    pub(super) fn begin_children(&mut self) {
        for (pid, now) in self.look_at_children() {
            let children = Children {
                bytes_at_start: now.bytes,
                own_bytes_at_start: now.own_bytes,
                ..now
            };
            if children.hold_much() {
                let current = self.images.current(pid).and_then(|at| self.images.get(at));
                let name = current.map_or("", |image| self.images.name(image));
                let sentence = children_sentence(pid, name, &children);
                self.notices
                    .push(Notice::Remark(clean(&sentence).into_owned()));
            }
            self.children.seen.insert(pid, children);
        }
    }

    /// Looks again. Of a process that has ended it stays as it was.
    pub(super) fn end_children(&mut self) {
        for (pid, now) in self.look_at_children() {
            let known = self.children.seen.entry(pid).or_default();
            *known = Children {
                bytes_at_start: known.bytes_at_start,
                own_bytes_at_start: known.own_bytes_at_start,
                ..now
            };
        }
    }

    /// The children of a target, if they hold much.
    pub(super) fn children_of(&self, pid: u32) -> Option<Children> {
        let children = self.children.seen.get(&pid)?;
        children.hold_much().then_some(*children)
    }

    /// What each living target and its children hold now.
    fn look_at_children(&self) -> Vec<(u32, Children)> {
        if self.options.follow {
            return Vec::new();
        }
        let families = Families::read();
        let is_target = |pid| self.targets.iter().any(|target| target.pid == pid);
        let living = self.targets.iter().filter(|target| target.is_alive());
        living
            .filter_map(|target| {
                let own_bytes = resident(target.pid)?;
                let children = families.descendants(target.pid, is_target);
                let held: Vec<_> = children.into_iter().filter_map(resident).collect();
                let children = Children {
                    count: held.len() as u64,
                    bytes: held.iter().sum(),
                    own_bytes,
                    ..Children::default()
                };
                Some((target.pid, children))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_hold_memory() {
        assert!(resident(std::process::id()).unwrap() > 64 << 10);
        assert_eq!(resident(u32::MAX), None);
    }
}
