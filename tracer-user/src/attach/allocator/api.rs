//! The functions of allocators, by their symbols.
//!
//! Sources: malloc(3) and its relatives; the Itanium C++ ABI for the names of
//! `operator new` and `operator delete`; jemalloc(3) for `mallocx` and its
//! relatives; the headers of mimalloc, gperftools, tcmalloc, snmalloc and
//! rpmalloc; the crate `scudo-sys`; rustc's `library/alloc/src/alloc.rs` for `__rust_alloc`.

use std::collections::HashMap;
use std::sync::LazyLock;

use tracer_ebpf::call::Function;

/// A function that can be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probed {
    /// One that allocates, or changes mappings.
    Call(Function),
    /// One that frees its first argument.
    Free,
    /// One by which a pool takes back its first argument.
    PoolFree1,
    /// The same of its second argument.
    PoolFree2,
    /// The same of its third argument.
    PoolFree3,
    /// One by which a pool takes back its second argument, and all that this leads to;
    /// its third says where in each the address of the next one is.
    ChainFree,
    /// The same of objects that begin with the next one's address.
    ListFree,
    /// One by which an arena, its first argument, lets all its objects go.
    ArenaEnd,
}

impl Probed {
    /// Whether an exception may be thrown through it. (What frees throws
    /// nothing, and has no return probe either.)
    pub const fn may_throw(self) -> bool {
        match self {
            Self::Call(function) => function.may_throw(),
            _ => false,
        }
    }

    /// Whether it frees.
    pub const fn frees(self) -> bool {
        !matches!(self, Self::Call(_))
    }

    /// Whether it is a pool's, of which others' blocks are made.
    pub const fn is_pools(self) -> bool {
        self.frees() && !matches!(self, Self::Free)
    }

    /// Whether it changes mappings, and allocates no blocks.
    pub const fn changes_mappings(self) -> bool {
        matches!(
            self,
            Self::Call(Function::Mmap | Function::Munmap | Function::Mremap)
        )
    }

    /// Whether it makes blocks, out of nothing or of others.
    pub const fn allocates(self) -> bool {
        matches!(self, Self::Call(_)) && !self.changes_mappings()
    }
}

/// Functions that belong together: who allocates by one, frees by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// C's, under their plain names.
    C,
    /// Those of a library that has its own names for them.
    Named,
    /// C++'s operators.
    Operators,
    /// What Rust code calls.
    Rust,
    /// Mappings.
    Mappings,
}

/// What a symbol stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it does.
    pub probed: Probed,
    /// With which others.
    pub family: Family,
    /// Its place in the order in which one of two symbols at one place is chosen.
    pub rank: usize,
}

impl Known {
    /// What a name stands for that is in no table, behind all that are.
    pub const fn named(probed: Probed) -> Self {
        Self {
            probed,
            family: Family::Named,
            rank: usize::MAX,
        }
    }
}

use Function as F;
use Probed::{Call, Free};

/// C's functions, with what other libraries put before their names.
const C: [(&str, Probed); 17] = [
    ("malloc", Call(F::Malloc)),
    ("calloc", Call(F::Calloc)),
    ("realloc", Call(F::Realloc)),
    ("reallocarray", Call(F::Reallocarray)),
    ("reallocf", Call(F::Reallocf)),
    ("posix_memalign", Call(F::PosixMemalign)),
    ("aligned_alloc", Call(F::AlignedAlloc)),
    ("memalign", Call(F::Memalign)),
    ("valloc", Call(F::Valloc)),
    ("pvalloc", Call(F::Pvalloc)),
    ("free", Free),
    ("cfree", Free),
    // C23.
    ("free_sized", Free),
    ("free_aligned_sized", Free),
    // jemalloc's own; `mallocx` is also what its prefix is found by.
    ("mallocx", Call(F::Malloc)),
    ("rallocx", Call(F::Realloc)),
    ("xallocx", Call(F::Xallocx)),
];

