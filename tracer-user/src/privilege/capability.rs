//! The capabilities that a thread of the tracer holds (capabilities(7)).
//!
//! They are a thread's own, and a thread that it makes gets the same. So the
//! main thread gives up what is not needed before it makes any other, and each
//! thread that reads what others made gives up the rest when it begins.
//! Nothing that is given up comes back: `no_new_privs` is set, and the bounding
//! and ambient sets are emptied.

use std::io;

use anyhow::{Context, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// Load programs and place probes, also for libraries that are opened later;
/// look at processes.
const TRACE: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(DELETED)
    .union(LOOK);

/// Open mapped files that are deleted, by `/proc/PID/map_files`.
const DELETED: CapabilitySet = CapabilitySet::CHECKPOINT_RESTORE;

/// Read the memory, mappings and files of processes.
const LOOK: CapabilitySet = CapabilitySet::SYS_PTRACE.union(READ);

/// Read files of other users.
pub const READ: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// Write reports into folders of other users, and over files of others in
/// sticky ones.
pub const WRITE: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::FOWNER);

/// Have buffers beyond the limit of locked memory, which all tracers of a user
/// share.
pub const LOCK: CapabilitySet = CapabilitySet::IPC_LOCK;

/// Open perf events where `CAP_PERFMON` does not do: for probes on all kernels
/// that have the change "perf: Revert to requiring CAP_SYS_ADMIN for uprobes" of
/// 2025, and on Debian's for any event (`kernel.perf_event_paranoid` above 2).
pub const EVENT: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// Mount a file system that nobody else sees.
pub const MOUNT: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// Send signals to processes of other users.
pub const SIGNAL: CapabilitySet = CapabilitySet::KILL;

/// Act as the user of a JVM.
pub const IMPERSONATE: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// Kernel capabilities have numbers below this.
const NUMBERS: u32 = u64::BITS;

/// What a run does beside tracing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Duties {
    /// It ends the program that it started.
    pub ends_program: bool,
    /// It asks JVMs by their attach protocol.
    pub asks_jvms: bool,
    /// It opens perf events: those of the start, and probes that are placed by
    /// them.
    pub opens_events: bool,
}

/// What a thread is at.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// From before the programs are loaded until the probes are gone.
    Tracing(Duties),
    /// Naming, and writing what was found: the probes are gone.
    Reporting,
    /// Looking at a process, without tracing it.
    Looking,
    /// Holding programs by ptrace.
    Holding,
    /// Asking a JVM.
    Asking,
    /// Waiting for a signal that ends the program at once. What is in JVMs'
    /// folders then is removed as their users.
    Waiting,
    /// Parsing files that are open already, or acting as another user.
    Parsing,
}

/// Two sets of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// All that the thread may use.
    pub permitted: CapabilitySet,
    /// What it uses all the time. The others it uses for a single action
    /// ([`with`]).
    pub effective: CapabilitySet,
}

impl Phase {
    /// What a thread keeps of what it `has`.
    pub fn keeps(self, has: CapabilitySet) -> Held {
        let nothing = CapabilitySet::empty();
        let (always, at_times) = match self {
            Self::Tracing(duties) => (TRACE | stand_in(has), WRITE | LOCK | duties.needs()),
            Self::Reporting => (nothing, WRITE | READ),
            Self::Looking => (LOOK | DELETED | stand_in(has), nothing),
            Self::Holding => (CapabilitySet::SYS_PTRACE, nothing),
            Self::Asking => (LOOK, SIGNAL | IMPERSONATE),
            Self::Waiting => (nothing, IMPERSONATE),
            Self::Parsing => (nothing, nothing),
        };
        Held {
            permitted: has & (always | at_times),
            effective: has & always,
        }
    }

    /// [`Self::enter`], with an error for people.
    ///
    /// # Errors
    /// See [`Self::enter`].
    pub fn start(self) -> Result<()> {
        self.enter().context("cannot give up capabilities")
    }

    /// Gives up everything else, for this thread and those that it makes, for
    /// good.
    ///
    /// # Errors
    /// Fails if the kernel refuses; then nothing may go on.
    pub fn enter(self) -> io::Result<()> {
        let has = capabilities(None)?;
        set_no_new_privs(true)?;
        clear_ambient_capability_set()?;
        // Without this capability the set stays, and means nothing: only a
        // program that is executed gets anything by it, and not after
        // `no_new_privs`.
        if has.effective.contains(CapabilitySet::SETPCAP) {
            empty_bounding_set()?;
        }
        let Held {
            permitted,
            effective,
        } = self.keeps(has.permitted);
        Ok(set_capabilities(
            None,
            CapabilitySets {
                effective,
                permitted,
                inheritable: CapabilitySet::empty(),
            },
        )?)
    }
}

impl Duties {
    fn needs(self) -> CapabilitySet {
        let mut needs = CapabilitySet::empty();
        needs.set(SIGNAL, self.ends_program || self.asks_jvms);
        needs.set(IMPERSONATE, self.asks_jvms);
        needs.set(EVENT, self.opens_events);
        needs
    }
}

