//! Real VMs, one of each JDK at hand.

pub(crate) mod synthetic;
mod target;
mod walk;

use std::ops::Range;

use self::target::{Classes, JavaTarget, Jdk};
use self::walk::Walk;
use super::Jvm;
use super::code_cache::{Blob, BlobKind};
use super::fields::Fields;
use super::flags;
use super::frames::{FrameKind, JavaFrame};
use super::klass::class_name;
use super::memory::TargetMemory;
use super::nmethod::{Nmethod, TablesLayout};
use super::places::Places;
use super::stream::Encoding;

const WAITS: &str = r#"
public class Waits {
    public static void main(String[] arguments) throws Exception {
        System.out.println("up");
        System.in.read();
    }
}
"#;

#[test]
fn the_layout_of_each_jdk_is_known_and_leads_to_its_code() {
    let classes = Classes::compile("Waits", WAITS);
    for jdk in Jdk::all() {
        let mut target = JavaTarget::start(&jdk, &classes, &[], &["Waits"]);
        assert_eq!(target.line(), "up");
        let jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
        let Places { heaps, .. } = &jvm.places;
        let is_code = |address| heaps.iter().any(|heap| heap.reserved.contains(&address));
        let Range { start, end } = jvm.places.interpreter;
        println!("{}: {:?} {:x?}", jdk.name(), jvm.layout, jvm.places);
        assert!(is_code(start) && is_code(end - 1) && end - start < 1 << 20);
        assert!(is_code(jvm.places.call_stub_return));
        let barrier = jvm.places.return_barrier;
        assert!(barrier.is_none_or(is_code));
        let virtual_threads = jvm.structs.field("JavaThread", "_vthread").is_some();
        assert_eq!(barrier.is_some(), virtual_threads);
    }
}

#[test]
fn flags_are_read() {
    let classes = Classes::compile("Waits", WAITS);
    for jdk in Jdk::all() {
        for (option, expected) in [("-XX:+DTraceAllocProbes", true), ("-Xmx64m", false)] {
            let mut target = JavaTarget::start(&jdk, &classes, &[option], &["Waits"]);
            assert_eq!(target.line(), "up");
            let jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
            let wanted = ["DTraceAllocProbes", "NoSuchFlag"];
            let on = flags::are_on(Fields(&jvm.structs), &jvm.memory, wanted).unwrap();
            assert_eq!(on, [expected, false], "{}", jdk.name());
        }
    }
}

#[test]
fn threads_have_their_whole_names() {
    let classes = Classes::compile("Named", include_str!("Named.java"));
    for jdk in Jdk::all() {
        for options in [
            &["-Xmx64m"][..],
            &["-XX:-UseCompressedOops"],
            // JDK 24 and later.
            &[
                "-XX:+IgnoreUnrecognizedVMOptions",
                "-XX:+UseCompactObjectHeaders",
            ],
        ] {
            let mut target = JavaTarget::start(&jdk, &classes, options, &["Named"]);
            let mut told = Vec::new();
            loop {
                match target.line() {
                    end if end == "end" => break,
                    name => told.push(name),
                }
            }
            let jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
            let threads = jvm.threads().unwrap();
            let what = format!("{} {options:?}: {threads:?}", jdk.name());
            for name in &told {
                let found = threads.iter().find(|thread| thread.name == *name);
                let tid = found.unwrap_or_else(|| panic!("no {name}: {what}")).tid;
                let comm =
                    std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", target.pid()));
                let start = name.get(..6).unwrap_or_default();
                assert!(
                    name == "main" || comm.unwrap().starts_with(start),
                    "{name}: {what}"
                );
            }
            assert!(told.len() > 4, "{what}");
        }
    }
}

/// A frame, as the program itself tells it and as we name it.
type Told = (String, String, Option<String>, Option<u32>);

/// The class without the number that JDK 8 writes behind an anonymous one's name.
fn without_hash(class: &str) -> &str {
    match class.rsplit_once('/') {
        Some((name, hash)) if hash.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => class,
    }
}

