//! Targets that cannot be traced, or no longer. One that fails never ends the
//! tracing of others.

use anyhow::{Error, Result, bail};

use super::Session;
use super::left_alone::Notice;
use crate::attach::probes::Scope;
use crate::model::Untraced;
use crate::process::short_name::short_name;
use crate::targets::images::Image;
use crate::visible::{clean, clean_lines};

/// The reasons in one message: one alone speaks for itself.
pub fn all_reasons(untraced: &[Untraced]) -> String {
    if let [only] = untraced {
        return only.reason.clone();
    }
    let lines = untraced.iter().map(|it| format!("  {}", it.sentence()));
    let lines: Vec<_> = lines.map(|line| line.replace('\n', "\n  ")).collect();
    format!("none of the processes can be traced:\n{}", lines.join("\n"))
}

impl Untraced {
    /// A process that was not attached to.
    pub fn never(pid: u32, error: &Error) -> Self {
        Self {
            pid,
            process: short_name(pid).map_or_else(String::new, |name| clean(&name).into_owned()),
            reason: format!("{error:#}"),
            at: None,
        }
    }
}

impl Session {
    /// Remembers processes that cannot be traced, for the report.
    pub fn note_untraced(&mut self, untraced: Vec<Untraced>) {
        untraced.into_iter().for_each(|it| self.note(it));
    }

    /// Ends the tracing of one process, if it is traced, and says why.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub(super) fn give_up(&mut self, pid: u32, error: &Error) -> Result<()> {
        let mut untraced = Untraced::never(pid, error);
        if self.engine.object.is_active() {
            untraced.at = Some(self.since_start(self.now()));
        }
        let index = self.images.current(pid);
        if let Some(image) = index.and_then(|index| self.images.get(index)) {
            let name = self.images.name(image);
            if !name.is_empty() {
                name.clone_into(&mut untraced.process);
            }
            self.engine.object.dismiss(pid, image.id);
        }
        if !self.is_missed(pid) {
            self.note(untraced);
        }
        let scope = self.scope(pid);
        if scope != Scope::Everyone {
            self.engine.probes.remove(scope);
            self.java.machines.uncover(scope);
            self.java.codes.forget_process(pid);
        }
        self.java.heaps.retain(|watch| watch.pid() != pid);
        self.java.flights.retain(|flight| flight.pid() != pid);
        self.guard_no_more(pid);
        if !self.engine.object.is_active() {
            // It has never been traced.
            self.targets.retain(|target| target.pid != pid);
            if scope != Scope::Everyone {
                self.engine.placed.retain(|placed| placed.scope != scope);
            }
        }
        let Some(index) = index else {
            return Ok(());
        };
        self.images.leave(index, self.now());
        self.retire(&[index])
    }

    /// Gives a process up if what was done for it has failed.
    pub(super) fn or_give_up(&mut self, pid: u32, done: Result<()>) -> Result<()> {
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(pid, &error),
        }
    }

    /// Decides anew how results are taken, for a process with new code. If a
    /// return probe would kill it, it is given up, and its probes go; with
    /// `--follow` these are everybody's.
    ///
    /// # Errors
    /// Fails if the kernel does, or the probes of all would have to go.
    pub(super) fn reconsider_or_give_up(&mut self, pid: u32) -> Result<()> {
        match self.reconsider_returns(pid) {
            Err(error) if self.options.follow => Err(error),
            done => self.or_give_up(pid, done),
        }
    }

    /// Whether it is a descendant that has ended: nobody has asked for it.
    fn is_missed(&self, pid: u32) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| target.pid == pid && target.descends && !target.is_alive())
    }

    fn note(&mut self, untraced: Untraced) {
        let sentence = clean_lines(&untraced.sentence());
        self.notices.push(Notice::Warning(sentence));
        self.untraced.push(untraced);
    }

    /// Fails if none of the processes that were asked for is traced.
    ///
    /// # Errors
    /// Says why of each.
    pub(super) fn check_any_traced(&self, traced: usize) -> Result<()> {
        if traced == 0 {
            bail!("{}", clean_lines(&all_reasons(&self.untraced)));
        }
        Ok(())
    }

    /// Why tracing has ended, if that is because all that was left to trace had
    /// to be given up.
    pub fn why_nothing_is_left(&self) -> Option<String> {
        let was_given_up = |image: &Image| {
            let mut untraced = self.untraced.iter();
            untraced.any(|it| it.pid == image.pid && it.at.is_some())
        };
        let ended = self.images.iter().filter(|image| image.ended.is_some());
        let last = ended.max_by_key(|image| image.ended.map(|(time, _)| time));
        let is_so = self.is_over() && last.is_some_and(was_given_up);
        is_so.then(|| all_reasons(&self.untraced))
    }
}
