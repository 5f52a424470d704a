//! Strings, lines and scopes in memory that a test wrote, sane and not.

use tracer_ebpf::v8::Layout;

use super::lines::Lines;
use super::scope::Scope;
use super::strings::{Characters, Strings};
use crate::jvm::tests::synthetic::Synthetic;
use crate::jvm::unnamed::Unnamed;
use crate::unwind::StringLayout;

const STRINGS: StringLayout = StringLayout {
    length: 12,
    not_string: 0xff80,
    representation: 7,
    sequential: 0,
    cons: 1,
    sliced: 3,
    thin: 5,
    external: 2,
    one_byte: 8,
    characters: 16,
    halves: (16, 24),
    parent: (16, 24),
    actual: 16,
    resource: 16,
};

/// The map of objects of a type is at this address and 64 bytes for each type.
const MAPS: u64 = 0x10_0000;
const ONE: u64 = 0x20_0000;
const OTHER: u64 = 0x20_1000;
const WHOLE: u64 = 0x20_2000;

fn put(memory: &mut Synthetic, at: u64, kind: u32, length: u32) {
    let map = MAPS + u64::from(kind) * 64;
    memory.put(map + 12, &kind.to_le_bytes());
    memory.put(at, &(map + 1).to_le_bytes());
    memory.put(at + 12, &length.to_le_bytes());
}

fn put_narrow(memory: &mut Synthetic, at: u64, text: &[u8]) {
    put(memory, at, 8, u32::try_from(text.len()).unwrap());
    memory.put(at + 16, text);
}

fn put_words(memory: &mut Synthetic, at: u64, words: [u64; 2]) {
    memory.put(at + 16, &words[0].to_le_bytes());
    memory.put(at + 24, &words[1].to_le_bytes());
}

fn text(memory: &Synthetic, at: u64) -> Result<String, Unnamed> {
    let layout = Layout {
        kind: 12,
        ..Layout::default()
    };
    let strings = Strings {
        memory,
        layout: &layout,
        strings: &STRINGS,
    };
    strings.text(at + 1)
}

#[test]
fn strings_of_all_kinds_are_read() {
    let mut memory = Synthetic::default();
    put_narrow(&mut memory, ONE, b"caf\xe9");
    assert_eq!(text(&memory, ONE).unwrap(), "café");
    put(&mut memory, OTHER, 0, 2);
    memory.put(OTHER + 16, &[0xac, 0x20, 0x00, 0xd8]);
    assert_eq!(text(&memory, OTHER).unwrap(), "€\u{FFFD}");
    put(&mut memory, WHOLE, 1, 6);
    put_words(&mut memory, WHOLE, [ONE + 1, OTHER + 1]);
    assert_eq!(text(&memory, WHOLE).unwrap(), "café€\u{FFFD}");
    put(&mut memory, WHOLE, 8 | 3, 2);
    put_words(&mut memory, WHOLE, [ONE + 1, 1 << 32]);
    assert_eq!(text(&memory, WHOLE).unwrap(), "af");
    put(&mut memory, WHOLE, 8 | 5, 4);
    put_words(&mut memory, WHOLE, [ONE + 1, 0]);
    assert_eq!(text(&memory, WHOLE).unwrap(), "café");
    put(&mut memory, WHOLE, 8 | 2, 3);
    put_words(&mut memory, WHOLE, [0, ONE + 16]);
    assert_eq!(text(&memory, WHOLE).unwrap(), "caf");
}

#[test]
fn strings_that_lie_are_bounded() {
    let mut memory = Synthetic::default();
    put(&mut memory, ONE, 8, u32::MAX);
    memory.put(ONE + 16, &[b'x'; 4000]);
    let read = text(&memory, ONE).unwrap();
    assert_eq!(
        (read.chars().count(), read.chars().last()),
        (1025, Some('…'))
    );
    // Two halves that are the string itself, one that stands for itself, and no string.
    put(&mut memory, WHOLE, 1, 8);
    put_words(&mut memory, WHOLE, [WHOLE + 1, WHOLE + 1]);
    assert_eq!(text(&memory, WHOLE).unwrap(), "…");
    put(&mut memory, WHOLE, 5, 8);
    put_words(&mut memory, WHOLE, [WHOLE + 1, 0]);
    assert_eq!(text(&memory, WHOLE), Err(Unnamed::NoJavaScript));
    put(&mut memory, WHOLE, 0x80, 8);
    assert_eq!(text(&memory, WHOLE), Err(Unnamed::NoJavaScript));
    assert!(text(&memory, 0x999_0000).is_err());
    assert!(text(&memory, u64::MAX - 9).is_err());
}

