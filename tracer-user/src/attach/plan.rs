//! Which probes an allocator gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracer_ebpf::call::Function;

use super::returns::{Ends, Uncertain};
use super::stretch::Stretch;
use crate::attach::allocator::{AllocatorFunction, Probed};
use crate::kernel::program::{Moment, Place};

/// How the results of calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Returns {
    /// By return probes: while a call runs, the kernel's trampoline stands in
    /// place of its return address.
    #[default]
    Replaced,
    /// At return instructions: nothing of the process is changed.
    Instructions,
}

/// Probes that are placed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When their program runs.
    pub moment: Moment,
    /// Where they are.
    pub places: Vec<Place>,
    /// Whether they stay if return addresses are to be left alone from some
    /// moment on.
    pub stays: bool,
}

/// A function that is left without probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// What it does.
    pub function: Function,
    /// Its symbol.
    pub symbol: Arc<str>,
    /// Why.
    pub reason: Uncertain,
}

impl Unseen {
    /// Why, and what can be done about it.
    pub fn describe(&self) -> String {
        if self.function.may_throw() {
            return format!("exceptions may be thrown through it, and {}", self.reason);
        }
        format!("{}; --returns replace shows its calls", self.reason)
    }

    /// Whether its calls are seen all the same: a function that only hands a
    /// mapping on to libc's, which is probed itself.
    pub fn is_seen_elsewhere(&self) -> bool {
        let maps = matches!(
            self.function,
            Function::Mmap | Function::Munmap | Function::Mremap
        );
        maps && matches!(self.reason, Uncertain::OtherFile(_))
    }
}

/// The probes of an allocator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be placed.
    pub steps: Vec<Step>,
    /// What gets none.
    pub unseen: Vec<Unseen>,
}

impl Plan {
    /// The offsets of all probes, sorted.
    pub fn offsets(&self) -> Vec<u64> {
        let places = self.steps.iter().flat_map(|step| &step.places);
        let offsets: BTreeSet<u64> = places.map(|place| place.offset).collect();
        offsets.into_iter().collect()
    }

    /// Those of the functions that get probes.
    pub fn probed<'a>(
        &'a self,
        functions: &'a [AllocatorFunction],
    ) -> impl Iterator<Item = &'a AllocatorFunction> {
        let is_unseen = |function: &AllocatorFunction| {
            let mut unseen = self.unseen.iter();
            unseen.any(|unseen| unseen.symbol == function.symbol)
        };
        functions
            .iter()
            .filter(move |function| !is_unseen(function))
    }

    /// What of the functions has to be in memory as it is in the file.
    pub fn stretches(&self, functions: &[AllocatorFunction], returns: Returns) -> Vec<Stretch> {
        self.probed(functions)
            .flat_map(|function| function.stretches(returns))
            .collect()
    }

    /// The steps at the moments at which calls end without return probes.
    pub fn ends(&self) -> impl Iterator<Item = &Step> {
        let is_end = |step: &&Step| matches!(step.moment, Moment::End | Moment::EndJump);
        self.steps.iter().filter(is_end)
    }
}

/// Where one function's calls end.
enum End<'a> {
    /// At its return probe.
    Probe,
    /// At instructions.
    Instructions(&'a Ends),
}

/// Plans the probes of functions.
///
/// A function that may throw never gets a return probe: an exception would
/// meet the trampoline. Where it is not certain where a function's calls end,
/// it gets either a return probe or none at all.
pub fn plan(functions: &[AllocatorFunction], returns: Returns) -> Plan {
    let mut frees: Vec<(Moment, Vec<Place>)> = FREES.map(|moment| (moment, Vec::new())).into();
    // Those whose ends are known come first: they stay in a switch.
    let [mut probed, mut entered] = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    let [mut ends, mut jumps] = [BTreeSet::new(), BTreeSet::new()];
    let mut unseen = Vec::new();
    for function in functions {
        let Probed::Call(called) = function.probed else {
            let moment = moment(function.probed);
            if let Some((_, places)) = frees.iter_mut().find(|(of, _)| Some(*of) == moment) {
                places.extend(function.places());
            }
            continue;
        };
        let known = ends_of(function, called);
        let group = usize::from(known.is_err());
        match end(function.may_throw, returns, known) {
            Ok(End::Probe) => probed[group].extend(function.places()),
            Ok(End::Instructions(at)) => {
                ends.extend(&at.returns);
                jumps.extend(&at.jumps);
            }
            Err(reason) => {
                unseen.push(Unseen {
                    function: called,
                    symbol: Arc::clone(&function.symbol),
                    reason,
                });
                continue;
            }
        }
        entered[group].extend(function.places());
    }
    let [probed, others_probed] = probed;
    let [entered, others_entered] = entered;
    let frees = frees
        .into_iter()
        .map(|(moment, places)| (moment, places, true));
    let steps = [
        (Moment::Return, probed, false),
        (Moment::Return, others_probed, false),
        (Moment::End, anywhere(ends), true),
        (Moment::EndJump, anywhere(jumps), true),
        (Moment::Entry, entered, true),
        (Moment::Entry, others_entered, false),
    ];
    let steps = frees.chain(steps).map(|(moment, places, stays)| Step {
        moment,
        places,
        stays,
    });
    Plan {
        steps: steps.filter(|step| !step.places.is_empty()).collect(),
        unseen,
    }
}

/// When programs run at functions that free, in the order in which they are placed.
const FREES: [Moment; 7] = [
    Moment::Free,
    Moment::PoolFree1,
    Moment::PoolFree2,
    Moment::PoolFree3,
    Moment::ChainFree,
    Moment::ListFree,
    Moment::ArenaEnd,
];

