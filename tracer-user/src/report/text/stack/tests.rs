use super::*;
use crate::model::Originals;
use crate::report::sample;

fn lines(frames: &[Frame], end: Option<StackEnd>) -> Vec<String> {
    let mut text = String::new();
    Stack::new(frames, end).render(&mut text, 2, &Layout::new(1, Some(60), false));
    text.lines().map(str::to_string).collect()
}

#[test]
fn leaf_first_with_places() {
    let mut inlined = sample::program("make()", "make.h", 3, 0x40_2000);
    inlined.inlined = true;
    let frames = [
        sample::program("main", "main.cpp", 9, 0x40_1000),
        inlined,
        sample::library("strdup", 1),
    ];
    let expected = [
        "  strdup  (libc.so.6)",
        "  make() (inlined)  leaky/make.h:3",
        "  main  leaky/main.cpp:9",
    ];
    assert_eq!(lines(&frames, Some(StackEnd::Start)), expected);
}

#[test]
fn a_frame_without_a_name_says_why() {
    let known = Frame {
        module: Some("/opt/libz.so.1".into()),
        module_offset: Some(0x4321),
        reason: Some("no symbol table".into()),
        ..Frame::default()
    };
    let unknown = Frame {
        address: 0x7f12,
        ..Frame::default()
    };
    let expected = [
        "  libz.so.1+0x4321  (no symbol table)",
        "  [unknown]  (0x7f12, no name)",
        "  (the stack ends here: the next return address is none)",
    ];
    assert_eq!(
        lines(&[unknown, known], Some(StackEnd::BadReturn)),
        expected
    );
}

#[test]
fn the_programs_own_frames_come_first_and_others_are_counted() {
    let mut frames: Vec<Frame> = (0..40)
        .map(|n| sample::library(&format!("lib{n}"), n))
        .collect();
    frames[20] = sample::program("interesting()", "a.cpp", 1, 0x40_0000);
    frames[18] = sample::program("caller()", "a.cpp", 2, 0x40_0000);
    let expected = [
        "  lib39, and 18 more frames of libc",
        "  interesting()  leaky/a.cpp:1",
        "  lib19  (libc.so.6)",
        "  caller()  leaky/a.cpp:2",
        "  … 18 frames of libc",
    ];
    assert_eq!(lines(&frames, None), expected);
    let mut text = String::new();
    let mut layout = Layout::new(1, Some(60), false);
    layout.all_frames = true;
    Stack::new(&frames, None).render(&mut text, 2, &layout);
    assert_eq!(text.lines().count(), 40);
}

#[test]
fn a_deep_path_takes_few_lines() {
    let frames: Vec<Frame> = (0..120)
        .map(|n| sample::program(&format!("f{n}"), "a.cpp", 1, n))
        .collect();
    let mut text = String::new();
    let layout = Layout::new(1, Some(60), false);
    Stack::new(&frames, None).render(&mut text, 2, &layout);
    assert_eq!(text.lines().count(), MAX_LINES);
    assert!(text.ends_with("  … 114 more frames\n"), "{text}");
    text.clear();
    Stack::new(&frames, None)
        .in_few_lines(true)
        .render(&mut text, 2, &layout);
    assert_eq!(text.lines().count(), FEW_LINES);
}

