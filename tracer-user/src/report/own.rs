//! Which frames of a call path are the program's own words, and which are those of
//! allocators, language runtimes and C libraries, that every path has.

use std::borrow::Cow;

use crate::model::{Frame, MemoryKind, Origin, Report, Site};
use crate::report::names;

/// Beginnings of names, and whose those are that begin so, as people call it; `None` where
/// the name of its file says that best. Sorted, and none begins with another.
type Owners = [(&'static str, Option<&'static str>)];

/// Files of runtimes and of C libraries.
const FILES: &Owners = &[
    ("[", None),
    ("ld-linux", Some("libc")),
    ("ld-musl", Some("libc")),
    ("libasan", None),
    ("libc++", Some("the standard library")),
    ("libc-", Some("libc")),
    ("libc.", Some("libc")),
    ("libcrypt", None),
    ("libdl", None),
    ("libffi.", None),
    ("libgcc_s", Some("the standard library")),
    ("libjava.", Some("the JDK")),
    ("libjemalloc", None),
    ("libjli.", Some("the JVM")),
    ("libjvm", Some("the JVM")),
    ("libm.", None),
    ("libmimalloc", None),
    ("libpthread", Some("libc")),
    ("libpython3", Some("Python")),
    ("librt.", None),
    ("libstdc++", Some("the standard library")),
    ("libtcmalloc", None),
    ("libunfreed", Some("the sampler")),
    ("libz.", None),
    ("libzip.", Some("the JDK")),
    ("python3", Some("Python")),
];

/// Functions of runtimes that are linked into programs, and classes of the JDK.
const FUNCTIONS: &Owners = &[
    ("<alloc::", Some("the standard library")),
    ("<core::", Some("the standard library")),
    ("<std::", Some("the standard library")),
    ("Builtins_", Some("V8")),
    ("Java_java_", Some("the JDK")),
    ("Java_jdk_", Some("the JDK")),
    ("Java_sun_", Some("the JDK")),
    ("PyBytes_", Some("Python")),
    ("PyDict_", Some("Python")),
    ("PyEval_", Some("Python")),
    ("PyList_", Some("Python")),
    ("PyMem_", Some("Python")),
    ("PyObject_", Some("Python")),
    ("PyRun_", Some("Python")),
    ("PyTuple_", Some("Python")),
    ("PyUnicode_", Some("Python")),
    ("PyVectorcall_", Some("Python")),
    ("Py_", Some("Python")),
    ("_Py", Some("Python")),
    ("__cxa_", Some("the standard library")),
    ("__gnu_cxx::", Some("the standard library")),
    ("__libc_", Some("libc")),
    ("__rust_", Some("the standard library")),
    ("__rustc", Some("the standard library")),
    ("_rjem_", None),
    ("_start", Some("libc")),
    ("alloc::", Some("the standard library")),
    ("calloc", Some("the allocator")),
    ("clone3", Some("libc")),
    ("com.sun.", Some("the JDK")),
    ("core::", Some("the standard library")),
    ("java.", Some("the JDK")),
    ("javax.", Some("the JDK")),
    ("jdk.", Some("the JDK")),
    ("malloc", Some("the allocator")),
    ("node::", Some("Node")),
    ("operator new", Some("the standard library")),
    ("posix_memalign", None),
    ("pymain_", Some("Python")),
    ("realloc", None),
    ("runtime.", Some("Go's runtime")),
    ("start_thread", Some("libc")),
    ("std::", Some("the standard library")),
    ("sun.", Some("the JDK")),
    ("uv_", Some("Node")),
    ("v8::", Some("V8")),
];

/// Programs that are a runtime from end to end, what people wrote in their language aside.
const RUNTIMES: [(&str, &str); 2] = [("node", "Node"), ("nodejs", "Node")];

/// Whose a file is that is a runtime.
fn runtime(file: &str) -> Option<&'static str> {
    let found = RUNTIMES.iter().find(|(name, _)| *name == file);
    found.map(|(_, owner)| *owner)
}

/// Where packages of Node's are installed.
const NODE_PACKAGES: &str = "/node_modules/";

/// Folders of the sources of standard libraries, which compilers put into programs in line.
const SOURCES: [&str; 2] = ["/include/c++/", "/rustc/"];

/// Whether a frame's source is a standard library's.
fn is_standard(frame: &Frame) -> bool {
    let file = frame.file.as_deref().unwrap_or_default();
    SOURCES.iter().any(|folder| file.contains(folder))
}

