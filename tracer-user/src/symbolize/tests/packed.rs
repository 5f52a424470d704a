//! Compressed debug information that is, or says that it is, larger than memory.

use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::symbolize::elf::ElfImage;

/// Where the compressed sections of a file are.
fn packed(program: &Path) -> Vec<Range<u64>> {
    let bytes = std::fs::read(program).unwrap();
    let packed = ElfImage::read(&&bytes[..]).unwrap().packed;
    assert!(!packed.is_empty());
    packed
}

/// Whether the program's frames have lines. They have names in any case.
fn has_lines(program: &Path) -> bool {
    let target = Target::start(program);
    let frames = symbolize(&attach(&target), &target);
    let names = frames.iter().filter(|frame| !frame.inlined);
    let feed = Some("zoo::feed(int, char const*)");
    assert!(names.clone().count() == 2 && names.clone().all(|f| f.function.as_deref() == feed));
    frames.iter().any(|frame| frame.line.is_some())
}

#[test]
fn compressed_debug_information_has_lines() {
    let folder = Folder::new();
    let program = folder.build(&["-gz=zlib"]);
    for mode in [0o755, 0o777] {
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        packed(&program);
        assert!(has_lines(&program), "{mode:o}");
    }
}

/// blazesym reserves as much as the header says; where there is not as much,
/// that ended the tracer.
#[test]
fn sections_that_say_they_are_huge_are_not_unpacked() {
    let folder = Folder::new();
    let program = folder.build(&["-gz=zlib"]);
    for section in packed(&program) {
        let file = std::fs::File::options().write(true).open(&program).unwrap();
        // Elf64_Chdr: ch_type, ch_reserved, ch_size.
        file.write_all_at(&(1_u64 << 45).to_le_bytes(), section.start + 8)
            .unwrap();
    }
    assert!(!has_lines(&program));
}

/// Four kilobytes of a zlib stream can be four megabytes of zeros.
#[test]
fn sections_that_are_larger_than_they_say_are_not_unpacked() {
    let folder = Folder::new();
    let program = folder.build(&["-gz=zlib"]);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o777)).unwrap();
    let section = packed(&program).remove(0);
    let file = std::fs::File::options().write(true).open(&program).unwrap();
    file.write_all_at(&1_u64.to_le_bytes(), section.start + 8)
        .unwrap();
    drop(file);
    assert!(!has_lines(&program));
}