/// jemalloc's ways to free.
const JEMALLOC_FREES: [&str; 2] = ["dallocx", "sdallocx"];

/// By what jemalloc is known, whatever its prefix is.
pub const JEMALLOC: &str = "mallocx";

/// What libraries put before C's names: jemalloc as Rust's crates, FreeBSD and
/// others build it, gperftools, snmalloc, rpmalloc, dlmalloc.
const PREFIXES: [&str; 7] = ["je_", "_rjem_", "jemalloc_", "tc_", "sn_", "rp", "dl"];

const MAPPINGS: [(&str, Probed); 5] = [
    ("mmap", Call(F::Mmap)),
    ("mmap64", Call(F::Mmap)),
    ("munmap", Call(F::Munmap)),
    ("mremap", Call(F::Mremap)),
    ("__mremap", Call(F::Mremap)),
];

/// `operator new` and `new[]`, plain and aligned, and such as throw nothing.
const OPERATORS_NEW: [(&str, Probed); 8] = [
    ("_Znwm", Call(F::New)),
    ("_Znam", Call(F::New)),
    ("_ZnwmSt11align_val_t", Call(F::New)),
    ("_ZnamSt11align_val_t", Call(F::New)),
    ("_ZnwmRKSt9nothrow_t", Call(F::Malloc)),
    ("_ZnamRKSt9nothrow_t", Call(F::Malloc)),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", Call(F::Malloc)),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", Call(F::Malloc)),
];

/// `operator delete` and `delete[]`: plain, sized, aligned, both, and those that
/// are called when a constructor throws.
const OPERATORS_DELETE: [&str; 12] = [
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
];