/// A function without the return type that instances of templates have before their names.
fn without_return(function: &str) -> &str {
    const TYPES: [&str; 5] = ["void ", "bool ", "int ", "auto ", "decltype(auto) "];
    let found = TYPES.iter().find_map(|it| function.strip_prefix(it));
    found.unwrap_or(function)
}

/// The entry that a name begins with: since none begins with another, that is the last one
/// that is not after the name.
fn entry(owners: &Owners, name: &str) -> Option<Option<&'static str>> {
    let after = owners.partition_point(|(start, _)| *start <= name);
    let (start, owner) = owners.get(after.checked_sub(1)?)?;
    name.starts_with(start).then_some(*owner)
}

/// Whether a frame is of the program itself, or of a library that it has chosen.
pub fn is_own(frame: &Frame) -> bool {
    let module = frame.module.as_deref().map(names::base).unwrap_or_default();
    let Some(function) = frame.function.as_deref() else {
        return false;
    };
    let is_runtimes = match frame.origin {
        Origin::Stub => true,
        // Its file is no file, and says nothing.
        Origin::Jit => return !is_engines(function),
        Origin::Python => return !is_of_pythons(frame),
        Origin::JavaScript => return !is_of_nodes(frame),
        Origin::Interpreted | Origin::C1 | Origin::C2 => false,
        Origin::Program | Origin::Library | Origin::Unknown => {
            entry(FILES, module).is_some() || runtime(module).is_some() || is_pythons_module(frame)
        }
    };
    // A whole name, or the beginning of a qualified one.
    let is_known = is_standard(frame) || entry(FUNCTIONS, without_return(function)).is_some();
    !is_runtimes && !function.starts_with('[') && !is_known
}

/// Whether a script engine made a function of perf maps for itself: V8's built-in ones and
/// handlers, Node's own scripts, Python's importer.
fn is_engines(function: &str) -> bool {
    const KINDS: [&str; 6] = [
        "Builtin:",
        "BytecodeHandler:",
        "RegExp:",
        "Stub:",
        "py::<frozen",
        "[",
    ];
    KINDS.iter().any(|kind| function.starts_with(kind)) || function.contains(" node:")
}

/// Whether a frame is of a C part of Python's own library.
fn is_pythons_module(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or_default();
    module.contains("/lib-dynload/")
}

/// Whether a function of Python is of its library, or of a package that was installed: all
/// of those are in a folder of the interpreter's, or in none.
fn is_of_pythons(frame: &Frame) -> bool {
    const FOLDERS: [&str; 4] = [
        "/lib/python3",
        "/lib64/python3",
        "/site-packages/",
        "/dist-packages/",
    ];
    let file = frame.file.as_deref().unwrap_or_default();
    file.starts_with("<frozen") || FOLDERS.iter().any(|folder| file.contains(folder))
}

/// The package that a function of Python is of, if it was installed.
fn package(frame: &Frame) -> Option<&str> {
    let file = frame.file.as_deref()?;
    let folders = ["/site-packages/", "/dist-packages/"];
    let rest = folders
        .iter()
        .find_map(|folder| file.rsplit_once(folder))?
        .1;
    let name = rest.split('/').next()?;
    Some(name.strip_suffix(".py").unwrap_or(name))
}

/// Whether a function of JavaScript is one of Node's own scripts, or of a package that was
/// installed.
fn is_of_nodes(frame: &Frame) -> bool {
    let file = frame.file.as_deref().unwrap_or_default();
    file.starts_with("node:") || file.contains(NODE_PACKAGES)
}

/// The package that a function of JavaScript is of, if it was installed: its scope, too, if it
/// has one.
fn node_package(frame: &Frame) -> Option<&str> {
    let (_, rest) = frame.file.as_deref()?.rsplit_once(NODE_PACKAGES)?;
    let names = if rest.starts_with('@') { 2 } else { 1 };
    let end = rest.match_indices('/').nth(names - 1);
    Some(end.map_or(rest, |(end, _)| &rest[..end]))
}

