//! Whole stacks: every call path that the tracer reports is, address by
//! address, the one that gdb finds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::gdb::{Backtrace, Position};
use unfreed_tests::interpreter::Interpreter;
use unfreed_tests::{
    Agreement, Gdb, Runs, Stack, Target, Tracer, make_fifo, target_path, wait_known,
};

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
    let gdb = Gdb::attach(target.pid)?;
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

/// musl is built without tables, and its start has no caller.
#[test]
fn a_static_program_with_musl() -> Result<()> {
    compare("paths_musl", &["recursion_5", "recursion_60"])?.is_whole(61)
}

#[test]
fn coroutines_and_assembly() -> Result<()> {
    let commands = ["coroutines", "assembly", "fault_at_an_entry"];
    compare("odd", &commands)?.is_whole(12)
}

/// What no compiler writes may end a stack, but not spoil it.
#[test]
fn rare_assembly() -> Result<()> {
    compare("odd", &["rare_assembly"])?.is_honest(2)
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
    // On a busy machine the timer comes to fewer instructions in one go.
    for _ in 0..3 {
        target.command("interrupted")?;
    }
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
    assert_eq!(stack.end, "start_by_frame_pointers");
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
    assert!(!stack.end.starts_with("start"), "{stack}");
    Ok(())
}

// --- programs of the distribution ---

/// Runs a program under the tracer, then under gdb. Of call paths through code
/// made at run time, the native part is compared.
///
/// Libraries that the program loads late are loaded before it starts: what is
/// too new to be known is the subject of other tests.
fn compare_runs(command: &[&str], folder: &Path, late: &[&str]) -> Result<Agreement> {
    compare_meeting(command, folder, late, |_| {})
}

/// The same; `meet` is called when a run begins, with the tracer's id if it is
/// the one under the tracer.
fn compare_meeting(
    command: &[&str],
    folder: &Path,
    late: &[&str],
    meet: impl Fn(Option<u32>),
) -> Result<Agreement> {
    let preload = late.join(":");
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let adapt = |command: &mut Command| {
        command.current_dir(folder).env_clear().envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/nonexistent"),
            ("PYTHONHASHSEED", "0"),
            ("PYTHONMALLOC", "malloc"),
        ]);
    };
    let tracer = Tracer::run_with(&["-q"], &command, |tracer| {
        adapt(tracer);
        tracer.env("LD_PRELOAD", &preload);
    })?;
    meet(Some(tracer.pid()));
    let mut found = tracer.wait()?.report()?.stacks();
    found.iter_mut().for_each(Stack::cut_at_generated_code);
    meet(None);
    let mut real = Gdb::run(&command, &preload, adapt)?.stacks;
    if command[0] == PYTHON {
        let interpreter = Interpreter::of(Path::new(PYTHON))?;
        real.iter_mut().for_each(|trace| interpreter.mark(trace));
    }
    real.iter_mut().for_each(Backtrace::cut_at_generated_code);
    let agreement = Agreement::of(&found, &real, Runs::Files);
    println!("{}: {agreement}", command[0]);
    Ok(agreement)
}

const PYTHON: &str = "/usr/bin/python3";

/// Objects, regular expressions, a compressor, and a callback through code
/// that libffi maps a second time. It says who it is once it has all modules,
/// and waits.
const SCRIPT: &str = "
import ctypes, json, os, re, zlib
with open('here', 'w') as here: here.write(str(os.getpid()))
open('go').close()
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
    std::fs::write(folder.path().join("script.py"), SCRIPT)?;
    let [here, go] = ["here", "go"].map(|name| folder.path().join(name));
    make_fifo(&here)?;
    make_fifo(&go)?;
    let command = [PYTHON, "-S", "-E", "script.py"];
    let mut agreement = compare_meeting(&command, folder.path(), &[], |tracer| {
        let (here, go) = (here.clone(), go.clone());
        // It ends with the program of the test if the script does not come.
        std::thread::spawn(move || {
            let python = std::fs::read_to_string(here)?.parse()?;
            if let Some(tracer) = tracer {
                wait_known(tracer, python)?;
            }
            std::fs::write(go, "").map_err(anyhow::Error::from)
        });
    })?;
    // What the modules do while they are loaded is too new to be known.
    let early = agreement.truncated.remove("no_row_yet").unwrap_or_default();
    ensure!(early.len() * 20 < agreement.total(), "{}", early.len());
    agreement.is_whole(900)
}

/// Its garbage collector has a block more or less, as its pages happen to lie
/// (`oracle.rs` has the details).
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
    compare_runs(&command, folder.path(), &[])?.is_nearly_whole(3000, 1)
}

const JVM_LIBRARIES: [&str; 6] = [
    "server/libjvm.so",
    "libjava.so",
    "libjimage.so",
    "libzip.so",
    "libnio.so",
    "libnet.so",
];

/// The native part of a JVM's stacks, with both compilers and a parallel
/// collector at work.
#[test]
fn java() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let home = Path::new("/usr/bin/java").canonicalize()?;
    let home = home.ancestors().nth(2).context("no JDK")?;
    let late = JVM_LIBRARIES.map(|library| home.join("lib").join(library).display().to_string());
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
    let late: Vec<&str> = late.iter().map(String::as_str).collect();
    // What its compiler threads get to, and when, differs from run to run:
    // 0.5 to 1 of 100 as a rule.
    compare_runs(&command, folder.path(), &late)?.is_nearly_whole(1000, 5)
}

/// Constructors before `main`, destructors and handlers after it.
#[test]
fn before_and_after_main() -> Result<()> {
    let paths = target_path("paths")?.display().to_string();
    let folder = tempfile::tempdir()?;
    let command = [paths.as_str(), "before_and_after", "threads", "exceptions"];
    compare_runs(&command, folder.path(), &[])?.is_whole(25)
}
