//! Pools: they take memory from an allocator in large pieces, and give it away in
//! small ones that nobody sees.

use crate::model::balance::{GrownMapping, PartName};
use crate::model::{MemoryKind, Report, Site};
use crate::report::names;
use crate::report::own::{is_basic, owner};

/// Who takes memory in large pieces.
#[derive(Debug, PartialEq, Eq)]
pub struct Pool {
    /// What it is called.
    pub name: &'static str,
    /// What there is to know if all objects of a language are in it.
    pub heap: Option<Heap>,
}

/// The heap of a language's runtime: who happens to make it grow says little of who keeps
/// its objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Heap {
    /// Whether what is no longer needed stays in it until it is collected.
    pub collected: bool,
    /// What tells more: a sentence without a full stop.
    pub advice: &'static str,
}

const fn pool(name: &'static str) -> Pool {
    Pool { name, heap: None }
}

const fn heap(name: &'static str, collected: bool, advice: &'static str) -> Pool {
    Pool {
        name,
        heap: Some(Heap { collected, advice }),
    }
}

const POSTGRESQL: Pool = pool("a memory context of PostgreSQL");
const APR: Pool = pool("an APR pool");
const NGINX: Pool = pool("a pool of nginx");
const OBSTACK: Pool = pool("an obstack");
const CPP: Pool = pool("a memory resource of C++");
const PYTHON: Pool = heap(
    "Python's object arenas",
    false,
    "PYTHONMALLOC=malloc in its environment at the next start has each object counted here; tracemalloc.start() tells the lines that allocate from then on",
);
const ERLANG: Pool = heap(
    "carriers of Erlang",
    true,
    "--pools counts its objects; erlang:memory() tells whether processes, binaries or ETS tables grow",
);
const V8: Pool = heap(
    "V8's heap of JavaScript objects",
    true,
    "a heap snapshot tells which objects, and who holds them (v8.writeHeapSnapshot(), or node --heapsnapshot-signal=SIGUSR2 and that signal); node --perf-basic-prof names JavaScript functions here",
);
const GO: Pool = heap(
    "Go's heap",
    true,
    "net/http/pprof's /debug/pprof/heap tells who allocates what is live in it",
);
const RUBY: Pool = heap(
    "Ruby's heap pages",
    true,
    "ObjectSpace.trace_object_allocations_start and ObjectSpace.dump_all (require 'objspace') tell which objects, and where they were allocated",
);
const PHP: Pool = heap(
    "PHP's values",
    true,
    "memory_get_usage() tells what of it is in use",
);
const LUAJIT: Pool = heap(
    "LuaJIT's heap",
    true,
    "collectgarbage('count') tells what of it is in use",
);
const PERL: Pool = heap(
    "Perl's arenas of values",
    false,
    "Devel::MAT tells which values there are, and who refers to them",
);
const BOEHM: Pool = heap(
    "the heap of Boehm's collector",
    true,
    "GC_get_heap_usage_safe() tells what of it is in use",
);
const MONO: Pool = heap(
    "Mono's heap",
    true,
    "mono --profile=log:heapshot tells which objects",
);

const OCAML: Pool = heap(
    "OCaml's heap",
    true,
    "Gc.quick_stat() tells how large it is, Gc.stat() what of it is live",
);
const D: Pool = heap("D's heap", true, "GC.stats() tells what of it is in use");
const HASKELL: Pool = heap(
    "Haskell's heap",
    true,
    "its program with +RTS -s, or GHC.Stats, tells what of it is live; +RTS -hT which objects",
);
const NIM: Pool = heap(
    "Nim's heap",
    true,
    "getOccupiedMem() tells what of it is in use",
);
const NETTY: Pool = heap(
    "Netty's pool of buffers",
    false,
    "buffers that are not released keep its chunks: -Dio.netty.leakDetection.level=paranoid has Netty log where such a buffer was used last",
);
const JAVA_TABLES: Pool = heap(
    "what the JVM keeps for its Java heap",
    true,
    "--java-heap tells which classes grow",
);

