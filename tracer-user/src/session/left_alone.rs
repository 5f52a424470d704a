//! Functions that are left alone: before they are probed, and from when their
//! code was changed on.

use std::fmt;

use anyhow::{Result, bail};

use super::Session;
use crate::attach::allocator::{Allocator, AllocatorFunction};
use crate::attach::inspect::{Finding, inspect_allocator};
use crate::attach::plan::{Returns, plan};
use crate::attach::probes::Scope;
use crate::attach::rest::{is_endless, left_alone, rest};
use crate::model::LeftAlone;
use crate::process::address::FileOffset;
use crate::process::file::ModuleFile;
use crate::visible::clean;

/// What it means that probes went during a run.
const WITHDRAWN: &str = "from then on nothing of this file is counted, and what was live then is shown as live; an agent that saved our breakpoint with the code and executes its copy, or puts it back after this run, kills the process";

/// What is seen where nothing can be probed.
const PAGES_INSTEAD: &str =
    "so memory is followed by its page faults: where it is first touched, not who keeps it";

/// What else there is to do when children are followed.
const FOLLOWED: &str = "; without --follow only the traced process itself is probed";

/// What a person at the terminal should know at once.
pub(super) enum Notice {
    /// Something is not as it should be.
    Warning(String),
    /// What happened.
    Remark(String),
}

/// Nothing of a process's heap can be traced without harm to it.
#[derive(Debug)]
pub(super) struct HeapLeftAlone(String);

impl fmt::Display for HeapLeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HeapLeftAlone {}

/// An allocator as far as it can be probed without harm.
pub(super) struct Sound {
    pub(super) allocator: Allocator,
    pub(super) has_heap: bool,
}

/// The functions that start there.
fn names(functions: &[AllocatorFunction], starts: &[FileOffset]) -> String {
    let named = functions.iter().filter(|it| starts.contains(&it.start));
    let names: Vec<_> = named.map(|it| &*it.symbol).collect();
    names.join(", ")
}

impl Session {
    /// Looks at an allocator's code in all processes that its probes would fire
    /// in, and leaves alone what is not as in its file.
    pub(super) fn sound_part(&mut self, scope: Scope, allocator: &Allocator) -> Sound {
        let returns = self.engine.probes.returns();
        let functions = &allocator.functions;
        let findings = inspect_allocator(scope, allocator, returns);
        let endless = plan(functions, returns).unseen;
        let starts = left_alone(functions, &findings, &endless);
        let mut rest = rest(functions, &starts);
        let hint = if scope == Scope::Everyone {
            FOLLOWED
        } else {
            ""
        };
        let unseen = format!("{}{hint}", rest.unseen);
        for finding in &findings {
            self.note_left_alone(finding.describe(&allocator.path, None, &unseen));
        }
        let unseen = functions
            .iter()
            .filter(|it| is_endless(it, &endless))
            .count();
        let left_alone = functions.len() - rest.functions.len();
        self.engine.losses.left_alone += left_alone.saturating_sub(unseen) as u64;
        if rest.functions.is_empty() {
            self.engine.probes.refuse(scope, allocator.file.mapped);
        } else {
            // They get no probes, and are in the report with the reason.
            let endless = functions.iter().filter(|it| is_endless(it, &endless));
            rest.functions.extend(endless.cloned());
        }
        Sound {
            allocator: Allocator {
                functions: rest.functions,
                ..allocator.clone()
            },
            has_heap: rest.has_heap,
        }
    }

    /// Whether anything of a process's heap can be traced.
    ///
    /// # Errors
    /// Says what was left alone instead, and what to do: a [`HeapLeftAlone`] if the process itself
    /// is the reason.
    pub(super) fn check_any_heap(&self, pid: u32, heaps: usize) -> Result<()> {
        // With probes for everyone a bystander may be the reason.
        let is_reason = |it: &&LeftAlone| self.options.follow || it.pid == pid;
        let mut left_alone = self.left_alone.iter().filter(is_reason).peekable();
        if heaps > 0 || left_alone.peek().is_none() {
            return Ok(());
        }
        let (mut is_own, mut reasons) = (true, Vec::new());
        for it in left_alone {
            is_own &= it.pid == pid;
            reasons.push(format!("  {}", clean(&it.sentence())));
        }
        let text = format!(
            "process {pid} was not touched: its heap cannot be traced without harm to it:\n{}\nstart it without the agent that does this, trace a process that is not hooked, or follow page faults, which takes no probe (--growth); `unfreed doctor -p {pid}` says more",
            reasons.join("\n")
        );
        match is_own {
            true => Err(HeapLeftAlone(text).into()),
            false => bail!("{text}"),
        }
    }

    /// Notes what kept probes away, where pages are followed in their place.
    pub fn note_pages_instead(&mut self, left_alone: Vec<LeftAlone>) {
        let instead = left_alone.into_iter().map(|it| LeftAlone {
            unseen: PAGES_INSTEAD.into(),
            ..it
        });
        self.left_alone.extend(instead);
    }

    /// Takes the probes of a file away, whose code was changed in a process.
    pub(super) fn withdraw(
        &mut self,
        scope: Scope,
        file: &ModuleFile,
        path: &str,
        findings: &[Finding],
    ) {
        self.withdraw_probes(scope, file, path);
        let at = Some(self.since_start(self.now()));
        for finding in findings {
            self.note_left_alone(finding.describe(path, at, WITHDRAWN));
        }
        self.engine.losses.withdrawn += 1;
    }

    fn withdraw_probes(&mut self, scope: Scope, file: &ModuleFile, path: &str) {
        let known = self
            .engine
            .probes
            .withdraw(&mut self.engine.object, scope, file.mapped);
        if let Err(error) = known {
            let text = format!(
                "an agent that puts breakpoints back into {path} kills the process: they are not known any more ({error:#})"
            );
            self.notices
                .push(Notice::Warning(clean(&text).into_owned()));
        }
    }

    /// Gives up allocators of which, once return addresses are left alone, too
    /// little would be probed for their numbers to be right.
    pub(super) fn withdraw_what_cannot_end(&mut self) {
        let returns = Returns::Instructions;
        for (scope, allocator) in self.engine.probes.allocators() {
            let functions = &allocator.functions;
            let findings = inspect_allocator(scope, &allocator, returns);
            let endless = plan(functions, returns).unseen;
            let starts = left_alone(functions, &[], &endless);
            if !findings.is_empty() {
                self.withdraw(scope, &allocator.file, &allocator.path, &findings);
            } else if !rest(functions, &starts).has_heap {
                self.withdraw_probes(scope, &allocator.file, &allocator.path);
                self.engine.losses.left_alone += functions.len() as u64;
                self.notices.push(Notice::Warning(format!(
                    "{} is not traced any more: return addresses are left alone from now on, and it is not certain where {} end",
                    clean(&allocator.path),
                    names(functions, &starts)
                )));
            }
        }
    }

    pub(super) fn note_left_alone(&mut self, left_alone: LeftAlone) {
        let sentence = clean(&left_alone.sentence()).into_owned();
        self.notices.push(Notice::Warning(sentence));
        self.left_alone.push(left_alone);
    }

    /// What there is to say on standard error since the last time; if `quiet`,
    /// warnings only.
    pub fn take_notices(&mut self, quiet: bool) -> Vec<String> {
        let notices = std::mem::take(&mut self.notices).into_iter();
        notices
            .chain(self.unseen_notices())
            .filter_map(|notice| match notice {
                Notice::Warning(text) => Some(format!("warning: {text}")),
                Notice::Remark(_) if quiet => None,
                Notice::Remark(text) => Some(text),
            })
            .collect()
    }
}
