//! Functions that are left alone: before they are probed, and from when their
//! code was changed on.

use anyhow::{Result, bail};

use super::Session;
use crate::allocator::Allocator;
use crate::attach::inspect::{Finding, inspect};
use crate::attach::probes::Scope;
use crate::attach::rest::rest;
use crate::process::file::ModuleFile;
use crate::report::model::LeftAlone;
use crate::report::names::clean;

/// What it means that probes went during a run.
const WITHDRAWN: &str = "from then on nothing of this file is counted, and what was live then is shown as live; an agent that saved our breakpoint with the code and executes its copy, or puts it back after this run, kills the process";

/// What else there is to do when children are followed.
const FOLLOWED: &str = "; without --follow only the traced process itself is probed";

/// What a person at the terminal should know at once.
pub(super) enum Notice {
    /// Something is not as it should be.
    Warning(String),
    /// What happened.
    Remark(String),
}

/// An allocator as far as it can be probed without harm.
pub(super) struct Sound {
    pub(super) allocator: Allocator,
    pub(super) has_heap: bool,
}

impl Session {
    /// Looks at an allocator's code in all processes that its probes would fire
    /// in, and leaves alone what is not as in its file.
    pub(super) fn sound_part(&mut self, scope: Scope, allocator: &Allocator) -> Sound {
        let stretches: Vec<_> = allocator.functions.iter().map(|it| it.stretch()).collect();
        let findings = inspect(scope, &allocator.file, &stretches);
        let starts: Vec<_> = findings.iter().map(|it| it.stretch.start).collect();
        let rest = rest(&allocator.functions, &starts);
        let hint = if scope == Scope::Everyone {
            FOLLOWED
        } else {
            ""
        };
        let unseen = format!("{}{hint}", rest.unseen);
        for finding in &findings {
            self.note_left_alone(finding.describe(&allocator.path, None, &unseen));
        }
        self.losses.left_alone += (allocator.functions.len() - rest.functions.len()) as u64;
        if rest.functions.is_empty() {
            self.probes.refuse(scope, allocator.file.mapped);
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
    /// Says what was left alone instead, and what to do.
    pub(super) fn check_any_heap(&self, pid: u32, heaps: usize) -> Result<()> {
        if heaps > 0 || self.left_alone.is_empty() {
            return Ok(());
        }
        let reasons: Vec<_> = self
            .left_alone
            .iter()
            .map(|it| format!("  {}", clean(&it.sentence())))
            .collect();
        bail!(
            "process {pid} was not touched: its heap cannot be traced without harm to it:\n{}\nstart it without the agent that does this, or trace a process that is not hooked; `unfreed doctor -p {pid}` says more",
            reasons.join("\n")
        );
    }

    /// Takes the probes of a file away, whose code was changed in a process.
    pub(super) fn withdraw(
        &mut self,
        scope: Scope,
        file: &ModuleFile,
        path: &str,
        findings: &[Finding],
    ) {
        self.probes.withdraw(&mut self.object, scope, file.mapped);
        let at = Some(self.since_start(self.now()));
        for finding in findings {
            self.note_left_alone(finding.describe(path, at, WITHDRAWN));
        }
        self.losses.withdrawn += 1;
    }

    fn note_left_alone(&mut self, left_alone: LeftAlone) {
        let sentence = clean(&left_alone.sentence()).into_owned();
        self.notices.push(Notice::Warning(sentence));
        self.left_alone.push(left_alone);
    }

    /// What there is to say on standard error since the last time; if `quiet`,
    /// warnings only.
    pub fn take_notices(&mut self, quiet: bool) -> Vec<String> {
        let notices = std::mem::take(&mut self.notices).into_iter();
        notices
            .filter_map(|notice| match notice {
                Notice::Warning(text) => Some(format!("warning: {text}")),
                Notice::Remark(_) if quiet => None,
                Notice::Remark(text) => Some(text),
            })
            .collect()
    }
}