/// Names that only one library has.
const NAMED: [(&str, Probed); 108] = [
    // mimalloc.
    ("mi_malloc", Call(F::Malloc)),
    ("mi_malloc_small", Call(F::Malloc)),
    ("mi_zalloc", Call(F::Malloc)),
    ("mi_zalloc_small", Call(F::Malloc)),
    ("mi_malloc_aligned", Call(F::Malloc)),
    ("mi_malloc_aligned_at", Call(F::Malloc)),
    ("mi_zalloc_aligned", Call(F::Malloc)),
    ("mi_zalloc_aligned_at", Call(F::Malloc)),
    ("mi_calloc", Call(F::Calloc)),
    ("mi_mallocn", Call(F::Calloc)),
    ("mi_calloc_aligned", Call(F::Calloc)),
    ("mi_calloc_aligned_at", Call(F::Calloc)),
    ("mi_realloc", Call(F::Realloc)),
    ("mi_rezalloc", Call(F::Realloc)),
    ("mi_realloc_aligned", Call(F::Realloc)),
    ("mi_realloc_aligned_at", Call(F::Realloc)),
    ("mi_rezalloc_aligned", Call(F::Realloc)),
    ("mi_rezalloc_aligned_at", Call(F::Realloc)),
    ("mi_reallocf", Call(F::Reallocf)),
    ("mi_reallocn", Call(F::Reallocarray)),
    ("mi_recalloc", Call(F::Reallocarray)),
    ("mi_reallocarray", Call(F::Reallocarray)),
    ("mi_recalloc_aligned", Call(F::Reallocarray)),
    ("mi_recalloc_aligned_at", Call(F::Reallocarray)),
    ("mi_memalign", Call(F::Memalign)),
    ("mi_aligned_alloc", Call(F::AlignedAlloc)),
    ("mi_posix_memalign", Call(F::PosixMemalign)),
    ("mi_valloc", Call(F::Valloc)),
    ("mi_pvalloc", Call(F::Pvalloc)),
    ("mi_new", Call(F::New)),
    ("mi_new_aligned", Call(F::New)),
    ("mi_new_n", Call(F::NewCount)),
    ("mi_new_realloc", Call(F::NewRealloc)),
    ("mi_new_nothrow", Call(F::Malloc)),
    ("mi_new_aligned_nothrow", Call(F::Malloc)),
    ("mi_heap_malloc", Call(F::Memalign)),
    ("mi_heap_malloc_small", Call(F::Memalign)),
    ("mi_heap_zalloc", Call(F::Memalign)),
    ("mi_heap_malloc_aligned", Call(F::Memalign)),
    ("mi_heap_malloc_aligned_at", Call(F::Memalign)),
    ("mi_heap_zalloc_aligned", Call(F::Memalign)),
    ("mi_heap_zalloc_aligned_at", Call(F::Memalign)),
    ("mi_heap_calloc", Call(F::HeapCalloc)),
    ("mi_heap_mallocn", Call(F::HeapCalloc)),
    ("mi_heap_calloc_aligned", Call(F::HeapCalloc)),
    ("mi_heap_calloc_aligned_at", Call(F::HeapCalloc)),
    ("mi_heap_realloc", Call(F::HeapRealloc)),
    ("mi_heap_rezalloc", Call(F::HeapRealloc)),
    ("mi_heap_realloc_aligned", Call(F::HeapRealloc)),
    ("mi_heap_realloc_aligned_at", Call(F::HeapRealloc)),
    ("mi_heap_rezalloc_aligned", Call(F::HeapRealloc)),
    ("mi_heap_rezalloc_aligned_at", Call(F::HeapRealloc)),
    ("mi_heap_reallocn", Call(F::HeapReallocarray)),
    ("mi_heap_recalloc", Call(F::HeapReallocarray)),
    ("mi_heap_recalloc_aligned", Call(F::HeapReallocarray)),
    ("mi_heap_recalloc_aligned_at", Call(F::HeapReallocarray)),
    ("mi_free", Free),
    ("mi_cfree", Free),
    ("mi_free_size", Free),
    ("mi_free_aligned", Free),
    ("mi_free_size_aligned", Free),
    // gperftools; its C names come by their prefix.
    ("tc_new", Call(F::New)),
    ("tc_newarray", Call(F::New)),
    ("tc_new_aligned", Call(F::New)),
    ("tc_newarray_aligned", Call(F::New)),
    ("tc_new_nothrow", Call(F::Malloc)),
    ("tc_newarray_nothrow", Call(F::Malloc)),
    ("tc_delete", Free),
    ("tc_deletearray", Free),
    ("tc_delete_sized", Free),
    ("tc_deletearray_sized", Free),
    // tcmalloc, the newer one.
    ("TCMallocInternalMalloc", Call(F::Malloc)),
    ("TCMallocInternalCalloc", Call(F::Calloc)),
    ("TCMallocInternalRealloc", Call(F::Realloc)),
    ("TCMallocInternalMemalign", Call(F::Memalign)),
    ("TCMallocInternalAlignedAlloc", Call(F::AlignedAlloc)),
    ("TCMallocInternalPosixMemalign", Call(F::PosixMemalign)),
    ("TCMallocInternalNew", Call(F::New)),
    ("TCMallocInternalNewArray", Call(F::New)),
    ("TCMallocInternalNewAligned", Call(F::New)),
    ("TCMallocInternalNewArrayAligned", Call(F::New)),
    ("TCMallocInternalNewNothrow", Call(F::Malloc)),
    ("TCMallocInternalNewArrayNothrow", Call(F::Malloc)),
    ("TCMallocInternalNewAlignedNothrow", Call(F::Malloc)),
    ("TCMallocInternalNewArrayAlignedNothrow", Call(F::Malloc)),
    ("TCMallocInternalReallocArray", Call(F::Reallocarray)),
    ("TCMallocInternalValloc", Call(F::Valloc)),
    ("TCMallocInternalPvalloc", Call(F::Pvalloc)),
    // What its crate for Rust calls.
    ("BridgeTCMallocInternalNewAlignedNothrow", Call(F::Malloc)),
    ("TCMallocInternalFree", Free),
    ("TCMallocInternalCfree", Free),
    ("TCMallocInternalFreeSized", Free),
    ("TCMallocInternalFreeAlignedSized", Free),
    ("TCMallocInternalSdallocx", Free),
    ("TCMallocInternalDelete", Free),
    ("TCMallocInternalDeleteSized", Free),
    ("TCMallocInternalDeleteNothrow", Free),
    ("TCMallocInternalDeleteAligned", Free),
    ("TCMallocInternalDeleteSizedAligned", Free),
    ("TCMallocInternalDeleteAlignedNothrow", Free),
    ("TCMallocInternalDeleteArray", Free),
    ("TCMallocInternalDeleteArraySized", Free),
    ("TCMallocInternalDeleteArrayNothrow", Free),
    ("TCMallocInternalDeleteArrayAligned", Free),
    ("TCMallocInternalDeleteArraySizedAligned", Free),
    ("TCMallocInternalDeleteArrayAlignedNothrow", Free),
    // scudo's for Rust's crate.
    ("scudo_allocate", Call(F::Malloc)),
    ("scudo_deallocate", Free),
];