/// Whose a frame is that is not the program's own, as people call it: `libc`, `the JVM`,
/// `V8`; else the name of its file.
pub fn owner(frame: &Frame) -> Cow<'_, str> {
    let file = frame.module.as_deref().map(names::base).unwrap_or_default();
    let function = frame.function.as_deref().unwrap_or_default();
    let known = match frame.origin {
        Origin::Stub => Some("the JVM"),
        Origin::Python => match package(frame) {
            Some(package) => return names::clean(package),
            None => Some("Python"),
        },
        Origin::JavaScript => match node_package(frame) {
            Some(package) => return names::clean(package),
            None => Some("Node"),
        },
        Origin::Jit if function.starts_with("py::") => Some("Python"),
        Origin::Jit if function.contains(" node:") => Some("Node"),
        Origin::Jit => Some("generated code"),
        _ if frame.origin.is_java() => Some("the JDK"),
        _ if is_standard(frame) => Some("the standard library"),
        _ if is_pythons_module(frame) => Some("Python"),
        _ => {
            let of = |owners, name| entry(owners, name).flatten();
            let known = of(FILES, file).or_else(|| of(FUNCTIONS, without_return(function)));
            known.or_else(|| runtime(file))
        }
    };
    match known {
        Some(known) => known.into(),
        None if file.is_empty() => "unknown code".into(),
        None => names::clean(file.split(".so").next().unwrap_or(file)),
    }
}

/// How many frames of a call path there are down to the last that is the program's own
/// and asks for memory for itself: what only hands on what it is asked for, as `xmalloc`
/// does, is in every path.
pub fn down_to_own(frames: &[Frame]) -> Option<usize> {
    let named = frames
        .iter()
        .rposition(|frame| is_own(frame) && !hands_on(frame))?;
    Some(nameless_below(frames, named).unwrap_or(named) + 1)
}

/// So many frames without names below one that has one are far from it: of a stripped program little
/// more than `main` may have a name.
const FAR: usize = 4;

/// The last frame without a name of the program's own file, if that is below one of a library (a
/// library that has names and calls a stripped program back is not who asks), or far below one of the
/// program.
fn nameless_below(frames: &[Frame], named: usize) -> Option<usize> {
    let is_librarys = frames.get(named)?.origin == Origin::Library;
    let last = frames.iter().rposition(is_nameless_own)?;
    let is_below = last > named && (is_librarys || is_far(frames, named));
    is_below.then_some(last)
}

/// Whether many frames without names are below one of the program that has a name.
fn is_far(frames: &[Frame], named: usize) -> bool {
    let below = frames.get(named + 1..).unwrap_or_default();
    below.iter().filter(|frame| is_nameless_own(frame)).count() >= FAR
}

/// Whether a frame is of the program's own file, which is stripped.
fn is_nameless_own(frame: &Frame) -> bool {
    let file = frame.module.as_deref().map(names::base).unwrap_or_default();
    let is_program = frame.function.is_none() && frame.origin == Origin::Program;
    is_program && entry(FILES, file).is_none() && runtime(file).is_none()
}

/// The same, but down to the last that is in no library of the system, which is who calls
/// the library; 0 if that is nobody, or a program's `main`, which calls everything.
pub fn down_to_caller(frames: &[Frame]) -> usize {
    let is_callers = |frame: &Frame| is_own(frame) && !hands_on(frame) && !is_of_system(frame);
    let named = frames.iter().rposition(is_callers);
    let nameless = frames.iter().rposition(is_nameless_own);
    let Some(caller) = named.filter(|it| !is_far(frames, *it)).or(nameless) else {
        return 0;
    };
    let name = frames[caller].function.as_deref().unwrap_or_default();
    let name = name.split('(').next().unwrap_or_default();
    match name.rsplit([':', '.']).next() {
        Some("main") => 0,
        _ => caller + 1,
    }
}

/// Whether a frame is of a library of the system: a shared one that lies where those for all
/// programs do, and not in a folder of its own there, as plugins do.
fn is_of_system(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or_default();
    let Some((folder, file)) = module.rsplit_once('/') else {
        return false;
    };
    let folder = folder.strip_prefix("/usr").unwrap_or(folder);
    let below = ["/lib64", "/lib"];
    let below = below.iter().find_map(|start| folder.strip_prefix(start));
    let is_there = |below: &str| {
        let triple = below.strip_prefix('/').unwrap_or_default();
        below.is_empty() || (triple.contains("-linux-") && !triple.contains('/'))
    };
    file.contains(".so") && below.is_some_and(is_there)
}

/// The part of a call path that [`down_to_own`] tells; all of it, if it tells none.
pub fn own_part(frames: &[Frame]) -> &[Frame] {
    &frames[..down_to_own(frames).unwrap_or(frames.len())]
}

