//! Real VMs, one of each JDK at hand.

pub(super) mod synthetic;
mod target;
mod walk;

use std::ops::Range;

use self::target::{Classes, JavaTarget, Jdk};
use self::walk::Walk;
use super::Jvm;
use super::frames::{FrameKind, JavaFrame};
use super::klass::class_name;
use super::places::Places;

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
        let mut target = JavaTarget::start(&jdk, &classes, &[], "Waits");
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

/// A frame, as the program itself tells it and as we name it.
type Told = (String, String, Option<String>, Option<u32>);

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
        let file = (file != "null").then(|| file.to_owned());
        let class = class_name(&class.replace('.', "/")).unwrap();
        frames.push((class, method.into(), file, number.parse().ok()));
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

/// Names of the blocked thread's frames.
fn named(jvm: &mut Jvm) -> Vec<JavaFrame> {
    let threads = jvm.threads().unwrap();
    let worker = threads.iter().find(|thread| thread.name == "worker");
    let words = Walk::new(jvm).words(worker.expect("no thread worker").address);
    let names = words.into_iter().map(|word| (word, jvm.name(word)));
    names
        .flat_map(|(word, names)| match names {
            Ok(names) => names.to_vec(),
            Err(reason) => panic!("{word:#x}: {reason}"),
        })
        .collect()
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

#[test]
fn frames_of_all_compilers_have_the_names_that_the_program_tells() {
    let classes = Classes::compile("Deep", include_str!("Deep.java"));
    for jdk in Jdk::all() {
        for (options, kinds) in MODES {
            let options = [&SHOW_HIDDEN, options].concat();
            let mut target = JavaTarget::start(&jdk, &classes, &options, "Deep");
            let told = told(&mut target);
            let mut jvm = Jvm::find(&target.code()).unwrap().expect("a VM");
            let frames = named(&mut jvm);
            println!("{} {options:?}", jdk.name());
            for frame in &frames {
                println!(
                    "  {frame} {:?} {:?} {}",
                    frame.line, frame.kind, frame.inlined
                );
            }
            let what = format!("{} {options:?}: {frames:?}", jdk.name());
            let ours: Vec<_> = frames.iter().map(written).collect();
            assert_eq!(ours, told, "{what}");
            for kind in kinds {
                assert!(
                    frames.iter().any(|frame| frame.kind == *kind),
                    "{kind:?}: {what}"
                );
            }
        }
    }
}
