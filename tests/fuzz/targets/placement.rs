//! Machine code of any content, at whose beginning probes are to be placed.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::call::Function;
use unfreed_fuzz::attach::placement::{Needs, Step, place};

fuzz_target!(|code: &[u8]| {
    for cookies in [false, true] {
        check(code, Needs::of_free(cookies));
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
}
