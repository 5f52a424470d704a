//! What can be traced of an allocator of which some functions must be left
//! alone.

use tracer_ebpf::call::Function;

use super::inspect::Finding;
use super::plan::Unseen;
use crate::attach::allocator::{AllocatorFunction, Probed};
use crate::process::address::FileOffset;

/// What is left of an allocator.
#[derive(Debug)]
pub struct Rest {
    /// The functions that can be probed, and whose numbers are right without the
    /// others.
    pub functions: Vec<AllocatorFunction>,
    /// Whether heap blocks are among what they tell.
    pub has_heap: bool,
    /// What is not seen, for people.
    pub unseen: String,
}

/// Leaves functions alone, and all that would tell something wrong without them:
/// - Without `free` or `realloc`, or others that free, blocks that are gone would seem live.
/// - Without `malloc` little is seen, and "nothing leaks" would be no news.
/// - Of `mmap`, `munmap` and `mremap` none makes sense without the others.
///
/// What `calloc` and the others allocate can be left out: the frees of it are
/// as those of blocks from before the run.
pub fn rest(functions: &[AllocatorFunction], left_alone: &[FileOffset]) -> Rest {
    let is_left = |function: &AllocatorFunction| left_alone.contains(&function.start);
    let needs = |function: &&AllocatorFunction| match kind(function) {
        Kind::Essential | Kind::Mapping => is_left(function),
        Kind::Other => false,
    };
    let needed = functions.iter().filter(needs);
    let (mut has_heap, mut has_mappings) = (true, true);
    for function in needed {
        match kind(function) {
            Kind::Mapping => has_mappings = false,
            _ => has_heap = false,
        }
    }
    let stays = |function: &&AllocatorFunction| {
        !is_left(function)
            && match kind(function) {
                Kind::Mapping => has_mappings,
                _ => has_heap,
            }
    };
    let others: Vec<_> = functions
        .iter()
        .filter(|function| kind(function) == Kind::Other && is_left(function))
        .map(|function| &*function.symbol)
        .collect();
    let mut unseen = Vec::new();
    if !has_heap {
        unseen.push("nothing that this allocator allocates is seen".to_owned());
    } else if !others.is_empty() {
        unseen.push(format!("what {} allocates is not seen", others.join(", ")));
    }
    if !has_mappings {
        unseen.push("no mapping of memory is seen".to_owned());
    }
    Rest {
        functions: functions.iter().filter(stays).cloned().collect(),
        has_heap,
        unseen: unseen.join(", "),
    }
}

/// The functions that are to be left alone, by where they start: those whose
/// code is not as in the file, and those whose calls end nobody knows where.
pub fn left_alone(
    functions: &[AllocatorFunction],
    findings: &[Finding],
    endless: &[Unseen],
) -> Vec<FileOffset> {
    let is_hooked = |function: &AllocatorFunction| {
        let mut found = findings.iter();
        found.any(|it| it.stretch.name == *function.symbol)
    };
    let is_left =
        |function: &&AllocatorFunction| is_hooked(function) || is_endless(function, endless);
    functions
        .iter()
        .filter(is_left)
        .map(|function| function.start)
        .collect()
}

/// Whether nobody knows where a function's calls end, nor sees them elsewhere.
pub fn is_endless(function: &AllocatorFunction, endless: &[Unseen]) -> bool {
    endless
        .iter()
        .any(|it| it.symbol == function.symbol && !it.is_seen_elsewhere())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Heap numbers are wrong or worthless without it.
    Essential,
    Mapping,
    Other,
}

fn kind(function: &AllocatorFunction) -> Kind {
    match function.probed {
        Probed::Call(Function::Mmap | Function::Munmap | Function::Mremap) => Kind::Mapping,
        Probed::Call(called) if called.takes_old() => Kind::Essential,
        Probed::Call(Function::Malloc) if function.symbol.ends_with("malloc") => Kind::Essential,
        Probed::Call(_) => Kind::Other,
        _ => Kind::Essential,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::placement::{Needs, place};
    use crate::attach::returns::Uncertain;
    use crate::attach::stretch::Stretch;
    use crate::model::LeftAloneCause;

    fn functions() -> Vec<AllocatorFunction> {
        let needs = Needs::of(Function::Malloc, true);
        let function = |symbol: &str, probed, start| AllocatorFunction {
            is_last: false,
            probed,
            symbol: symbol.into(),
            start: FileOffset(start),
            size: 64,
            placement: place(&[0x55], needs),
            may_throw: false,
            ends: Err(Uncertain::NeverReturns),
        };
        vec![
            function("malloc", Probed::Call(Function::Malloc), 0x100),
            function("calloc", Probed::Call(Function::Calloc), 0x200),
            function("realloc", Probed::Call(Function::Realloc), 0x300),
            function("free", Probed::Free, 0x400),
            function("mmap", Probed::Call(Function::Mmap), 0x500),
            function("munmap", Probed::Call(Function::Munmap), 0x600),
        ]
    }

    fn without(left_alone: &[u64]) -> (Vec<String>, bool, String) {
        let left_alone: Vec<_> = left_alone.iter().map(|start| FileOffset(*start)).collect();
        let rest = rest(&functions(), &left_alone);
        let symbols = rest
            .functions
            .iter()
            .map(|function| function.symbol.to_string());
        (symbols.collect(), rest.has_heap, rest.unseen)
    }

    #[test]
    fn what_is_hooked_or_ends_nowhere_is_left_alone() {
        let unseen = |symbol: &str, function, reason| Unseen {
            function,
            symbol: symbol.into(),
            reason,
        };
        let endless = [
            unseen("calloc", Function::Calloc, Uncertain::IndirectJump(0x210)),
            // It only hands on to libc's.
            unseen("mmap", Function::Mmap, Uncertain::OtherFile(0x510)),
        ];
        let hooked = Finding {
            pid: 1,
            // Where its calls end, not where it begins.
            stretch: Stretch::new("realloc", FileOffset(0x900), Some(1), &[0x900]),
            cause: LeftAloneCause::Hooked,
            leads_to: Vec::new(),
        };
        let left = left_alone(&functions(), &[hooked], &endless);
        assert_eq!(left, [FileOffset(0x200), FileOffset(0x300)]);
    }

    #[test]
    fn all_stay_if_none_is_hooked() {
        let (symbols, has_heap, unseen) = without(&[]);
        assert_eq!((symbols.len(), has_heap, unseen.as_str()), (6, true, ""));
    }

    #[test]
    fn without_malloc_realloc_or_free_there_is_no_heap() {
        for start in [0x100, 0x300, 0x400] {
            let (symbols, has_heap, unseen) = without(&[start]);
            assert_eq!(symbols, ["mmap", "munmap"]);
            assert!(!has_heap && unseen.contains("nothing"), "{unseen}");
        }
    }

    #[test]
    fn calloc_can_be_left_out() {
        let (symbols, has_heap, unseen) = without(&[0x200]);
        assert_eq!(symbols, ["malloc", "realloc", "free", "mmap", "munmap"]);
        assert!(has_heap);
        assert_eq!(unseen, "what calloc allocates is not seen");
    }

    #[test]
    fn mappings_are_followed_whole_or_not_at_all() {
        let (symbols, has_heap, unseen) = without(&[0x600, 0x200]);
        assert_eq!(symbols, ["malloc", "realloc", "free"]);
        assert!(has_heap);
        assert_eq!(
            unseen,
            "what calloc allocates is not seen, no mapping of memory is seen"
        );
    }
}
