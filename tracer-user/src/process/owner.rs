//! Which file's data has pointers into a range of memory: an allocator keeps the
//! addresses of what it has mapped in variables of its own.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::mappings::{Mapping, MappingKind};
use super::resident::PageSet;

/// Data that is read of all files, bytes; it takes some milliseconds.
const MAX_DATA: u64 = 64 << 20;
/// Data that is read at once, bytes.
const AT_ONCE: usize = 64 << 10;

/// For each range the file whose data has most pointers into it. Only pages that are
/// in memory are read.
pub fn find(
    memory: &File,
    mappings: &[Mapping],
    present: &PageSet,
    ranges: &[Range<u64>],
) -> Vec<Option<String>> {
    let mut counts: Vec<HashMap<&str, u64>> = vec![HashMap::new(); ranges.len()];
    let mut left = MAX_DATA;
    let mut buffer = vec![0; AT_ONCE];
    for (mapping, file) in data_of_files(mappings) {
        let file = file.name.as_str();
        if is_loader(file) {
            continue;
        }
        for run in present.runs(&mapping.range) {
            let mut at = run.start;
            while at < run.end && left > 0 {
                let wanted = usize::try_from((run.end - at).min(left)).unwrap_or(AT_ONCE);
                let piece = buffer.get_mut(..wanted.min(AT_ONCE)).unwrap_or_default();
                let Ok(read @ 1..) = memory.read_at(piece, at) else {
                    break;
                };
                let (words, _) = piece.get(..read).unwrap_or_default().as_chunks();
                for word in words.iter().copied().map(u64::from_le_bytes) {
                    let inside = ranges.iter().position(|range| range.contains(&word));
                    if let Some(counts) = inside.and_then(|at| counts.get_mut(at)) {
                        *counts.entry(file).or_default() += 1;
                    }
                }
                at += read as u64;
                left -= (read as u64).min(left);
            }
        }
    }
    let most = |counts: HashMap<&str, u64>| {
        let most = counts
            .into_iter()
            .max_by_key(|(file, count)| (*count, *file));
        most.map(|(file, _)| file.to_owned())
    };
    counts.into_iter().map(most).collect()
}

/// Whether a file is glibc's dynamic loader: it has pointers to what each thread has of its own,
/// which the kernel joins with what others map beside, and keeps nothing that grows. (musl's is its
/// allocator, too.)
fn is_loader(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    name.starts_with("ld-linux-") || (name.starts_with("ld-2.") && name.ends_with(".so"))
}

/// The writable mappings with files' variables, each with one of its file: those of the
/// file itself, and what follows right behind, which is zero at first.
pub fn data_of_files(mappings: &[Mapping]) -> impl Iterator<Item = (&Mapping, &Mapping)> {
    let mut last: Option<&Mapping> = None;
    mappings.iter().filter_map(move |mapping| {
        let before = last.filter(|last| last.range.end == mapping.range.start);
        let file = match mapping.kind {
            MappingKind::File => Some(mapping),
            MappingKind::Anonymous => before.filter(|last| last.is_writable),
            _ => None,
        };
        last = Some(mapping).filter(|mapping| mapping.kind == MappingKind::File);
        let file = file.filter(|_| mapping.is_writable)?;
        Some((mapping, file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::handle::ProcessHandle;
    use crate::process::mappings;
    use crate::process::pagemap::PageMap;
    use crate::process::resident::Residents;
    use std::time::{Duration, Instant};

    /// A variable that has an address in it.
    static POINTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

    #[test]
    fn the_loader_is_nobodys_owner() {
        assert!(is_loader("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        assert!(is_loader("/lib/x86_64-linux-gnu/ld-2.31.so"));
        assert!(!is_loader("/lib/ld-musl-x86_64.so.1"), "it is musl's libc");
        assert!(!is_loader("/usr/lib/libldap.so.2"));
    }

    #[test]
    fn the_file_with_the_pointer_is_found() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        // An address that nobody else has.
        let range = 0x1234_5678_9000_0000..0x1234_5678_9000_1000;
        let nowhere = 0x1234_5678_0000_0000..0x1234_5678_0000_1000_u64;
        std::hint::black_box(&POINTER).store(range.start + 8, std::sync::atomic::Ordering::SeqCst);
        let all = mappings::read(&own).unwrap();
        let map = PageMap::open(&own).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let pages = Residents::read(&map, &all, deadline, &mut (1 << 20)).unwrap();
        assert!(pages.is_whole);
        let memory = own.open_proc("mem").unwrap();
        let found = find(&memory, &all, &pages.present, &[range, nowhere]);
        let program = std::env::current_exe().unwrap();
        assert_eq!(found, [Some(program.display().to_string()), None]);
    }
}
