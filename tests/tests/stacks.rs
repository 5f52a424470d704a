//! Whole stacks: every call path that the tracer reports is, address by
//! address, the one that gdb finds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::gdb::{Backtrace, Position};
use unfreed_tests::{Agreement, Gdb, Runs, Sampling, Stack, Target, Tracer, target_path};

/// Runs commands of a target under the tracer, then the same under gdb, in one
/// process.
fn compare(program: &str, commands: &[&str]) -> Result<Agreement> {
    let (found, real) = both(program, commands)?;
    let agreement = Agreement::of(&found, &real, Runs::Same);
    println!("{program} {commands:?}: {agreement}");
    Ok(agreement)
}

/// What the tracer says, and what gdb says.
fn both(program: &str, commands: &[&str]) -> Result<(Vec<Stack>, Vec<Backtrace>)> {
    let mut target = Target::start(program)?;
    // What happens only the first time: lazy binding, libc's own buffers.
    run(&mut target, commands)?;
    let tracer = Tracer::record(target.pid, &[])?;
    run(&mut target, commands)?;
    let report = tracer.stop()?.report()?;
    let gdb = Gdb::attach(target.pid, Sampling::ALL)?;
    run(&mut target, commands)?;
    gdb.is_enough()?;
    target.finish()?;
    let real = gdb.finish()?;
    Ok((report.stacks(), real.stacks))
}

fn run(target: &mut Target, commands: &[&str]) -> Result<()> {
    commands
        .iter()
        .try_for_each(|command| target.command(command).map(drop))
}

/// All that `paths` can do while it is attached to.
const PATHS: [&str; 16] = [
    "recursion_5",
    "recursion_20",
    "recursion_60",
    "recursion_200",
    "tree",
    "sort",
    "shared_library",
    "interposed",
    "signal_raised",
    "signal_on_own_stack",
    "exceptions",
    "long_jump",
    "frames",
    "tail_calls",
    "allocators",
    "threads",
];

#[test]
fn a_program_without_frame_pointers() -> Result<()> {
    compare("paths", &PATHS)?.is_whole(500)
}

#[test]
fn a_stripped_program() -> Result<()> {
    compare("paths_stripped", &PATHS)?.is_whole(500)
}

#[test]
fn a_release_build_in_rust() -> Result<()> {
    compare("paths_rust", &["recursion", "caught", "sorts", "threads"])?.is_whole(100)
}

/// musl is built without tables: gdb guesses on in its code, and we stop.
#[test]
fn a_static_program_with_musl() -> Result<()> {
    compare("paths_musl", &["recursion_5", "recursion_60", "sort"])?.is_honest(64)
}

#[test]
fn coroutines_and_assembly() -> Result<()> {
    let commands = ["coroutines", "assembly", "fault_at_an_entry"];
    compare("odd", &commands)?.is_whole(12)
}

/// What no compiler writes may end a stack, but not spoil it.
#[test]
fn a_frame_by_an_expression() -> Result<()> {
    compare("odd", &["assembly_with_expressions"])?.is_honest(1)
}

// --- signals ---

/// In the stack of the handler's block: the interrupted instruction, after
/// malloc, the handler, and libc's return from it.
const INTERRUPTED: usize = 3;

/// A timer interrupts a loop at any of its instructions. gdb sends the signal
/// at the same instructions again.
#[test]
fn signals_at_any_instruction() -> Result<()> {
    let mut target = Target::start("interrupted")?;
    target.command("interrupted")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("interrupted")?;
    let mut found = tracer.stop()?.report()?.stacks();
    let address = |frames: &[Position]| frames.get(INTERRUPTED).map(|frame| frame.address);
    let interrupted: BTreeSet<u64> = found
        .iter()
        .filter_map(|stack| address(&stack.frames))
        .collect();
    target.command("without_timer")?;
    let gdb = Gdb::attach_and_interrupt(target.pid, &interrupted)?;
    target.command("interrupted")?;
    target.finish()?;
    let real = gdb.finish()?.stacks;
    // A path that is taken once in a million rounds is none for gdb.
    let reached: BTreeSet<u64> = real
        .iter()
        .filter_map(|trace| address(&trace.frames))
        .collect();
    ensure!(
        reached.len() * 100 >= interrupted.len() * 98,
        "{} of {} reached",
        reached.len(),
        interrupted.len()
    );
    found.retain(|stack| address(&stack.frames).is_none_or(|address| reached.contains(&address)));
    let agreement = Agreement::of(&found, &real, Runs::Paths);
    println!("{agreement}");
    agreement.is_whole(100)
}

// --- code without tables, in which gdb guesses ---

/// The only one of its size.
fn of_size(found: &[Stack], size: u64) -> Result<&Stack> {
    let mut all = found
        .iter()
        .filter(|stack| stack.bytes == stack.count * size);
    let first = all.next().with_context(|| format!("none of {size}"))?;
    assert!(all.next().is_none(), "several of {size}");
    Ok(first)
}

/// gdb's frames of the compiled function that is called where the generated
/// one is, with the generated one in its place.
fn expected(real: &[Backtrace], size: u64, generated: &Position) -> Result<Vec<Position>> {
    let plain = real.iter().find(|trace| trace.size == size);
    let mut frames = plain.context("not run")?.frames.clone();
    frames[2] = generated.clone();
    Ok(frames)
}

