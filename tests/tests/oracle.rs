//! Real programs: `unfreed run` finds the same blocks in use at exit, and the
//! same number of allocations, frees and bytes, as valgrind.
//!
//! Each program's work is deterministic, and it sees the same environment both
//! times, down to the variables that valgrind adds: some programs copy their
//! environment to the heap.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{HeapUse, Target, Tracer, target_path, valgrind, valgrind_lost};

/// A program's input: 20,000 numbers, and a C source.
fn inputs() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let lines: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(folder.path().join("lines"), lines)?;
    std::fs::write(
        folder.path().join("square.c"),
        "int square(int x) { return x * x; }\n",
    )?;
    Ok(folder)
}

fn plain_environment(command: &mut Command, folder: &Path) {
    command.current_dir(folder).env_clear().envs([
        ("PATH", "/usr/bin:/bin"),
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("PYTHONHASHSEED", "0"),
        ("PERL_HASH_SEED", "0"),
    ]);
}

/// The environment as valgrind, which adds to it, passes it on.
fn environment_under_valgrind(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut valgrind = Command::new("valgrind");
    plain_environment(&mut valgrind, folder);
    let output = valgrind
        .args(["--log-file=/dev/null", "/usr/bin/env"])
        .output()?;
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| {
            let (name, value) = line.split_once('=').with_context(|| line.to_owned())?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn unfreed(command: &[String], folder: &Path) -> Result<HeapUse> {
    let environment = environment_under_valgrind(folder)?;
    let tracer = Tracer::run_with(&["-q"], command, |tracer| {
        tracer.current_dir(folder).env_clear().envs(environment);
    })?;
    let report = tracer.wait()?.report()?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    let sums = report.sums("", MemoryKind::Heap);
    Ok(HeapUse {
        live_bytes: sums.live_bytes,
        live_count: sums.live_count,
        allocated_count: sums.allocated_count,
        allocated_bytes: sums.allocated_bytes,
        freed_count: sums.freed_count,
    })
}

fn agrees(command: &[&str]) -> Result<()> {
    let folder = inputs()?;
    agrees_in(folder.path(), command)
}

fn agrees_in(folder: &Path, command: &[&str]) -> Result<()> {
    let (found, real) = both(folder, command)?;
    ensure!(
        found == real,
        "{command:?}\nunfreed  {found:?}\nvalgrind {real:?}"
    );
    Ok(())
}

/// What the tracer and valgrind say about a command.
fn both(folder: &Path, command: &[&str]) -> Result<(HeapUse, HeapUse)> {
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let real = valgrind(&command, |valgrind| plain_environment(valgrind, folder))?;
    Ok((unfreed(&command, folder)?, real))
}

/// The targets of these tests say the same about themselves as valgrind does.
#[test]
fn targets_tell_the_truth() -> Result<()> {
    // Blocks of 89 bytes are there before `semantics` is ready.
    targets_truth(
        "leak",
        &["leak_blocks", "cache_blocks", "scratch_blocks"],
        (0, 0),
    )?;
    targets_truth("semantics", &SEMANTICS, (21, 21 * 89))?;
    targets_truth(
        "overload",
        &["many_blocks", "many_paths", "deep_stack"],
        (0, 0),
    )
}

/// Without threads, whose bookkeeping counts too, and the call that faults.
const SEMANTICS: [&str; 23] = [
    "malloc_plain",
    "malloc_and_free",
    "malloc_fails",
    "malloc_zero",
    "free_null",
    "calloc_plain",
    "calloc_overflow",
    "realloc_grows",
    "realloc_moves",
    "realloc_fails",
    "realloc_to_zero",
    "realloc_of_null",
    "reallocarray_plain",
    "reallocarray_overflow",
    "posix_memalign_plain",
    "posix_memalign_fails",
    "aligned_alloc_plain",
    "memalign_plain",
    "valloc_plain",
    "strdup_counts_once",
    "asprintf_counts_once",
    "getline_counts_once",
    "large_block",
];

fn targets_truth(program: &str, commands: &[&str], before: (u64, u64)) -> Result<()> {
    let path = target_path(program)?.display().to_string();
    let mut target = Target::start(program)?;
    let mut live = before;
    for command in commands {
        for entry in target.command(command)?.sites {
            live.0 += entry.sums().live_count;
            live.1 += entry.sums().live_bytes;
        }
    }
    let command: Vec<String> = std::iter::once(path)
        .chain(commands.iter().map(|&name| name.to_owned()))
        .collect();
    let real = valgrind(&command, |_| {})?;
    ensure!(
        (real.live_count, real.live_bytes) == live,
        "{program} says {live:?}: {real:?}"
    );
    Ok(())
}

// --- what is lost ---

/// Runs of a program, at most. Copies of pointers that it has left behind, where nobody wipes them,
/// hold their blocks in some: then fewer are lost, and in no run more.
const RUNS: usize = 10;

/// `--check-lost` finds what valgrind calls definitely and indirectly lost.
#[test]
fn lost_blocks() -> Result<()> {
    for program in ["holders_c", "holders_cpp"] {
        let path = target_path(program)?.display().to_string();
        let command = [path, "work".to_owned()];
        let theirs = valgrind_lost(&command)?;
        ensure!(theirs.0 >= 128, "{program}: {theirs:?}");
        let mut runs = Vec::new();
        while runs.last() != Some(&theirs) {
            ensure!(runs.len() < RUNS, "{program}: {runs:?}, by them {theirs:?}");
            let ours = blocks_lost_in(&command)?;
            ensure!(
                ours.0 <= theirs.0 && ours.1 <= theirs.1,
                "{program}: {ours:?}, by them {theirs:?}"
            );
            runs.push(ours);
        }
    }
    Ok(())
}

/// How many blocks a run finds lost at the end of a program, and their bytes.
fn blocks_lost_in(command: &[String]) -> Result<(u64, u64)> {
    let finished = Tracer::run(&["--check-lost"], command)?.wait()?;
    ensure!(finished.status.code() == Some(3), "{}", finished.stderr);
    let report = finished.report_of_any_end()?;
    let holders = report.sites.iter().filter_map(|it| it.holders.as_ref());
    let lost = holders.filter_map(|it| it.all_lost);
    Ok(lost.fold((0, 0), |sum, it| (sum.0 + it.blocks, sum.1 + it.bytes)))
}

// --- interpreters ---

#[test]
fn python() -> Result<()> {
    let script = "import json; print(len(json.dumps([{'a': i} for i in range(2000)])))";
    agrees(&["/usr/bin/python3", "-S", "-E", "-c", script])
}

#[test]
fn perl() -> Result<()> {
    agrees(&[
        "/usr/bin/perl",
        "-e",
        "my %h; $h{$_} = [1..5] for 1..1000; print scalar keys %h",
    ])
}

#[test]
fn bash() -> Result<()> {
    let script = "a=(); for ((i = 0; i < 500; i++)); do a+=(\"x$i\"); done; echo ${#a[@]}";
    agrees(&["/usr/bin/bash", "--norc", "-c", script])
}

#[test]
fn awk() -> Result<()> {
    agrees(&[
        "/usr/bin/mawk",
        "{ s[$1 % 97] += $1 } END { for (k in s) print k, s[k] }",
        "lines",
    ])
}

// --- a compiler and its tools ---

/// gcc's garbage collector has a table of 4,096 pointers for each 16 MiB of
/// address space in which it has a page (`page_table` in ggc-page.c). Whether
/// its pages cross such a border depends on where the kernel, or valgrind,
/// puts them: blocks of 32,768 bytes may be more or fewer, and nothing else.
#[test]
fn compiler() -> Result<()> {
    const TABLE: i64 = 4096 * 8;
    let asked = Command::new("gcc").arg("-print-prog-name=cc1").output()?;
    let compiler = String::from_utf8(asked.stdout)?;
    let folder = inputs()?;
    let command = [
        compiler.trim(),
        "-quiet",
        "-O1",
        "square.c",
        "-o",
        "/dev/null",
    ];
    let (mut found, real) = both(folder.path(), &command)?;
    let more = found.live_count.cast_signed() - real.live_count.cast_signed();
    assert!(more.abs() <= 2, "{found:?} {real:?}");
    found.live_count = real.live_count;
    found.allocated_count = found.allocated_count.saturating_add_signed(-more);
    found.live_bytes = found.live_bytes.saturating_add_signed(-more * TABLE);
    found.allocated_bytes = found.allocated_bytes.saturating_add_signed(-more * TABLE);
    assert_eq!(found, real);
    Ok(())
}

#[test]
fn objdump() -> Result<()> {
    agrees(&["/usr/bin/objdump", "-h", "/usr/bin/true"])
}

// --- databases, compressors, git, TLS ---

#[test]
fn sqlite() -> Result<()> {
    let statements = "create table t(a, b); insert into t values (1, 2), (3, 4); \
                      create index i on t(a); select sum(a) from t;";
    agrees(&["/usr/bin/sqlite3", "-batch", ":memory:", statements])
}

#[test]
fn xz() -> Result<()> {
    agrees(&["/usr/bin/xz", "-1", "-c", "lines"])
}

#[test]
fn zstd() -> Result<()> {
    agrees(&["/usr/bin/zstd", "-q", "-c", "--single-thread", "lines"])
}

#[test]
fn git_hash() -> Result<()> {
    agrees(&["/usr/bin/git", "hash-object", "lines"])
}

#[test]
fn git_log() -> Result<()> {
    let folder = inputs()?;
    let git = |arguments: &[&str]| -> Result<()> {
        let mut git = Command::new("/usr/bin/git");
        plain_environment(&mut git, folder.path());
        let output = git
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
            .args(arguments)
            .env("GIT_AUTHOR_DATE", "2020-01-01T00:00:00Z")
            .env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z")
            .output()
            .context("starting git")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    git(&["init", "--quiet"])?;
    git(&["add", "."])?;
    for message in ["one", "two", "three"] {
        git(&["commit", "--quiet", "--allow-empty", "-m", message])?;
    }
    agrees_in(
        folder.path(),
        &["/usr/bin/git", "--no-pager", "log", "--stat"],
    )
}

#[test]
fn openssl() -> Result<()> {
    agrees(&["/usr/bin/openssl", "dgst", "-sha256", "lines"])
}

// --- text ---

#[test]
fn sed() -> Result<()> {
    agrees(&["/usr/bin/sed", "-n", "s/1\\(.\\)/\\1x/gp", "lines"])
}

#[test]
fn sort() -> Result<()> {
    agrees(&["/usr/bin/sort", "--parallel=1", "-S", "1M", "-r", "lines"])
}

#[test]
fn grep() -> Result<()> {
    agrees(&["/usr/bin/grep", "-cE", "(1|2)3+4", "lines"])
}