/// snmalloc's for Rust's crate.
const SNMALLOC: [(&str, Probed); 4] = [
    ("sn_rust_alloc", Call(F::Memalign)),
    ("sn_rust_alloc_zeroed", Call(F::Memalign)),
    ("sn_rust_realloc", Call(F::RustRealloc)),
    ("sn_rust_dealloc", Free),
];

/// rpmalloc's names that are not C's with its prefix.
const RPMALLOC: [(&str, Probed); 3] = [
    ("rpzalloc", Call(F::Malloc)),
    ("rpaligned_calloc", Call(F::HeapCalloc)),
    ("rpaligned_realloc", Call(F::HeapRealloc)),
];

/// GLib's slices (`glib/gslice.h`). A list is freed as one chain.
const SLICES: [(&str, Probed); 5] = [
    ("g_slice_alloc", Call(F::Malloc)),
    ("g_slice_alloc0", Call(F::Malloc)),
    ("g_slice_copy", Call(F::Malloc)),
    ("g_slice_free1", Probed::PoolFree2),
    ("g_slice_free_chain_with_offset", Probed::ChainFree),
];

/// What native code gets of Erlang's runtime (`erts/emulator/beam/erl_nif.h`,
/// `erl_driver.h`).
const ERLANG: [(&str, Probed); 6] = [
    ("enif_alloc", Call(F::Malloc)),
    ("enif_realloc", Call(F::Realloc)),
    ("enif_free", Probed::PoolFree1),
    ("driver_alloc", Call(F::Malloc)),
    ("driver_realloc", Call(F::Realloc)),
    ("driver_free", Probed::PoolFree1),
];

/// All else that Erlang's runtime allocates goes through these: its allocators in their
/// kinds (`erts/emulator/beam/erl_alloc_util.h`).
const CARRIERS: [(&str, Probed); 16] = [
    ("erts_alcu_alloc", Call(F::CarrierAlloc)),
    ("erts_alcu_alloc_ts", Call(F::CarrierAlloc)),
    ("erts_alcu_alloc_thr_spec", Call(F::CarrierAlloc)),
    ("erts_alcu_alloc_thr_pref", Call(F::CarrierAlloc)),
    ("erts_alcu_realloc", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_mv", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_ts", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_mv_ts", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_thr_spec", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_mv_thr_spec", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_thr_pref", Call(F::CarrierRealloc)),
    ("erts_alcu_realloc_mv_thr_pref", Call(F::CarrierRealloc)),
    ("erts_alcu_free", Probed::PoolFree3),
    ("erts_alcu_free_ts", Probed::PoolFree3),
    ("erts_alcu_free_thr_spec", Probed::PoolFree3),
    ("erts_alcu_free_thr_pref", Probed::PoolFree3),
];