#[test]
fn a_path_without_own_frames_shows_who_asks() {
    let jvm = |name: &str| Frame {
        module: Some("/jdk/lib/server/libjvm.so".into()),
        ..sample::library(name, 1)
    };
    let frames = [
        sample::library("clone3", 1),
        sample::library("start_thread", 1),
        jvm("thread_native_entry(Thread*)"),
        jvm("Compilation::emit_lir()"),
        jvm("LinearScan::do_linear_scan()"),
        jvm("Arena::grow(unsigned long)"),
        jvm("os::malloc(unsigned long)"),
    ];
    let mut text = String::new();
    let layout = Layout::new(1, Some(60), false);
    Stack::new(&frames, None)
        .in_few_lines(true)
        .render(&mut text, 2, &layout);
    let expected = [
        "  os::malloc, and 1 more frame of the JVM",
        "  LinearScan::do_linear_scan()  (libjvm.so)",
        "  … 4 frames of the JVM and libc",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn java_packages_are_shortened_before_anything_is_cut() {
    use crate::model::Origin;
    let name = "com.acme.warehouse.shipping.OrderBook.addOrder";
    let java = |name| sample::java(name, "OrderBook.java", 7, Origin::C1);
    let frames = [
        java("java.lang.Thread.run"),
        java(name),
        java("com.acme.warehouse.shipping.containers.ExceedinglyLongClassName.addOrder"),
    ];
    assert_eq!(
        lines(&frames, None),
        [
            "  c.a.w.s.c.Exceeding…ngClassName.addOrder  OrderBook.java:7",
            "  c.a.w.shipping.OrderBook.addOrder  OrderBook.java:7",
            "  java.lang.Thread.run  OrderBook.java:7",
        ]
    );
}

#[test]
fn recursion_takes_one_line() {
    let frames: Vec<Frame> = (0..50).map(|n| sample::library("walk", n)).collect();
    assert_eq!(lines(&frames, None), ["  walk (×50)  (libc.so.6)"]);
}

#[test]
fn what_is_repeated_in_turn_is_one_block() {
    let names = |names: &str| -> Vec<Frame> {
        let names = names.split(' ').zip(1..);
        names
            .map(|(name, n)| sample::program(name, "a.cpp", 1, n))
            .collect()
    };
    let shown = |frames: &str| -> Vec<String> {
        let lines = lines(&names(frames), None);
        let plain = lines.iter().map(|it| it.replace("  leaky/a.cpp:1", ""));
        plain.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(
        shown("main a b a b a b leaf"),
        ["leaf", "b", "a", "(these 2 × 3)", "main"]
    );
    assert_eq!(
        shown("main a a b a a b c"),
        ["c", "b", "a (×2)", "(these 2 × 2)", "main"]
    );
    assert_eq!(shown("main a b c a"), ["a", "c", "b", "a", "main"]);
    assert_eq!(
        shown("x a b c a b c a b y"),
        ["y", "b", "a", "c", "(these 3 × 2)", "b", "a", "x"],
        "what is left of a round stays"
    );
    // What a block stands for is hidden with it.
    let deep = format!("main a b c d {} o p q r s t u v", "f g ".repeat(20).trim());
    assert!(
        shown(&deep).iter().any(|it| it == "… 47 more frames"),
        "{:?}",
        shown(&deep)
    );
}

#[test]
fn a_name_that_stands_for_others_is_shown_however_deep_it_is() {
    let mut frames: Vec<Frame> = (0..40)
        .map(|n| sample::library(&format!("lib{n}"), n))
        .collect();
    let made = |count| Originals {
        count,
        ..Originals::one("made7".into(), crate::model::By::Asked)
    };
    frames[20].originals = Some(std::sync::Arc::new(made(1)));
    assert_eq!(lines(&frames, None)[3], "  … 37 frames of libc");
    frames[20].originals = Some(std::sync::Arc::new(made(7)));
    assert_eq!(lines(&frames, None)[4], "  lib20 (7 names)  (libc.so.6)");
}

#[test]
fn a_name_that_stands_for_others_says_for_how_many() {
    let frame = |count, lower_bound| Frame {
        originals: Some(std::sync::Arc::new(Originals {
            count,
            lower_bound,
            ..Originals::one("Script17.run".into(), crate::model::By::Numbers)
        })),
        ..sample::java("Script*.run", "", 0, crate::model::Origin::C1)
    };
    let shown = [frame(1, false), frame(1_700, false), frame(1_700, true)];
    let shown = shown.map(|frame| lines(&[frame], None).remove(0));
    assert_eq!(
        shown,
        [
            "  Script*.run",
            "  Script*.run (1,700 names)",
            "  Script*.run (at least 1,700 names)"
        ]
    );
}
