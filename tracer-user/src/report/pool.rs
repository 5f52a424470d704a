//! Pools: they take memory from an allocator in large pieces, and give it away in
//! small ones that nobody sees.

use crate::model::{MemoryKind, Site};

/// Functions by which pools take more memory, and whose pool that is. A name that
/// ends in `*` is the beginning of one.
const REFILLS: [(&str, &str); 26] = [
    ("g_slice_alloc", "GLib's slices"),
    ("AllocSetAlloc", "a memory context of PostgreSQL"),
    ("GenerationAlloc", "a memory context of PostgreSQL"),
    ("SlabAlloc", "a memory context of PostgreSQL"),
    ("BumpAlloc", "a memory context of PostgreSQL"),
    ("MemoryContextAlloc*", "a memory context of PostgreSQL"),
    ("apr_palloc", "an APR pool"),
    ("apr_pcalloc*", "an APR pool"),
    ("ngx_palloc*", "a pool of nginx"),
    ("ngx_pnalloc", "a pool of nginx"),
    ("ngx_pcalloc", "a pool of nginx"),
    ("ngx_slab_alloc*", "a pool of nginx"),
    ("new_arena", "Python's object arenas"),
    ("_PyObject_Arena*", "Python's object arenas"),
    ("_PyMem_ArenaAlloc", "Python's object arenas"),
    ("erts_alcu_*", "a carrier of Erlang"),
    ("erts_mmap", "a carrier of Erlang"),
    ("_obstack_newchunk", "an obstack"),
    ("obstack_newchunk", "an obstack"),
    ("talloc_pool*", "a talloc pool"),
    (
        "std::pmr::monotonic_buffer_resource::*",
        "a memory resource of C++",
    ),
    (
        "std::pmr::unsynchronized_pool_resource::*",
        "a memory resource of C++",
    ),
    (
        "std::pmr::synchronized_pool_resource::*",
        "a memory resource of C++",
    ),
    (
        "google::protobuf::internal::*Arena::*",
        "an arena of protobuf",
    ),
    ("v8::internal::Zone::*", "a zone of V8"),
    ("xmlDictAddString", "a dictionary of libxml2"),
];

/// Callers of the allocator among which a pool's function is looked for.
const NEAR: usize = 6;

/// The pool that a site refills, if it does.
pub fn refilled(site: &Site) -> Option<&'static str> {
    if !matches!(site.kind, MemoryKind::Heap | MemoryKind::Mapping) {
        return None;
    }
    let callers = site.frames.iter().rev().skip(1).take(NEAR);
    let mut functions = callers.filter_map(|frame| frame.function.as_ref());
    functions.find_map(|function| pool_of(function))
}

fn pool_of(function: &str) -> Option<&'static str> {
    let mut refills = REFILLS.iter();
    let found = refills.find(|(name, _)| matches(name, function));
    found.map(|(_, pool)| *pool)
}

/// Whether a function has a name in which each `*` stands for anything.
fn matches(name: &str, function: &str) -> bool {
    match name.split_once('*') {
        None => name == function,
        Some((start, rest)) => function.strip_prefix(start).is_some_and(|behind| {
            rest.is_empty()
                || behind
                    .match_indices(rest.trim_end_matches('*'))
                    .any(|(at, found)| rest.ends_with('*') || behind.len() == at + found.len())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refills_are_known_by_their_functions() {
        for (function, pool) in [
            ("g_slice_alloc", Some("GLib's slices")),
            ("g_slice_alloc0", None),
            ("erts_alcu_alloc_thr_pref", Some("a carrier of Erlang")),
            (
                "google::protobuf::internal::ThreadSafeArena::AllocateAlignedFallback(unsigned long)",
                Some("an arena of protobuf"),
            ),
            ("google::protobuf::internal::Arenas", None),
            ("my_AllocSetAlloc", None),
        ] {
            assert_eq!(pool_of(function), pool, "{function}");
        }
    }
}
