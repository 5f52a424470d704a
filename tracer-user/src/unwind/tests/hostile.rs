//! Files made to harm: bounded work, no panic.

use tracer_ebpf::rule::Rule;

use super::full;
use super::tiny::{CODE, HEAD, Tiny};
use crate::unwind::Table;

fn sample() -> Tiny {
    let mut tiny = Tiny::new(&[0x90; 200]);
    tiny.function(0, 64, &[0x41, 0x0e, 16, 0x0a, 0x42, 0x0e, 8, 0x0b])
        .function(
            64,
            64,
            &[0x0f, 3, 0x76, 0x78, 0x06, 0x41, 0x16, 6, 2, 0x76, 0],
        );
    tiny
}

#[test]
fn broken_files_are_safe_to_read() {
    for has_sections in [true, false] {
        let whole = Tiny {
            has_sections,
            ..sample()
        }
        .build();
        for length in 0..whole.len() {
            let _ = Table::parse(&whole[..length]);
        }
        let used = (0..300).chain(0x2000..whole.len());
        for position in used {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[position] = value;
                let _ = Table::parse(&broken);
            }
        }
    }
}

#[test]
fn entries_that_overlap_are_cut() {
    let mut tiny = Tiny::new(&[0x90; 64]);
    tiny.function(0, 32, &[])
        .function(16, 32, &[0x0e, 32])
        .function(20, 8, &[]);
    let table = Table::parse(&tiny.build()).unwrap().unwrap();
    assert_eq!(table.omitted.overlapping, 2);
    assert_eq!(full(&table, CODE + 20), Rule::ENTRY);
    assert_eq!(full(&table, CODE + 40).offset(), 32);
    assert_eq!(full(&table, CODE + 50), Rule::NONE);
}

#[test]
fn entries_outside_of_the_code_are_left_out() {
    let mut tiny = Tiny::new(&[0x90; 64]);
    tiny.function(60, 32, &[])
        .function(0xffff_f000, 32, &[])
        .function(0, 0, &[]);
    let table = Table::parse(&tiny.build()).unwrap().unwrap();
    assert_eq!(table.omitted.outside, 3);
    assert_eq!(table.full.len(), 1);
}

#[test]
fn states_are_not_remembered_without_end() {
    let mut tiny = Tiny::new(&[0x90; 64]);
    let mut deep = vec![0x41];
    deep.extend([0x0a; 100]);
    tiny.function(0, 32, &deep).function(32, 16, &[0x0b]);
    let table = Table::parse(&tiny.build()).unwrap().unwrap();
    assert_eq!(table.omitted.malformed, 2);
    assert_eq!(full(&table, CODE), Rule::ENTRY);
    assert_eq!(full(&table, CODE + 1), Rule::UNSUPPORTED);
    assert_eq!(full(&table, CODE + 40), Rule::UNSUPPORTED);
}

/// Work is not the product of a head's length and the number of entries.
#[test]
fn a_long_head_is_not_read() {
    let mut tiny = Tiny::new(&[0x90; 64]);
    let mut head = HEAD.to_vec();
    head.resize(4 + 8192, 0);
    head[..4].copy_from_slice(&8192_u32.to_le_bytes());
    tiny.frames = head;
    for offset in 0..64 {
        tiny.function(offset, 1, &[]);
    }
    let table = Table::parse(&tiny.build()).unwrap().unwrap();
    assert_eq!(table.omitted.malformed, 64);
}

/// Found by fuzzing: the sum of an address and a length wrapped around.
#[test]
fn code_at_the_end_of_all_addresses_is_refused() {
    let mut image = sample().build();
    image[64 + 16..64 + 24].copy_from_slice(&(u64::MAX - 200).to_le_bytes());
    let error = Table::parse(&image).unwrap_err().to_string();
    assert!(error.ends_with("has no place in memory"), "{error}");
}

#[test]
fn what_is_wrong_is_said() {
    let error = |image: &[u8]| format!("{:#}", Table::parse(image).unwrap_err());
    assert!(error(b"#!/bin/sh\n").starts_with("not a 64-bit ELF file"));
    let mut image = sample().build();
    image[18] = 183;
    assert_eq!(error(&image), "not an ELF file for x86-64");
    let mut image = sample().build();
    // The code's size in the file.
    image[64 + 32..64 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(
        error(&image),
        "its segment at 0x1000 has no place in memory"
    );
    image[64 + 32..64 + 40].copy_from_slice(&(3_u64 << 30).to_le_bytes());
    assert_eq!(
        error(&image),
        "its 3221225472 bytes of code are more than 2147483648"
    );
}