/// When the program of a function that frees runs.
fn moment(probed: Probed) -> Option<Moment> {
    Some(match probed {
        Probed::Call(_) => return None,
        Probed::Free => Moment::Free,
        Probed::PoolFree1 => Moment::PoolFree1,
        Probed::PoolFree2 => Moment::PoolFree2,
        Probed::PoolFree3 => Moment::PoolFree3,
        Probed::ChainFree => Moment::ChainFree,
        Probed::ListFree => Moment::ListFree,
        Probed::ArenaEnd => Moment::ArenaEnd,
    })
}

fn end(
    may_throw: bool,
    returns: Returns,
    known: Result<&Ends, Uncertain>,
) -> Result<End<'_>, Uncertain> {
    if returns == Returns::Replaced && !may_throw {
        return Ok(End::Probe);
    }
    known.map(End::Instructions)
}

/// Where a function's calls end. What a jump's argument tells is a pointer.
fn ends_of(function: &AllocatorFunction, called: Function) -> Result<&Ends, Uncertain> {
    let ends = function.ends.as_ref().map_err(|reason| *reason)?;
    match ends.jumps.first() {
        // So does none of what the others return.
        Some(jump)
            if matches!(
                called,
                Function::PosixMemalign | Function::Munmap | Function::ArenaMake
            ) =>
        {
            Err(Uncertain::OtherFile(*jump))
        }
        _ => Ok(ends),
    }
}

fn anywhere(offsets: BTreeSet<u64>) -> Vec<Place> {
    let place = |offset| Place::new(None, offset);
    offsets.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::placement::{Needs, place};
    use crate::process::address::FileOffset;

    fn function(probed: Probed, start: u64, ends: Result<Ends, Uncertain>) -> AllocatorFunction {
        AllocatorFunction {
            is_last: false,
            probed,
            symbol: "f".into(),
            start: FileOffset(start),
            size: 64,
            placement: place(&[0x55], Needs::of(Function::Malloc, true)),
            may_throw: false,
            ends,
        }
    }

    fn at(returns: &[u64], jumps: &[u64]) -> Result<Ends, Uncertain> {
        Ok(Ends {
            returns: returns.to_vec(),
            jumps: jumps.to_vec(),
        })
    }

    fn offsets(plan: &Plan, moment: Moment, stays: bool) -> Vec<u64> {
        let steps = plan.steps.iter();
        steps
            .filter(|step| step.moment == moment && step.stays == stays)
            .flat_map(|step| step.places.iter().map(|place| place.offset))
            .collect()
    }

    const UNCERTAIN: Uncertain = Uncertain::IndirectJump(7);

    fn three() -> Vec<AllocatorFunction> {
        vec![
            function(Probed::Free, 10, Err(UNCERTAIN)),
            function(Probed::Call(Function::Malloc), 20, at(&[25, 29], &[])),
            function(Probed::Call(Function::Calloc), 30, at(&[29, 35], &[38])),
            function(Probed::Call(Function::Realloc), 40, Err(UNCERTAIN)),
        ]
    }

    #[test]
    fn return_probes_and_entries_of_what_would_be_unseen_go_in_a_switch() {
        let plan = plan(&three(), Returns::Replaced);
        assert_eq!(offsets(&plan, Moment::Free, true), [10]);
        assert_eq!(offsets(&plan, Moment::Return, false), [20, 30, 40]);
        assert_eq!(offsets(&plan, Moment::Entry, true), [20, 30]);
        assert_eq!(offsets(&plan, Moment::Entry, false), [40]);
        assert_eq!((plan.ends().count(), plan.unseen.len()), (0, 0));
    }

    #[test]
    fn shared_returns_are_probed_once_and_uncertain_functions_not_at_all() {
        let plan = plan(&three(), Returns::Instructions);
        assert_eq!(offsets(&plan, Moment::End, true), [25, 29, 35]);
        assert_eq!(offsets(&plan, Moment::EndJump, true), [38]);
        assert_eq!(offsets(&plan, Moment::Entry, true), [20, 30]);
        assert!(plan.steps.iter().all(|step| step.stays));
        let [unseen] = &plan.unseen[..] else {
            panic!("{:?}", plan.unseen);
        };
        assert_eq!(
            (unseen.function, unseen.reason),
            (Function::Realloc, UNCERTAIN)
        );
        assert_eq!(plan.offsets(), [10, 20, 25, 29, 30, 35, 38]);
    }

    #[test]
    fn a_function_that_may_throw_never_gets_a_return_probe() {
        for called in Function::ALL {
            for returns in [Returns::Replaced, Returns::Instructions] {
                for ends in [at(&[25], &[]), Err(UNCERTAIN)] {
                    let mut throws = function(Probed::Call(called), 20, ends.clone());
                    throws.may_throw = true;
                    let plan = plan(&[throws], returns);
                    let mut steps = plan.steps.iter();
                    assert!(
                        steps.all(|step| step.moment != Moment::Return),
                        "{called:?}"
                    );
                    assert_eq!(plan.unseen.len(), usize::from(ends.is_err()));
                }
            }
        }
    }

    #[test]
    fn a_status_is_not_taken_for_the_argument_of_a_jump() {
        let posix = function(Probed::Call(Function::PosixMemalign), 20, at(&[], &[25]));
        assert_eq!(plan(&[posix], Returns::Instructions).unseen.len(), 1);
    }
}
