//! One run of the tracer in which a target does many things, one after
//! another. Attaching and detaching cost the kernel some two seconds, so tests
//! that only differ in what the target does share a run.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::report::View;
use crate::target::{Target, Truth};
use crate::tracer::Tracer;

/// A report, and the truth of each command.
#[derive(Debug)]
pub struct Recording {
    /// The report.
    pub report: View,
    truths: BTreeMap<String, Truth>,
}

impl Borrow<View> for Recording {
    fn borrow(&self) -> &View {
        &self.report
    }
}

impl Recording {
    /// Attaches to a new target, runs all commands, and detaches.
    ///
    /// # Errors
    /// The target or the tracer fails.
    pub fn of(program: &str, commands: &[&str], options: &[&str]) -> Result<Self> {
        Self::with(program, commands, options, |_| {})
    }

    /// The same, with a say in the tracer's environment.
    ///
    /// # Errors
    /// See [`Recording::of`].
    pub fn with(
        program: &str,
        commands: &[&str],
        options: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut target = Target::start(program)?;
        let tracer = Tracer::record_with(target.pid, options, adapt)?;
        let mut truths = BTreeMap::new();
        for command in commands {
            truths.insert((*command).to_owned(), target.command(command)?);
        }
        Ok(Self {
            report: tracer.stop()?.report()?,
            truths,
        })
    }

    /// Compares the sites of one command with the report, and returns it.
    ///
    /// # Errors
    /// They differ, or the command was not run.
    pub fn agrees(&self, command: &str) -> Result<&View> {
        let truth = self
            .truths
            .get(command)
            .with_context(|| format!("{command} was not run"))?;
        self.report.sites_agree_with(truth)?;
        Ok(&self.report)
    }

    /// Compares all commands with the report.
    ///
    /// # Errors
    /// One differs.
    pub fn all_agree(&self) -> Result<()> {
        for (command, truth) in &self.truths {
            self.report
                .sites_agree_with(truth)
                .with_context(|| command.clone())?;
        }
        Ok(())
    }

    /// Compares everything that no single command tells: that there are no
    /// other sites, no other untraced frees, and no losses.
    ///
    /// # Errors
    /// They differ.
    pub fn has_nothing_else(&self) -> Result<()> {
        let mut all = Truth::default();
        self.truths
            .values()
            .for_each(|truth| all.add(truth.clone()));
        ensure!(!all.others, "a command allocates more than it tells");
        self.report.agrees_with(&all)?;
        let found = self.report.totals.untraced_frees;
        ensure!(
            found == all.untraced_frees,
            "{found} untraced frees instead of {}",
            all.untraced_frees
        );
        Ok(())
    }
}
