//! Which frames of a call path are the program's own words, and which are those of
//! allocators, language runtimes and C libraries, that every path has.

use std::borrow::Cow;

use crate::model::{Frame, Origin};
use crate::report::names;

/// Files of runtimes and of C libraries, by the beginning of their names.
const FILES: [&str; 23] = [
    "ld-linux",
    "ld-musl",
    "libasan",
    "libc++",
    "libc-",
    "libc.",
    "libcrypt",
    "libdl",
    "libgcc_s",
    "libjava.",
    "libjemalloc",
    "libjli.",
    "libjvm",
    "libm.",
    "libmimalloc",
    "libpthread",
    "librt.",
    "libstdc++",
    "libtcmalloc",
    "libunfreed",
    "libz.",
    "libzip.",
    "[",
];

/// Functions of runtimes that are linked into programs, and classes of the JDK, by the
/// beginning of their names.
const FUNCTIONS: [&str; 43] = [
    "<alloc::",
    "<core::",
    "<std::",
    "Builtins_",
    "PyBytes_",
    "PyDict_",
    "PyEval_",
    "PyList_",
    "PyMem_",
    "PyObject_",
    "PyRun_",
    "PyTuple_",
    "PyUnicode_",
    "PyVectorcall_",
    "Py_",
    "_Py",
    "__cxa_",
    "__gnu_cxx::",
    "__libc_",
    "__rust_",
    "__rustc",
    "_rjem_",
    "_start",
    "alloc::",
    "calloc",
    "clone3",
    "com.sun.",
    "core::",
    "java.",
    "javax.",
    "jdk.",
    "malloc",
    "node::",
    "operator new",
    "posix_memalign",
    "pymain_",
    "realloc",
    "runtime.",
    "start_thread",
    "std::",
    "sun.",
    "uv_",
    "v8::",
];

/// Whether a frame is of the program itself, or of a library that it has chosen.
pub fn is_own(frame: &Frame) -> bool {
    let module = frame.module.as_deref().map(names::base).unwrap_or_default();
    let Some(function) = frame.function.as_deref() else {
        return false;
    };
    let begins = |list: &[&str], name: &str| list.iter().any(|it| name.starts_with(it));
    let is_runtimes = match frame.origin {
        Origin::Stub => true,
        // Its file is no file, and says nothing.
        Origin::Jit => return !is_engines(function),
        Origin::Interpreted | Origin::C1 | Origin::C2 => false,
        Origin::Program | Origin::Library | Origin::Unknown => begins(&FILES, module),
    };
    // A whole name, or the beginning of a qualified one.
    !is_runtimes && !function.starts_with('[') && !begins(&FUNCTIONS, function)
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

/// Whose a frame is that is not the program's own, by the beginning of its file's name.
const OWNERS_OF_FILES: [(&str, &str); 12] = [
    ("ld-", "libc"),
    ("libc-", "libc"),
    ("libc.", "libc"),
    ("libpthread", "libc"),
    ("libgcc_s", "the standard library"),
    ("libc++", "the standard library"),
    ("libstdc++", "the standard library"),
    ("libjvm", "the JVM"),
    ("libjli.", "the JVM"),
    ("libjava.", "the JDK"),
    ("libzip.", "the JDK"),
    ("libunfreed", "the sampler"),
];

/// The same by the beginning of a function's name.
const OWNERS_OF_FUNCTIONS: [(&str, &str); 29] = [
    ("<alloc::", "the standard library"),
    ("<core::", "the standard library"),
    ("<std::", "the standard library"),
    ("Builtins_", "V8"),
    ("Py", "Python"),
    ("_Py", "Python"),
    ("__cxa_", "the standard library"),
    ("__gnu_cxx::", "the standard library"),
    ("__libc_", "libc"),
    ("__rust", "the standard library"),
    ("_start", "libc"),
    ("alloc::", "the standard library"),
    ("clone3", "libc"),
    ("com.sun.", "the JDK"),
    ("core::", "the standard library"),
    ("java.", "the JDK"),
    ("javax.", "the JDK"),
    ("jdk.", "the JDK"),
    ("node::", "Node"),
    ("operator new", "the standard library"),
    ("pymain_", "Python"),
    ("runtime.", "Go's runtime"),
    ("start_thread", "libc"),
    ("std::", "the standard library"),
    ("sun.", "the JDK"),
    ("uv_", "Node"),
    ("v8::", "V8"),
    ("calloc", "the allocator"),
    ("malloc", "the allocator"),
];

/// Whose a frame is that is not the program's own, as people call it: `libc`, `the JVM`,
/// `V8`; else the name of its file.
pub fn owner(frame: &Frame) -> Cow<'_, str> {
    let begins = |list: &'static [(&str, &str)], name: &str| {
        let found = list.iter().find(|(start, _)| name.starts_with(start));
        found.map(|(_, owner)| *owner)
    };
    let file = frame.module.as_deref().map(names::base).unwrap_or_default();
    let function = frame.function.as_deref().unwrap_or_default();
    let known = match frame.origin {
        Origin::Stub => Some("the JVM"),
        Origin::Jit if function.starts_with("py::") => Some("Python"),
        Origin::Jit if function.contains(" node:") => Some("Node"),
        Origin::Jit => Some("generated code"),
        _ if frame.origin.is_java() => Some("the JDK"),
        _ => begins(&OWNERS_OF_FILES, file).or_else(|| begins(&OWNERS_OF_FUNCTIONS, function)),
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
    let last = frames
        .iter()
        .rposition(|frame| is_own(frame) && !hands_on(frame));
    last.map(|last| last + 1)
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
        ] {
            assert!(is_own(&frame(function, module)), "{function}");
        }
        for (function, module) in [
            ("malloc", "/usr/lib/libc.so.6"),
            ("os::malloc(unsigned long)", "/jdk/lib/server/libjvm.so"),
            ("std::vector<int>::push_back(int const&)", "/usr/bin/leaky"),
            ("java.util.zip.Deflater.<init>", ""),
            ("[system call]", ""),
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
