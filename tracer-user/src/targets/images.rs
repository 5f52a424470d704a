//! The process images of a run: who they are, what code they have, and how
//! they ended.
//!
//! The kernel tells of forks and execs twice: our own programs say which
//! image id begins when, and perf's records say which code an image maps.
//! Both count execs, so the n-th image of a process has the n-th code space.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::thread::image_pid;

use super::groups::Group;
use super::large_blocks::LargeBlocks;
use super::ledger::{Account, Ledger, MappingSums};
use super::share::Ages;
use super::status::Status;
use crate::model::{Mappings, ProcessEnd, Suspicion};
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::file::ModuleFiles;
use crate::process::maps::FileId;
use crate::process::short_name::short_name;
use crate::process::stat::Stat;
use crate::process::watch::CodeEvent;

/// One process image.
pub struct Image {
    /// The kernel side's id.
    pub id: u64,
    /// The process.
    pub pid: u32,
    /// The image that it was forked from during the run; 0 if from none.
    pub parent: u64,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// How long its process had run then; nothing if it began during the run.
    pub age: Duration,
    /// Whether it began during the run, with nothing allocated.
    pub from_start: bool,
    /// When it ended, if it did, and how.
    pub ended: Option<(u64, ProcessEnd)>,
    /// How its process ended, if the kernel told.
    pub status: Option<Status>,
    /// What a report of its end should have, if we may be to blame for it.
    pub suspicion: Option<Suspicion>,
    /// Its mappings' ledger.
    pub ledger: Ledger,
    /// Its allocators' large blocks.
    pub large: LargeBlocks,
    /// How many mappings it has, if that was looked at.
    pub mappings: Option<Mappings>,
    /// Where its JVM keeps the Java heap, if it has one.
    pub java_heap: Option<Range<u64>>,
    /// The group that it belongs to, once that is known.
    pub group: Option<u64>,
    /// Whether it ended and left what it held to its group.
    pub has_left: bool,
    /// Which life of the pid, and which image of that life.
    life: usize,
    ordinal: usize,
}

/// One use of a process id.
struct Life {
    spaces: Vec<Space>,
    images: usize,
    /// Whether perf has told of its birth: both tell, in either order.
    told_by_perf: bool,
    /// When its last thread so far ended, nanoseconds of `CLOCK_MONOTONIC`.
    last_exit: Option<u64>,
    /// When its mappings were first read, if it lived already; else 0. What
    /// perf tells of before is not news.
    attached: u64,
}

/// What perf's records tell of an image.
struct Space {
    name: String,
    code: CodeSpace,
}

/// The images of a run that there is still something to say of.
#[derive(Default)]
pub struct Images {
    /// By index. Indices are never used again.
    images: BTreeMap<usize, Image>,
    next_image: usize,
    by_id: HashMap<u64, usize>,
    lives: BTreeMap<usize, Life>,
    next_life: usize,
    /// The life of a process that runs.
    current: HashMap<u32, usize>,
    groups: HashMap<u64, Group>,
    /// Whether processes that run the same program are a group.
    by_program: bool,
    /// Mappings that there was no room for, in images that are forgotten.
    not_kept: u64,
    /// The files of all images.
    pub files: ModuleFiles,
    /// Blocks of images that ended which could not be remembered for children.
    pub forgotten: u64,
    /// Images that have forked.
    pub parents: HashSet<u64>,
    /// Those of them that ended, and whose blocks are remembered for children.
    pub remembered: HashSet<u64>,
}

/// What the session must do about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// New code is mapped in this process.
    NewCode(u32),
    /// Code of this image (the kernel side's id) was replaced.
    ReplacedCode(u64),
    /// An image has another id than it was attached to by.
    Renamed {
        /// The id that it had.
        old: u64,
        /// The process.
        pid: u32,
    },
    /// An image ended by exec.
    Replaced {
        /// Its index in [`Images::iter`].
        index: usize,
        /// Whether a thread that was not the first called it: the kernel ties
        /// probes of one process to its first thread, which is gone.
        by_thread: bool,
    },
}

