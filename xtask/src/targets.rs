//! Builds the programs in `tests/targets`, which tests trace.
//!
//! The first lines of a source may be directives:
//!
//! ```text
//! // flags: -O2 -static     appended to the defaults of the language
//! // kind: shared           a library: lib<stem>.so instead of a program
//! // cc: musl-gcc           another compiler
//! // jemalloc: acme_         target/targets/libjemalloc_acme_.a: jemalloc with this
//! //                         before the names of its functions
//! ```
//!
//! Commands run in the workspace's root (Go's in the source's folder), and libraries
//! are built first, so that `-Ltarget/targets -lsome` finds `libsome.so`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use tracer_ebpf_build::workspace;

use crate::shell::run;
use crate::{cpu, java};

const DIRECTIVE_LINES: usize = 5;
const C_FLAGS: &str = "-O1 -g -fno-omit-frame-pointer -Wall -Wextra -pthread";
const RUST_FLAGS: &str = "-C debuginfo=1 -C force-frame-pointers=yes --edition 2024";

/// Where built targets are: `target/targets`.
pub(crate) fn folder() -> PathBuf {
    workspace().join("target/targets")
}

/// Builds all targets that have changed.
///
/// # Errors
/// Fails when a source cannot be read or does not compile.
pub(crate) fn build_all() -> Result<()> {
    let targets = find(&workspace().join("tests/targets"))?;
    let (libraries, programs): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|target| target.directives.shared);
    in_parallel(&libraries)?;
    in_parallel(&programs)?;
    java::build()
}

/// Builds one target that stands on its own, and returns its path.
///
/// # Errors
/// Fails when the source cannot be read or does not compile.
pub(crate) fn build_one(source: &str) -> Result<PathBuf> {
    let target = Target::read(&workspace().join("tests/targets").join(source))?;
    target.build(newest_header(
        target.source.parent().unwrap_or(Path::new(".")),
    )?)?;
    Ok(target.output())
}

#[derive(Debug)]
struct Target {
    source: PathBuf,
    stem: String,
    language: Language,
    directives: Directives,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    C,
    Cpp,
    Rust,
    Go,
}

/// Debian's Go.
const GO: &str = "/usr/lib/go-1.19/bin/go";

/// What a source asks for in its first lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Directives {
    flags: Vec<String>,
    shared: bool,
    compiler: Option<String>,
    jemalloc: Option<String>,
}

impl Directives {
    fn parse(text: &str) -> Result<Self> {
        let mut directives = Self::default();
        for line in text.lines().take(DIRECTIVE_LINES) {
            let Some((key, value)) = line
                .strip_prefix("// ")
                .and_then(|line| line.split_once(':'))
            else {
                break;
            };
            match (key, value.trim()) {
                ("flags", value) => {
                    directives.flags = value.split_whitespace().map(str::to_owned).collect();
                }
                ("kind", "shared") => directives.shared = true,
                ("kind", other) => bail!("kind is {other:?}; it can only be shared"),
                ("cc", value) => directives.compiler = Some(value.to_owned()),
                ("jemalloc", value) => directives.jemalloc = Some(value.to_owned()),
                _ => break,
            }
        }
        Ok(directives)
    }
}

impl Target {
    fn read(source: &Path) -> Result<Self> {
        let text = fs::read_to_string(source)
            .with_context(|| format!("cannot read {}", source.display()))?;
        let extension = source.extension().and_then(|extension| extension.to_str());
        let language = match extension {
            Some("c") => Language::C,
            Some("cpp") => Language::Cpp,
            Some("rs") => Language::Rust,
            Some("go") => Language::Go,
            _ => bail!("{} is no C, C++, Rust or Go source", source.display()),
        };
        let stem = source
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let directives = Directives::parse(&text)
            .with_context(|| format!("the first lines of {}", source.display()))?;
        Ok(Self {
            source: source.to_path_buf(),
            stem,
            language,
            directives,
        })
    }

    fn output(&self) -> PathBuf {
        let name = match self.directives.shared {
            true => format!("lib{}.so", self.stem),
            false => self.stem.clone(),
        };
        folder().join(name)
    }

    /// Builds it when its source, what that includes, a header or its flags have changed.
    fn build(&self, header: Option<SystemTime>) -> Result<()> {
        let output = self.output();
        let mut command = self.command(&output);
        let line = format!("{command:?}");
        let stamp = folder().join(".stamps").join(&self.stem);
        let source = modified(&self.source)?;
        let newest = header.max(self.newest_included()?).max(Some(source));
        let newest = newest.unwrap_or(source);
        let is_fresh = modified(&output).is_ok_and(|built| built > newest)
            && fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == line);
        if is_fresh {
            return Ok(());
        }
        let stamps = stamp.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(stamps).with_context(|| format!("cannot make {}", stamps.display()))?;
        if let Some(prefix) = &self.directives.jemalloc {
            prefix_jemalloc(prefix)?;
        }
        run(&mut command).with_context(|| format!("cannot build {}", self.source.display()))?;
        fs::write(&stamp, line).with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// When the newest of the other targets' sources was changed that it includes.
    fn newest_included(&self) -> Result<Option<SystemTime>> {
        let text = fs::read_to_string(&self.source)
            .with_context(|| format!("cannot read {}", self.source.display()))?;
        let folder = self.source.parent().unwrap_or(Path::new("."));
        let mut files = included(&text).map(|file| modified(&folder.join(file)));
        files.try_fold(None, |newest, file| Ok(newest.max(Some(file?))))
    }

