//! Looks again at the code of all that is probed, for as long as it is.
//!
//! At each poll (0.1 s) the probed functions' bytes of traced processes are read
//! and compared, which takes some 2 us a function; when a process maps code, or
//! changes the protection of code, its mappings are read too. With `--follow`
//! breakpoints are in every process that maps a file. Then processes are looked
//! at in turn: [`TRACED`] of those that are traced in a poll, and [`OTHERS`] of
//! the others.

use std::collections::HashMap;
use std::sync::Arc;

use super::Session;
use crate::attach::inspect::{Mapped, all_processes, inspect_process, is_intact, mapped_in};
use crate::attach::probes::Scope;
use crate::attach::stretch::Stretch;
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;

/// Processes that are not traced, but probed with the others: this many are
/// looked at in a poll. Each takes some 0.2 ms.
const OTHERS: usize = 4;

/// Traced processes that are looked at in a poll.
const TRACED: usize = 32;

/// Where code was mapped when it was last looked at in full, and which of the
/// other processes were looked at in this round.
#[derive(Default)]
pub(super) struct Guard {
    mapped: HashMap<(u32, FileId), Vec<Mapped>>,
    round: Vec<u32>,
    /// The traced process whose turn it is.
    turn: usize,
}

/// What is compared.
struct Probed {
    scope: Scope,
    file: Arc<ModuleFile>,
    path: String,
    stretches: Arc<[Stretch]>,
}

impl Session {
    /// Looks at all traced processes, and at some of the others that the probes
    /// of everyone fire in.
    pub(super) fn guard_code(&mut self) {
        let traced = self.traced_pids();
        let some: Vec<_> = traced
            .iter()
            .cycle()
            .skip(self.guard.turn)
            .take(TRACED.min(traced.len()))
            .copied()
            .collect();
        self.guard.turn = (self.guard.turn + some.len()) % traced.len().max(1);
        for probed in self.probed() {
            for pid in pids_in(probed.scope, &some) {
                if !self.is_quickly_intact(pid, &probed) {
                    self.look_closely(pid, &probed);
                }
            }
        }
        if self.options.follow {
            self.guard_others(&traced);
        }
    }

    /// Looks closely at processes whose mappings have changed.
    pub(super) fn guard_changed(&mut self, pids: &[u32]) {
        for probed in self.probed() {
            for pid in pids_in(probed.scope, pids) {
                self.look_closely(pid, &probed);
            }
        }
    }

    fn guard_others(&mut self, traced: &[u32]) {
        if self.guard.round.is_empty() {
            self.guard.round = all_processes();
        }
        let rest = self.guard.round.len().saturating_sub(OTHERS);
        let some = self.guard.round.split_off(rest);
        let others: Vec<_> = some
            .into_iter()
            .filter(|pid| !traced.contains(pid))
            .collect();
        for probed in self.probed() {
            if probed.scope == Scope::Everyone {
                for pid in &others {
                    self.look_closely(*pid, &probed);
                }
            }
        }
    }

    fn traced_pids(&self) -> Vec<u32> {
        let running = self.images.running();
        let mut pids: Vec<_> = running
            .filter_map(|index| Some(self.images.get(index)?.pid))
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn probed(&self) -> Vec<Probed> {
        let guarded = self.probes.guarded();
        guarded
            .filter(|guarded| guarded.is_placed())
            .map(|guarded| Probed {
                scope: guarded.scope,
                file: Arc::clone(&guarded.file),
                path: guarded.path.clone(),
                stretches: Arc::clone(&guarded.stretches),
            })
            .collect()
    }

    fn is_quickly_intact(&self, pid: u32, probed: &Probed) -> bool {
        let Some(mapped) = self.guard.mapped.get(&(pid, probed.file.mapped)) else {
            return false;
        };
        let code = self.images.current_code(pid);
        code.is_some_and(|code| is_intact(code.process(), &probed.file, &probed.stretches, mapped))
    }

    fn look_closely(&mut self, pid: u32, probed: &Probed) {
        let Probed {
            scope,
            file,
            path,
            stretches,
        } = probed;
        let is_placed = |guarded: &crate::attach::guarded::Guarded| {
            guarded.scope == *scope && guarded.file.mapped == file.mapped && guarded.is_placed()
        };
        if !self.probes.guarded().any(is_placed) {
            return;
        }
        let findings = inspect_process(pid, file, stretches);
        if findings.is_empty() {
            if self.images.current(pid).is_some() {
                let mapped = mapped_in(pid, file.mapped);
                self.guard.mapped.insert((pid, file.mapped), mapped);
            }
        } else {
            self.withdraw(*scope, file, path, &findings);
        }
    }

    /// Forgets where an ended process had its code.
    pub(super) fn guard_no_more(&mut self, pid: u32) {
        self.guard.mapped.retain(|(known, _), _| *known != pid);
    }
}

fn pids_in(scope: Scope, pids: &[u32]) -> Vec<u32> {
    let is_in = |pid: &&u32| scope.pid().is_none_or(|one| one == **pid);
    pids.iter().filter(is_in).copied().collect()
}
