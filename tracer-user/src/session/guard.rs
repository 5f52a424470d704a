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
use crate::attach::inspect::{Mapped, Memory, all_processes, is_intact};
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
            for pid in some.iter().copied().filter(|pid| is_in(probed.scope, *pid)) {
                if !self.is_quickly_intact(pid, &probed) {
                    self.look_closely(pid, &[&probed]);
                }
            }
        }
        if self.options.follow {
            self.guard_others(&traced);
        }
    }

    /// Looks closely at processes whose mappings have changed.
    pub(super) fn guard_changed(&mut self, pids: &[u32]) {
        if pids.is_empty() {
            return;
        }
        let probed = self.probed();
        for pid in pids {
            let here: Vec<_> = probed.iter().filter(|it| is_in(it.scope, *pid)).collect();
            self.look_closely(*pid, &here);
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
        let probed = self.probed();
        let probed: Vec<_> = probed.iter().collect();
        for pid in others {
            self.look_closely(pid, &probed);
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
        let guarded = self.engine.probes.guarded();
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

    fn look_closely(&mut self, pid: u32, probed: &[&Probed]) {
        let Some(memory) = Memory::of_process(pid) else {
            return;
        };
        let is_traced = self.images.current(pid).is_some();
        for probed in probed {
            if !self
                .engine
                .probes
                .is_placed(probed.scope, probed.file.mapped)
            {
                continue;
            }
            let findings = memory.inspect(&probed.file, &probed.stretches);
            if !findings.is_empty() {
                self.withdraw(probed.scope, &probed.file, &probed.path, &findings);
            } else if is_traced {
                let file = probed.file.mapped;
                let mapped = memory.mapped(file).collect();
                self.guard.mapped.insert((pid, file), mapped);
            }
        }
    }

    /// Forgets where an ended process had its code.
    pub(super) fn guard_no_more(&mut self, pid: u32) {
        self.guard.mapped.retain(|(known, _), _| *known != pid);
    }
}

fn is_in(scope: Scope, pid: u32) -> bool {
    scope.pid().is_none_or(|one| one == pid)
}