/// APR's pools (`apr_pools.h`, `apr_allocator.h`). What else allocates from a pool calls
/// one of these.
const APR: [(&str, Probed); 10] = [
    ("apr_palloc", Call(F::ArenaAlloc)),
    ("apr_pvsprintf", Call(F::ArenaString)),
    ("apr_pool_create_ex", Call(F::ArenaMake)),
    ("apr_pool_create_core_ex", Call(F::ArenaMake)),
    ("apr_pool_create_unmanaged_ex", Call(F::ArenaMake)),
    ("apr_pool_clear", Probed::ArenaEnd),
    ("apr_pool_destroy", Probed::ArenaEnd),
    ("apr_allocator_alloc", Call(F::Memalign)),
    ("apr_allocator_free", Probed::ListFree),
    // What it gives back was never seen to be taken.
    ("apr_allocator_destroy", Probed::ArenaEnd),
];

/// Whether a function is a door to [`CARRIERS`], by way of a pointer.
pub fn leads_to_carriers(symbol: &str) -> bool {
    ERLANG.iter().any(|(name, _)| *name == symbol)
}

/// Functions of pools that are called far more often than those of allocators.
pub fn pools() -> impl Iterator<Item = (&'static str, Known)> {
    let all = APR.into_iter().chain(CARRIERS);
    all.map(|(name, probed)| (name, Known::named(probed)))
}

/// What Rust code calls, and the compiler makes of the program's global
/// allocator.
const RUST: [(&str, Probed); 4] = [
    ("__rust_alloc", Call(F::Malloc)),
    ("__rust_alloc_zeroed", Call(F::Malloc)),
    ("__rust_realloc", Call(F::RustRealloc)),
    ("__rust_dealloc", Free),
];

/// All symbols with fixed names.
static KNOWN: LazyLock<HashMap<String, Known>> = LazyLock::new(|| {
    let mut known = HashMap::new();
    let mut add = |name: String, probed: Probed, family: Family| {
        let rank = known.len();
        let what = Known {
            probed,
            family,
            rank,
        };
        known.entry(name).or_insert(what);
    };
    for (name, probed) in prefixed("") {
        add(name, probed, Family::C);
    }
    for (name, probed) in MAPPINGS {
        add(name.to_owned(), probed, Family::Mappings);
    }
    let deletes = OPERATORS_DELETE.map(|name| (name, Free));
    for (name, probed) in OPERATORS_NEW.into_iter().chain(deletes) {
        add(name.to_owned(), probed, Family::Operators);
    }
    let named = NAMED.iter().chain(&SNMALLOC).chain(&RPMALLOC);
    let named = named.chain(&SLICES).chain(&ERLANG);
    for (name, probed) in named {
        add((*name).to_owned(), *probed, Family::Named);
    }
    for (name, probed) in PREFIXES.into_iter().flat_map(prefixed) {
        add(name, probed, Family::Named);
    }
    for (name, probed) in RUST {
        add(name.to_owned(), probed, Family::Rust);
    }
    known
});

/// C's functions and jemalloc's with a prefix.
pub fn prefixed(prefix: &str) -> impl Iterator<Item = (String, Probed)> {
    let frees = JEMALLOC_FREES.map(|name| (name, Free));
    let all = C.into_iter().chain(frees);
    all.map(move |(name, probed)| (format!("{prefix}{name}"), probed))
}

/// What a symbol stands for, if it is a fixed name.
pub fn known(symbol: &[u8]) -> Option<Known> {
    let symbol = std::str::from_utf8(symbol).ok()?;
    KNOWN.get(plain(symbol)).copied()
}

