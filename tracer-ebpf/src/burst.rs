//! What is followed now, where a budget decides that during the run (`--overhead`); see
//! [`tracer_ebpf::phase`].
//!
//! Without a budget the verifier takes all of it out of the programs.

use tracer_ebpf::block::Block;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::phase::{Choice, Death, Phase};

use crate::maps::{self, DEATHS, PHASE};

/// What is chosen now, as a [`Choice`]: by chance, unless a budget has changed that.
#[inline(always)]
pub(crate) fn choice() -> u64 {
    if !may_be() {
        return Choice::Sample as u64;
    }
    now().choice
}

/// Whether a budget decides what is followed.
#[inline(always)]
pub(crate) fn may_be() -> bool {
    maps::setting!(budget) != 0
}

/// Whether neither allocations nor frees are followed now: between two bursts, while
/// probes come and go.
#[inline(always)]
pub(crate) fn is_pause() -> bool {
    may_be() && now().choice == Choice::Pause as u64
}

/// Whether a time lies before the phase that there is now.
#[inline(always)]
pub(crate) fn is_over(time: u64) -> bool {
    may_be() && time < now().began
}

/// Whether page faults are passed over now, since to follow them would cost too much.
#[inline(always)]
pub(crate) fn passes_faults_over() -> bool {
    may_be() && now().faults == 0
}

/// Tells of a block's death, if this phase would not show it by its sums; `unseen` is 1
/// if it died some time before.
#[inline(always)]
pub(crate) fn tell(block: &Block, died: u64, unseen: u64) {
    if now().tells(block.time, died) {
        let flags = u64::from(block.certain) << 1 | unseen;
        hand_over(block.site, block.size, block.time, died, flags);
    }
}

#[inline(always)]
fn hand_over(site: u32, size: u64, born: u64, died: u64, flags: u64) {
    let Some(mut place) = DEATHS.reserve::<Death>(0) else {
        maps::lose(LossCause::DeathRingFull, 1, size);
        return;
    };
    place.write(Death {
        site,
        unseen: (flags & 1) as u32,
        size,
        born,
        died,
        certain: flags >> 1,
    });
    // User space looks when a burst is over.
    place.submit(BPF_RB_NO_WAKEUP);
}

const BPF_RB_NO_WAKEUP: u64 = 1;

#[inline(always)]
fn now() -> Phase {
    match PHASE.get_ptr(0) {
        // SAFETY: a live map value. User space writes its words one by one.
        Some(phase) => unsafe {
            Phase {
                choice: (&raw const (*phase).choice).read_volatile(),
                began: (&raw const (*phase).began).read_volatile(),
                followed: (&raw const (*phase).followed).read_volatile(),
                faults: (&raw const (*phase).faults).read_volatile(),
            }
        },
        None => Phase::NONE,
    }
}