/// Functions by which pools take more memory, and whose pool that is. A name that
/// ends in `*` is the beginning of one.
const REFILLS: [(&str, &Pool); 60] = [
    ("AllocSetAlloc", &POSTGRESQL),
    ("GenerationAlloc", &POSTGRESQL),
    ("SlabAlloc", &POSTGRESQL),
    ("BumpAlloc", &POSTGRESQL),
    ("MemoryContextAlloc*", &POSTGRESQL),
    ("apr_palloc", &APR),
    ("apr_pvsprintf", &APR),
    ("apr_pcalloc*", &APR),
    ("apr_pool_create*", &APR),
    ("apr_allocator_alloc", &APR),
    ("ngx_palloc*", &NGINX),
    ("ngx_pnalloc", &NGINX),
    ("ngx_pcalloc", &NGINX),
    ("ngx_slab_alloc*", &NGINX),
    ("new_arena", &PYTHON),
    ("_PyObject_Arena*", &PYTHON),
    ("_PyMem_ArenaAlloc", &PYTHON),
    ("erts_alcu_*", &ERLANG),
    ("erts_mmap", &ERLANG),
    ("_obstack_newchunk", &OBSTACK),
    ("obstack_newchunk", &OBSTACK),
    ("talloc_pool*", &pool("a talloc pool")),
    ("std::pmr::monotonic_buffer_resource::*", &CPP),
    ("std::pmr::unsynchronized_pool_resource::*", &CPP),
    ("std::pmr::synchronized_pool_resource::*", &CPP),
    (
        "google::protobuf::internal::*Arena::*",
        &pool("an arena of protobuf"),
    ),
    ("v8::internal::Zone::*", &pool("a zone of V8")),
    ("v8::internal::MemoryAllocator::*", &V8),
    ("v8::internal::PagedSpaceBase::*", &V8),
    ("v8::internal::NewLargeObjectSpace::*", &V8),
    ("v8::internal::OldLargeObjectSpace::*", &V8),
    ("runtime.sysAlloc*", &GO),
    ("runtime.sysMap*", &GO),
    ("runtime.sysReserve*", &GO),
    ("runtime.persistentalloc*", &GO),
    ("heap_page_allocate*", &RUBY),
    ("heap_page_body_allocate", &RUBY),
    ("zend_mm_chunk_alloc*", &PHP),
    ("zend_mm_mmap*", &PHP),
    ("lj_alloc_*", &LUAJIT),
    ("Perl_more_sv", &PERL),
    ("Perl_more_bodies", &PERL),
    ("GC_expand_hp*", &BOEHM),
    ("GC_unix_get_mem", &BOEHM),
    ("GC_unix_mmap_get_mem", &BOEHM),
    ("sgen_alloc_os_memory*", &MONO),
    ("mono_valloc*", &MONO),
    ("caml_alloc_for_heap", &OCAML),
    ("_D4core8internal2gc*", &D),
    ("getMBlock*", &HASKELL),
    ("osGetMBlocks", &HASKELL),
    ("requestOsChunks__*", &NIM),
    ("osTryAllocPages__*", &NIM),
    ("io.netty.buffer.PoolArena*newChunk", &NETTY),
    ("io.netty.buffer.AdaptivePoolingAllocator*newChunk*", &NETTY),
    // ZGC's pages, and what it keeps of each.
    ("ShenandoahHeap::*", &JAVA_TABLES),
    ("ShenandoahHeapRegion::*", &JAVA_TABLES),
    ("ZPage::*", &JAVA_TABLES),
    ("ZPageAllocator::*", &JAVA_TABLES),
    ("xmlDictAddString", &pool("a dictionary of libxml2")),
];

/// Files whose functions that take more memory have no name where they are stripped, as
/// distributions do, and whose pool it is that these map memory for.
const NAMELESS: [(&str, &Pool); 8] = [
    ("libgc", &BOEHM),
    ("libluajit", &LUAJIT),
    ("libphp", &PHP),
    ("libruby", &RUBY),
    ("luajit", &LUAJIT),
    ("php", &PHP),
    ("ruby", &RUBY),
    ("mod_php", &PHP),
];

/// Pools of which `--pools` counts the objects, and a function that is probed then.
const LOOKED_INTO: [(&str, &str); 2] = [
    ("an APR pool", "apr_palloc"),
    ("carriers of Erlang", "erts_alcu_alloc_thr_pref"),
];

/// Callers of the allocator among which a pool's function is looked for, without those of a Java
/// virtual machine and its library, which are many for one call.
const NEAR: usize = 6;
const JAVA: [&str; 2] = ["the JDK", "the JVM"];

/// What there is to say of a path by which a pool takes more memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// A sentence.
    pub text: String,
    /// Whether `--pools` would count its objects, and does not yet.
    pub can_be_looked_into: bool,
}

