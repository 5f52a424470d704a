//! What `--module` and `--only` mean in each process: the kernel side is told which code
//! of an image was asked for, whenever that changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use anyhow::{Result, bail};
use tracer_ebpf::event::{Event, EventKind};
use tracer_ebpf::frame::Frame;
use tracer_ebpf::origin::MAX_ASKED;
use tracer_ebpf::site::NO_SITE;

use super::Session;
use super::left_alone::Notice;
use crate::origins::{Asked, InFile, Likeness, in_image, nearest_names};
use crate::process::code::CodeMapping;
use crate::process::maps::FileId;
use crate::visible::clean;

/// What is known of code that was asked for.
#[derive(Default)]
pub(super) struct OriginsState {
    asked: Option<Asked>,
    files: HashMap<FileId, Rc<InFile>>,
    /// Paths of files that were looked at.
    paths: BTreeSet<String>,
    /// Those that each name of a file means, and how.
    meant: Vec<Vec<(String, Likeness)>>,
    /// Which names of functions were found.
    found: Vec<bool>,
    /// Files with code that was asked for, of each image.
    of_image: HashMap<u64, HashSet<FileId>>,
    /// Whether the program is yet to be started.
    pub(super) waits_for_exec: bool,
    /// Whether it was said that there are too many ranges.
    said_too_many: bool,
}

impl OriginsState {
    pub(super) fn new(modules: &[String], functions: &[String]) -> Self {
        Self {
            asked: Asked::new(modules, functions),
            meant: vec![Vec::new(); modules.len()],
            found: vec![false; functions.len()],
            ..Self::default()
        }
    }

    /// Whether it matters where calls are made from.
    pub(super) fn are_asked_for(&self) -> bool {
        self.asked.is_some()
    }

    /// Notes what a file has of the names.
    fn note(&mut self, path: &str, file: &InFile) {
        self.paths.insert(path.to_owned());
        for (meant, likeness) in self.meant.iter_mut().zip(&file.modules) {
            let entry = (path.to_owned(), *likeness);
            if *likeness != Likeness::Other && !meant.contains(&entry) {
                meant.push(entry);
            }
        }
        for (all, here) in self.found.iter_mut().zip(&file.found) {
            *all |= here;
        }
    }
}

impl Session {
    /// Tells the kernel side which code of an image was asked for; `code` is all that it
    /// has now.
    pub(super) fn publish_origins(&mut self, index: usize, image: u64, code: &[CodeMapping]) {
        if !self.origins.are_asked_for() {
            return;
        }
        self.look_at_files(index, code);
        let files = &self.origins.files;
        let known = code.iter().filter_map(|mapping| {
            let file = mapping.file.as_ref().ok()?;
            Some((mapping, files.get(&file.mapped)?.as_ref()))
        });
        let asked: HashSet<FileId> = known
            .clone()
            .filter(|(_, file)| file.has_any())
            .map(|(mapping, _)| mapping.range.file)
            .collect();
        let scope = self.scope(tracer_ebpf::thread::image_pid(image));
        let is_noted = asked
            .iter()
            .any(|file| self.engine.probes.cover(scope, *file));
        let ranges = match in_image(known) {
            Ok(ranges) => ranges,
            Err(count) => {
                self.say_too_many(count);
                Vec::new()
            }
        };
        let told = self.engine.object.follow_from(image, &ranges, is_noted);
        if told.is_err() {
            self.engine.losses.unpublished += 1;
        }
        self.note_late_origins(image, &asked);
    }

    /// Looks at files that are new.
    fn look_at_files(&mut self, index: usize, code: &[CodeMapping]) {
        let image = self.images.get(index);
        let space = image.and_then(|image| self.images.code(image));
        let state = &mut self.origins;
        let (Some(space), Some(asked)) = (space, &state.asked) else {
            return;
        };
        let mut looked = Vec::new();
        for mapping in code {
            if let (Ok(file), Some(path)) = (&mapping.file, mapping.range.name.path())
                && !state.files.contains_key(&file.mapped)
            {
                let found = Rc::new(asked.in_file(space.process(), path, file));
                state.files.insert(file.mapped, Rc::clone(&found));
                looked.push((mapping.display_name(), found));
            }
        }
        for (path, found) in looked {
            state.note(&path, &found);
        }
    }

    /// Notes files whose calls were not followed from the moment that they were mapped.
    fn note_late_origins(&mut self, image: u64, asked: &HashSet<FileId>) {
        let pid = tracer_ebpf::thread::image_pid(image);
        let before = self.origins.of_image.insert(image, asked.clone());
        // Right after it was started, the kernel side counts what it cannot tell.
        let Some(before) = before else {
            return;
        };
        let new = asked.difference(&before).count() as u64;
        if new > 0 && self.engine.object.is_active() {
            self.note_late_code(pid, new);
        }
    }

    fn say_too_many(&mut self, count: usize) {
        if !std::mem::replace(&mut self.origins.said_too_many, true) {
            let text = too_many(count);
            self.notices.push(Notice::Warning(text));
        }
    }

