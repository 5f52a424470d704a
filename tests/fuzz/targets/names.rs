//! Names of any content, as symbol tables have them: none becomes longer than a
//! name may be, or steers a terminal, or takes long.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::symbolize::demangle::{MAX_NAME, demangle};

fuzz_target!(|name: &[u8]| {
    let name = String::from_utf8_lossy(name);
    for prefix in ["", "_Z", "_R"] {
        let readable = demangle(&format!("{prefix}{name}"));
        assert!(readable.chars().count() <= MAX_NAME + 1);
        assert!(!readable.contains(char::is_control));
    }
});
