//! What mappings are of, and what of them is in memory.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tracer_ebpf::event::{Event, EventKind, MAP_ANONYMOUS};
use tracer_ebpf::frame::Frame;
use tracer_ebpf::site::NO_SITE;

use super::Session;
use super::large_blocks::LargeSites;
use crate::model::Mappings;
use crate::process::address::{CodeAddress, FileOffset};
use crate::process::handle::ProcessHandle;
use crate::process::pagemap::{Kept, PageMap};
use crate::process::regions;
use crate::targets::images::Image;

/// How often mappings are looked at, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// A look may take one part in so many of the tracer's time.
const SHARE: u32 = 50;
/// How long a look at one process may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same when a report is made.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How many mappings a process may have (proc_sys_vm(5)).
const LIMIT: &str = "/proc/sys/vm/max_map_count";
/// What glibc writes into a thread's id when the thread was joined
/// (`nptl/pthread_join_common.c`).
const JOINED: i32 = -1;

/// When mappings were looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    next: Option<Instant>,
    /// When names of files may be looked for again.
    names: Option<Instant>,
    pub(super) large: LargeSites,
}

impl Session {
    /// The same event, without a site if a loader maps: that is the code and the data
    /// of libraries, and what it needs for itself.
    pub(super) fn without_loaders(&self, event: Event) -> Event {
        let is_mapping = event.kind == EventKind::Map as u32 && event.site != NO_SITE;
        if is_mapping && self.is_by_loader(&event) {
            return Event {
                site: NO_SITE,
                ..event
            };
        }
        event
    }

    /// Whether an allocator has mapped this for itself, in a call that was not chosen for
    /// a sample, or was made from elsewhere: the kernel side forgets such calls at once, and so does not know.
    pub(super) fn is_by_allocator(&self, event: &Event) -> bool {
        let maps = [EventKind::Map, EventKind::Commit].map(|kind| kind as u32);
        if !maps.contains(&event.kind)
            || event.site == NO_SITE
            || !(self.engine.object.leaves_out() || self.has_sampler(event.image))
        {
            return false;
        }
        let Some(site) = self.engine.object.sites.get(event.site) else {
            return false;
        };
        let frames = site.frames.iter().take(site.depth as usize);
        let mut places = frames.filter_map(|word| match Frame::of(*word) {
            Frame::File { file, offset, .. } => {
                let file = self.engine.tables.files().get(file)?;
                Some((file.file.mapped, FileOffset(offset)))
            }
            _ => None,
        });
        places.any(|(file, offset)| self.engine.probes.allocate_at(file, offset))
    }

    fn is_by_loader(&self, event: &Event) -> bool {
        let Some(site) = self.engine.object.sites.get(event.site) else {
            return false;
        };
        let image = self.images.index_of(event.image);
        let Some(image) = image.and_then(|index| self.images.get(index)) else {
            return false;
        };
        let [caller, outer, ..] = site.frames;
        match self.loader_of(image, caller) {
            None => false,
            Some(Loader::Alone) => true,
            // musl's is the C library too.
            Some(Loader::Library) => {
                event.flags & MAP_ANONYMOUS == 0 && self.loader_of(image, outer).is_some()
            }
        }
    }

    /// The loader that a word of a stack lies in, if it is one.
    fn loader_of(&self, image: &Image, word: u64) -> Option<Loader> {
        match Frame::of(word) {
            Frame::File { file, .. } => {
                let file = self.engine.tables.files().get(file)?;
                Loader::of(&file.path)
            }
            Frame::Native { address, .. } => {
                let code = self.images.code(image)?;
                let mapping = code.find(CodeAddress(address), u64::MAX)?;
                Loader::of(mapping.range.name.path()?)
            }
            _ => None,
        }
    }

    /// Reads of processes that run what is mapped and how much of it is in memory:
    /// now and then, or `at_once`.
    pub(super) fn look_at_mappings(&mut self, at_once: bool) {
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_none_or(|time| now >= time);
        let looks = at_once || is_due(self.looks.next);
        let names = looks || is_due(self.looks.names);
        if !names {
            return;
        }
        let limit = std::fs::read_to_string(LIMIT).ok();
        let limit = limit.and_then(|text| text.trim().parse().ok());
        let patience = if at_once { LAST_PATIENCE } else { PATIENCE };
        if looks {
            self.find_large_blocks();
        }
        for index in self.images.running().collect::<Vec<_>>() {
            if let Some(image) = self.images.get_mut(index)
                && (image.ledger.wants_regions() || (looks && has_memory(image)))
            {
                // One that is gone has no more to tell.
                let _ = look(image, limit, looks.then_some(patience));
            }
        }
        let pause = now.elapsed() * SHARE;
        self.looks.names = Some(now + pause);
        if looks {
            self.looks.next = Some(now + pause.max(PAUSE));
        }
    }
}

/// Whether there is something of which it matters how much is in memory.
fn has_memory(image: &Image) -> bool {
    image.ledger.live().next().is_some() || !image.large.is_empty()
}

/// Looks at one process: at what is in memory only with patience for it.
fn look(image: &mut Image, limit: Option<u64>, patience: Option<Duration>) -> anyhow::Result<()> {
    let process = ProcessHandle::open(image.pid)?;
    if image.ledger.wants_regions() || patience.is_some() {
        let (regions, count) = regions::read(process.open_proc("maps")?)?;
        image.ledger.name_files(&regions);
        image.mappings = limit.map(|limit| Mappings { count, limit });
    }
    let Some(patience) = patience else {
        return Ok(());
    };
    let deadline = Instant::now() + patience;
    let map = PageMap::open(&process)?;
    let of = |range: &Range<u64>| {
        let mut bytes = 0;
        let mut add = |run: Range<u64>, kept| {
            if kept != Kept::Swapped {
                bytes += run.end - run.start;
            }
        };
        let whole = map.each(range, Some(deadline), &mut add).ok()?;
        whole.then_some(bytes)
    };
    image.ledger.look(of);
    image.large.look(of);
    let ended = image.ledger.ended_stacks();
    if ended.is_empty() {
        return Ok(());
    }
    let memory = process.open_proc("mem")?;
    for (mapping, cleared) in ended {
        let mut word = [0; 4];
        if memory.read_exact_at(&mut word, cleared).is_ok() && i32::from_ne_bytes(word) == JOINED {
            image.ledger.joined(mapping);
        }
    }
    Ok(())
}

/// What a loader is besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    Alone,
    /// The C library as well.
    Library,
}

impl Loader {
    /// By the names that the loaders of C libraries have. They are the ends of
    /// links, so musl's is known by its library's.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_glibc = name.starts_with("ld-linux") || name.starts_with("ld-2.");
        let is_musl = name.starts_with("ld-musl")
            || (name == "libc.so" && path.to_str().is_some_and(|path| path.contains("musl")));
        match () {
            () if is_glibc => Some(Self::Alone),
            () if is_musl => Some(Self::Library),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_known_by_their_names() {
        let of = |path: &str| Loader::of(Path::new(path));
        assert_eq!(
            of("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
            Some(Loader::Alone)
        );
        assert_eq!(of("/lib/ld-2.31.so"), Some(Loader::Alone));
        assert_eq!(of("/lib/ld-musl-x86_64.so.1"), Some(Loader::Library));
        assert_eq!(
            of("/usr/lib/x86_64-linux-musl/libc.so"),
            Some(Loader::Library)
        );
        assert_eq!(of("/usr/lib/x86_64-linux-gnu/libc.so.6"), None);
        assert_eq!(of("/opt/my/libc.so"), None);
    }
}