/// What `Thread.getStackTrace` tells, until the line `end`.
fn told(target: &mut JavaTarget) -> Vec<Told> {
    let mut frames = Vec::new();
    loop {
        let line = target.line();
        if line == "end" {
            return frames;
        }
        let words: Vec<_> = line.split(' ').collect();
        let [class, method, file, number] = words[..] else {
            panic!("{line}");
        };
        let file = (file != "null" && file != "<Unknown>").then(|| file.to_owned());
        let class = class_name(&without_hash(class).replace('.', "/")).unwrap();
        // For hidden frames JDK 8 tells where their bytecode is, from here on.
        let line = number.parse().ok().filter(|line| *line < 1_000_000);
        frames.push((class, method.into(), file, line));
    }
}

fn written(frame: &JavaFrame) -> Told {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    let (class, method) = (text(&frame.class), text(&frame.method));
    (
        class.unwrap_or_default(),
        method.unwrap_or_default(),
        text(&frame.file),
        frame.line,
    )
}

/// So that the program sees the frames that the VM hides from programs.
const SHOW_HIDDEN: [&str; 2] = ["-XX:+UnlockDiagnosticVMOptions", "-XX:+ShowHiddenFrames"];

/// Names of the blocked thread's frames, and how many of them are
/// deoptimised.
fn named(jvm: &mut Jvm) -> (Vec<JavaFrame>, usize) {
    let threads = jvm.threads().unwrap();
    let worker = threads.iter().find(|thread| thread.name == "worker");
    let mut walk = Walk::new(jvm);
    let words = walk.words(worker.expect("no thread worker").address);
    let deoptimised = walk.deoptimised;
    let names = words.into_iter().map(|word| (word, jvm.name(word)));
    let frames = names.flat_map(|(word, names)| match names {
        Ok(names) => names.to_vec(),
        Err(reason) => panic!("{word:#x}: {reason}"),
    });
    (frames.collect(), deoptimised)
}

/// With each set of options, the kinds of frames that must be met.
const MODES: [(&[&str], &[FrameKind]); 4] = [
    (&["-Xint"], &[FrameKind::Interpreted]),
    (
        &["-Xbatch", "-XX:TieredStopAtLevel=1"],
        &[FrameKind::C1, FrameKind::Native],
    ),
    (
        &["-Xbatch", "-XX:TieredStopAtLevel=3"],
        &[FrameKind::C1, FrameKind::Interpreted],
    ),
    (
        &["-Xbatch"],
        &[
            FrameKind::C2,
            FrameKind::C1,
            FrameKind::Interpreted,
            FrameKind::Native,
        ],
    ),
];

/// The frames of the thread `worker` in a thread dump: class, method, line.
fn dumped(jdk: &Jdk, pid: u32) -> Vec<(String, String, Option<u32>)> {
    let output = std::process::Command::new(jdk.tool("jcmd"))
        .args([&pid.to_string(), "Thread.print"])
        .output()
        .unwrap();
    let dump = String::from_utf8(output.stdout).unwrap();
    let lines = dump
        .lines()
        .skip_while(|line| !line.starts_with("\"worker\""));
    let lines = lines.take_while(|line| !line.is_empty());
    let frame = |line: &str| {
        let (path, place) = line.trim().strip_prefix("at ")?.split_once('(').unwrap();
        // The module and its version.
        let path = match path.split_once('/') {
            Some((module, path)) if module.contains('@') => path,
            _ => path,
        };
        let (class, method) = path.rsplit_once('.').unwrap();
        let line = place.trim_end_matches(')').rsplit_once(':');
        let line = line.and_then(|(_, line)| line.parse().ok());
        let class = class_name(&class.replace('.', "/")).unwrap();
        Some((class, method.to_owned(), line))
    };
    lines.filter_map(frame).collect()
}

