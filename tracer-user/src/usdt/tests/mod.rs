//! Notes of real files, and of one made here.

mod files;

use super::*;

/// An ELF file with two segments and the sections that notes are in.
fn image(base: u64, notes: &[(u64, u64, u64, &str)]) -> Vec<u8> {
    let mut descriptions = Vec::new();
    for (pc, linked, semaphore, strings) in notes {
        let mut body = Vec::new();
        for word in [pc, linked, semaphore] {
            body.extend(word.to_le_bytes());
        }
        body.extend(strings.as_bytes());
        for word in [8, u32::try_from(body.len()).unwrap(), 3] {
            descriptions.extend(word.to_le_bytes());
        }
        descriptions.extend(b"stapsdt\0");
        descriptions.extend(&body);
        descriptions.resize(descriptions.len().next_multiple_of(4), 0);
    }
    let names = b"\0.stapsdt.base\0.note.stapsdt\0.shstrtab\0";
    let mut file = vec![0u8; 0x400];
    let notes_at = 0x200;
    let names_at = notes_at + descriptions.len() as u64;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let put = |file: &mut Vec<u8>, at: u64, bytes: &[u8]| {
        let at = usize::try_from(at).unwrap();
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    for (at, value, size) in [
        (16, 3, 2),
        (18, 62, 2),
        (20, 1, 4),
        (32, 64, 8),
        (40, sections_at, 8),
        (52, 64, 2),
        (54, 56, 2),
        (56, 2, 2),
        (58, 64, 2),
        (60, 4, 2),
        (62, 3, 2),
    ] {
        put(&mut file, at, &u64::to_le_bytes(value)[..size]);
    }
    // Code of 0x100 bytes from 0x1000, data of 0x10 bytes from 0x2000.
    for (index, flags, offset, address, size) in
        [(0, 5, 0x100, 0x1000, 0x100), (1, 6, 0, 0x2000, 16)]
    {
        let at = 64 + 56 * index;
        put(&mut file, at, &1u32.to_le_bytes());
        put(&mut file, at + 4, &u32::to_le_bytes(flags));
        for (field, value) in [(8, offset), (16, address), (32, size), (40, size)] {
            put(&mut file, at + field, &u64::to_le_bytes(value));
        }
    }
    put(&mut file, notes_at, &descriptions);
    put(&mut file, names_at, names);
    let sections = [
        (1u32, 1u32, base, 0, 1),
        (15, 7, 0, notes_at, descriptions.len() as u64),
        (29, 3, 0, names_at, names.len() as u64),
    ];
    put(&mut file, sections_at + 64 * 4, &[]);
    for (index, (name, kind, address, offset, size)) in (1..).zip(sections) {
        let at = sections_at + 64 * index;
        put(&mut file, at, &name.to_le_bytes());
        put(&mut file, at + 4, &kind.to_le_bytes());
        for (field, value) in [(16, address), (24, offset), (32, size), (48, 4)] {
            put(&mut file, at + field, &u64::to_le_bytes(value));
        }
    }
    file
}

fn probes(file: &[u8]) -> Vec<Probe> {
    read(&file).unwrap()
}

#[test]
fn sites_of_one_probe_are_together() {
    let found = probes(&image(
        0x3000,
        &[
            (0x1020, 0x3000, 0, "app\0stop\0\0"),
            (0x1010, 0x3000, 0x2008, "app\0go\08@%rax -4@$5 16@%rbx\0"),
            (0x1008, 0x3000, 0, "app\0go\08@%rcx\0"),
        ],
    ));
    let names: Vec<_> = found.iter().map(|probe| probe.name.as_str()).collect();
    assert_eq!(names, ["go", "stop"]);
    let [first, second] = &found[0].sites[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (first.pc, first.offset),
        (ElfAddress(0x1008), Some(FileOffset(0x108)))
    );
    assert_eq!(second.pc, ElfAddress(0x1010));
    let semaphore = second.semaphore.unwrap();
    assert_eq!(
        (semaphore.address, semaphore.offset),
        (ElfAddress(0x2008), Some(FileOffset(8)))
    );
    let read: Vec<_> = second
        .arguments
        .iter()
        .map(|one| one.operand.is_ok())
        .collect();
    assert_eq!(read, [true, true, false]);
    assert!(found[1].sites[0].arguments.is_empty());
}

#[test]
fn a_file_that_was_moved_is_corrected() {
    let found = probes(&image(0x3400, &[(0xc10, 0x3000, 0x1c00, "app\0go\0\0")]));
    let site = &found[0].sites[0];
    assert_eq!(
        (site.pc, site.offset),
        (ElfAddress(0x1010), Some(FileOffset(0x110)))
    );
    assert_eq!(site.semaphore.unwrap().address, ElfAddress(0x2000));
}

#[test]
fn a_site_that_is_not_in_code_has_no_place() {
    let found = probes(&image(0x3000, &[(0x2000, 0x3000, 0, "app\0go\0\0")]));
    assert_eq!(found[0].sites[0].offset, None);
}

#[test]
fn notes_that_are_cut_are_left_out() {
    assert!(probes(&image(0, &[(0, 0, 0, "app\0")])).is_empty());
    assert!(probes(&image(0, &[])).is_empty());
    let long = format!("app\0{}\0\0", "x".repeat(5000));
    assert!(probes(&image(0, &[(0, 0, 0, &long)])).is_empty());
}

/// Neither a cut file nor one with any byte changed may panic.
#[test]
fn broken_files_are_safe_to_read() {
    let whole = image(
        0x3000,
        &[(0x1010, 0x3000, 0x2008, "app\0go\08@%rax -4@table(%rip)\0")],
    );
    for length in 0..whole.len() {
        let _ = read(&&whole[..length]);
    }
    for position in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = whole.clone();
            broken[position] = value;
            let _ = read(&broken.as_slice());
        }
    }
}

#[test]
fn spaces_within_parentheses_separate_nothing() {
    assert_eq!(
        split(" 8@(%rax, %rbx)  -4@$1 "),
        ["8@(%rax, %rbx)", "-4@$1"]
    );
    assert_eq!(split(&"1@%al ".repeat(40)).len(), MAX_ARGUMENTS);
}
