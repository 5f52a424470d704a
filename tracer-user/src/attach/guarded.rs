//! What is probed of a file, to be looked at for as long as it is.

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
    /// The probes; none once they were taken away.
    links: Vec<Link>,
    withdrawn: bool,
}

impl Guarded {
    /// Functions whose probes are about to be placed.
    pub fn new(scope: Scope, file: &Arc<ModuleFile>, path: &str, stretches: Vec<Stretch>) -> Self {
        Self {
            scope,
            file: Arc::clone(file),
            path: path.to_owned(),
            stretches: stretches.into(),
            links: Vec::new(),
            withdrawn: false,
        }
    }

    /// Takes over probes of these functions.
    pub fn hold(&mut self, links: impl IntoIterator<Item = Link>) {
        self.links.extend(links);
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
        std::mem::take(&mut self.links)
    }
}