/// Starts the program, and compares the frames that it tells with ours.
/// Returns ours, and how many are deoptimised.
#[track_caller]
fn compare(
    jdk: &Jdk,
    classes: &Classes,
    options: &[&str],
    main: &[&str],
) -> (Vec<JavaFrame>, usize) {
    let options = [&SHOW_HIDDEN, options].concat();
    let mut target = JavaTarget::start(jdk, classes, &options, main);
    let told = told(&mut target);
    let mut jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
    let (frames, deoptimised) = named(&mut jvm);
    println!("{} {options:?} {main:?}", jdk.name());
    for frame in &frames {
        let (kind, inlined) = (frame.kind, frame.inlined);
        println!("  {:?} {kind:?} {inlined}", written(frame));
    }
    let ours: Vec<_> = frames.iter().map(written).collect();
    assert_eq!(ours, told, "{} {options:?}", jdk.name());
    if jdk.tool("jcmd").exists() {
        let ours: Vec<_> = ours
            .into_iter()
            .map(|(c, m, _, line)| (c, m, line))
            .collect();
        assert_eq!(
            ours,
            dumped(jdk, target.pid()),
            "{} {options:?}",
            jdk.name()
        );
    }
    (frames, deoptimised)
}

#[test]
fn frames_of_all_compilers_have_the_names_that_the_program_tells() {
    let classes = Classes::compile("Deep", include_str!("Deep.java"));
    for jdk in Jdk::all() {
        for (options, kinds) in MODES {
            let (frames, _) = compare(&jdk, &classes, options, &["Deep"]);
            for kind in kinds {
                assert!(
                    frames.iter().any(|frame| frame.kind == *kind),
                    "no {kind:?}"
                );
            }
            let inlined = frames.iter().any(|frame| frame.inlined);
            assert_eq!(inlined, options != ["-Xint"]);
        }
    }
}

#[test]
fn frames_of_code_that_became_wrong_are_named_by_their_original_address() {
    let classes = Classes::compile("Deep", include_str!("Deep.java"));
    for jdk in Jdk::all() {
        let (frames, deoptimised) = compare(&jdk, &classes, &["-Xbatch"], &["Deep", "deoptimise"]);
        assert!(deoptimised > 0, "{frames:?}");
        assert!(frames.iter().any(|frame| frame.kind == FrameKind::C2));
    }
}

#[test]
fn all_code_that_is_compiled_has_names_and_soon() {
    let classes = Classes::compile("Waits", WAITS);
    // All that runs is compiled before it runs.
    let options = ["-Xcomp", "-XX:TieredStopAtLevel=1"];
    for jdk in Jdk::all() {
        let mut target = JavaTarget::start(&jdk, &classes, &options, &["Waits"]);
        assert_eq!(target.line(), "up");
        let mut jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
        let words = all_words(&jvm);
        let start = std::time::Instant::now();
        let unnamed: Vec<_> = words
            .iter()
            .filter_map(|word| Some((*word, jvm.name(*word).err()?)))
            .collect();
        let took = start.elapsed();
        println!("{}: {} words, {took:?}", jdk.name(), words.len());
        assert!(words.len() > 3000);
        assert!(unnamed.is_empty(), "{unnamed:x?} of {}", words.len());
    }
}

/// Words for all places of all code that can be returned to.
fn all_words(jvm: &Jvm) -> Vec<u64> {
    let Jvm {
        memory,
        layout,
        places,
        structs,
        ..
    } = jvm;
    let encoding = Encoding::of(Fields(structs), memory).unwrap();
    let tables = TablesLayout::of(Fields(structs), encoding).unwrap();
    let mut words = Vec::new();
    for heap in &places.heaps {
        let segments = (heap.reserved.end - heap.reserved.start) >> heap.log2_segment_size;
        let mut map = Vec::new();
        while (map.len() as u64) < segments
            && let Ok(more) = memory.vec(heap.segment_map + map.len() as u64, 1024)
        {
            map.extend(more);
        }
        let blocks = map.iter().enumerate().filter(|(_, back)| **back == 0);
        for (segment, _) in blocks {
            let pc = heap.reserved.start + ((segment as u64) << heap.log2_segment_size) + 64;
            let Ok(blob) = Blob::at(memory, layout, &places.heaps, pc) else {
                continue;
            };
            if blob.kind(memory, layout) != Ok(BlobKind::Method) {
                continue;
            }
            let id = layout.nmethod.compile_id.of(&blob.header).unwrap();
            let id = id.cast_unsigned();
            let nmethod = Nmethod::read(memory, layout, &tables, &blob).unwrap();
            let word = |pc| 0b0010 << 60 | (id & 0x1fff) << 47 | pc;
            words.extend(nmethod.places().into_iter().map(word));
        }
    }
    words
}
