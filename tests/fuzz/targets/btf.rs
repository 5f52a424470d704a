//! Type information as the kernel writes it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::kernel::member;

fuzz_target!(|types: &[u8]| {
    let _ = member(types);
});
