//! Which frames of a call path are the program's own words, and which are those of
//! allocators, language runtimes and C libraries, that every path has.

use crate::model::Frame;
use crate::report::names;

/// Files of runtimes and of C libraries, by the beginning of their names.
const FILES: [&str; 22] = [
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
const FUNCTIONS: [&str; 42] = [
    "<alloc::",
    "<core::",
    "<std::",
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
    let is_runtimes = !frame.origin.is_java() && begins(&FILES, module);
    // A whole name, or the beginning of a qualified one.
    !is_runtimes && !function.starts_with('[') && !begins(&FUNCTIONS, function)
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
    }
}
