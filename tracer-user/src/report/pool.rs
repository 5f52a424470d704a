//! Pools: they take memory from an allocator in large pieces, and give it away in
//! small ones that nobody sees.

use crate::model::balance::PartName;
use crate::model::{MemoryKind, Report, Site};

/// Functions by which pools take more memory, and whose pool that is. A name that
/// ends in `*` is the beginning of one.
const REFILLS: [(&str, &str); 26] = [
    ("AllocSetAlloc", "a memory context of PostgreSQL"),
    ("GenerationAlloc", "a memory context of PostgreSQL"),
    ("SlabAlloc", "a memory context of PostgreSQL"),
    ("BumpAlloc", "a memory context of PostgreSQL"),
    ("MemoryContextAlloc*", "a memory context of PostgreSQL"),
    ("apr_palloc", "an APR pool"),
    ("apr_pvsprintf", "an APR pool"),
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

/// Pools of which `--pools` counts the objects, and a function that is probed then.
const LOOKED_INTO: [(&str, &str); 2] = [
    ("an APR pool", "apr_palloc"),
    ("a carrier of Erlang", "erts_alcu_alloc_thr_pref"),
];

/// Callers of the allocator among which a pool's function is looked for.
const NEAR: usize = 6;

/// What a path says by which a pool takes more memory: of it, and how to see more. Not
/// all that a pool takes is within calls that are counted.
pub fn note(report: &Report, site: &Site) -> Option<String> {
    let pool = refilled(site)?;
    let process = report.processes.get(site.process);
    let is_probed = |function: &str| {
        let mut probes = process.into_iter().flat_map(|process| &process.probes);
        probes.any(|probe| probe.function == function)
    };
    let looked_into = LOOKED_INTO.iter().find(|(of, _)| *of == pool);
    Some(match looked_into {
        Some((_, function)) if !is_probed(function) => {
            format!("more memory for {pool}: perhaps not for who leaks; --pools counts its objects")
        }
        _ => format!("more memory for {pool}: whoever makes it grow need not be who leaks from it"),
    })
}

/// The pool that a site refills, if it does.
pub fn refilled(site: &Site) -> Option<&'static str> {
    if !matches!(site.kind, MemoryKind::Heap | MemoryKind::Mapping) {
        return None;
    }
    // Where its objects are counted, the block is one.
    let counted = site.frames.last().and_then(|frame| frame.function.as_ref());
    if site.kind == MemoryKind::Heap && counted.is_some_and(|function| is_pools(function)) {
        return None;
    }
    let callers = site.frames.iter().rev().skip(1).take(NEAR);
    let mut functions = callers.filter_map(|frame| frame.function.as_ref());
    functions.find_map(|function| pool_of(function))
}

/// Tells what pools have mapped apart from what others have, in the balance of each
/// process whose call paths are its own.
pub fn tell_apart(report: &mut Report) {
    for balance in &mut report.balance {
        let process = report.processes.get(balance.process);
        if process.is_none_or(|process| process.processes > 1) {
            continue;
        }
        let own = report
            .sites
            .iter()
            .filter(|site| site.process == balance.process && site.kind == MemoryKind::Mapping);
        let pools = own.filter(|site| refilled(site).is_some());
        let held = pools.filter_map(|site| site.resident_bytes);
        let held = held.fold(0, u64::saturating_add);
        balance.hand_over(PartName::Mappings, PartName::Pools, held);
    }
}

fn pool_of(function: &str) -> Option<&'static str> {
    let mut refills = REFILLS.iter();
    let found = refills.find(|(name, _)| matches(name, function));
    found.map(|(_, pool)| *pool)
}

/// Whether a function is a pool's.
fn is_pools(function: &str) -> bool {
    pool_of(function).is_some()
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
    use crate::model::Probe;
    use crate::model::balance::{Balance, Part};
    use crate::report::sample;

    #[test]
    fn what_a_pool_has_mapped_is_the_pools() {
        let mut report = sample::report();
        let site = &mut report.sites[0];
        site.kind = MemoryKind::Mapping;
        site.resident_bytes = Some(70);
        // The frame above the allocator's own.
        let caller = site.frames.len() - 2;
        site.frames[caller].function = Some("new_arena".into());
        let mut balance = Balance {
            growth: 100,
            resident_end: 100,
            ..Balance::default()
        };
        balance.explain([Part {
            name: PartName::Mappings,
            bytes: 100,
        }]);
        report.balance = vec![balance];
        let mut others = report.clone();
        tell_apart(&mut report);
        let balance = &report.balance[0];
        assert_eq!(balance.part(PartName::Pools), 70);
        assert!(balance.adds_up());
        // Of a row that several processes share it is not known whose the pages are.
        others.processes[0].processes = 2;
        tell_apart(&mut others);
        assert_eq!(others.balance[0].part(PartName::Pools), 0);
    }

    #[test]
    fn an_option_is_named_if_it_would_tell_more() {
        let mut report = sample::report();
        let leaf = report.sites[0].frames.len() - 1;
        let name = |site: &mut Site, at: usize, function: &str| {
            site.frames[at].function = Some(function.into());
        };
        let hint = "--pools";
        // What PostgreSQL's contexts hand out is not counted.
        for (function, names_option) in [("apr_palloc", true), ("AllocSetAlloc", false)] {
            name(&mut report.sites[0], leaf - 1, function);
            let note = note(&report, &report.sites[0]).unwrap();
            assert_eq!(note.contains(hint), names_option, "{note}");
        }
        // An object, not a refill.
        name(&mut report.sites[0], leaf, "apr_palloc");
        name(&mut report.sites[0], leaf - 1, "apr_pcalloc");
        assert_eq!(note(&report, &report.sites[0]), None);
        // A refill of what is counted.
        name(&mut report.sites[0], leaf, "malloc");
        let process = report.sites[0].process;
        let probe = Probe {
            function: "apr_palloc".to_owned(),
            module: String::new(),
            file_offset: 0,
            displacement: 0,
            placement: String::new(),
            result: String::new(),
        };
        report.processes[process].probes.push(probe);
        let note = note(&report, &report.sites[0]).unwrap();
        assert!(!note.contains(hint), "{note}");
    }

    #[test]
    fn refills_are_known_by_their_functions() {
        for (function, pool) in [
            ("apr_palloc", Some("an APR pool")),
            ("apr_palloc0", None),
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
