//! What is done for programs that wait: their new code is looked at, and they
//! go on once its tables are published.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tracer_ebpf::held;

use super::Session;
use super::hold::{Answer, Holder, Stop, Waiting, Why, Wishes};
use super::launch::Expected;
use super::left_alone::Notice;
use crate::attach::loader::Stops;
use crate::attach::probes::Scope;
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;

/// What is known of held programs.
#[derive(Default)]
pub(super) struct Held {
    /// Whether programs are held.
    holds: bool,
    /// The program, if it has ended but for its memory, and waits for the run's end.
    ended: Option<u32>,
    /// Processes that wait: what they have mapped has not run yet.
    stopped: HashSet<u32>,
    /// Allocators that were probed before the process which mapped them was seen
    /// to wait: if it does wait, they were not late.
    perhaps_late: HashMap<u32, u64>,
    /// The same of files with code that was asked for.
    perhaps_late_code: HashMap<u32, u64>,
    /// Files that they map.
    files: HashMap<FileId, Stops>,
    /// Where programs stop already.
    watched: HashSet<(Scope, FileId)>,
}

impl Session {
    /// Takes hold of the program that waits to call `exec`; `None` where that
    /// is not allowed, which is said, and then it is not held.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn hold(&mut self, pid: u32, files: &[Expected]) -> Result<Option<Holder>> {
        for expected in files {
            self.watch_stops(pid, &expected.file, &expected.path);
        }
        let mut told = self.engine.object.held_threads()?;
        let told = move |thread| {
            let place = held::place_of(thread);
            let why = held::why(thread, told.get(place)?)?;
            told.set(place, 0);
            Some(why)
        };
        let wishes = Wishes {
            follow: self.options.follow,
            waits_at_end: self.options.check_lost,
        };
        let holder = match Holder::take(pid, wishes, Box::new(told)) {
            Ok(holder) => holder,
            Err(error) => {
                let why = format!(
                    "the program is not held while it starts and opens libraries ({error:#}): some of its first paths may be cut short"
                );
                self.notices.push(Notice::Warning(why));
                return Ok(None);
            }
        };
        self.engine.object.set_holder(true)?;
        self.held.holds = true;
        Ok(Some(holder))
    }

    /// Looks at programs that wait; those whose tables are published go on.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn serve(&mut self, holder: &mut Holder) -> Result<()> {
        let (ending, waiting): (Vec<_>, Vec<_>) = holder
            .take_waiting()
            .into_iter()
            .partition(|one| one.stop.why == Why::Ends);
        // It goes on when all are let go.
        let mut ended = ending.iter().map(|one| one.stop.process);
        self.held.ended = self.held.ended.or_else(|| ended.next());
        if waiting.iter().any(|one| one.stop.why == Why::Traces) {
            return self.let_go(holder);
        }
        let processes = waiting.iter().map(|one| one.stop.process);
        self.held.stopped = processes.collect();
        // A virtual machine is another than it was, though its mappings are not.
        let made_threads = waiting.iter().filter(|one| one.stop.why == Why::Thread);
        self.unpublished
            .extend(made_threads.map(|one| one.stop.process));
        let polled = self.poll_code();
        for pid in self.held.stopped.drain() {
            self.held.perhaps_late.remove(&pid);
            self.held.perhaps_late_code.remove(&pid);
        }
        polled?;
        for one in waiting {
            if self.hides_ptrace(one.stop.process) {
                return self.let_go(holder);
            }
            match self.is_settled(one) {
                true => holder.answer(self.answer(one.stop)),
                false => holder.put_back(one),
            }
        }
        Ok(())
    }

    /// Whether the program has ended but for its memory, and waits for the run's end.
    pub fn has_ended(&self) -> bool {
        self.held.ended.is_some()
    }

    /// Whether that one's memory is gone, too.
    pub fn is_gone(&self) -> bool {
        let mut running = self.running_images();
        !running.any(|image| Some(image.pid) == self.held.ended)
    }

    /// Lets all programs go: they are held no more in this run.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn let_go(&mut self, holder: &mut Holder) -> Result<()> {
        self.engine.object.set_holder(false)?;
        self.held.holds = false;
        holder.let_go();
        Ok(())
    }

    /// A process's allocator was probed after it was mapped.
    pub(super) fn note_late(&mut self, pid: u32) {
        if self.held.stopped.contains(&pid) {
            return;
        }
        if self.held.holds {
            *self.held.perhaps_late.entry(pid).or_default() += 1;
        } else {
            self.engine.losses.late_allocators += 1;
        }
    }

    /// Code that was asked for was told to the kernel side after it was mapped.
    pub(super) fn note_late_code(&mut self, pid: u32, files: u64) {
        if self.held.stopped.contains(&pid) {
            return;
        }
        if self.held.holds {
            *self.held.perhaps_late_code.entry(pid).or_default() += files;
        } else {
            self.engine.losses.late_code += files;
        }
    }

    /// How often that was, after the code may have run.
    pub(super) fn late_code(&self) -> u64 {
        self.engine.losses.late_code + self.held.perhaps_late_code.values().sum::<u64>()
    }

    /// Allocators that were probed only after their code may have run.
    pub(super) fn late_allocators(&self) -> u64 {
        self.engine.losses.late_allocators + self.held.perhaps_late.values().sum::<u64>()
    }

    /// Whether all that a process has mapped is known to the kernel side, or
    /// it has waited long enough. Where it will stop next is seen to, too.
    fn is_settled(&mut self, waiting: Waiting) -> bool {
        let pid = waiting.stop.process;
        let Some(code) = self.images.current_code(pid) else {
            return true;
        };
        let files: Vec<_> = code
            .current()
            .filter_map(|mapping| {
                let file = mapping.file.as_ref().ok()?;
                Some((Arc::clone(file), mapping.display_name()))
            })
            .collect();
        for (file, path) in &files {
            self.watch_stops(pid, file, path);
        }
        let mut files = files.iter();
        !files.any(|(file, _)| self.engine.tables.is_building(file.mapped))
            || Instant::now() >= waiting.until
    }

    fn answer(&self, stop: Stop) -> Answer {
        let image = self.images.current(stop.process);
        let image = image.and_then(|index| self.images.get(index));
        Answer {
            stop,
            starts: match stop.why {
                Why::Exec => self.has_loader(stop.process),
                Why::Mapped => true,
                Why::Loaded | Why::Traces | Why::Thread | Why::Ends => false,
            },
            watches_threads: image.is_some_and(|image| self.java.jvms.is_awaited(image.id)),
        }
    }

    /// Whether a process's program has a loader that will tell when it is done.
    fn has_loader(&self, pid: u32) -> bool {
        let mut files = self.files_of(pid);
        files.any(|stops| stops.is_loader())
    }

    /// Whether a file of a held program is a loader.
    pub(super) fn is_loader(&self, file: FileId) -> bool {
        self.held.files.get(&file).is_some_and(Stops::is_loader)
    }

    fn hides_ptrace(&self, pid: u32) -> bool {
        let mut files = self.files_of(pid);
        files.any(|stops| stops.hides_ptrace)
    }

    fn files_of(&self, pid: u32) -> impl Iterator<Item = &Stops> {
        let code = self.images.current_code(pid).into_iter();
        let mappings = code.flat_map(|code| code.current());
        mappings.filter_map(|mapping| self.held.files.get(&mapping.range.file))
    }

    /// Has held threads stop where a file tells of libraries, or calls ptrace.
    fn watch_stops(&mut self, pid: u32, file: &Arc<ModuleFile>, path: &str) {
        let scope = self.scope(pid);
        if !self.held.watched.insert((scope, file.mapped)) {
            return;
        }
        let known = self.held.files.entry(file.mapped);
        let stops = *known.or_insert_with(|| Stops::of(file));
        // Without, libraries that are opened later are known a moment too late.
        let (probes, object) = (&mut self.engine.probes, &mut self.engine.object);
        let _not_placed = probes.watch_stops(object, file, &stops, path, scope);
    }
}