    fn command(&self, output: &Path) -> Command {
        let (compiler, defaults) = match self.language {
            Language::C => ("gcc", C_FLAGS),
            Language::Cpp => ("g++", C_FLAGS),
            Language::Rust => ("rustc", RUST_FLAGS),
            Language::Go => return self.go_command(output),
        };
        let shared: &[&str] = match (self.directives.shared, self.language) {
            (false, _) => &[],
            (true, Language::Rust) => &["--crate-type", "cdylib"],
            (true, _) => &["-shared", "-fPIC"],
        };
        let mut command = Command::new(self.directives.compiler.as_deref().unwrap_or(compiler));
        // Libraries (-l) are looked up for what stands before them.
        command
            .current_dir(workspace())
            .args(defaults.split(' '))
            .args(shared)
            .arg(&self.source)
            .args(&self.directives.flags)
            .arg("-o")
            .arg(output);
        command
    }
}

/// Debian's jemalloc to be linked statically, into libraries too.
const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc_pic.a";

/// Its functions that programs call.
const JEMALLOC_FUNCTIONS: [&str; 19] = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "mallocx",
    "rallocx",
    "xallocx",
    "sallocx",
    "dallocx",
    "sdallocx",
    "nallocx",
    "mallctl",
    "mallctlnametomib",
    "mallctlbymib",
    "malloc_usable_size",
];

/// What `./configure --with-jemalloc-prefix` makes.
fn prefix_jemalloc(prefix: &str) -> Result<()> {
    let mut command = Command::new("objcopy");
    for function in JEMALLOC_FUNCTIONS {
        command.args(["--redefine-sym", &format!("{function}={prefix}{function}")]);
    }
    let output = folder().join(format!("libjemalloc_{prefix}.a"));
    run(command.arg(JEMALLOC).arg(output))
}

impl Target {
    /// Go has no home, wants its options first, and all sources in one folder: it runs
    /// there. Flags may name more sources.
    fn go_command(&self, output: &Path) -> Command {
        let folder = folder().join(".go");
        let mut command = Command::new(GO);
        let source = self.source.file_name().unwrap_or_default();
        command
            .current_dir(self.source.parent().unwrap_or(Path::new(".")))
            .env("GOCACHE", folder.join("cache"))
            .env("GOPATH", folder.join("path"))
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "1")
            .args(["build", "-o"])
            .arg(output)
            .args(&self.directives.flags)
            .arg(source);
        command
    }
}

/// All targets below a folder, in the order of their names.
fn find(folder: &Path) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for language in ["c", "cpp", "rust", "go", "verdicts"] {
        let folder = folder.join(language);
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path();
            let end = path.extension().and_then(|end| end.to_str());
            if matches!(end, Some("c" | "cpp" | "rs" | "go")) {
                targets.push(Target::read(&path)?);
            }
        }
    }
    targets.sort_by(|a, b| a.stem.cmp(&b.stem));
    for pair in targets.windows(2) {
        if pair[0].stem == pair[1].stem {
            bail!(
                "{} and {} would both be built as {}; rename one",
                pair[0].source.display(),
                pair[1].source.display(),
                pair[0].stem
            );
        }
    }
    Ok(targets)
}

fn in_parallel(targets: &[Target]) -> Result<()> {
    let Some(first) = targets.first() else {
        return Ok(());
    };
    let header = newest_header(first.source.ancestors().nth(2).unwrap_or(Path::new(".")))?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            target.build(header)?;
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| cpu::measured(work)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok((result, spent)) => {
                    cpu::note(spent);
                    result
                }
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

/// When the newest header in a folder, or in a folder in it, was changed.
fn newest_header(folder: &Path) -> Result<Option<SystemTime>> {
    let mut newest = None;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            newest = newest.max(newest_header(&path)?);
        } else if is_shared(&path) {
            newest = newest.max(Some(modified(&path)?));
        }
    }
    Ok(newest)
}

/// The files beside it that a source includes, but for headers: those count for all targets.
fn included(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines();
    let files = lines.filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    files.filter(|file| !is_shared(Path::new(file)))
}

/// Whether several targets may have a part in it.
fn is_shared(path: &Path) -> bool {
    let is_header = |end: &OsStr| end == "h" || end == "hpp";
    let is_common = path
        .parent()
        .is_some_and(|folder| folder.ends_with("common"));
    is_common || path.extension().is_some_and(is_header)
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_depends_on_what_it_includes() {
        let text =
            "// flags: -O2\n#include <stdio.h>\n#include \"target.h\"\n#include \"other.cpp\"\n";
        assert_eq!(included(text).collect::<Vec<_>>(), ["other.cpp"]);
    }

    #[test]
    fn directives_end_with_the_first_other_line() {
        let text = "// flags: -O2 -static\n// kind: shared\n// cc: musl-gcc\n// Note: churns.\n// flags: -O3\n";
        let directives = Directives::parse(text).unwrap();
        assert_eq!(directives.flags, ["-O2", "-static"]);
        assert!(directives.shared);
        assert_eq!(directives.compiler.as_deref(), Some("musl-gcc"));
        assert_eq!(
            Directives::parse("// Leaks.\n// flags: -O3\n").unwrap(),
            Directives::default()
        );
        assert_eq!(Directives::parse("").unwrap(), Directives::default());
        assert!(Directives::parse("// kind: static\n").is_err());
    }

    #[test]
    fn a_library_is_named_and_built_as_one() {
        let target = Target {
            source: "tests/targets/c/plugin.c".into(),
            stem: "plugin".into(),
            language: Language::C,
            directives: Directives::parse("// kind: shared\n// flags: -ldl\n").unwrap(),
        };
        assert_eq!(target.output(), folder().join("libplugin.so"));
        let command = target.command(&target.output());
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let at = |arg: &str| args.iter().position(|other| other == arg).unwrap();
        assert!(at("-O1") < at("-shared"));
        assert!(at("tests/targets/c/plugin.c") < at("-ldl"));
    }
}
