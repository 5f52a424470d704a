//! What was counted until a moment: the run's end, or before who holds live blocks is looked for.

use std::time::Duration;

use anyhow::Result;

use super::Session;
use super::growth::GrownPages;
use crate::model::Searched;
use crate::window::collect::{CollectedSite, collect};

/// Counts, and when they were taken.
pub(super) struct Counted {
    /// When it was begun, nanoseconds of `CLOCK_MONOTONIC`.
    pub now: u64,
    /// When sites were counted: looks before take their time.
    pub at: u64,
    /// What pages processes have grown by.
    pub grown: GrownPages,
    /// The sites that the kernel side has, then those that it has no more.
    pub sites: Vec<CollectedSite>,
    /// How many of them the kernel side has.
    pub own: usize,
}

impl Session {
    /// Ends the counting. What lives is followed on, for the search for holders, whose time is no
    /// part of the run.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn end_counting(&mut self) -> Result<()> {
        self.poll()?;
        self.settle_ended(true)?;
        self.curves.hasten();
        self.take_curves();
        self.end_balance();
        self.end_children();
        self.counted = Some(self.count()?);
        Ok(())
    }

    /// Notes how long a search took, and when it began, seconds since the start, if the run went on.
    pub fn note_search(&mut self, at: Option<f64>, time: Duration) {
        self.searched = Some(Searched {
            at,
            seconds: time.as_secs_f64(),
            ..Searched::default()
        });
    }

    /// Counts until now.
    ///
    /// # Errors
    /// Fails if the kernel's maps cannot be read.
    pub(super) fn count(&mut self) -> Result<Counted> {
        let now = self.now();
        self.refresh_code(now);
        self.look_at_mappings(true);
        if self.options.threads {
            self.threads.read_all(&self.images, &self.java.jvms);
        }
        let grown = self.grown_until_now()?;
        let cutoffs = self.cutoffs(now);
        // Looks before, and readings after, take their time.
        let at = self.now();
        let mut sites = collect(
            &self.engine.object,
            &self.images,
            &cutoffs,
            &grown.sites,
            now,
        )?;
        let own = sites.len();
        sites.extend(self.retired.iter().cloned());
        if self.options.service {
            self.note_levels_of_pages(&sites);
        }
        for site in &mut sites {
            site.curve = self.curves.of(site.key, site.kind);
        }
        self.close_spell()?;
        self.estimate_sites(&mut sites, now);
        Ok(Counted {
            now,
            at,
            grown,
            sites,
            own,
        })
    }
}
