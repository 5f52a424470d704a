//! Perf maps of any content: what is kept is within the budget, and every
//! function has its own addresses.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::process::address::CodeAddress;
use unfreed_fuzz::process::perf_map::PerfMap;

/// Much less than many inputs have, so that it is reached, bytes.
const BUDGET: usize = 2048;

fuzz_target!(|text: &[u8]| {
    let map = PerfMap::read(text, BUDGET).expect("reading from memory");
    // A vector's room is at most twice what is in it.
    assert!(map.bytes() <= 2 * BUDGET + 16);
    let mut free = 0;
    for (place, name) in map.functions() {
        assert!(free <= place.start && place.start < place.end);
        free = place.end;
        assert_eq!(map.find(CodeAddress(place.start)).as_ref(), Some(&name));
        assert_eq!(map.find(CodeAddress(place.end - 1)), Some(name));
    }
    // With all the room that it wants, only names that were cut differ.
    let whole = PerfMap::parse(text);
    assert!(!whole.is_cut());
    if !map.is_cut() {
        assert!(whole.functions().eq(map.functions()));
    }
});
