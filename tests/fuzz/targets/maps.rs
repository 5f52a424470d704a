//! The text of `/proc/PID/maps`, in which paths are anybody's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::process::maps::parse_executable;

fuzz_target!(|text: &[u8]| {
    for range in parse_executable(text) {
        assert!(range.start < range.end);
    }
});
