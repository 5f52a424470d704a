//! The process images of a run: who they are, what code they have, and how
//! they ended.
//!
//! The kernel tells of forks and execs twice: our own programs say which
//! image id begins when, and perf's records say which code an image maps.
//! Both count execs, so the n-th image of a process has the n-th code space.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::Result;
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::thread::image_pid;

use super::endings::Status;
use crate::leak::collect::Ages;
use crate::leak::ledger::Ledger;
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::file::ModuleFiles;
use crate::process::watch::CodeEvent;
use crate::report::model::{ProcessEnd, Suspicion};

/// One process image.
pub struct Image {
    /// The kernel side's id.
    pub id: u64,
    /// The process.
    pub pid: u32,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
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
    /// Where its JVM keeps the Java heap, if it has one.
    pub java_heap: Option<Range<u64>>,
    /// Ages of what was live when it ended, since the kernel forgets them.
    pub last_live: Option<Ages>,
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
}

/// What perf's records tell of an image.
struct Space {
    name: String,
    code: CodeSpace,
}

/// All images of a run.
#[derive(Default)]
pub struct Images {
    images: Vec<Image>,
    by_id: HashMap<u64, usize>,
    lives: Vec<Life>,
    current: HashMap<u32, usize>,
    /// The files of all images.
    pub files: ModuleFiles,
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
        let name = process_name(pid).unwrap_or_default();
        self.begin_life(pid, Space { name, code }, true);
        self.begin_image(id, at_ns);
        Ok(())
    }

    /// An image by its index.
    pub fn get(&self, index: usize) -> Option<&Image> {
        self.images.get(index)
    }

    /// All images, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Image> {
        self.images.iter()
    }

    /// An image by its index.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Image> {
        self.images.get_mut(index)
    }

    /// Finds an image by the kernel side's id.
    pub fn index_of(&self, id: u64) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// How many mappings of code there was no room for.
    pub fn code_not_kept(&self) -> u64 {
        let spaces = self.lives.iter().flat_map(|life| &life.spaces);
        spaces.map(|space| space.code.not_kept()).sum()
    }

    /// The images that have not ended.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.images.len()).filter(|index| self.images[*index].ended.is_none())
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
        let spaces = &self.lives.get(image.life)?.spaces;
        spaces.get(image.ordinal).or(spaces.last())
    }

    fn current_space(&self, pid: u32) -> Option<&Space> {
        self.lives.get(*self.current.get(&pid)?)?.spaces.last()
    }

    /// Enters an event of our own programs.
    pub fn apply(&mut self, event: &Event) -> Change {
        if event.kind == EventKind::Exec as u32 {
            return self.exec(event);
        }
        if event.kind == EventKind::CodeReplaced as u32 {
            return Change::ReplacedCode(event.image);
        }
        if event.kind == EventKind::Fork as u32 {
            self.fork(event);
        } else if let Some(index) = self.index_of(event.image) {
            let image = &mut self.images[index];
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
        match event {
            CodeEvent::Map {
                pid,
                time_ns,
                range,
            } => {
                let Some(life) = self.current.get(&pid) else {
                    return Change::None;
                };
                let Some(space) = self.lives[*life].spaces.last_mut() else {
                    return Change::None;
                };
                space.code.add(range, time_ns, &mut self.files);
                Change::NewCode(pid)
            }
            CodeEvent::Exec { pid, name, .. } => {
                let Some(life) = self.current.get(&pid) else {
                    return Change::None;
                };
                let life = &mut self.lives[*life];
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
                    if let Some(space) = self.lives[*life].spaces.last_mut() {
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

    /// Reads the mappings of a running image again, in case an event of new
    /// code is still on its way.
    pub fn refresh(&mut self, index: usize, now: u64) {
        let Some(image) = self.images.get(index) else {
            return;
        };
        if let Some(space) = self.lives[image.life].spaces.get_mut(image.ordinal) {
            // A process that is gone has no more to tell.
            let _ = space.code.refresh_from_pid(now, &mut self.files);
        }
    }

    /// What a running image has mapped now, as its process says itself; `None`
    /// if it is gone, or its `exec` was not told by perf yet.
    pub fn look(&mut self, index: usize, now: u64) -> Option<Vec<CodeMapping>> {
        let image = self.images.get(index)?;
        let space = self
            .lives
            .get_mut(image.life)?
            .spaces
            .get_mut(image.ordinal)?;
        space.code.look(now, &mut self.files).ok()
    }

    /// The image that a process has now.
    pub fn current(&self, pid: u32) -> Option<usize> {
        let is_current = |image: &Image| image.pid == pid && image.ended.is_none();
        self.images.iter().rposition(is_current)
    }

    /// When the last thread of an image's process ended, if perf told.
    pub fn exit_time(&self, index: usize) -> Option<u64> {
        self.lives.get(self.images.get(index)?.life)?.last_exit
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
        for image in &mut self.images {
            image.ledger.finish();
        }
    }

    /// Marks the current image of a process as ended.
    pub fn end(&mut self, index: usize, time_ns: u64, how: ProcessEnd) {
        let Some(image) = self.images.get_mut(index) else {
            return;
        };
        image.ended.get_or_insert((time_ns, how));
        image.ledger.finish();
        let (pid, life) = (image.pid, image.life);
        if how == ProcessEnd::Exited {
            if self.current.get(&pid) == Some(&life) {
                self.current.remove(&pid);
            }
            if let Some(space) = self.lives[life].spaces.last_mut() {
                space.code.release();
            }
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
        if let Some(index) = self.index_of(event.other) {
            self.images[index].from_start = true;
        }
    }

    fn fork(&mut self, event: &Event) {
        self.ensure_life(event, image_pid(event.other));
        self.begin_image(event.other, event.time);
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
        self.lives.get_mut(*self.current.get(&pid)?)
    }

    fn forked(&self, parent: u32, child: u32) -> Option<Space> {
        let parent = self.current_space(parent)?;
        Some(Space {
            name: parent.name.clone(),
            code: parent.code.fork(child),
        })
    }

    fn begin_life(&mut self, pid: u32, space: Space, told_by_perf: bool) {
        self.current.insert(pid, self.lives.len());
        self.lives.push(Life {
            spaces: vec![space],
            images: 0,
            told_by_perf,
            last_exit: None,
        });
    }

    fn begin_image(&mut self, id: u64, at_ns: u64) {
        let pid = image_pid(id);
        let Some(life) = self.current.get(&pid).copied() else {
            return;
        };
        let ordinal = self.lives[life].images;
        self.lives[life].images += 1;
        self.by_id.insert(id, self.images.len());
        self.images.push(Image {
            id,
            pid,
            began: at_ns,
            from_start: false,
            ended: None,
            status: None,
            suspicion: None,
            ledger: Ledger::default(),
            java_heap: None,
            last_live: None,
            life,
            ordinal,
        });
    }
}

/// The short name of a living process.
fn process_name(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}