/// `CAP_SYS_ADMIN` does for those that were once a part of it, so it is kept
/// where one of them was not given.
fn stand_in(has: CapabilitySet) -> CapabilitySet {
    let parts = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::CHECKPOINT_RESTORE;
    if has.contains(parts) {
        CapabilitySet::empty()
    } else {
        CapabilitySet::SYS_ADMIN
    }
}

fn empty_bounding_set() -> io::Result<()> {
    for capability in bounding_set() {
        remove_capability_from_bounding_set(capability)?;
    }
    Ok(())
}

/// The members of this thread's bounding set, one by one.
pub fn bounding_set() -> impl Iterator<Item = CapabilitySet> {
    let all = (0..NUMBERS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    // The first number that the kernel does not know is an error.
    let known = all.map_while(|one| Some((one, capability_is_in_bounding_set(one).ok()?)));
    known.filter_map(|(one, is_in)| is_in.then_some(one))
}

/// Acts with further capabilities, as far as they are permitted, in this
/// thread.
pub fn with<T>(wanted: CapabilitySet, act: impl FnOnce() -> T) -> T {
    let _until_dropped = Changed::to(|effective| effective | wanted);
    act()
}

/// An effective set that was changed, and comes back when this is dropped.
struct Changed(Option<CapabilitySet>);

impl Changed {
    fn to(change: impl FnOnce(CapabilitySet) -> CapabilitySet) -> Self {
        let Ok(has) = capabilities(None) else {
            return Self(None);
        };
        let effective = change(has.effective) & has.permitted;
        if effective == has.effective {
            return Self(None);
        }
        let changed = set_capabilities(None, CapabilitySets { effective, ..has });
        // What cannot be done without shows when it is tried.
        Self(changed.ok().map(|()| has.effective))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Some(before) = self.0.take()
            && let Ok(has) = capabilities(None)
        {
            let effective = before & has.permitted;
            let _as_permitted = set_capabilities(None, CapabilitySets { effective, ..has });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> CapabilitySet {
        CapabilitySet::from_bits_retain((1 << 41) - 1)
    }

    #[test]
    fn what_no_phase_needs_is_never_kept() {
        let all = Duties {
            ends_program: true,
            asks_jvms: true,
            opens_events: true,
        };
        let never = [
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::SYS_BOOT,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::MKNOD,
            CapabilitySet::SETFCAP,
            CapabilitySet::SETPCAP,
            CapabilitySet::CHOWN,
        ];
        for phase in [Phase::Tracing(all), Phase::Reporting, Phase::Asking] {
            let kept = phase.keeps(everything());
            for one in never {
                assert!(!kept.permitted.contains(one), "{phase:?} keeps {one:?}");
            }
            assert!(kept.permitted.contains(kept.effective));
        }
    }

    #[test]
    fn nobody_gets_what_he_had_not() {
        let few = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYS_PTRACE;
        let kept = Phase::Tracing(Duties::default()).keeps(few);
        assert_eq!(kept.permitted, few);
        assert_eq!(kept.effective, few);
        let none = Phase::Reporting.keeps(few);
        assert_eq!(none.permitted, CapabilitySet::empty());
    }

    #[test]
    fn the_old_capability_stands_in_for_those_that_were_not_given() {
        let old = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
        let kept = Phase::Tracing(Duties::default()).keeps(old);
        assert_eq!(kept.effective, old);
    }

    #[test]
    fn duties_bring_what_they_need_and_no_more() {
        let tracing = |duties| Phase::Tracing(duties).keeps(everything()).permitted;
        let plain = tracing(Duties::default());
        assert!(!plain.intersects(SIGNAL | IMPERSONATE | EVENT));
        let ends = tracing(Duties {
            ends_program: true,
            ..Duties::default()
        });
        assert_eq!(ends, plain | SIGNAL);
        let opens = Phase::Tracing(Duties {
            opens_events: true,
            ..Duties::default()
        });
        let opens = opens.keeps(everything());
        assert_eq!(opens.permitted, plain | EVENT);
        assert!(!opens.effective.contains(EVENT));
    }

    /// On a thread of its own: what it gives up is gone.
    #[test]
    fn a_thread_gives_up_for_good() {
        let gave_up = std::thread::spawn(|| {
            Phase::Parsing.enter().unwrap();
            let held = capabilities(None).unwrap();
            let raised = with(WRITE, || capabilities(None).unwrap());
            assert_eq!(raised, held);
            (held, bounding_set().count())
        });
        let (held, bounding) = gave_up.join().unwrap();
        assert!(held.permitted.is_empty() && held.effective.is_empty());
        assert!(held.inheritable.is_empty());
        let own = capabilities(None).unwrap();
        if own.effective.contains(CapabilitySet::SETPCAP) {
            assert_eq!(bounding, 0);
        }
    }

    #[test]
    fn what_is_raised_comes_back() {
        std::thread::spawn(|| {
            Phase::Reporting.enter().unwrap();
            let before = capabilities(None).unwrap();
            assert!(before.effective.is_empty());
            let inside = with(READ, || capabilities(None).unwrap().effective);
            assert_eq!(inside, READ & before.permitted);
            assert_eq!(capabilities(None).unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
