//! Outermost frames, signal frames and stubs.

use tracer_ebpf::rule::{Base, Kind, Rule, Saved};

use super::tiny::{CODE, Tiny};
use super::{full, libc_path, places, returning};
use crate::unwind::{RuleRow, Table};

fn parse(tiny: &Tiny) -> Table {
    Table::parse(&tiny.build()).unwrap().unwrap()
}

fn sp(offset: i64) -> Rule {
    Rule::new(Kind::Sp, offset, Base::Cfa, Saved::Same, Saved::Same).unwrap()
}

#[test]
fn own_library_says_where_threads_contexts_and_signals_begin() {
    let image = std::fs::read(libc_path()).unwrap();
    let table = Table::parse(&image).unwrap().unwrap();
    // __restore_rt.
    let sigreturn = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    for at in places(&image, &table, &sigreturn) {
        assert_eq!(full(&table, at), Rule::SIGNAL);
        assert_eq!(returning(&table, at), Rule::SIGNAL);
    }
    // __start_context.
    let context = [0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24, 0x48, 0x85, 0xff];
    for at in places(&image, &table, &context) {
        assert_eq!(full(&table, at), Rule::END);
        assert_eq!(returning(&table, at), Rule::END);
    }
    // The threads' start in clone and clone3: xor %ebp,%ebp and a call.
    let ends = table.full.iter().filter(|row| row.rule == Rule::END);
    assert!(ends.count() >= 2);
}

#[test]
fn own_program_begins_at_its_entry() {
    let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let table = Table::parse(&image).unwrap().unwrap();
    let entry = u64::from_le_bytes(image[24..32].try_into().unwrap());
    assert_eq!(full(&table, entry + 1), Rule::END);
}

/// A file without sections says the same as with them.
#[test]
fn sections_are_not_needed() {
    let mut tiny = Tiny::new(&[0x90; 64]);
    tiny.function(16, 16, &[0x41, 0x0e, 16]);
    let table = parse(&tiny);
    tiny.has_sections = false;
    assert_eq!(parse(&tiny).full, table.full);
    let rows = [
        (0, Rule::NONE),
        (16, Rule::ENTRY),
        (17, sp(16)),
        (32, Rule::NONE),
    ];
    let rows = rows.map(|(offset, rule)| RuleRow { offset, rule });
    assert_eq!(table.full, rows);
}

/// musl's `_start`, `__clone` and `__restore_rt`, which nothing describes.
#[test]
fn what_has_no_entries_is_known_by_its_code() {
    let mut code = vec![0x90; 16];
    let entry = CODE + code.len() as u64;
    // xor %rbp,%rbp; mov %rsp,%rdi; and $-16,%rsp; call +3; nop
    code.extend([0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x83, 0xe4, 0xf0]);
    code.extend([0xe8, 3, 0, 0, 0, 0x90, 0x90]);
    let start_call = CODE + code.len() as u64 - 2;
    code.extend([0x90; 16]);
    let clone = CODE + code.len() as u64;
    code.extend([0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0x89, 0xc7, 0x31, 0xc0]);
    code.extend([0xb0, 0x3c, 0x0f, 0x05, 0xf4, 0xc3]);
    let restore = CODE + code.len() as u64;
    code.extend([0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05, 0x90]);
    let mut tiny = Tiny::new(&code);
    tiny.entry = entry;
    let table = parse(&tiny);
    for address in [entry, start_call - 1] {
        assert_eq!(full(&table, address), Rule::END);
    }
    assert_eq!(full(&table, start_call), Rule::NONE);
    assert_eq!(returning(&table, start_call), Rule::END);
    assert_eq!(returning(&table, clone + 6), Rule::END);
    for address in [clone + 2, clone + 6] {
        assert_eq!(full(&table, address), Rule::NONE);
    }
    assert_eq!(returning(&table, restore), Rule::SIGNAL);
    assert_eq!(full(&table, restore + 8), Rule::SIGNAL);
    assert_eq!(full(&table, restore + 9), Rule::NONE);
}

/// The expressions that GNU ld writes for `.plt`, and for one whose stubs
/// begin with `endbr64`.
#[test]
fn stubs_have_one_word_more_after_their_push() {
    let stub = |threshold: u8| {
        let mut code = vec![0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + threshold];
        code.extend([0x2a, 0x33, 0x24, 0x22]);
        code
    };
    let mut tiny = Tiny::new(&[0x90; 96]);
    tiny.function(16, 32, &stub(11)).function(48, 32, &stub(9));
    let table = parse(&tiny);
    assert_eq!(full(&table, CODE + 20).kind(), Kind::Plt as u8);
    for at in [48, 64] {
        assert_eq!(full(&table, CODE + at + 8), sp(8));
        assert_eq!(full(&table, CODE + at + 9), sp(16));
    }
}

/// The forms in which gcc and clang save registers of a realigned frame.
#[test]
fn realigned_frames_are_understood() {
    // CFA = [rbp - 8]; rbp at rbp + 0; rbx at rbp - 16.
    let realigned = [
        0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0, 0x10, 3, 2, 0x76, 0x70,
    ];
    let mut tiny = Tiny::new(&[0x90; 64]);
    // CFA = r10: not expressible.
    tiny.function(0, 16, &realigned)
        .function(16, 16, &[0x0c, 10, 0]);
    let table = parse(&tiny);
    let rule = Rule::new(Kind::DerefBp, -8, Base::Bp, Saved::At(0), Saved::At(-16));
    assert_eq!(Some(full(&table, CODE + 4)), rule);
    assert_eq!(full(&table, CODE + 20), Rule::UNSUPPORTED);
    assert_eq!(table.omitted.unsupported, 1);
}