/// Whether a frame is of what every program stands on: a C library, a standard library, an
/// allocator.
pub fn is_basic(frame: &Frame) -> bool {
    const BASIC: [&str; 3] = ["libc", "the allocator", "the standard library"];
    BASIC.contains(&owner(frame).as_ref()) || hands_on(frame)
}

/// Why a runtime keeps ever more for itself for a while, as a sentence, if a call path is of
/// that: what its compiler has made is kept as long as its code is used, and there is ever
/// less of it that is new.
pub fn warms_up(frames: &[Frame]) -> Option<&'static str> {
    const COMPILERS: [&str; 5] = [
        "CompileBroker::",
        "v8::internal::OptimizingCompile",
        "v8::internal::baseline::",
        // TurboFan; what compiles scripts for the program is `v8::internal::Compiler::`.
        "v8::internal::compiler::",
        "v8::internal::maglev::",
    ];
    let is_compilers = |frame: &Frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        COMPILERS.iter().any(|start| name.starts_with(start))
    };
    frames.iter().any(is_compilers).then_some(
        "it is of the runtime's compiler: that keeps more as long as the program warms up",
    )
}

/// Whether a call path allocates what glibc keeps with a thread's stack (`allocate_stack` in
/// its `nptl`), in a process whose stacks are seen themselves.
pub fn goes_with_a_stack(report: &Report, site: &Site) -> bool {
    let mut names = site.frames.iter().filter_map(|it| it.function.as_deref());
    let is_stack = |it: &Site| it.kind == MemoryKind::ThreadStack && it.process == site.process;
    site.kind == MemoryKind::Heap
        && names.any(|name| name == "_dl_allocate_tls" || name.starts_with("_dl_allocate_tls@"))
        && report.sites.iter().any(is_stack)
}

