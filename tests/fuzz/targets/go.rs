//! Go's table of functions, with code before it.

#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::process::pclntab::{CodePart, Pclntab};

/// Where the table begins; all before is code.
const CODE: u64 = 0x200;

fuzz_target!(|image: &[u8]| {
    let size = image.len() as u64;
    let code = [CodePart {
        offset: 0,
        address: 0x40_1000,
        size: CODE.min(size),
    }];
    let tables = [
        Pclntab::parse(&image, CODE..size),
        Pclntab::search(&image, 0..size),
    ];
    for table in tables.into_iter().flatten() {
        check(&table, image);
        let _ = table.text(&image, &code);
    }
});

/// What rows are made of: functions that do not overlap, and sizes of their frames
/// in the order of the code.
fn check(table: &Pclntab, image: &[u8]) {
    let mut window = table.sizes_of(&image);
    table.each(&image, |function| {
        assert!(function.start < function.end);
        let mut last = 0;
        table.sizes(&mut window, &function, |from, to, _| {
            assert!(from == last && to > from && to <= function.end - function.start);
            last = to;
        });
        assert!(table.name(&image, function.name, &mut [0; 64]).len() <= 64);
        ControlFlow::Continue(())
    });
}
