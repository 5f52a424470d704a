//! What is probed of a file, to be looked at for as long as it is.

use std::collections::HashMap;
use std::sync::Arc;

use super::probes::Scope;
use super::stretch::Stretch;
use crate::kernel::link::Link;
use crate::process::file::ModuleFile;

/// Functions of a file that are probed in a scope, and what holds the probes.
#[derive(Debug)]
pub struct Guarded {
    /// Where the probes fire.
    pub scope: Scope,
    /// The file.
    pub file: Arc<ModuleFile>,
    /// Its path as a process sees it.
    pub path: String,
    /// The functions.
    pub stretches: Arc<[Stretch]>,
    /// Semaphores of these places, by offset, as far as there are any.
    pub counters: HashMap<u64, u64>,
    /// The probes; none once they were taken away.
    links: Vec<Held>,
    withdrawn: bool,
}

/// A probe, and whether it stays if return addresses are to be left alone.
#[derive(Debug)]
struct Held {
    link: Link,
    stays: bool,
}

impl Guarded {
    /// Functions whose probes are about to be placed.
    pub fn new(scope: Scope, file: &Arc<ModuleFile>, path: &str, stretches: Vec<Stretch>) -> Self {
        Self {
            scope,
            file: Arc::clone(file),
            path: path.to_owned(),
            stretches: stretches.into(),
            counters: HashMap::new(),
            links: Vec::new(),
            withdrawn: false,
        }
    }

    /// Takes over probes of these functions.
    pub fn hold(&mut self, links: impl IntoIterator<Item = Link>) {
        self.hold_as(true, links);
    }

    /// The same of probes that may have to go before the others.
    pub fn hold_as(&mut self, stays: bool, links: impl IntoIterator<Item = Link>) {
        let held = links.into_iter().map(|link| Held { link, stays });
        self.links.extend(held);
    }

    /// Gives up the probes that do not stay if return addresses are to be left
    /// alone. What is looked at from now on are `stretches`.
    pub fn leave_returns_alone(&mut self, stretches: Vec<Stretch>) -> Vec<Link> {
        self.stretches = stretches.into();
        let gone = self.links.extract_if(.., |held| !held.stays);
        gone.map(|held| held.link).collect()
    }

    /// Whether the probes are in place.
    pub fn is_placed(&self) -> bool {
        !self.withdrawn
    }

    /// Gives up the probes for good; they go when they are dropped.
    pub fn withdraw(&mut self) -> Vec<Link> {
        self.withdrawn = true;
        self.take()
    }

    /// Gives up the probes at the end of the run.
    pub fn take(&mut self) -> Vec<Link> {
        let links = std::mem::take(&mut self.links).into_iter();
        links.map(|held| held.link).collect()
    }
}