/// Whether a function seems to hand on what it is asked for, by its name.
pub fn hands_on(frame: &Frame) -> bool {
    const WORDS: [&str; 5] = ["alloc", "strdup", "memdup", "arena::grow", "_cfunc_"];
    let name = frame.function.as_deref().unwrap_or_default();
    let name = name.split(['(', '<']).next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    #[test]
    fn beginnings_are_in_order_and_none_begins_with_another() {
        for owners in [FILES, FUNCTIONS] {
            for pair in owners.windows(2) {
                let (one, next) = (pair[0].0, pair[1].0);
                assert!(one < next && !next.starts_with(one), "{one} {next}");
            }
            for (start, owner) in owners {
                assert_eq!(entry(owners, start), Some(*owner));
                assert_eq!(entry(owners, &format!("{start}~")), Some(*owner));
            }
        }
        assert_eq!(entry(FUNCTIONS, ""), None);
        assert_eq!(entry(FUNCTIONS, "std"), None);
        assert_eq!(entry(FUNCTIONS, "~"), None);
    }

    /// As memcached is in Debian: stripped, and called back by libevent, which has names.
    #[test]
    fn a_library_that_calls_a_stripped_program_back_is_not_who_asks() {
        let frame = |function: Option<&str>, module: &str, origin| Frame {
            function: function.map(Into::into),
            module: Some(module.into()),
            origin,
            ..Frame::default()
        };
        let program = |function| frame(function, "/usr/bin/memcached", Origin::Program);
        let library = "/usr/lib/x86_64-linux-gnu/libevent-2.1.so.7.0.1";
        let event = frame(Some("event_base_loop"), library, Origin::Library);
        let malloc = frame(Some("malloc"), "/usr/lib/libc.so.6", Origin::Library);
        let path = [program(None), event, program(None), program(None), malloc];
        assert_eq!(down_to_own(&path), Some(4));
        assert_eq!(down_to_caller(&path), 4);
        // One that has names for some of its functions has them told.
        let mut named = path;
        named[2] = program(Some("conn_new"));
        assert_eq!(down_to_own(&named), Some(3));
        assert_eq!(down_to_caller(&named), 3);
        // Where nothing has a name, all of the path is told.
        assert_eq!(down_to_own(&[program(None), program(None)]), None);
    }

    /// As Chromium is: of all its functions `ChromeMain` alone has a name.
    #[test]
    fn a_name_far_above_says_nothing_of_who_asks() {
        let frame = |function: Option<&str>| Frame {
            function: function.map(Into::into),
            module: Some("/usr/lib/chromium/chromium".into()),
            origin: Origin::Program,
            ..Frame::default()
        };
        let below = |count: usize| {
            let mut path = vec![frame(Some("ChromeMain"))];
            path.extend(vec![frame(None); count]);
            path
        };
        assert_eq!(down_to_own(&below(4)), Some(5));
        assert_eq!(down_to_caller(&below(4)), 5);
        assert_eq!(down_to_own(&below(3)), Some(1));
        assert_eq!(down_to_caller(&below(3)), 1);
    }

    #[test]
    fn what_templates_and_inlining_put_into_a_program_is_not_its_own() {
        let frame = |function: &str, file: &str| Frame {
            function: Some(function.into()),
            file: Some(file.into()),
            module: Some("/usr/bin/server".into()),
            origin: Origin::Program,
            ..Frame::default()
        };
        let header = "/usr/include/c++/12/bits/invoke.h";
        let rust = "/rustc/59807616e1/library/alloc/src/vec/mod.rs";
        for (function, file) in [
            ("__invoke_impl<void>", header),
            ("push<u8>", rust),
            (
                "void std::_Construct<Session, int&>(Session*, int&)",
                "/src/a.cpp",
            ),
        ] {
            let frame = frame(function, file);
            assert!(
                !is_own(&frame) && owner(&frame) == "the standard library",
                "{function}"
            );
        }
        assert!(is_own(&frame("void keep<int>(int)", "/src/a.cpp")));
    }

    #[test]
    fn who_hands_on_is_not_who_asks() {
        let frame = |function: &str| Frame {
            function: Some(function.into()),
            module: Some("/usr/bin/redis-server".into()),
            ..Frame::default()
        };
        let path = [
            "main",
            "setKey",
            "dictAddRaw",
            "zmalloc",
            "ztrymalloc_usable",
        ];
        let frames: Vec<Frame> = path.into_iter().map(frame).collect();
        assert_eq!(down_to_own(&frames), Some(3));
        assert_eq!(down_to_own(&frames[3..]), None);
        assert_eq!(down_to_own(&[frame("take(std::allocator<int>)")]), Some(1));
    }

    #[test]
    fn who_calls_a_library_of_the_system_is_the_programs_last() {
        let frame = |function: &str, module: &str| Frame {
            function: Some(function.into()),
            module: Some(module.into()),
            ..Frame::default()
        };
        let path = |caller: &str, library: &str| {
            [
                frame("main", "/srv/svc"),
                frame(caller, "/srv/svc"),
                frame("SSL_new", library),
                frame("SSL_SESSION_new", library),
                frame("CRYPTO_zalloc", library),
            ]
        };
        for library in [
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            "/lib64/libssl.so.3",
            "/usr/lib/libssl.so.3",
        ] {
            assert_eq!(down_to_caller(&path("accept", library)), 2, "{library}");
            assert_eq!(down_to_caller(&path("main", library)), 0, "{library}");
            assert_eq!(down_to_caller(&path("app::main()", library)), 0);
        }
        // A plugin, or a library that the program brought, is the program.
        for library in [
            "/lib/x86_64-linux-gnu/security/pam_a.so",
            "/usr/lib/app/libssl.so.3",
            "/opt/lib/libssl.so.3",
        ] {
            assert_eq!(down_to_caller(&path("accept", library)), 4, "{library}");
        }
        assert_eq!(down_to_caller(&[]), 0);
    }

    #[test]
    fn a_compiler_warms_up() {
        let frame = |function: &str| Frame {
            function: Some(function.into()),
            ..Frame::default()
        };
        let path = [
            "start_thread",
            "CompileBroker::compiler_thread_loop()",
            "malloc",
        ];
        let frames: Vec<Frame> = path.into_iter().map(frame).collect();
        assert!(warms_up(&frames).is_some());
        assert!(warms_up(&frames[..1]).is_none() && warms_up(&[]).is_none());
        // V8 does some of it in the program's own thread; a script that the program has it
        // compile is the program's.
        let job = "v8::internal::compiler::PipelineCompilationJob::PipelineCompilationJob(int)";
        assert!(warms_up(&[frame(job)]).is_some());
        assert!(warms_up(&[frame("v8::internal::Compiler::GetFunctionFromEval()")]).is_none());
    }

    #[test]
    fn the_programs_own_frames_are_told_from_runtimes() {
        let frame = |function: &str, module: &str| Frame {
            function: Some(function.into()),
            module: Some(module.into()),
            ..Frame::default()
        };
        for (function, module) in [
            ("main", "/usr/bin/leaky"),
            ("Session::open(int)", "/opt/libsession.so"),
            ("com.acme.Pool.take", ""),
            ("inflateInit2_", "/usr/lib/libpng.so"),
            ("Java_com_acme_Codec_open", "/opt/libcodec.so"),
        ] {
            assert!(is_own(&frame(function, module)), "{function}");
        }
        for (function, module) in [
            ("malloc", "/usr/lib/libc.so.6"),
            ("os::malloc(unsigned long)", "/jdk/lib/server/libjvm.so"),
            ("std::vector<int>::push_back(int const&)", "/usr/bin/leaky"),
            ("java.util.zip.Deflater.<init>", ""),
            ("[system call]", ""),
            ("Java_sun_nio_ch_FileChannelImpl_map0", "/jdk/lib/libnio.so"),
            ("PyEval_EvalFrameDefault", "/usr/bin/python3"),
        ] {
            assert!(!is_own(&frame(function, module)), "{function}");
        }
        let java = Frame {
            origin: Origin::C2,
            ..frame("ScriptHost.pack", "[anon]")
        };
        assert!(is_own(&java));
        assert!(!is_own(&Frame::default()));
        let stub = Frame {
            origin: Origin::Stub,
            ..frame("call_stub", "[anon]")
        };
        assert!(!is_own(&stub));
        assert_eq!(owner(&stub), "the JVM");
        let jit = |function: &str| Frame {
            origin: Origin::Jit,
            ..frame(function, "[anon]")
        };
        assert!(is_own(&jit("JS:*handle /srv/app.js:10:5")));
        assert!(is_own(&jit("py::handle:/srv/app.py")));
        for function in ["Builtin:ArrayPush", "LazyCompile:~emit node:events:465:44"] {
            assert!(!is_own(&jit(function)), "{function}");
        }
    }

    #[test]
    fn functions_of_pythons_library_are_told_from_the_programs() {
        let python = |function: &str, file: &str| Frame {
            function: Some(function.into()),
            file: Some(file.into()),
            origin: Origin::Python,
            ..Frame::default()
        };
        for (function, file) in [
            ("handle", "/srv/app/app.py"),
            ("calloc", "app.py"),
            ("<module>", "<string>"),
            ("_PyCache.get", "/srv/lib/cache.py"),
        ] {
            assert!(is_own(&python(function, file)), "{function}");
        }
        for (function, file, owner_of_it) in [
            ("run", "/usr/lib/python3.11/asyncio/runners.py", "Python"),
            (
                "get",
                "/srv/venv/lib/python3.12/site-packages/requests/api.py",
                "requests",
            ),
            (
                "dumps",
                "/usr/lib/python3/dist-packages/simplejson.py",
                "simplejson",
            ),
            ("_find_and_load", "<frozen importlib._bootstrap>", "Python"),
        ] {
            let frame = python(function, file);
            assert!(
                !is_own(&frame) && owner(&frame) == owner_of_it,
                "{function}"
            );
        }
        let c = |module: &str| Frame {
            function: Some("call".into()),
            module: Some(module.into()),
            origin: Origin::Library,
            ..Frame::default()
        };
        for module in [
            "/usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so",
            "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0",
            "/usr/bin/python3.11",
        ] {
            assert!(
                !is_own(&c(module)) && owner(&c(module)) == "Python",
                "{module}"
            );
        }
        assert!(is_own(&c(
            "/srv/venv/lib/python3.12/site-packages/numpy/core.so"
        )));
    }

    #[test]
    fn who_has_a_frame_is_told_in_plain_words() {
        let owner_of = |function: &str, module: &str| {
            let frame = Frame {
                function: Some(function.into()),
                module: Some(module.into()),
                ..Frame::default()
            };
            owner(&frame).into_owned()
        };
        for (function, module, owner) in [
            ("start_thread", "/usr/lib/libc.so.6", "libc"),
            ("_start", "/opt/server", "libc"),
            ("Arena::grow()", "/jdk/lib/server/libjvm.so", "the JVM"),
            ("v8::Function::Call()", "/usr/bin/node", "V8"),
            ("java.util.HashMap.put", "", "the JDK"),
            ("deflateInit2_", "/usr/lib/libz.so.1.2.13", "libz"),
            ("zmalloc", "/usr/bin/redis-server", "redis-server"),
            ("", "", "unknown code"),
        ] {
            assert_eq!(owner_of(function, module), owner);
        }
    }
}
