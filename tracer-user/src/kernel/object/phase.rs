//! What is followed now, where a budget decides that; see [`tracer_ebpf::phase`].

use std::os::fd::AsFd;

use anyhow::Result;
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use tracer_ebpf::block::OTHERS;
use tracer_ebpf::phase::{Choice, Death, Phase};

use super::{Object, take, writable};
use crate::kernel::batch;
use crate::kernel::mapped::MappedArray;

/// The word that says what is followed, and the deaths that are told.
pub(super) struct PhaseMaps {
    phase: MappedArray<Phase>,
    deaths: RingBuf<MapData>,
}

impl PhaseMaps {
    /// From the maps: all is followed, until somebody decides otherwise.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let mut phase = writable(ebpf, "PHASE", 1)?;
        let all = Phase {
            choice: Choice::All as u64,
            began: 0,
            followed: u64::MAX,
            faults: 1,
        };
        phase.set(0, all);
        Ok(Self {
            phase,
            deaths: take(ebpf, "DEATHS")?.try_into()?,
        })
    }
}

impl Object {
    /// Begins a phase, in which deaths of blocks are told that are older than it, or than
    /// `followed` nanoseconds.
    pub fn begin_phase(&mut self, choice: Choice, began: u64, followed: u64) {
        let phase = &mut self.phase.phase;
        // Nobody looks at what changes until the choice does.
        let now = phase.get(0).unwrap_or(Phase::NONE);
        let later = Phase {
            began,
            followed,
            ..now
        };
        phase.set(0, later);
        self.choose(choice);
    }

    /// Follows other allocations from now on.
    pub fn choose(&mut self, choice: Choice) {
        let phase = &mut self.phase.phase;
        let now = phase.get(0).unwrap_or(Phase::NONE);
        let choice = choice as u64;
        phase.set(0, Phase { choice, ..now });
    }

    /// Follows page faults from now on, or passes them over. It makes a difference only
    /// within a budget.
    pub fn follow_faults(&mut self, follows: bool) {
        let phase = &mut self.phase.phase;
        let now = phase.get(0).unwrap_or(Phase::NONE);
        let faults = u64::from(follows);
        phase.set(0, Phase { faults, ..now });
    }

    /// Follows blocks no more that were allocated before a moment.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn let_go(&self, born_before: u64) -> Result<()> {
        let mut old = Vec::new();
        self.for_each_block(|key, block| {
            if block.time < born_before && key.address < OTHERS {
                old.push(key);
            }
        })?;
        batch::delete(self.live.fd().as_fd(), &old)
    }

    /// The deaths that were told since the last call.
    pub fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = Vec::new();
        while let Some(item) = self.phase.deaths.next() {
            deaths.extend(tracer_ebpf::read_record::<Death>(&item));
        }
        deaths
    }
}
