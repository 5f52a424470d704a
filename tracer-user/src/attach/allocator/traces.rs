//! Allocators whose names are gone: a file that was stripped still has the
//! messages that its allocator may print.

use memchr::memmem::Finder;

use crate::process::bytes::Bytes;
use crate::process::file::RegularFile;

/// What allocators say, in their own builds. Each is the beginning of a warning
/// or of their statistics, which no other program has a reason to contain.
const MESSAGES: [(&str, &str); 6] = [
    ("<jemalloc>: ", "jemalloc"),
    ("mimalloc: warning: ", "mimalloc"),
    ("tcmalloc: large alloc ", "tcmalloc"),
    ("MALLOC:   %12", "tcmalloc"),
    ("Scudo ERROR: ", "scudo"),
    ("Failed to initialise snmalloc", "snmalloc"),
];

/// Bytes of a file that are searched, at most.
const MAX_BYTES: u64 = 512 << 20;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// The allocator that a file contains by its messages.
pub fn find(file: &RegularFile) -> Option<&'static str> {
    let finders = MESSAGES.map(|(message, name)| (Finder::new(message), name));
    let overlap = MESSAGES.iter().map(|(message, _)| message.len()).max()?;
    let mut piece = vec![0; PIECE + overlap];
    let mut at = 0;
    while at < MAX_BYTES {
        let filled = file.fill(&mut piece, at);
        let found = finders
            .iter()
            .find(|(finder, _)| finder.find(&piece[..filled]).is_some());
        if let Some((_, name)) = found {
            return Some(name);
        }
        if filled < piece.len() {
            break;
        }
        at += PIECE as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::handle::ProcessHandle;

    /// A file of these bytes.
    fn found_in(bytes: &[u8]) -> Option<&'static str> {
        let name = format!("unfreed-traces-{}-{}", std::process::id(), bytes.len());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let located = own.locate_in_root(&path, rustix::fs::OFlags::empty());
        std::fs::remove_file(&path).unwrap();
        find(&RegularFile::open(&located.unwrap()).unwrap())
    }

    #[test]
    fn a_message_is_found_wherever_it_is() {
        for at in [0, 17, PIECE - 3, PIECE, PIECE + 9, 3 * PIECE - 1] {
            let mut bytes = vec![b'x'; at];
            bytes.extend(b"<jemalloc>: Abort");
            assert_eq!(found_in(&bytes), Some("jemalloc"), "{at}");
        }
        let said = b"Failed to initialise snmalloc.";
        assert_eq!(found_in(said), Some("snmalloc"));
        assert_eq!(found_in(b"jemalloc-5.3.0"), None);
        assert_eq!(found_in(b""), None);
    }
}
