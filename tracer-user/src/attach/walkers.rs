//! Programs that walk their own stacks: heap and CPU profilers in the process,
//! sanitizers, agents. While a return probe is under way they would meet the
//! kernel's trampoline in place of a return address, and lose the callers.

/// What is known of a process from outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// Names of mapped files, without folders.
    pub files: &'a [String],
    /// Its environment as it began: variables, each ended by a null.
    pub environment: &'a [u8],
    /// Those of [`SYMBOLS`] that its program defines.
    pub symbols: &'a [&'static str],
    /// The configuration that is built into its allocator (`malloc_conf`).
    pub configuration: &'a str,
}

/// Who walks, and why that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walker {
    /// Who.
    pub what: &'static str,
    /// What shows it.
    pub sign: String,
}

/// A sign that somebody walks stacks.
enum Sign {
    /// A mapped file whose name begins so.
    File(&'static str),
    /// A function in the program itself.
    Symbol(&'static str),
    /// A variable of the environment that is set.
    Set(&'static str),
    /// One that contains this, or is the allocator's built-in configuration.
    Configured(&'static str, &'static str),
}

use Sign::{Configured, File, Set, Symbol};

/// Who walks, by what is seen of it.
///
/// Not here: Go, which walks the stacks of its own code only; JVMs, which walk
/// Java frames by data of their own; and what walks only to report a crash
/// that it does not survive.
const WALKERS: &[(&str, &[Sign])] = &[
    (
        "jemalloc's heap profiler",
        &[
            Configured("MALLOC_CONF", "prof:true"),
            Configured("_RJEM_MALLOC_CONF", "prof:true"),
            Configured("JE_MALLOC_CONF", "prof:true"),
        ],
    ),
    (
        "a profiler of gperftools",
        &[
            Set("HEAPPROFILE"),
            Set("HEAPCHECK"),
            Set("CPUPROFILE"),
            Set("TCMALLOC_SAMPLE_PARAMETER"),
            File("libprofiler.so"),
            File("libtcmalloc_and_profiler.so"),
        ],
    ),
    (
        "a sanitizer",
        &[
            File("libasan.so"),
            File("liblsan.so"),
            File("libtsan.so"),
            File("libubsan.so"),
            File("libhwasan.so"),
            File("libclang_rt.asan"),
            File("libclang_rt.lsan"),
            File("libclang_rt.tsan"),
            Symbol("__asan_init"),
            Symbol("__hwasan_init"),
            Symbol("__lsan_do_leak_check"),
            Symbol("__msan_init"),
            Symbol("__tsan_init"),
            Symbol("__sanitizer_print_stack_trace"),
        ],
    ),
    (
        "async-profiler",
        &[File("libasyncProfiler"), File("libasyncprofiler")],
    ),
    (
        "a heap profiler",
        &[
            File("libheaptrack_"),
            File("libbytehound"),
            File("libmemory_profiler"),
            File("_memray"),
            File("libmemray"),
            File("libjeprof"),
            File("libdd_profiling"),
            File("libddprof"),
        ],
    ),
    (
        "a profiling agent",
        &[
            File("libpyroscope"),
            File("pyroscope_"),
            File("libgoogle_cloud_profiler"),
            File("profiler_java_agent"),
            File("libSegFault.so"),
        ],
    ),
];

/// The symbols that are to be looked for in a program.
pub fn symbols() -> impl Iterator<Item = &'static str> {
    let signs = WALKERS.iter().flat_map(|(_, signs)| *signs);
    signs.filter_map(|sign| match sign {
        Symbol(name) => Some(*name),
        _ => None,
    })
}

/// Who walks stacks in a process, if anybody is known to.
pub fn recognise(seen: &Seen) -> Option<Walker> {
    WALKERS.iter().find_map(|(what, signs)| {
        let sign = signs.iter().find_map(|sign| sign.in_sight(seen))?;
        Some(Walker { what, sign })
    })
}

impl Sign {
    /// The sign as a person would look for it, if it is there.
    fn in_sight(&self, seen: &Seen) -> Option<String> {
        match self {
            File(prefix) => {
                let file = seen.files.iter().find(|file| file.starts_with(prefix))?;
                Some(file.clone())
            }
            Symbol(name) => seen
                .symbols
                .contains(name)
                .then(|| format!("its function {name}")),
            Set(name) => {
                let value = variable(seen.environment, name)?;
                (!value.is_empty()).then(|| format!("{name} in its environment"))
            }
            Configured(name, part) => {
                let part = part.as_bytes();
                let contains = |text: &[u8]| text.windows(part.len()).any(|at| at == part);
                if variable(seen.environment, name).is_some_and(contains) {
                    return Some(format!("{name} in its environment"));
                }
                contains(seen.configuration.as_bytes()).then(|| "its malloc_conf".to_owned())
            }
        }
    }
}

/// The value of a variable.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(seen: Seen) -> Option<String> {
        recognise(&seen).map(|walker| format!("{}: {}", walker.what, walker.sign))
    }

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn nothing_special_walks_nothing() {
        let files = files(&["cat", "libc.so.6", "libjemalloc.so.2", "libunwind.so.8"]);
        let seen = Seen {
            files: &files,
            environment: b"HOME=/root\0MALLOC_CONF=background_thread:true\0XHEAPPROFILE=1\0",
            ..Seen::default()
        };
        assert_eq!(sign(seen), None);
    }

    #[test]
    fn an_environment_turns_profilers_on() {
        let with = |environment| {
            sign(Seen {
                environment,
                ..Seen::default()
            })
        };
        assert_eq!(
            with(b"A=1\0MALLOC_CONF=lg_prof_sample:10,prof:true\0").unwrap(),
            "jemalloc's heap profiler: MALLOC_CONF in its environment"
        );
        assert_eq!(
            with(b"HEAPPROFILE=/tmp/h\0").unwrap(),
            "a profiler of gperftools: HEAPPROFILE in its environment"
        );
        assert_eq!(with(b"HEAPPROFILE=\0MALLOC_CONF=prof:false"), None);
    }

    #[test]
    fn libraries_symbols_and_built_in_settings_tell_too() {
        for (file, what) in [
            ("libasan.so.8", "a sanitizer: libasan.so.8"),
            ("libasyncProfiler.so", "async-profiler: libasyncProfiler.so"),
            (
                "_memray.cpython-311-x86_64-linux-gnu.so",
                "a heap profiler: _memray.cpython-311-x86_64-linux-gnu.so",
            ),
        ] {
            let files = files(&["libc.so.6", file]);
            let found = sign(Seen {
                files: &files,
                ..Seen::default()
            });
            assert_eq!(found.as_deref(), Some(what));
        }
        let seen = Seen {
            symbols: &["__lsan_do_leak_check"],
            ..Seen::default()
        };
        assert_eq!(
            sign(seen).unwrap(),
            "a sanitizer: its function __lsan_do_leak_check"
        );
        let seen = Seen {
            configuration: "prof:true,lg_prof_interval:30",
            ..Seen::default()
        };
        assert_eq!(
            sign(seen).unwrap(),
            "jemalloc's heap profiler: its malloc_conf"
        );
        assert!(symbols().any(|name| name == "__asan_init"));
    }
}
