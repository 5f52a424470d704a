//! ELF files with debug information, and the members of their classes and variables.
//!
//! Two seeds are one source by two versions of DWARF, the second one compressed: `store::Base`, a class
//! in a namespace without a name that inherits it, and variables within [`VARIABLES`]. The other two have types in units of their own, the second one compressed by zstd.

#![no_main]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::holders::budget::Budget;
use unfreed_fuzz::holders::members::Members;

/// Classes that seeds have.
const CLASSES: [&str; 4] = [
    "store::Base",
    "store::(anonymous namespace)::Registry",
    "store::Registry",
    "Own",
];
/// Where seeds have variables.
const VARIABLES: [Range<u64>; 2] = [0x17c0..0x1820, 0x4000..0x4090];
/// Where in a class or variable a member is asked for.
const OFFSETS: [u64; 8] = [0, 8, 16, 31, 32, 40, 48, u64::MAX];

fuzz_target!(|file: &[u8]| {
    let mut budget = Budget::new(Duration::from_secs(1), Arc::default());
    let Some(members) = Members::read(&file, &mut budget) else {
        return;
    };
    for offset in OFFSETS {
        for class in CLASSES {
            check(members.of_class(class, offset));
        }
        for address in VARIABLES.into_iter().flat_map(|it| it.step_by(8)) {
            check(members.of_variable(address, offset));
        }
    }
});

/// A name that is told says something, and is none of a library's own.
fn check(name: Option<String>) {
    if let Some(name) = name {
        assert!(!name.is_empty() && !name.starts_with('_'), "{name}");
    }
}
