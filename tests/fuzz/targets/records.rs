//! Records of perf's side band: type and flags first, then the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::process::record;
use unfreed_fuzz::process::watch::CodeEvent;

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (kind, misc, body) = input;
    if let Some(CodeEvent::Map { range, .. }) = record(u32::from(kind), misc, body) {
        assert!(range.start < range.end);
    }
});