impl Images {
    /// Enters a process that is traced from now on.
    ///
    /// # Errors
    /// Fails if the process is gone or may not be read.
    pub fn attach(&mut self, pid: u32, id: u64, at_ns: u64) -> Result<()> {
        let code = CodeSpace::attach(pid, at_ns, &mut self.files)?;
        let name = short_name(pid).unwrap_or_default();
        let age = Stat::read(pid)?.age();
        self.begin_life(pid, Space { name, code }, true);
        if let Some(life) = self.current_life(pid) {
            life.attached = at_ns;
        }
        self.begin_image(id, at_ns);
        let index = self.index_of(id);
        if let Some(image) = index.and_then(|index| self.images.get_mut(&index)) {
            image.age = age;
        }
        Ok(())
    }

    /// No images; with `by_program`, processes that run the same program are to
    /// be a group, otherwise each image is one.
    pub fn new(by_program: bool) -> Self {
        Self {
            by_program,
            ..Self::default()
        }
    }

    /// How many files were opened that no process maps any more, as far as is known.
    pub fn unused_files(&self) -> usize {
        let spaces = self.lives.values().flat_map(|life| &life.spaces);
        let mapped = spaces.flat_map(|space| space.code.current());
        let files = mapped.filter_map(|mapping| Some(mapping.file.as_ref().ok()?.mapped));
        let used: HashSet<FileId> = files.collect();
        self.files.opened().saturating_sub(used.len())
    }

    /// An image by its index.
    pub fn get(&self, index: usize) -> Option<&Image> {
        self.images.get(&index)
    }

    /// All images with their indices, oldest first.
    pub fn indexed(&self) -> impl DoubleEndedIterator<Item = (usize, &Image)> {
        self.images.iter().map(|(index, image)| (*index, image))
    }