/// What a path says by which a pool takes more memory: of it, and how to see more. Not
/// all that a pool takes is within calls that are counted.
pub fn note(report: &Report, site: &Site) -> Option<Note> {
    let pool = refilled(site)?;
    let process = report.processes.get(site.process);
    let is_probed = |function: &str| {
        let mut probes = process.into_iter().flat_map(|process| &process.probes);
        probes.any(|probe| probe.function == function)
    };
    let looked_into = LOOKED_INTO.iter().find(|(of, _)| *of == pool.name);
    let can_be_looked_into = looked_into.is_some_and(|(_, function)| !is_probed(function));
    let pool = pool.name;
    let text = match can_be_looked_into {
        true => {
            format!("more memory for {pool}: perhaps not for who leaks; --pools counts its objects")
        }
        false => {
            format!("more memory for {pool}: whoever makes it grow need not be who leaks from it")
        }
    };
    Some(Note {
        text,
        can_be_looked_into,
    })
}

/// The pool that a site refills, if it does.
pub fn refilled(site: &Site) -> Option<&'static Pool> {
    if !matches!(site.kind, MemoryKind::Heap | MemoryKind::Mapping) {
        return None;
    }
    // Where its objects are counted, the block is one.
    let counted = site.frames.last().and_then(|frame| frame.function.as_ref());
    if site.kind == MemoryKind::Heap && counted.is_some_and(|function| is_pools(function)) {
        return None;
    }
    let mut counted = 0;
    let callers = site.frames.iter().rev().skip(1).take_while(|frame| {
        let is_near = counted < NEAR;
        counted += usize::from(!JAVA.contains(&owner(frame).as_ref()));
        is_near
    });
    let mut functions = callers.filter_map(|frame| frame.function.as_ref());
    let named = functions.find_map(|function| pool_of(function));
    named.or_else(|| nameless(site))
}

/// The pool that a function without a name maps memory for, by the file that it is in.
fn nameless(site: &Site) -> Option<&'static Pool> {
    let mut callers = site.frames.iter().rev().skip(1);
    let mapper = callers.find(|frame| !is_basic(frame))?;
    let is_nameless = mapper.function.is_none() && site.kind == MemoryKind::Mapping;
    let file = names::base(mapper.module.as_deref()?);
    // What follows is a version: `php8.2`, `libruby-3.1.so.3.1.2`.
    let is_it = |name: &str| {
        let behind = file.strip_prefix(name)?;
        (!behind.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')).then_some(())
    };
    let mut files = NAMELESS.iter();
    let found = files.find(|(name, _)| is_nameless && is_it(name).is_some());
    found.map(|(_, pool)| *pool)
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
        // What a pool has mapped is a known heap.
        let rest = [PartName::Mappings, PartName::UnseenMappings];
        let rest = rest.iter().map(|name| balance.part(*name)).sum::<i64>();
        let rest = u64::try_from(rest).unwrap_or(0);
        let is_pools = |grown: &GrownMapping| {
            held >= grown.growth && !grown.is_older && grown.name.is_empty() && grown.growth > rest
        };
        balance.grown.retain(|grown| !is_pools(grown));
    }
}

