//! What there is to say of pages that came into memory (`--growth`).

use serde::{Deserialize, Serialize};

/// What kind of memory a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageKind {
    /// The heap that `brk` moves.
    Heap,
    /// Anonymous mappings: most allocators' memory.
    Anonymous,
    /// Stacks of threads.
    Stack,
    /// A JVM's Java heap.
    JavaHeap,
    /// A JVM's compiled code.
    JavaCode,
    /// Pages of files, and a process's own copies of them.
    File,
    /// Shared memory: tmpfs, memfd, System V.
    SharedMemory,
}

impl PageKind {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Heap => "heap (brk)",
            Self::Anonymous => "anonymous mappings",
            Self::Stack => "threads' stacks",
            Self::JavaHeap => "Java heap",
            Self::JavaCode => "Java's compiled code",
            Self::File => "mapped files",
            Self::SharedMemory => "shared memory",
        }
    }
}

/// Pages of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindOfPages {
    /// The kind.
    pub kind: PageKind,
    /// Bytes of them in memory.
    pub bytes: u64,
}

/// The pages that a call path has brought into memory, and that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchedPages {
    /// By kind, in a fixed order; the sum is the site's `live_bytes`.
    pub kinds: Vec<KindOfPages>,
    /// The part of them that came in around a page that was touched: huge pages, and
    /// neighbours in files.
    pub around_bytes: u64,
}

impl TouchedPages {
    /// Adds those of another site of the same path.
    pub fn add(&mut self, other: &Self) {
        for pages in &other.kinds {
            match self.kinds.iter_mut().find(|own| own.kind == pages.kind) {
                Some(own) => own.bytes += pages.bytes,
                None => self.kinds.push(*pages),
            }
        }
        self.kinds.sort_by_key(|pages| pages.kind);
        self.around_bytes += other.around_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_add_up_by_kind() {
        let pages = |kinds: &[(PageKind, u64)], around_bytes| TouchedPages {
            kinds: kinds
                .iter()
                .map(|(kind, bytes)| KindOfPages {
                    kind: *kind,
                    bytes: *bytes,
                })
                .collect(),
            around_bytes,
        };
        let mut sum = pages(&[(PageKind::Stack, 1)], 1);
        sum.add(&pages(&[(PageKind::Heap, 2), (PageKind::Stack, 4)], 8));
        assert_eq!(sum, pages(&[(PageKind::Heap, 2), (PageKind::Stack, 5)], 9));
    }
}