    /// Forgets an image that has ended.
    pub(super) fn forget_origins(&mut self, image: u64) {
        self.origins.of_image.remove(&image);
        self.engine.object.origins.forget(image);
    }

    /// Fails if a name means nothing in the processes that there are, or is not clear. A
    /// file may be opened later: that is said. Of a program that is yet to be started
    /// nothing is known.
    ///
    /// # Errors
    /// Says which name it is, and what may have been meant.
    pub(super) fn check_origins(&mut self) -> Result<()> {
        let state = &self.origins;
        if state.waits_for_exec {
            return Ok(());
        }
        let Some(asked) = &state.asked else {
            return Ok(());
        };
        if state.said_too_many {
            bail!("{}", too_many(0));
        }
        for (name, found) in asked.functions().zip(0..) {
            if state.found.get(found) == Some(&false) {
                bail!("{}", no_function(name, found, state.files.values()));
            }
        }
        for (name, meant) in asked.modules().zip(&state.meant) {
            check_clear(name, meant)?;
            if meant.is_empty() {
                let near = nearest_names(name, state.paths.iter().map(String::as_str));
                self.notices.push(Notice::Warning(format!(
                    "no file named {} is mapped yet{}: it is traced once it is opened",
                    clean(name),
                    perhaps(&near)
                )));
            }
        }
        Ok(())
    }

    /// The names that meant nothing in the whole run.
    pub(super) fn names_without_meaning(&self) -> Vec<String> {
        let state = &self.origins;
        let Some(asked) = &state.asked else {
            return Vec::new();
        };
        let files = asked.modules().zip(&state.meant);
        let files = files.filter(|(_, meant)| meant.is_empty());
        let functions = asked.functions().zip(&state.found);
        let functions = functions.filter(|(_, found)| !**found);
        files
            .map(|(name, _)| format!("--module {name}"))
            .chain(functions.map(|(name, _)| format!("--only {name}")))
            .collect()
    }

    /// The same event, without a site if what was mapped was not asked for by code that
    /// was asked for.
    pub(super) fn without_elsewhere(&self, event: Event) -> Event {
        let kinds = [
            EventKind::Map,
            EventKind::Commit,
            EventKind::RemapReturn,
            EventKind::Attach,
            EventKind::ThreadBorn,
        ];
        let is_it = self.origins.are_asked_for()
            && event.site != NO_SITE
            && kinds.iter().any(|kind| *kind as u32 == event.kind);
        if is_it && !self.is_asked_at(event.site) {
            return Event {
                site: NO_SITE,
                ..event
            };
        }
        event
    }

    /// Whether the first code of a stack that is no C library's was asked for, or the
    /// library was.
    fn is_asked_at(&self, site: u32) -> bool {
        let Some(site) = self.engine.object.sites.get(site) else {
            return false;
        };
        for word in site.frames.iter().take(site.depth as usize) {
            let Frame::File { file, offset, .. } = Frame::of(*word) else {
                return false;
            };
            let Some(file) = self.engine.tables.files().get(file) else {
                return false;
            };
            let id = file.file.mapped;
            let found = self.origins.files.get(&id);
            // The instruction before the one that is returned to.
            if found.is_some_and(|found| found.has(offset.saturating_sub(1))) {
                return true;
            }
            if !self.frees_for_itself(id) {
                return false;
            }
        }
        false
    }
}

fn too_many(count: usize) -> String {
    let have = match count {
        0 => String::new(),
        count => format!(" ({count} are)"),
    };
    format!(
        "--only and --module mean too many separate pieces of code: at most {MAX_ASKED} can be traced{have}; use --module for whole files, or name fewer functions"
    )
}

fn check_clear(name: &str, meant: &[(String, Likeness)]) -> Result<()> {
    let is_exact = meant
        .iter()
        .any(|(_, likeness)| *likeness == Likeness::Same);
    let names: BTreeSet<&str> = meant
        .iter()
        .map(|(path, _)| path.rsplit('/').next().unwrap_or(path))
        .collect();
    if is_exact || names.len() < 2 {
        return Ok(());
    }
    let names: Vec<_> = names
        .into_iter()
        .map(|name| clean(name).into_owned())
        .collect();
    bail!(
        "--module {} may be any of {}: say which",
        clean(name),
        names.join(", ")
    )
}

fn no_function<'a>(
    name: &str,
    index: usize,
    files: impl Iterator<Item = &'a Rc<InFile>>,
) -> String {
    let mut near: Vec<(u64, String)> = files
        .flat_map(|file| file.near(index))
        .map(|(distance, name)| (distance, name.to_owned()))
        .collect();
    near.sort_unstable();
    near.dedup();
    let near: Vec<String> = near.into_iter().take(3).map(|(_, name)| name).collect();
    format!(
        "no function named {} is in the files that these processes have mapped{}; one that was inlined into another has no code of its own, and --module means a whole file, which may be opened later",
        clean(name),
        perhaps(&near)
    )
}

/// What may have been meant.
fn perhaps(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => {
            let names: Vec<_> = names.iter().map(|name| clean(name).into_owned()).collect();
            format!(" (perhaps {})", names.join(", or "))
        }
    }
}
