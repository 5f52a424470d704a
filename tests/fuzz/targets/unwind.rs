//! Files with call frame information.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::unwind::{RuleRow, Table};

fuzz_target!(|image: &[u8]| {
    if let Ok(Some(table)) = Table::parse(image) {
        for rows in [&table.full, &table.returns] {
            check(rows);
        }
    }
});

/// What the kernel side counts on: rows begin at the base and are sorted, and
/// none only repeats.
fn check(rows: &[RuleRow]) {
    assert_eq!(rows[0].offset, 0);
    for pair in rows.windows(2) {
        assert!(pair[0].offset < pair[1].offset);
        assert_ne!(pair[0].rule, pair[1].rule);
    }
}
