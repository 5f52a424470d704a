//! What code does on its way to a return, against what call frame information says of the same
//! code: of each call that a disassembler finds in a described function.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use tracer_ebpf::rule::{Base, Kind, Rule, Saved};

use super::tiny::{CODE, Tiny};
use super::{libc_path, returning};
use crate::unwind::Table;
use crate::unwind::balanced::Balanced;
use crate::unwind::code::Code;

/// Calls of a file: all, those of which something is known, and of these those that agree.
#[derive(Debug, Default)]
struct Calls {
    all: u64,
    known: u64,
    same: u64,
    wrong: Vec<u64>,
}

fn compare(path: &str) -> Calls {
    let image = std::fs::read(path).unwrap();
    let table = Table::parse(&image).unwrap().unwrap();
    let mut calls = Calls::default();
    for segment in &table.segments {
        let bytes = &&*image;
        let mut code = Code::new(bytes, table.segments.clone(), false);
        let range = segment.address.0..segment.end();
        let Some(balanced) = Balanced::of(&mut code, range.clone(), |_| false) else {
            continue;
        };
        let rules: Vec<_> = balanced.rules().collect();
        let start = usize::try_from(segment.offset.0).unwrap();
        let code = &image[start..start + usize::try_from(segment.size).unwrap()];
        for call in Decoder::with_ip(64, code, range.start, DecoderOptions::NONE) {
            let is_call = call.mnemonic() == Mnemonic::Call;
            let rule = returning(&table, call.next_ip());
            // Others have no expression for what the two have in common.
            if !is_call || !rule.is_plain() {
                continue;
            }
            calls.all += 1;
            let at = rules.partition_point(|(range, _)| range.end <= call.ip());
            let Some(found) = rules.get(at).and_then(|(_, rule)| *rule) else {
                continue;
            };
            calls.known += 1;
            match is_same(found, rule) {
                true => calls.same += 1,
                false => calls.wrong.push(call.ip()),
            }
        }
    }
    calls
}

/// Whether both say the same of the CFA and of rbp. What counts from rbp may count from rsp as well,
/// and then is not compared.
fn is_same(found: Rule, described: Rule) -> bool {
    let is_bp = |rule: Rule| rule.kind() == Kind::Bp as u8;
    match is_bp(found) == is_bp(described) {
        true => found.offset() == described.offset() && found.bp() == described.bp(),
        false => found.bp() == described.bp(),
    }
}

/// The files that this machine runs its tests with, of C and of C++.
#[test]
fn what_code_gives_back_is_what_its_description_says() {
    let libc = libc_path();
    let beside = std::path::Path::new(&libc).with_file_name("libstdc++.so.6");
    for (path, least) in [(libc, 0.8), (beside.to_string_lossy().into_owned(), 0.65)] {
        let calls = compare(&path);
        println!(
            "{path}: {} calls, {} known, {} the same",
            calls.all, calls.known, calls.same
        );
        assert!(calls.all > 1000, "{path}: {calls:?}");
        assert!(
            calls.known as f64 >= least * calls.all as f64,
            "{path}: {calls:?}"
        );
        // A call that does not return may have another function's code behind it.
        assert!(
            calls.wrong.len() as u64 <= calls.known / 10_000,
            "{path}: {calls:?}"
        );
    }
}

/// What is known of these instructions, by their places.
fn known(bytes: &[u8]) -> impl Fn(u64) -> Option<Rule> {
    let mut tiny = Tiny::new(bytes);
    tiny.function(0, 1, &[]);
    let image = tiny.build();
    let table = Table::parse(&image).unwrap().unwrap();
    let bytes_of_file = &*image;
    let mut code = Code::new(&bytes_of_file, table.segments.clone(), false);
    let end = CODE + bytes.len() as u64;
    let balanced = Balanced::of(&mut code, CODE..end, |_| false).unwrap();
    let rules: Vec<_> = balanced.rules().collect();
    move |at| {
        let index = rules.partition_point(|(range, _)| range.end <= CODE + at);
        rules.get(index).and_then(|(_, rule)| *rule)
    }
}

fn sp(offset: i64, bp: Saved, bx: Saved) -> Option<Rule> {
    Rule::new(Kind::Sp, offset, Base::Cfa, bp, bx)
}

#[test]
fn the_way_to_a_return_tells_the_frame() {
    // push %rbp; push %rbx; sub $24,%rsp; call +0x100; add $24,%rsp; pop %rbx; pop %rbp; ret
    let code = [
        0x55, 0x53, 0x48, 0x83, 0xec, 24, 0xe8, 0, 1, 0, 0, 0x48, 0x83, 0xc4, 24, 0x5b, 0x5d, 0xc3,
    ];
    let known = known(&code);
    let (bp, bx) = (Saved::At(-16), Saved::At(-24));
    assert_eq!(known(0), sp(8, Saved::Same, Saved::Same));
    assert_eq!(known(1), sp(16, bp, Saved::Same));
    assert_eq!(known(6), sp(48, bp, bx));
    assert_eq!(known(15), sp(24, bp, bx));
    assert_eq!(known(17), sp(8, Saved::Same, Saved::Same));
}

/// The stack is aligned by a mask, so that nothing but rbp tells; a word that was pushed for a call
/// goes with a pop of rbp that restores nothing.
#[test]
fn a_frame_by_rbp_and_a_pop_that_makes_room() {
    // push %rbp; mov %rsp,%rbp; and $-32,%rsp; call +0x100; leave; ret
    let code = [
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xe0, 0xe8, 0, 1, 0, 0, 0xc9, 0xc3,
    ];
    let rule = Rule::new(Kind::Bp, 16, Base::Cfa, Saved::At(-16), Saved::Same);
    assert_eq!(known(&code)(8), rule);
    // push %rbp; push %rax; call +0x100; pop %rbp; pop %rbp; ret
    let code = [0x55, 0x50, 0xe8, 0, 1, 0, 0, 0x5d, 0x5d, 0xc3];
    assert_eq!(known(&code)(2), sp(24, Saved::At(-16), Saved::Same));
}

/// One that does not return is the last of its function: what stands behind it is another's.
#[test]
fn behind_a_call_that_does_not_return_is_nothing_known() {
    // call +11 (to the last function); push %rbx; call -13 (here); pop %rbx; ret; hlt
    let code = [
        0xe8, 13, 0, 0, 0, 0x53, 0xe8, 0xfa, 0xff, 0xff, 0xff, 0x5b, 0xc3, 0x90, 0x90, 0x90, 0x90,
        0x90, 0xf4,
    ];
    let known = known(&code);
    assert_eq!(known(0), None);
    // The second calls itself, and returns.
    assert_eq!(known(6), sp(16, Saved::Same, Saved::At(-16)));
}

#[test]
fn a_jump_to_nobody_knows_where_tells_nothing() {
    // sub $8,%rsp; call +0x100; jmp *%rax
    let code = [0x48, 0x83, 0xec, 8, 0xe8, 0, 1, 0, 0, 0xff, 0xe0];
    assert_eq!(known(&code)(4), None);
    // The same, but first the frame is given back.
    let code = [
        0x48, 0x83, 0xec, 8, 0xe8, 0, 1, 0, 0, 0x48, 0x83, 0xc4, 8, 0xff, 0xe0,
    ];
    assert_eq!(known(&code)(4), sp(16, Saved::Same, Saved::Same));
    // Two ways that differ: je over add $8,%rsp; ret.
    let code = [0xe8, 0, 1, 0, 0, 0x74, 4, 0x48, 0x83, 0xc4, 8, 0xc3];
    assert_eq!(known(&code)(0), None);
}
