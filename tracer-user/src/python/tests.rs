//! Code objects and strings in memory that a test wrote, sane and not.

use tracer_ebpf::frame;
use tracer_ebpf::python::{Gap, Layout, check};

use super::PythonNames;
use super::text::Characters;
use crate::jvm::tests::synthetic::Synthetic;
use crate::jvm::unnamed::Unnamed;
use crate::unwind::Interpreter;

const CODE: u64 = 0x10_0000;
const TYPE: u64 = 0x20_0000;
const NAME: u64 = 0x30_0000;
const FILE: u64 = 0x31_0000;
/// `PyUnicode_1BYTE_KIND`, compact, ASCII.
const ASCII: u32 = 1 << 2 | 1 << 5 | 1 << 6;

fn put_text(memory: &mut Synthetic, at: u64, length: u64, state: u32, bytes: &[u8]) {
    let start = if state & 1 << 6 == 0 { 72 } else { 48 };
    memory.put(at + 16, &length.to_le_bytes());
    memory.put(at + 32, &state.to_le_bytes());
    memory.put(at + start, bytes);
}

/// `handle` in `app.py:12`, with structures of 3.11.
fn handle() -> Synthetic {
    let mut memory = Synthetic::default();
    memory.put(CODE + 8, &TYPE.to_le_bytes());
    memory.put(CODE + 72, &12_u32.to_le_bytes());
    memory.put(CODE + 112, &FILE.to_le_bytes());
    memory.put(CODE + 128, &NAME.to_le_bytes());
    memory.put(TYPE + 24, &(TYPE + 0x100).to_le_bytes());
    memory.put(TYPE + 0x100, b"code\0___________");
    put_text(&mut memory, NAME, 6, ASCII, b"handle");
    put_text(&mut memory, FILE, 6, ASCII, b"app.py");
    memory
}

fn names(memory: Synthetic) -> PythonNames {
    let layout = Layout {
        first_line: 72,
        name: 128,
        ..Layout::default()
    };
    let interpreter = Interpreter {
        version: (3, 11),
        layout: Some(layout),
    };
    PythonNames::new(Box::new(memory), &interpreter).unwrap()
}

fn word() -> u64 {
    frame::python(CODE, check(NAME, 12))
}

/// What the code object is called, and where it is.
fn named(memory: Synthetic) -> Result<(String, String), Unnamed> {
    let frames = names(memory).name(word())?;
    let text = |text: &Option<_>| text.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok((text(&frames[0].method), text(&frames[0].file)))
}

#[test]
fn a_code_object_has_a_name_and_a_file() {
    let said = named(handle()).unwrap();
    assert_eq!(said, ("handle".to_owned(), "app.py".to_owned()));
    let mut names = names(handle());
    // From memory the second time.
    for _ in 0..2 {
        let frames = names.name(word()).unwrap();
        assert_eq!(frames[0].line, Some(12));
    }
}

#[test]
fn what_took_a_code_objects_place_has_not_its_name() {
    let other = frame::python(CODE, check(NAME, 13));
    assert_eq!(names(handle()).name(other), Err(Unnamed::NoPython));
    let mut memory = handle();
    memory.put(TYPE + 0x100, b"dict\0___________");
    assert_eq!(named(memory), Err(Unnamed::NoPython));
    let gone = frame::python(CODE + 0x1000, check(NAME, 12));
    assert!(names(handle()).name(gone).is_err());
    let gap = names(handle()).name(Gap::OtherThread.word());
    assert_eq!(gap, Err(Unnamed::Python(Gap::OtherThread)));
}

#[test]
fn strings_that_lie_are_bounded() {
    let read = |memory: &Synthetic| Characters::of((3, 11)).read(memory, NAME);
    let mut memory = Synthetic::default();
    // It says that it is longer than all memory: what is there is read, up to a bound.
    put_text(&mut memory, NAME, u64::MAX, ASCII, &[b'x'; 5000]);
    let text = read(&memory).unwrap();
    assert_eq!(
        (text.chars().count(), text.chars().last()),
        (1025, Some('…'))
    );
    // No more is mapped than one byte of what it says.
    let mut memory = Synthetic::default();
    put_text(&mut memory, NAME, 2, ASCII, b"x");
    assert!(read(&memory).is_err());
    // Characters that are elsewhere, and of a size that none has.
    for state in [1 << 2 | 1 << 6, 3 << 2 | 1 << 5, 1 << 5] {
        let mut memory = Synthetic::default();
        put_text(&mut memory, NAME, 1, state, b"xxxx");
        assert_eq!(read(&memory), Err(Unnamed::NoPython), "{state:#x}");
    }
    // At the end of all addresses.
    let end = Characters::of((3, 12)).read(&Synthetic::default(), u64::MAX - 8);
    assert!(end.is_err());
}

#[test]
fn characters_are_of_one_two_and_four_bytes() {
    let wide = |kind: u32, bytes: &[u8]| {
        let mut memory = Synthetic::default();
        put_text(&mut memory, NAME, 1, kind << 2 | 1 << 5, bytes);
        Characters::of((3, 11)).read(&memory, NAME).unwrap()
    };
    assert_eq!(wide(1, &[0xe9]), "é");
    assert_eq!(wide(2, &[0xac, 0x20]), "€");
    assert_eq!(wide(4, &[0x00, 0xf6, 0x01, 0x00]), "😀");
    // No character.
    assert_eq!(wide(4, &[0xff; 4]), "\u{FFFD}");
    assert_eq!(wide(2, &[0x00, 0xd8]), "\u{FFFD}");
}