#[test]
fn lines_end_as_in_javascript() {
    let lines = |bytes: &[u8], is_narrow: bool| {
        let mut memory = Synthetic::default();
        memory.put(ONE, bytes);
        let size = if is_narrow { 1 } else { 2 };
        let source = Characters {
            address: ONE,
            length: u32::try_from(bytes.len() / size).unwrap(),
            is_narrow,
        };
        Lines::read(&memory, source).unwrap()
    };
    let narrow = lines(b"a\nb\r\nc\rd\n\ne", true);
    let of = [0, 2, 5, 7, 10].map(|at| narrow.of(at));
    assert_eq!(of, [Some(1), Some(2), Some(3), Some(4), Some(6)]);
    assert_eq!(narrow.of(11), None);
    let wide: Vec<u8> = "a\u{2028}b\r\nc"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let wide = lines(&wide, false);
    assert_eq!([0, 2, 5].map(|at| wide.of(at)), [Some(1), Some(2), Some(3)]);
    // A pair of both over the border of what is read at once.
    let mut long = vec![b' '; 1 << 16];
    long[(1 << 16) - 1] = b'\r';
    long.extend(b"\nx");
    assert_eq!(lines(&long, true).of((1 << 16) + 1), Some(2));
}

#[test]
fn a_source_that_cannot_be_read_has_no_lines() {
    let source = Characters {
        address: ONE,
        length: u32::MAX,
        is_narrow: true,
    };
    assert!(Lines::read(&Synthetic::default(), source).is_err());
}

#[test]
fn a_scope_has_what_its_words_are() {
    const NAME: u64 = 0x11;
    const INFERRED: u64 = 0x21;
    const OUTER: u64 = 0x31;
    let small = |number: u64| number << 32;
    let of = |words: &[u64]| Scope::of(words, None, 100, |word| matches!(word, NAME | INFERRED));
    let scope = |name, inferred| Scope {
        name,
        inferred,
        place: Some((10, 90)),
    };
    let (start, end) = (small(10), small(90));
    let both = [NAME, small(0), INFERRED, start, end, OUTER];
    assert_eq!(of(&both), scope(Some(NAME), Some(INFERRED)));
    let named = [NAME, small(4), start, end, OUTER];
    assert_eq!(of(&named), scope(Some(NAME), None));
    let assigned = [INFERRED, start, end, OUTER];
    assert_eq!(of(&assigned), scope(None, Some(INFERRED)));
    // Nothing is behind it.
    assert_eq!(
        of(&[INFERRED, start, end, 0, 0]),
        scope(None, Some(INFERRED))
    );
    assert_eq!(of(&[start, end, OUTER]), scope(None, None));
    // Of a module without variables.
    let module = Scope {
        place: Some((0, 90)),
        ..Scope::default()
    };
    for count in [0, 3] {
        assert_eq!(of(&[small(count), small(0), end, OUTER]), module);
    }
    // A place that is not in the source is none.
    assert_eq!(of(&[start, small(101), OUTER]), Scope::default());
    assert_eq!(of(&[]), Scope::default());
    // The same where its place is known.
    let of = |words: &[u64]| {
        Scope::of(words, Some((10, 90)), 100, |word| {
            matches!(word, NAME | INFERRED)
        })
    };
    assert_eq!(
        of(&[NAME, small(0), INFERRED, OUTER]),
        scope(Some(NAME), Some(INFERRED))
    );
    assert_eq!(of(&[NAME, small(4), OUTER]), scope(Some(NAME), None));
    assert_eq!(of(&[INFERRED, OUTER]), scope(None, Some(INFERRED)));
    assert_eq!(of(&[OUTER, 0, 0]), scope(None, None));
    let outside = Scope::of(&[NAME, small(4)], Some((10, 101)), 100, |_| true);
    assert_eq!(outside, Scope::default());
}
