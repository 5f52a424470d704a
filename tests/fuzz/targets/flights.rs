//! Flight recordings, as a hostile JVM may write them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::flight::samples;

fuzz_target!(|input: &[u8]| {
    if let Ok(found) = samples(input, &|_| true) {
        assert!(found.all >= found.asked.len() as u64);
    }
});