    /// All images, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Image> {
        self.images.values()
    }

    /// An image by its index.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Image> {
        self.images.get_mut(&index)
    }

    /// A group by its number.
    pub fn group(&self, group: u64) -> Option<&Group> {
        self.groups.get(&group)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = (u64, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// The sites of which a mapping is live in an image that has not left.
    pub fn mapped_sites(&self) -> HashSet<u32> {
        let live = self.images.values().flat_map(|image| image.ledger.live());
        live.map(|mapping| mapping.account.0).collect()
    }

    /// The mappings of a site in images that have not left, of which none is
    /// live.
    pub fn unmapped_of(&self, site: u32) -> Vec<(Account, MappingSums)> {
        let images = self.images.values();
        let of_site = images.flat_map(|image| image.ledger.sums_of(site));
        of_site.map(|(account, sums)| (account, *sums)).collect()
    }

    /// Forgets sites, whose indices others will have; each comes with its group.
    pub fn forget_sites(&mut self, sites: &HashMap<u32, u64>) {
        for (site, group) in sites {
            if let Some(group) = self.groups.get_mut(group) {
                group.forget_site(*site);
            }
        }
        for image in self.images.values_mut() {
            image.ledger.forget_sites(|site| sites.contains_key(&site));
            image.large.forget_sites(|site| sites.contains_key(&site));
        }
    }

    /// The image that stands for a group, and its code.
    pub fn shown(&self, group: u64) -> Option<(&Image, &CodeSpace)> {
        let image = self.get(self.groups.get(&group)?.first)?;
        Some((image, self.code(image)?))
    }

    /// Has an image leave what it held to its group: `ages` are those of its
    /// live blocks.
    pub fn note_end(&mut self, index: usize, ages: &Ages) {
        let Some(image) = self.images.get_mut(&index) else {
            return;
        };
        let group = image.group.and_then(|group| self.groups.get_mut(&group));
        if let Some(group) = group.filter(|_| !image.has_left) {
            group.note_end(image, ages);
        }
        image.has_left = true;
        image.ledger = Ledger::default();
        image.large = LargeBlocks::default();
    }

    /// Forgets an image that has ended and left what it held to its group,
    /// unless it stands for all of that.
    pub fn forget(&mut self, index: usize) {
        let Some(image) = self.images.get(&index) else {
            return;
        };
        let group = image.group.and_then(|group| self.groups.get(&group));
        if group.is_some_and(|group| group.first == index) {
            return;
        }
        let (id, life) = (image.id, image.life);
        self.images.remove(&index);
        self.by_id.remove(&id);
        self.parents.remove(&id);
        let is_over = self.current.values().all(|current| *current != life);
        if is_over && self.images.values().all(|image| image.life != life) {
            let spaces = self.lives.remove(&life).map(|life| life.spaces);
            let not_kept = spaces.iter().flatten().map(|space| space.code.not_kept());
            self.not_kept += not_kept.sum::<u64>();
        }
    }

    /// Forgets an image that has ended, and its group, which it was alone in.
    pub fn release(&mut self, index: usize) {
        let group = self.images.get(&index).and_then(|image| image.group);
        if let Some(group) = group.filter(|_| !self.by_program) {
            self.groups.remove(&group);
        }
        self.forget(index);
    }

    /// Enters which group an image belongs to.
    fn join(&mut self, index: usize, group: u64) {
        let Some(image) = self.images.get_mut(&index) else {
            return;
        };
        if image.group.replace(group).is_none() {
            let group = self.groups.entry(group);
            group.or_insert_with(|| Group::new(index)).images += 1;
        }
    }

    /// Finds an image by the kernel side's id.
    pub fn index_of(&self, id: u64) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// How many mappings of code there was no room for.
    pub fn code_not_kept(&self) -> u64 {
        let spaces = self.lives.values().flat_map(|life| &life.spaces);
        self.not_kept + spaces.map(|space| space.code.not_kept()).sum::<u64>()
    }

    /// The images that have not ended.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        let images = self.indexed();
        images
            .filter(|(_, image)| image.ended.is_none())
            .map(|(index, _)| index)
    }

    /// The code of an image.
    pub fn code(&self, image: &Image) -> Option<&CodeSpace> {
        self.space(image).map(|space| &space.code)
    }

    /// The short name of an image.
    pub fn name(&self, image: &Image) -> &str {
        self.space(image).map_or("", |space| &space.name)
    }

    /// The code that a process has now.
    pub fn current_code(&self, pid: u32) -> Option<&CodeSpace> {
        self.current_space(pid).map(|space| &space.code)
    }

    fn space(&self, image: &Image) -> Option<&Space> {
        let spaces = &self.lives.get(&image.life)?.spaces;
        spaces.get(image.ordinal).or(spaces.last())
    }

    fn current_space(&self, pid: u32) -> Option<&Space> {
        self.lives.get(self.current.get(&pid)?)?.spaces.last()
    }

    /// Enters an event of our own programs.
    pub fn apply(&mut self, event: &Event) -> Change {
        if event.kind == EventKind::Exec as u32 {
            return self.exec(event);
        }
        if event.kind == EventKind::CodeReplaced as u32 {
            return Change::ReplacedCode(event.image);
        }
        if event.kind == EventKind::Group as u32 {
            if let Some(index) = self.index_of(event.image) {
                self.join(index, event.other);
            }
            return Change::None;
        }
        if event.kind == EventKind::Fork as u32 {
            return self.fork(event);
        }
        if let Some(index) = self.index_of(event.image)
            && let Some(image) = self.images.get_mut(&index)
        {
            if event.kind == EventKind::Exit as u32 {
                image.status = Status::told(event, image.status);
            } else {
                image.ledger.apply(event);
            }
        }
        Change::None
    }

    /// Enters an event of perf's side band.
    pub fn apply_code(&mut self, event: CodeEvent, follow: bool) -> Change {
        if self.is_from_before(&event) {
            return Change::None;
        }
        match event {
            CodeEvent::Map {
                pid,
                time_ns,
                range,
            } => {
                let life = self.current.get(&pid);
                let life = life.and_then(|life| self.lives.get_mut(life));
                let Some(space) = life.and_then(|life| life.spaces.last_mut()) else {
                    return Change::None;
                };
                space.code.add(range, time_ns, &mut self.files);
                Change::NewCode(pid)
            }
            CodeEvent::Exec { pid, name, .. } => {
                let Some(life) = self.current_life(pid) else {
                    return Change::None;
                };
                if let Some(last) = life.spaces.last() {
                    let code = last.code.exec();
                    life.spaces.push(Space { name, code });
                }
                Change::None
            }
            CodeEvent::Fork { pid, parent, .. } if follow => {
                let untold = self.current_life(pid).filter(|life| !life.told_by_perf);
                if let Some(life) = untold {
                    life.told_by_perf = true;
                } else if let Some(space) = self.forked(parent, pid) {
                    self.begin_life(pid, space, true);
                }
                Change::None
            }
            CodeEvent::Lost { time_ns, .. } => {
                for life in self.current.values() {
                    let life = self.lives.get_mut(life);
                    if let Some(space) = life.and_then(|life| life.spaces.last_mut()) {
                        // A process that is gone has no more to tell.
                        let _ = space.code.refresh_from_pid(time_ns, &mut self.files);
                    }
                }
                Change::None
            }
            CodeEvent::Exit { pid, time_ns, .. } => {
                if let Some(life) = self.current_life(pid) {
                    life.last_exit = Some(time_ns);
                }
                Change::None
            }
            CodeEvent::Fork { .. } => Change::None,
        }
    }

    /// Whether perf tells of what a process did before it was attached to. Its
    /// fork may get its time after that: it can be seen a little before.
    fn is_from_before(&self, event: &CodeEvent) -> bool {
        let (CodeEvent::Map { pid, .. }
        | CodeEvent::Exec { pid, .. }
        | CodeEvent::Fork { pid, .. }
        | CodeEvent::Exit { pid, .. }) = event
        else {
            return false;
        };
        let life = self.current.get(pid).and_then(|life| self.lives.get(life));
        life.filter(|life| life.attached > 0).is_some_and(|life| {
            let is_birth = matches!(event, CodeEvent::Fork { .. }) && life.last_exit.is_none();
            event.time_ns() < life.attached || is_birth
        })
    }

    /// Reads the mappings of a running image again, in case an event of new
    /// code is still on its way.
    pub fn refresh(&mut self, index: usize, now: u64) {
        let Some(image) = self.images.get(&index) else {
            return;
        };
        let life = self.lives.get_mut(&image.life);
        if let Some(space) = life.and_then(|life| life.spaces.get_mut(image.ordinal)) {
            // A process that is gone has no more to tell.
            let _ = space.code.refresh_from_pid(now, &mut self.files);
        }
    }

    /// What a running image has mapped now, as its process says itself; `None`
    /// if it is gone, or its `exec` was not told by perf yet.
    pub fn look(&mut self, index: usize, now: u64) -> Option<Vec<CodeMapping>> {
        let image = self.images.get(&index)?;
        let space = self
            .lives
            .get_mut(&image.life)?
            .spaces
            .get_mut(image.ordinal)?;
        space.code.look(now, &mut self.files).ok()
    }

    /// The image that a process has now.
    pub fn current(&self, pid: u32) -> Option<usize> {
        let is_current = |image: &Image| image.pid == pid && image.ended.is_none();
        let mut images = self.indexed().rev();
        images
            .find(|(_, image)| is_current(image))
            .map(|(index, _)| index)
    }

    /// When the last thread of an image's process ended, if perf told.
    pub fn exit_time(&self, index: usize) -> Option<u64> {
        self.lives.get(&self.get(index)?.life)?.last_exit
    }

    /// Gives a process that waits to call `exec` the name it will have.
    pub fn rename(&mut self, pid: u32, name: String) {
        if let Some(space) = self
            .current_life(pid)
            .and_then(|life| life.spaces.last_mut())
        {
            space.name = name;
        }
    }

    /// Settles calls that the end of the run found in flight.
    pub fn finish_ledgers(&mut self) {
        for image in self.images.values_mut() {
            image.ledger.finish();
        }
    }

    /// Marks the current image of a process as ended.
    pub fn end(&mut self, index: usize, time_ns: u64, how: ProcessEnd) {
        let Some(image) = self.images.get_mut(&index) else {
            return;
        };
        image.ended.get_or_insert((time_ns, how));
        image.ledger.finish();
        let (pid, life) = (image.pid, image.life);
        if how == ProcessEnd::Exited {
            if self.current.get(&pid) == Some(&life) {
                self.current.remove(&pid);
            }
            let life = self.lives.get_mut(&life);
            if let Some(space) = life.and_then(|life| life.spaces.last_mut()) {
                space.code.release();
            }
        }
    }

    /// Marks a running image as traced no longer.
    pub fn leave(&mut self, index: usize, time_ns: u64) {
        self.end(index, time_ns, ProcessEnd::Running);
        if let Some(image) = self.images.get(&index)
            && self.current.get(&image.pid) == Some(&image.life)
        {
            self.current.remove(&image.pid);
        }
    }

    fn exec(&mut self, event: &Event) -> Change {
        let pid = image_pid(event.other);
        if image_pid(event.image) != pid {
            self.exec_after_vfork(event, pid);
            return Change::None;
        }
        if !self.current.contains_key(&pid) {
            return Change::None;
        }
        let old = self.index_of(event.image);
        if let Some(old) = old {
            self.end(old, event.time, ProcessEnd::Exec);
        }
        self.begin_executed(event);
        let by_thread = event.thread != pid;
        old.map_or(Change::None, |index| Change::Replaced { index, by_thread })
    }

    /// Until now the child had its parent's heap; its own first image, which
    /// no id stands for, is over.
    fn exec_after_vfork(&mut self, event: &Event, pid: u32) {
        self.ensure_life(event, pid);
        if let Some(life) = self.current_life(pid) {
            life.images += 1;
        }
        self.begin_executed(event);
    }

    fn begin_executed(&mut self, event: &Event) {
        self.begin_image(event.other, event.time);
        let index = self.index_of(event.other);
        if let Some(image) = index.and_then(|index| self.images.get_mut(&index)) {
            image.from_start = true;
        }
    }

    fn fork(&mut self, event: &Event) -> Change {
        self.parents.insert(event.image);
        if let Some(old) = self.attached_too_early(event) {
            return old;
        }
        self.ensure_life(event, image_pid(event.other));
        self.begin_image(event.other, event.time);
        let parent = self.index_of(event.image).and_then(|at| self.get(at));
        let group = parent.and_then(|parent| parent.group);
        if let Some(child) = self.index_of(event.other) {
            if let Some(image) = self.images.get_mut(&child) {
                image.parent = event.image;
            }
            if let (true, Some(group)) = (self.by_program, group) {
                self.join(child, group);
            }
        }
        Change::None
    }

    /// A child may be seen, and attached to, a little before the kernel side is
    /// told of its fork and begins with it anew. It has not run by then, so the
    /// two are one: from now on under the kernel side's id.
    ///
    /// Another process under the same pid this cannot be: the kernel side tells
    /// how the one that was attached to ended.
    fn attached_too_early(&mut self, event: &Event) -> Option<Change> {
        let index = self.current(image_pid(event.other))?;
        let image = self.images.get_mut(&index)?;
        let life = self.lives.get(&image.life)?;
        if life.attached == 0 || life.images != 1 || image.status.is_some() {
            return None;
        }
        let old = image.id;
        image.id = event.other;
        image.parent = event.image;
        let pid = image.pid;
        self.by_id.remove(&old);
        self.by_id.insert(event.other, index);
        Some(Change::Renamed { old, pid })
    }

    /// Begins a life for a child unless perf told of it already.
    fn ensure_life(&mut self, event: &Event, pid: u32) {
        if self.current_life(pid).is_some_and(|life| life.images == 0) {
            return;
        }
        if let Some(space) = self.forked(image_pid(event.image), pid) {
            self.begin_life(pid, space, false);
        }
    }

    fn current_life(&mut self, pid: u32) -> Option<&mut Life> {
        self.lives.get_mut(self.current.get(&pid)?)
    }

    fn forked(&self, parent: u32, child: u32) -> Option<Space> {
        let parent = self.current_space(parent)?;
        Some(Space {
            name: parent.name.clone(),
            code: parent.code.fork(child),
        })
    }

    fn begin_life(&mut self, pid: u32, space: Space, told_by_perf: bool) {
        self.current.insert(pid, self.next_life);
        let life = Life {
            spaces: vec![space],
            images: 0,
            told_by_perf,
            last_exit: None,
            attached: 0,
        };
        self.lives.insert(self.next_life, life);
        self.next_life += 1;
    }

    fn begin_image(&mut self, id: u64, at_ns: u64) {
        let pid = image_pid(id);
        let Some(life) = self.current.get(&pid).copied() else {
            return;
        };
        let Some(known) = self.lives.get_mut(&life) else {
            return;
        };
        let ordinal = known.images;
        known.images += 1;
        let index = self.next_image;
        self.next_image += 1;
        self.by_id.insert(id, index);
        let image = Image {
            id,
            pid,
            parent: 0,
            began: at_ns,
            age: Duration::ZERO,
            from_start: false,
            ended: None,
            status: None,
            suspicion: None,
            ledger: Ledger::default(),
            large: LargeBlocks::default(),
            mappings: None,
            java_heap: None,
            group: None,
            has_left: false,
            life,
            ordinal,
        };
        self.images.insert(index, image);
        if !self.by_program {
            self.join(index, id);
        }
    }
}

/// Whether an image is the tracer's own: where it measures what probes cost.
pub fn is_own(image: u64) -> bool {
    image_pid(image) == std::process::id()
}
