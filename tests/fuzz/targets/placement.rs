//! Machine code of any content, at whose beginning probes are to be placed.

#![no_main]

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use libfuzzer_sys::fuzz_target;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::call::Function;
use unfreed_fuzz::attach::placement::{Needs, Placement, Step, place};

/// Instructions that a way is followed for, at most.
const LONGEST_WAY: u32 = 14;

fuzz_target!(|code: &[u8]| {
    for cookies in [false, true] {
        check(code, Needs::of_free(&[0], cookies));
        for function in Function::ALL {
            check(code, Needs::of(function, cookies));
        }
    }
});

/// What the kernel side counts on.
fn check(code: &[u8], needs: Needs<'_>) {
    let placement = place(code, needs);
    let spots: Vec<_> = placement.spots().collect();
    let places: BTreeSet<u64> = spots.iter().map(|spot| spot.displacement).collect();
    assert_eq!(places.len(), spots.len());
    for spot in spots {
        let is_first = spot.displacement == 0 && spot.arguments == Arguments::AT_ENTRY;
        assert!(is_first || spot.step == Step::Emulated);
        assert!(is_first || spot.displacement < code.len() as u64);
        assert!(!needs.fixed_stack || spot.arguments.stack() == 0);
        if needs.cookies {
            assert_eq!(spot.arguments.code(), spot.displacement);
        } else {
            assert_eq!(spot.arguments, Arguments::AT_ENTRY);
        }
    }
    if !is_at_entry(&placement) {
        let ways = Ways::of(code, places);
        ways.follow(0, 0, LONGEST_WAY);
    }
}

fn is_at_entry(placement: &Placement) -> bool {
    placement.first.displacement == 0 && placement.others.is_empty()
}

/// The ways through a function, all of whose instructions follow each other.
struct Ways<'a> {
    code: &'a [u8],
    starts: BTreeSet<u64>,
    places: BTreeSet<u64>,
}

impl<'a> Ways<'a> {
    fn of(code: &'a [u8], places: BTreeSet<u64>) -> Self {
        let decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        let starts = decoder.into_iter().take_while(|it| !it.is_invalid());
        Self {
            code,
            starts: starts.map(|it| it.ip()).collect(),
            places,
        }
    }

    fn at(&self, ip: u64) -> Option<Instruction> {
        let rest = self.code.get(usize::try_from(ip).ok()?..)?;
        let mut decoder = Decoder::with_ip(64, rest, ip, DecoderOptions::NONE);
        self.starts.contains(&ip).then(|| decoder.decode())
    }

    /// Follows all ways from an instruction on. None meets a second probe, and
    /// what returns has met one.
    fn follow(&self, ip: u64, met: u32, left: u32) {
        let Some(instruction) = self.at(ip).filter(|_| left > 0) else {
            return;
        };
        let met = met + u32::from(self.places.contains(&ip));
        assert!(met <= 1, "a second probe at {ip:#x}");
        let flow = instruction.flow_control();
        assert!(flow != FlowControl::Return || met == 1, "none at {ip:#x}");
        let is_near = instruction.op0_kind() == OpKind::NearBranch64;
        let branches = matches!(
            flow,
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        let target = (is_near && branches).then(|| instruction.near_branch_target());
        // Back to the first instruction is another call.
        if let Some(target) = target.filter(|target| *target > 0) {
            self.follow(target, met, left - 1);
        }
        if matches!(
            flow,
            FlowControl::Next
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::ConditionalBranch
        ) {
            self.follow(instruction.next_ip(), met, left - 1);
        }
    }
}