#[test]
fn generated_code_with_frame_pointers_is_passed() -> Result<()> {
    let (found, real) = both("odd", &["generated_with_frame_pointers"])?;
    let stack = of_size(&found, 1409)?;
    let generated = &stack.frames[2];
    assert_eq!(generated.path, "", "{stack}");
    let expected = expected(&real, 1399, generated)?;
    assert_eq!(stack.frames[1..], expected[1..], "{stack}");
    assert_eq!(stack.end, "start");
    Ok(())
}

#[test]
fn generated_code_without_frame_pointers_ends_a_stack() -> Result<()> {
    let (found, real) = both("odd", &["generated_without_frame_pointers"])?;
    let stack = of_size(&found, 1427)?;
    assert_eq!(stack.frames.len(), 3, "{stack}");
    assert_eq!(stack.frames[2].path, "", "{stack}");
    let expected = expected(&real, 1423, &stack.frames[2])?;
    assert_eq!(stack.frames[1..], expected[1..3], "{stack}");
    assert_ne!(stack.end, "start");
    Ok(())
}

// --- programs of the distribution ---

/// Runs a program under the tracer, then under gdb, which looks at some of its
/// allocations. Call paths through code made at run time are left out: gdb can
/// only guess there.
fn compare_runs(command: &[&str], sampling: Sampling, folder: &Path) -> Result<Agreement> {
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let adapt = |command: &mut Command| {
        command.current_dir(folder).env_clear().envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/nonexistent"),
            ("PYTHONHASHSEED", "0"),
            ("PYTHONMALLOC", "malloc"),
        ]);
    };
    let report = Tracer::run_with(&["-q"], &command, adapt)?
        .wait()?
        .report()?;
    let mut real = Gdb::run(&command, sampling, adapt)?.stacks;
    real.retain(|trace| !trace.frames.iter().any(|frame| frame.path.is_empty()));
    let agreement = Agreement::of(&report.stacks(), &real, Runs::Sampled);
    println!("{}: {agreement}", command[0]);
    Ok(agreement)
}

/// Objects, regular expressions, a compressor, and a callback through code
/// that libffi maps a second time.
const SCRIPT: &str = "
import ctypes, json, re, zlib
text = json.dumps([{'a': i, 'b': [str(i)] * 3} for i in range(300)])
json.loads(text)
re.compile('(a|b)*c+(?P<name>[0-9]{1,3})').sub('x', text)
zlib.decompress(zlib.compress(text.encode()))
numbers = (ctypes.c_int * 20)(*[i * 7 % 20 for i in range(20)])
order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
compare = order(lambda one, other: len('x' * 999 + str(one[0])) * 0 + one[0] - other[0])
ctypes.CDLL(None).qsort(numbers, 20, 4, compare)
print(sum(sorted(range(5000), key=lambda i: -i)))
";

#[test]
fn python() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let command = ["/usr/bin/python3", "-S", "-E", "-c", SCRIPT];
    let sampling = Sampling {
        first: 20,
        every: 5,
        stops: 30_000,
    };
    compare_runs(&command, sampling, folder.path())?.is_whole(300)
}

#[test]
fn a_compiler() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = "template <typename T> struct List { T *item; List *next; \
        virtual ~List() { delete item; } }; \
        struct Error {}; int size(List<int> *list) { try { return list ? 1 + size(list->next) : 0; } \
        catch (const Error &) { auto f = [=](auto x) { return x + *list->item; }; return f(1); } }";
    std::fs::write(folder.path().join("size.cpp"), source)?;
    let asked = Command::new("g++")
        .arg("-print-prog-name=cc1plus")
        .output()?;
    let compiler = String::from_utf8(asked.stdout)?;
    let command = [
        compiler.trim(),
        "-quiet",
        "-O1",
        "-imultiarch",
        "x86_64-linux-gnu",
        "-D_GNU_SOURCE",
        "size.cpp",
        "-o",
        "/dev/null",
    ];
    let sampling = Sampling {
        first: 2,
        every: 50,
        stops: 20_000,
    };
    compare_runs(&command, sampling, folder.path())?.is_whole(300)
}

/// The native threads of a JVM, and what its main thread does before Java
/// code runs. The interpreter and one collector make it repeat itself.
#[test]
fn java() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let command = [
        "/usr/bin/java",
        "-Xint",
        "-XX:+UseSerialGC",
        "-Xmx64m",
        "-version",
    ];
    let sampling = Sampling {
        first: 3,
        every: 50,
        stops: 20_000,
    };
    compare_runs(&command, sampling, folder.path())?.is_whole(300)
}

/// Both compilers and a parallel collector at work, on a few classes.
#[test]
fn java_that_compiles() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let command = [
        "/usr/bin/java",
        "-Xbatch",
        "-Xcomp",
        "-XX:CompileOnly=java.util.HashMap::*,java.lang.String::hashCode",
        "-XX:CICompilerCount=2",
        "-XX:ParallelGCThreads=2",
        "-Xmx64m",
        "-version",
    ];
    let sampling = Sampling {
        first: 2,
        every: 50,
        stops: 8_000,
    };
    compare_runs(&command, sampling, folder.path())?.is_whole_in_both_runs(300)
}

/// Constructors before `main`, destructors and handlers after it.
#[test]
fn before_and_after_main() -> Result<()> {
    let paths = target_path("paths")?.display().to_string();
    let folder = tempfile::tempdir()?;
    let command = [paths.as_str(), "before_and_after", "threads", "exceptions"];
    compare_runs(&command, Sampling::ALL, folder.path())?.is_whole(25)
}