fn pool_of(function: &str) -> Option<&'static Pool> {
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
    use crate::model::balance::{Balance, Part};
    use crate::model::{Frame, Probe};
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
        let grown = |growth, is_older| GrownMapping {
            growth,
            is_older,
            ..GrownMapping::default()
        };
        balance.grown = vec![grown(60, false), grown(60, true), grown(25, false)];
        report.balance = vec![balance];
        let mut others = report.clone();
        tell_apart(&mut report);
        let balance = &report.balance[0];
        assert_eq!(balance.part(PartName::Pools), 70);
        // The first is the pool's; the others can be what it has not mapped.
        assert_eq!(balance.grown, [grown(60, true), grown(25, false)]);
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
            assert_eq!(note.text.contains(hint), names_option, "{note:?}");
            assert_eq!(note.can_be_looked_into, names_option);
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
        assert!(!note.text.contains(hint), "{note:?}");
    }

    /// Between Netty's pool and `malloc` there are more frames of the JVM and the JDK than callers are
    /// looked at.
    #[test]
    fn frames_of_java_are_no_distance() {
        let java = |name: &str| sample::program(name, "", 1, 1);
        let allocator = [
            "jdk.internal.misc.Unsafe.allocateMemory",
            "jdk.internal.misc.Unsafe.allocateMemory0",
            "java.nio.DirectByteBuffer.<init>",
            "java.nio.ByteBuffer.allocateDirect",
            "sun.misc.Unsafe.allocateMemory",
            "java.lang.Reflect.call",
        ];
        let found = |function: &str, between: &[&str]| {
            let outer = ["App.encode", function, "io.netty.buffer.allocateDirect"];
            let names = outer.iter().chain(between).chain(&["malloc"]);
            let frames = names.map(|name| java(name)).collect();
            refilled(&sample::site(1, (16 << 20, 1), (0, 0), frames))
        };
        let chunk = "io.netty.buffer.PoolArena$DirectArena.newChunk";
        assert_eq!(found(chunk, &allocator), Some(&NETTY));
        // A buffer that is in no pool; and what is far away.
        let huge = "io.netty.buffer.PoolArena$DirectArena.newUnpooledChunk";
        assert_eq!(found(huge, &allocator), None);
        assert_eq!(found(chunk, &["a", "b", "c", "d", "e", "f"]), None);
    }

    /// As distributions have them, these programs have no names for what maps memory.
    #[test]
    fn what_a_stripped_runtime_maps_is_its_heap() {
        let mut site = sample::report().sites[0].clone();
        site.kind = MemoryKind::Mapping;
        let frame = |function: Option<&str>, module: &str| Frame {
            function: function.map(Into::into),
            module: Some(module.into()),
            ..Frame::default()
        };
        let mut pool = |mapper: Option<&str>, module: &str| {
            let libc = frame(Some("mmap64"), "/usr/lib/libc.so.6");
            site.frames = vec![frame(Some("main"), module), frame(mapper, module), libc];
            refilled(&site).map(|it| it.name)
        };
        for (module, name) in [
            ("/usr/bin/php8.2", Some("PHP's values")),
            ("/usr/sbin/php-fpm8.2", Some("PHP's values")),
            ("/usr/bin/luajit-2.1.0-beta3", Some("LuaJIT's heap")),
            ("/usr/lib/libruby-3.1.so.3.1.2", Some("Ruby's heap pages")),
            (
                "/usr/lib/libgc.so.1.5.1",
                Some("the heap of Boehm's collector"),
            ),
            ("/usr/lib/libgcrypt.so.20", None),
            ("/usr/lib/libgcc_s.so.1", None),
            ("/usr/bin/phpd", None),
            ("/usr/bin/myruby", None),
        ] {
            assert_eq!(pool(None, module), name, "{module}");
        }
        // One that has a name says itself what it is.
        assert_eq!(pool(Some("zend_fiber_init"), "/usr/bin/php8.2"), None);
    }

    #[test]
    fn refills_are_known_by_their_functions() {
        for (function, pool) in [
            ("apr_palloc", Some("an APR pool")),
            ("apr_palloc0", None),
            ("apr_pool_create_ex", Some("an APR pool")),
            ("Perl_more_bodies", Some("Perl's arenas of values")),
            ("erts_alcu_alloc_thr_pref", Some("carriers of Erlang")),
            (
                "google::protobuf::internal::ThreadSafeArena::AllocateAlignedFallback(unsigned long)",
                Some("an arena of protobuf"),
            ),
            ("google::protobuf::internal::Arenas", None),
            ("my_AllocSetAlloc", None),
            (
                "v8::internal::MemoryAllocator::AllocatePage(v8::internal::Space*)",
                Some("V8's heap of JavaScript objects"),
            ),
            ("runtime.sysMapOS", Some("Go's heap")),
            ("caml_alloc_for_heap", Some("OCaml's heap")),
            ("getMBlocksOnNode", Some("Haskell's heap")),
            ("requestOsChunks__system_4433", Some("Nim's heap")),
            (
                "_D4core8internal2gc4impl12conservativeQw4Pool10initializeMFNbmbZv",
                Some("D's heap"),
            ),
            (
                "ShenandoahHeap::commit_bitmap_slice(ShenandoahHeapRegion*)",
                Some("what the JVM keeps for its Java heap"),
            ),
            (
                "ZPage::split(unsigned char, unsigned long)",
                Some("what the JVM keeps for its Java heap"),
            ),
        ] {
            assert_eq!(pool_of(function).map(|it| it.name), pool, "{function}");
        }
    }
}
