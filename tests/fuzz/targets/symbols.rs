//! Files with symbols: those of allocators, and those that give names.

#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use unfreed_fuzz::allocator::elf::{functions, interpreter};
use unfreed_fuzz::attach::linkage::Linkage;
use unfreed_fuzz::attach::returns::ends;
use unfreed_fuzz::attach::symbols::{bias, find};
use unfreed_fuzz::process::address::FileOffset;
use unfreed_fuzz::process::file::RegularFile;
use unfreed_fuzz::symbolize::elf::ElfImage;

fuzz_target!(|image: &[u8]| {
    if let Ok(parsed) = ElfImage::read(&image) {
        for offset in (0..image.len()).step_by(16) {
            let address = parsed.address(FileOffset(offset as u64));
            let _ = address.and_then(|address| parsed.symbols.find(address, &image));
        }
    }
    let file = in_file(image).expect("a file in memory");
    for is_program in [false, true] {
        if let Ok(found) = functions(&file, is_program, |_| true) {
            assert!(
                found
                    .found
                    .iter()
                    .all(|function| function.code.len() <= 16 << 10)
            );
        }
    }
    let _ = interpreter(&file);
    if let Ok(linkage) = Linkage::read(&image) {
        for start in (0..image.len() as u64).step_by(64) {
            if let Ok(found) = ends(&image, &linkage, start) {
                assert!(!found.returns.is_empty() || !found.jumps.is_empty());
            }
        }
    }
    let _ = find(&image, &["malloc_conf"]);
    let _ = bias(&image, 0x1000, 0);
});

/// A file without a name.
fn in_file(content: &[u8]) -> std::io::Result<RegularFile> {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let located: OwnedFd = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    RegularFile::open(&located)
}
