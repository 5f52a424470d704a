//! Targets that come and go while a run goes on, as `unfreed serve` has them: each image is
//! a group of its own, and what ended is forgotten once its last numbers are in a snapshot.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Session;
use super::balance::look::Look;
use super::snapshot::Snapshot;
use super::target::Target;
use crate::model::{Level, MemoryKind};
use crate::process::cgroup::Cgroup;
use crate::process::file::MAX_FILES;
use crate::process::handle::ProcessHandle;
use crate::process::resident::{MAX_CHUNKS, Residents};
use crate::window::collect::CollectedSite;
use crate::window::curves::Key;

/// What the first look at one process may take: kernel events wait meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Control groups whose accounts are kept, at most.
const MAX_CGROUPS: usize = 256;

/// Processes that could not be traced, of which so many are remembered: the last ones.
const MAX_UNTRACED: usize = 256;

impl Session {
    /// Begins to trace one more process. One that cannot be traced is no other's failure: its
    /// reason is among the notices, and `false` is returned.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn watch_target(&mut self, target: Target) -> Result<bool> {
        let pid = target.pid;
        self.targets
            .retain(|known| known.pid != pid || !known.has_ended());
        let watched = self.watch_or_fail(target);
        let is_watched = watched.is_ok();
        self.or_give_up(pid, watched)?;
        let excess = self.untraced.len().saturating_sub(MAX_UNTRACED);
        self.untraced.drain(..excess);
        Ok(is_watched && self.images.current(pid).is_some())
    }

    fn watch_or_fail(&mut self, target: Target) -> Result<()> {
        let pid = target.pid;
        let process = ProcessHandle::open(pid)?;
        // Before anything of it counts.
        let mut room = MAX_CHUNKS.saturating_sub(self.chunks_before());
        let look = Look::take(&process, Instant::now() + LOOK, &mut room)?;
        self.admit(target)?;
        let image = self.images.current(pid).and_then(|at| self.images.get(at));
        if let Some(image) = image.map(|image| image.id) {
            self.balance.before.insert(image, look);
        }
        if self.balance.cgroups.len() < MAX_CGROUPS {
            self.balance.enter_cgroup(&process);
        }
        if let Some(code) = self.images.current_code(pid) {
            self.engine.tables.request(code.current());
        }
        self.unpublished.push(pid);
        self.publish_code();
        Ok(())
    }

    /// Pages of looks that are kept for as long as their processes run, in chunks.
    fn chunks_before(&self) -> usize {
        let looks = self.balance.before.values();
        let pages = looks.filter_map(|look| look.pages.as_ref());
        pages.map(Residents::chunks).sum()
    }

    /// Ends the tracing of a process that goes on, since nobody asks for it any more. Its
    /// last numbers are in the next snapshot.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn let_target_go(&mut self, pid: u32) -> Result<()> {
        let Some(index) = self.images.current(pid) else {
            return Ok(());
        };
        if let Some(image) = self.images.get(index) {
            self.engine.object.dismiss(pid, image.id);
        }
        self.images.leave(index, self.now());
        let mut targets = self.targets.iter_mut();
        if let Some(target) = targets.find(|target| target.pid == pid) {
            target.end();
        }
        self.retire(&[index])
    }

    /// All numbers until now, with those of what has ended.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn snapshot_of_window(&mut self) -> Result<Snapshot> {
        self.settle_ended(true)?;
        self.count_descriptors();
        self.snapshot()
    }

    /// Forgets images that ended before the last snapshot, with all that is known of them.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn release_ended(&mut self) -> Result<()> {
        let has_left = self.images.indexed().filter(|(_, image)| image.has_left);
        let gone: Vec<(usize, u64)> = has_left.map(|(index, image)| (index, image.id)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        for (index, id) in &gone {
            self.balance.before.remove(id);
            self.balance.opened.forget(*id);
            self.leaving.kept.remove(index);
            self.images.release(*index);
        }
        let running: HashSet<u32> = self.running_images().map(|image| image.pid).collect();
        self.targets.retain(|target| running.contains(&target.pid));
        self.children.retain(&running);
        let images = &self.images;
        self.retired.retain(|group| images.group(group).is_some());
        self.forget_cgroups();
        Ok(())
    }

    /// Whether the run should end and another one begin: files have their numbers and their tables for
    /// good, and most of those that there is room for, or have room, are of files that nobody maps any more.
    pub fn is_worn(&self) -> bool {
        let unused = self.images.unused_files();
        let mostly_unused = 2 * unused > self.images.files.opened();
        2 * unused > MAX_FILES || (mostly_unused && self.engine.tables.are_nearly_full())
    }

    /// How many processes are traced now.
    pub fn watched(&self) -> usize {
        self.running_images().count()
    }

    /// The processes that are traced now.
    pub fn watched_pids(&self) -> Vec<u32> {
        self.running_images().map(|image| image.pid).collect()
    }

    /// Forgets control groups that no process is in any more.
    fn forget_cgroups(&mut self) {
        let processes = self.running_images();
        let processes = processes.filter_map(|image| self.process_of(image));
        let used: HashSet<String> = processes
            .filter_map(|process| Some(Cgroup::of(&process)?.path))
            .collect();
        self.balance.cgroups.retain(|path, _| used.contains(path));
    }

    /// Enters what is in memory of each path now as a moment of its curve: in a run whose
    /// targets come and go snapshots are the only looks at pages.
    pub(super) fn note_levels_of_pages(&mut self, sites: &[CollectedSite]) {
        let mut levels: HashMap<Key, Level> = HashMap::new();
        let pages = sites.iter().filter(|site| site.kind == MemoryKind::Page);
        for site in pages.filter(|site| site.live.0 > 0) {
            let level = levels.entry((site.key, site.kind)).or_default();
            level.live_count += site.live.0;
            level.live_bytes += site.live.1;
            level.allocated_count += site.allocated.0;
        }
        self.curves.enter(self.elapsed(), levels);
    }
}
