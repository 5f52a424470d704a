//! How traced processes end, and whether we may be to blame.

use std::sync::Arc;

use super::Session;
use super::left_alone::Notice;
use crate::attach::guarded::Guarded;
use crate::model::{Outcome, PlacedProbe, ProcessEnd, Suspicion};
use crate::symbolize::build_id_of;
use crate::targets::images::Image;
use crate::targets::status::Status;
use crate::visible::clean;

/// How many ends of children are said, of those that did not go well.
const ENDS_SAID: u64 = 20;

impl Session {
    /// Enters how a child of ours ended, if the kernel side did not tell.
    pub fn note_status(&mut self, pid: u32, status: i32) {
        let last = {
            let mut images = self.images.indexed().rev();
            images.find(|(_, image)| image.pid == pid)
        };
        let last = last.map(|(index, _)| index);
        if let Some(image) = last.and_then(|index| self.images.get_mut(index)) {
            let status = Status::waited(status.cast_unsigned());
            image.status.get_or_insert(status);
        }
    }

    /// How an image's process ended, if it did.
    pub(super) fn outcome(&self, image: &Image) -> Option<Outcome> {
        let (_, end) = image.ended?;
        let status = image.status?.status;
        (end == ProcessEnd::Exited).then(|| Outcome::of_wait(status))
    }

    /// What a report of its end should have, if we may be to blame for it.
    fn suspicion(&self, image: &Image) -> Option<Suspicion> {
        let outcome = self.outcome(image)?;
        let (ended, _) = image.ended?;
        let scope = self.scope(image.pid);
        let touched = self.engine.probes.touched(scope)?;
        let after = ended.saturating_sub(touched) as f64 / 1e9;
        if !outcome.is_suspicious(after) {
            return None;
        }
        let own = self.engine.probes.guarded();
        let own = own.filter(|guarded| guarded.scope == scope && self.has_mapped(image, guarded));
        Some(Suspicion {
            after,
            placed: own.flat_map(|guarded| self.placed_in(guarded)).collect(),
        })
    }

    fn has_mapped(&self, image: &Image, guarded: &Guarded) -> bool {
        let code = self.images.code(image);
        code.is_some_and(|code| {
            let mut mapped = code.current();
            mapped.any(|mapping| mapping.range.file == guarded.file.mapped)
        })
    }

    fn placed_in(&self, guarded: &Guarded) -> Vec<PlacedProbe> {
        let build_id = build_id_of(&guarded.file);
        let probes: Vec<_> = self
            .engine
            .placed
            .iter()
            .flat_map(|placed| &placed.probes)
            .collect();
        let stretches = Arc::clone(&guarded.stretches);
        stretches
            .iter()
            .map(|stretch| {
                let is_it = |offset| stretch.places.contains(&offset);
                let chosen = probes
                    .iter()
                    .find(|probe| probe.module == guarded.path && is_it(probe.file_offset));
                let places = stretch.places.iter();
                PlacedProbe {
                    function: stretch.name.clone(),
                    module: guarded.path.clone(),
                    build_id: build_id.clone(),
                    file_offset: stretch.start.0,
                    displacements: places
                        .map(|place| place.saturating_sub(stretch.start.0))
                        .collect(),
                    placement: chosen
                        .map(|probe| probe.placement.clone())
                        .unwrap_or_default(),
                }
            })
            .collect()
    }

    /// Says on standard error how an image's process ended, loudly if we may be
    /// to blame.
    pub(super) fn announce_end(&mut self, index: usize) {
        let Some(image) = self.images.get(index) else {
            return;
        };
        let Some(outcome) = self.outcome(image) else {
            return;
        };
        let name = self.images.name(image);
        let who = format!("process {} ({})", image.pid, clean(name));
        let Some(suspicion) = self.suspicion(image) else {
            if !self.is_asked_for(image.pid) && self.options.verbose == 0 {
                if outcome == Outcome::Status(0) {
                    return;
                }
                self.ends_said += 1;
                if self.ends_said > ENDS_SAID {
                    return;
                }
            }
            self.notices
                .push(Notice::Remark(format!("{who} {}", outcome.text())));
            return;
        };
        let lines = suspicion.lines(&who, outcome, &kernel());
        let lines: Vec<_> = lines.iter().map(|line| clean(line)).collect();
        self.notices.push(Notice::Warning(lines.join("\n  ")));
        // The probes are forgotten when the run ends.
        if let Some(image) = self.images.get_mut(index) {
            image.suspicion = Some(suspicion);
        }
    }
}

/// The kernel's release and version.
pub(super) fn kernel() -> String {
    let name = rustix::system::uname();
    format!(
        "Linux {} {}",
        name.release().to_string_lossy(),
        name.version().to_string_lossy()
    )
}
