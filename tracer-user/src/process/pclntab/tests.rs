//! A small table, made by hand, whole and broken.

use super::*;

/// The address of the code, and where it is in the file.
const TEXT: u64 = 0x40_1000;
const CODE_AT: u64 = 0x100;

/// A table of three functions as Go 1.20 writes it: goexit, goexit1, and one
/// with a frame of 16 bytes from its fourth byte on.
fn file(text: u64) -> Vec<u8> {
    let mut image = vec![0; 0x100];
    // At 0x10 goexit, which calls 0x20.
    image.extend([0xcc; 0x40]);
    image[0x110..0x117].copy_from_slice(&[0x90, 0xe8, 0x0a, 0, 0, 0, 0x90]);
    image.resize(0x200, 0);
    let names = b"\0runtime.goexit\0runtime.goexit1\0main.f\0";
    let sizes = [0, 2, 8, 2, 4, 32, 28, 0];
    let (names_at, sizes_at) = (HEAD as u64, 0x80);
    let functions_at = 0x90;
    image.extend([0xf1]);
    image.extend(MAGIC_REST);
    for word in [3, 0, text, names_at, 0x70, 0x70, sizes_at, functions_at] {
        image.extend(u64::to_le_bytes(word));
    }
    image.extend(names);
    image.resize(0x200 + 0x80, 0);
    image.extend(sizes);
    image.resize(0x200 + 0x90, 0);
    let functions = [(0x10, 1, 1, 5), (0x20, 16, 1, 0), (0x30, 32, 3, 0)];
    for (index, (start, ..)) in (0_u32..).zip(functions) {
        image.extend(u32::to_le_bytes(start));
        image.extend(u32::to_le_bytes(28 + index * 44));
    }
    image.extend(u32::to_le_bytes(0x50));
    for (start, name, sizes, flags) in functions {
        for word in [start, name, 0, 0, sizes] {
            image.extend(u32::to_le_bytes(word));
        }
        image.resize(image.len() + 20, 0);
        image.extend([0, flags, 0, 0]);
    }
    image
}

fn code() -> [CodePart; 1] {
    [CodePart {
        offset: CODE_AT,
        address: TEXT,
        size: 0x100,
    }]
}

fn functions(table: &Pclntab, bytes: &dyn Bytes) -> Vec<Function> {
    let mut found = Vec::new();
    table.each(bytes, |function| {
        found.push(function);
        ControlFlow::Continue(())
    });
    found
}

#[test]
fn functions_have_names_and_frames() {
    let image = file(TEXT);
    let bytes = &&image[..];
    let table = Pclntab::parse(bytes, 0x200..image.len() as u64).unwrap();
    let found = functions(&table, bytes);
    let names: Vec<_> = found
        .iter()
        .map(|function| table.name(bytes, function.name, &mut [0; 64]).to_vec())
        .collect();
    assert_eq!(
        names,
        [&b"runtime.goexit"[..], b"runtime.goexit1", b"main.f"]
    );
    assert!(found[0].is(Function::TOP) && !found[1].is(Function::TOP));
    assert_eq!((found[2].start, found[2].end), (0x30, 0x50));
    let mut sizes = Vec::new();
    let mut window = table.sizes_of(bytes);
    table.sizes(&mut window, &found[2], |from, to, size| {
        sizes.push((from, to, size));
    });
    assert_eq!(sizes, [(0, 4, 0), (4, 32, 16)]);
}

#[test]
fn the_code_proves_where_it_is() {
    for told in [TEXT, 0, 0x1234_5000] {
        let image = file(told);
        let table = Pclntab::parse(&&image[..], 0x200..image.len() as u64).unwrap();
        assert_eq!(table.text(&&image[..], &code()), Some(TEXT), "{told:#x}");
    }
    let mut other = file(TEXT);
    other[0x112] = 0x0b;
    let table = Pclntab::parse(&&other[..], 0x200..other.len() as u64).unwrap();
    assert_eq!(table.text(&&other[..], &code()), None);
}

#[test]
fn a_table_is_found_where_no_section_names_it() {
    let mut image = vec![0; 24];
    image.extend(MAGIC_REST);
    image.resize(0x3_0000, 7);
    image.extend(file(TEXT));
    let bytes = &&image[..];
    let table = Pclntab::search(bytes, 0..image.len() as u64).unwrap();
    assert_eq!(functions(&table, bytes).len(), 3);
    assert_eq!(Pclntab::search(bytes, 0..0x3_0000), None);
}

#[test]
fn what_is_cut_or_changed_is_read_as_far_as_it_makes_sense() {
    let whole = file(TEXT);
    for length in 0x200..whole.len() {
        let bytes = &&whole[..length];
        if let Some(table) = Pclntab::parse(bytes, 0x200..length as u64) {
            assert!(functions(&table, bytes).len() <= 3);
        }
    }
    for position in 0x200..whole.len() {
        let mut broken = whole.clone();
        broken[position] ^= 0xff;
        let bytes = &&broken[..];
        let Some(table) = Pclntab::parse(bytes, 0x200..whole.len() as u64) else {
            continue;
        };
        let _ = table.text(bytes, &code());
        let mut window = table.sizes_of(bytes);
        for function in functions(&table, bytes) {
            let mut last = 0;
            table.sizes(&mut window, &function, |from, to, _| {
                assert!(from == last && to > from && to <= function.end - function.start);
                last = to;
            });
        }
    }
}