/// The prefix of a jemalloc of which nobody has told us.
pub fn unknown_prefix(symbol: &[u8]) -> Option<&str> {
    let symbol = std::str::from_utf8(symbol).ok()?;
    let prefix = symbol.strip_suffix(JEMALLOC)?;
    (!KNOWN.contains_key(symbol)).then_some(prefix)
}

/// The name that is meant by a symbol of Rust's compiler: since 1.87 it wraps
/// `__rust_alloc` in its own mangling (`_RNvCs…_7___rustc12___rust_alloc`).
fn plain(symbol: &str) -> &str {
    if !symbol.starts_with("_RNv") {
        return symbol;
    }
    // The length of an identifier that begins with `_` has one `_` behind it.
    let of = |name: &&str| {
        symbol
            .strip_suffix(name)
            .is_some_and(|head| head.ends_with(&format!("{}_", name.len())))
    };
    let mut names = RUST.iter().map(|(name, _)| *name);
    names.find(of).unwrap_or(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(symbol: &str) -> Option<(Probed, Family)> {
        known(symbol.as_bytes()).map(|known| (known.probed, known.family))
    }

    #[test]
    fn names_mean_what_they_say() {
        use Family as Of;
        for (symbol, expected, family) in [
            ("malloc", Call(F::Malloc), Of::C),
            ("sdallocx", Free, Of::C),
            ("mmap64", Call(F::Mmap), Of::Mappings),
            ("_Znwm", Call(F::New), Of::Operators),
            ("_ZdlPvmSt11align_val_t", Free, Of::Operators),
            ("_rjem_rallocx", Call(F::Realloc), Of::Named),
            ("je_sdallocx", Free, Of::Named),
            ("tc_memalign", Call(F::Memalign), Of::Named),
            ("mi_heap_malloc_aligned", Call(F::Memalign), Of::Named),
            ("rpaligned_alloc", Call(F::AlignedAlloc), Of::Named),
            ("g_slice_free1", Probed::PoolFree2, Of::Named),
            ("TCMallocInternalNewAligned", Call(F::New), Of::Named),
            (
                "BridgeTCMallocInternalNewAlignedNothrow",
                Call(F::Malloc),
                Of::Named,
            ),
            ("TCMallocInternalDeleteSizedAligned", Free, Of::Named),
            ("scudo_allocate", Call(F::Malloc), Of::Named),
            ("scudo_deallocate", Free, Of::Named),
            ("__rust_dealloc", Free, Of::Rust),
            (
                "_RNvCsZ1_7___rustc12___rust_alloc",
                Call(F::Malloc),
                Of::Rust,
            ),
            (
                "_RNvCsZ1_7___rustc14___rust_realloc",
                Call(F::RustRealloc),
                Of::Rust,
            ),
        ] {
            assert_eq!(probed(symbol), Some((expected, family)), "{symbol}");
        }
        for other in [
            "xmalloc",
            "je_malloc_default",
            "_ZN3foo6mallocEv",
            "",
            "_RNvmalloc",
        ] {
            assert_eq!(probed(other), None, "{other}");
        }
    }

    #[test]
    fn an_unknown_prefix_of_jemalloc_is_found_by_its_own_function() {
        assert_eq!(unknown_prefix(b"acme_mallocx"), Some("acme_"));
        assert_eq!(unknown_prefix(b"je_mallocx"), None);
        assert_eq!(unknown_prefix(b"mallocx"), None);
        assert_eq!(unknown_prefix(b"malloc"), None);
    }

    /// One that throws would end the program that is traced if it were taken
    /// for one that does not.
    #[test]
    fn all_plain_operators_may_throw() {
        for (name, probed) in OPERATORS_NEW {
            assert_eq!(probed.may_throw(), !name.contains("nothrow"), "{name}");
        }
        for (name, probed) in NAMED {
            let is_new = name.contains("_new") || name.contains("InternalNew");
            let throws = is_new && !name.to_lowercase().contains("nothrow");
            assert_eq!(probed.may_throw(), throws, "{name}");
        }
    }
}
