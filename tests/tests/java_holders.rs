//! Who holds growing Java classes, against a program that knows.

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::java_native::LoaderKind;
use unfreed_tests::model::{Chain, Holders, JavaHeap, Link, LinkKind};
use unfreed_tests::{Jdk, Target, Tracer, View, targets};

/// Objects of each class that a step makes.
const GROWN: u64 = 2003;
/// Searches of one program, one after the other.
const SEARCHES: usize = 5;
const SERIAL: &str = "-XX:+UseSerialGC";
const PARALLEL: &str = "-XX:+UseParallelGC";
const G1: &str = "-XX:+UseG1GC";

/// A class, its root's kind and name, and a link that its chain has.
const HELD: [(&str, LinkKind, &str, &str); 7] = [
    (
        "InList",
        LinkKind::JavaStatic,
        "Holders.list",
        "java.util.ArrayList.elementData",
    ),
    (
        "InMap",
        LinkKind::JavaStatic,
        "Holders.byId",
        "java.util.concurrent.ConcurrentHashMap$Node.val",
    ),
    (
        "OfService",
        LinkKind::JavaStatic,
        "Holders$Sessions.service",
        "Holders$Service.sessions",
    ),
    (
        "Scope",
        LinkKind::JavaThread,
        "pool-7-thread-3",
        "java.lang.ThreadLocal$ThreadLocalMap$Entry.value",
    ),
    (
        "Task",
        LinkKind::JavaStatic,
        "Holders.timer",
        "java.util.concurrent.ScheduledThreadPoolExecutor$DelayedWorkQueue.queue",
    ),
    (
        "Forward",
        LinkKind::JavaStatic,
        "Holders.first",
        "Holders$Forward.next",
    ),
    (
        "OnStack",
        LinkKind::Stack,
        "main",
        "java.util.ArrayList.elementData",
    ),
];

fn of<'a>(heap: &'a JavaHeap, class: &str) -> Result<&'a Holders> {
    in_program(heap, "Holders", class)
}

fn in_program<'a>(heap: &'a JavaHeap, program: &str, class: &str) -> Result<&'a Holders> {
    let name = format!("{program}${class}");
    let found = heap.classes.iter().find(|found| found.class == name);
    let found = found.with_context(|| format!("{name} is not in the report"))?;
    found
        .holders
        .as_ref()
        .with_context(|| format!("{name} has no holders"))
}

/// The heap at the end of a run in which the target grows, is collected or not, and lives on.
fn traced(jdk: &Jdk, options: &[&str], collect: bool) -> Result<(JavaHeap, String)> {
    let small = ["-Xmx96m", "-Xmn48m"].iter().chain(options).copied();
    let options: Vec<_> = small.collect();
    let mut target = jdk.start(&options, "Holders", &[])?;
    let tracer = Tracer::record(target.pid, &["--java-heap", "--holders"])?;
    target.command(&format!("grow {GROWN}"))?;
    if collect {
        target.command("collect")?;
    }
    let finished = tracer.stop()?;
    // It lives on.
    target.command("grow 1")?;
    let heap = finished.report()?.java_heap.first().cloned();
    Ok((heap.context("no Java heap")?, finished.stdout.clone()))
}

/// Each class has the holder that the program has for it.
fn check(heap: &JavaHeap) -> Result<()> {
    for (class, kind, root, link) in HELD {
        let holders = of(heap, class)?;
        ensure!(holders.sampled == 64, "{class}: {holders:?}");
        let first = holders.chains.first();
        let first = first.with_context(|| format!("{class}: {holders:?}"))?;
        let found = first.links.first().context("a chain of nothing")?;
        // The sampled queue and last elements may be reached in another way, too.
        ensure!(
            (found.kind, found.name.as_str()) == (kind, root) && first.blocks >= 60,
            "{class}: {holders:#?}"
        );
        let has_link = first.links.iter().any(|found| found.name == link);
        ensure!(has_link, "{class}: {holders:#?}");
    }
    // Nothing but soft references leads to these.
    let soft = of(heap, "Soft")?;
    ensure!(soft.chains.is_empty() && soft.undecided == 64, "{soft:#?}");
    let why = soft.unsearched.join(" ");
    ensure!(why.contains("weak, soft and phantom references"), "{why}");
    let scopes = of(heap, "Scope")?;
    let longest = scopes.chains[0]
        .links
        .iter()
        .map(|link| link.repeated)
        .max();
    let length = longest.context("no link")?;
    ensure!(length > GROWN / 2 && length <= GROWN + 1, "{scopes:#?}");
    Ok(())
}

#[test]
fn each_class_has_its_holder_on_every_version() -> Result<()> {
    for jdk in Jdk::versions()? {
        let (heap, text) = traced(&jdk, &[G1], true)?;
        check(&heap).with_context(|| format!("{}:\n{text}", jdk.name))?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            text.contains("held by Holders.list -> ArrayList.elementData"),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn each_class_has_its_holder_with_other_collectors() -> Result<()> {
    let ways = [
        (&[SERIAL][..], false),
        (&[PARALLEL], true),
        (&[SERIAL, "-XX:-UseCompressedOops"], true),
    ];
    for jdk in [Jdk::stripped()?, Jdk::newest()?] {
        for (options, collect) in ways {
            let (heap, text) = traced(&jdk, options, collect)?;
            check(&heap).with_context(|| format!("{}, {options:?}:\n{text}", jdk.name))?;
        }
    }
    Ok(())
}

/// Headers without a word for the class.
#[test]
fn compact_headers_are_read() -> Result<()> {
    let options = [
        G1,
        "-XX:+UnlockExperimentalVMOptions",
        "-XX:+UseCompactObjectHeaders",
    ];
    let (heap, text) = traced(&Jdk::newest()?, &options, true)?;
    check(&heap).with_context(|| text)
}

/// Of a heap whose objects move at any time it is said why nothing is told.
#[test]
fn a_collector_that_cannot_be_read_is_a_reason() -> Result<()> {
    let (heap, text) = traced(&Jdk::newest()?, &["-XX:+UseZGC", "-XX:-ZProactive"], false)?;
    let holders = of(&heap, "InList")?;
    let why = holders.unsearched.join(" ");
    ensure!(
        holders.sampled == 0 && holders.chains.is_empty(),
        "{holders:?}"
    );
    ensure!(why.contains("none of serial, parallel and G1"), "{why}");
    ensure!(text.contains("who holds it was not found"), "{text}");
    Ok(())
}

/// Who holds the native blocks that a function of the program allocated.
fn of_natives(report: &View, function: &str) -> Result<Holders> {
    let name = format!("Holders.{function}");
    let has_it = |name_of: Option<&str>| name_of.is_some_and(|it| it.contains(&name));
    let mut sum = Holders::default();
    for site in &report.sites {
        let mut frames = site.frames.iter();
        let is_it = frames.any(|frame| has_it(frame.function.as_deref()));
        if let Some(holders) = site
            .holders
            .clone()
            .filter(|_| is_it && site.live_bytes > 100_000)
        {
            sum.add(holders);
        }
    }
    Ok(sum)
}

/// Native memory is held by the Java objects that have its address, and those by what holds them.
#[test]
fn native_blocks_are_held_by_java_objects() -> Result<()> {
    let mut target = Jdk::full()?.start(&["-Xmx96m", G1], "Holders", &[])?;
    let tracer = Tracer::record(target.pid, &["--holders"])?;
    target.command("natives 64")?;
    let finished = tracer.stop()?;
    // It lives on.
    target.command("grow 1")?;
    let report = finished.report()?;
    for (function, root, link) in [
        (
            "inBuffer",
            "Holders.buffers",
            "java.nio.DirectByteBuffer.address",
        ),
        ("inPeer", "Holders.peers", "Holders$Peer.handle"),
    ] {
        let holders = of_natives(&report, function)?;
        ensure!(
            holders.sampled == 64 && holders.lost == 0,
            "{function}: {holders:#?}"
        );
        let is_right = |chain: &&Chain| {
            let is = |found: Option<&Link>, kind: LinkKind, name: &str| {
                found.is_some_and(|found| (found.kind, found.name.as_str()) == (kind, name))
            };
            is(chain.links.first(), LinkKind::JavaStatic, root)
                && is(chain.links.last(), LinkKind::JavaObject, link)
        };
        let right = holders.chains.iter().filter(is_right);
        let blocks: u64 = right.map(|chain| chain.blocks).sum();
        ensure!(blocks >= 62, "{function}: {holders:#?}");
    }
    let dropped = of_natives(&report, "dropped")?;
    ensure!(dropped.sampled == 64 && dropped.lost >= 62, "{dropped:#?}");
    Ok(())
}

/// Nothing is forced, and the answer is the same each time.
#[test]
fn repeated_searches_give_the_same_first_root() -> Result<()> {
    let jdk = Jdk::full()?;
    let mut target: Target = jdk.start(&["-Xmx96m", G1], "Holders", &[])?;
    for _ in 0..SEARCHES {
        let tracer = Tracer::record(target.pid, &["--java-heap", "--holders"])?;
        target.command(&format!("grow {GROWN}"))?;
        let finished = tracer.stop()?;
        let heap = finished.report()?.java_heap.first().cloned();
        let heap = heap.context("no Java heap")?;
        for (class, kind, root, _) in HELD {
            let holders = of(&heap, class)?;
            let first = holders.chains.first().and_then(|chain| chain.links.first());
            let first = first.map(|link| (link.kind, link.name.as_str()));
            ensure!(first == Some((kind, root)), "{class}: {holders:#?}");
        }
    }
    Ok(())
}

/// A class of whose objects native code has handles, and the links of their chain, root first.
type Handled<'a> = (&'a str, &'a [(LinkKind, &'a str)]);

const GLOBAL: (LinkKind, &str) = (LinkKind::JniHandle, "JNI global handle");

/// What handles hold, and who has these: a variable, a list, a Java object's native peer, nobody,
/// a thread that does not come back from native code.
const HANDLED: [Handled<'_>; 5] = [
    (
        "Kept",
        &[(LinkKind::Global, "kept (libjni_handles.so)"), GLOBAL],
    ),
    (
        "InList",
        &[
            (LinkKind::Global, "first (libjni_handles.so)"),
            (LinkKind::Block, "allocated at node_of"),
            GLOBAL,
        ],
    ),
    (
        "OfPeer",
        &[
            (LinkKind::JavaStatic, "Handles.peers"),
            (LinkKind::JavaObject, "java.util.ArrayList.elementData"),
            (LinkKind::JavaObject, "java.lang.Object[]"),
            (LinkKind::JavaObject, "Handles$Peer.block"),
            (LinkKind::Block, "allocated at node_of"),
            GLOBAL,
        ],
    ),
    (
        "Forgotten",
        &[(
            LinkKind::JniHandle,
            "JNI global handle that no pointer leads to",
        )],
    ),
    (
        "Local",
        &[(
            LinkKind::JniHandle,
            "JNI local handle of thread \"in-native-1\"",
        )],
    ),
];

fn handled(jdk: &Jdk, options: &[&str]) -> Result<()> {
    let libraries = format!("-Djava.library.path={}", targets().display());
    let small = ["-Xmx96m", "-Xmn48m", libraries.as_str()].into_iter();
    let options: Vec<_> = small.chain(options.iter().copied()).collect();
    let mut target = jdk.start(&options, "Handles", &[])?;
    let tracer = Tracer::record(target.pid, &["--java-heap", "--holders"])?;
    for command in ["keep", "list", "peer", "forget", "local"] {
        target.ask(&format!("{command} {GROWN}"), "done ")?;
    }
    let finished = tracer.stop()?;
    // It lives on, and so do its handles.
    target.ask("drop 1", "done ")?;
    let report = finished.report()?;
    let heap = report.java_heap.first().context("no Java heap")?;
    for (class, links) in HANDLED {
        let holders = in_program(heap, "Handles", class)?;
        let first = holders.chains.first();
        let first = first.with_context(|| format!("{class}: {holders:#?}"))?;
        let found = first.links.iter().map(|it| (it.kind, it.name.as_str()));
        ensure!(found.eq(links.iter().copied()), "{class}: {holders:#?}");
        // To the first word of a block of handles, of 32 or 64, the VM has pointers itself.
        ensure!(
            holders.sampled == 64 && holders.undecided == 0 && first.blocks >= 52,
            "{class}: {holders:#?}"
        );
    }
    let text = finished
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    ensure!(
        text.contains("held by kept (libjni_handles.so) -> JNI global handle: "),
        "{text}"
    );
    Ok(())
}

#[test]
fn what_native_code_has_handles_of_is_held_by_these_on_every_version() -> Result<()> {
    for jdk in Jdk::versions()? {
        handled(&jdk, &[G1]).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

#[test]
fn handles_hold_with_other_collectors() -> Result<()> {
    for jdk in [Jdk::stripped()?, Jdk::newest()?] {
        for options in [SERIAL, PARALLEL] {
            handled(&jdk, &[options]).with_context(|| format!("{}, {options}", jdk.name))?;
        }
    }
    Ok(())
}

/// A class of class loaders, its root, and links of the chain from there to its loaders.
type Loaded<'a> = (&'a str, (LinkKind, &'a str), &'a [&'a str]);

const LOADED: [Loaded<'_>; 3] = [
    (
        "Listed",
        (LinkKind::JavaStatic, "Loaders.listed"),
        &[
            "java.util.ArrayList.elementData",
            "java.lang.Object[]",
            "Loaders$Plugin.getClass()",
            "java.lang.Class.classLoader",
        ],
    ),
    (
        "Local",
        (LinkKind::JavaThread, "plugins-1"),
        &[
            "java.lang.ThreadLocal$ThreadLocalMap$Entry.value",
            "java.util.ArrayList.elementData",
            "Loaders$Plugin.getClass()",
            "java.lang.Class.classLoader",
        ],
    ),
    (
        "OfClass",
        (LinkKind::JavaStatic, "Loaders.classes"),
        &[
            "java.util.ArrayList.elementData",
            "java.lang.Object[]",
            "java.lang.Class.classLoader",
        ],
    ),
];

fn loaded(jdk: &Jdk, options: &[&str]) -> Result<()> {
    let small = ["-Xmx96m", "-Xmn48m"].iter().chain(options).copied();
    let options: Vec<_> = small.collect();
    let mut target = jdk.start(&options, "Loaders", &[])?;
    let tracer = Tracer::record(target.pid, &["--java-heap", "--holders"])?;
    for command in ["listed", "local", "classes", "dropped"] {
        target.command(&format!("{command} 211"))?;
    }
    let finished = tracer.stop()?;
    // It lives on.
    target.command("listed 1")?;
    let report = finished.report()?;
    let heap = report.java_heap.first().context("no Java heap")?;
    for (class, root, links) in LOADED {
        let holders = in_program(heap, "Loaders", class)?;
        let first = holders.chains.first();
        let first = first.with_context(|| format!("{class}: {holders:#?}"))?;
        let mut found = first.links.iter();
        let by = found.next().map(|it| (it.kind, it.name.as_str()));
        ensure!(
            by == Some(root) && first.blocks >= 60 && holders.sampled == 64,
            "{class}: {holders:#?}"
        );
        for link in links {
            let has_it = found.any(|found| found.name == *link);
            ensure!(has_it, "{class}, {link}: {holders:#?}");
        }
    }
    // Its own classes and their static fields do not hold a class loader.
    let dropped = in_program(heap, "Loaders", "Dropped")?;
    ensure!(
        dropped.chains.iter().map(|it| it.blocks).sum::<u64>() <= 4,
        "{dropped:#?}"
    );
    Ok(())
}

#[test]
fn class_loaders_are_held_by_who_has_objects_of_their_classes() -> Result<()> {
    for jdk in Jdk::versions()? {
        loaded(&jdk, &[G1]).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// Class loaders and hidden classes are counted by the machine's own list, and who holds them is told
/// without a class histogram.
fn counted(jdk: &Jdk) -> Result<()> {
    let mut target = jdk.start(&["-Xmx96m", G1], "Loaders", &[])?;
    let tracer = Tracer::record(target.pid, &["--holders"])?;
    target.command("listed 211")?;
    target.command("hidden 307")?;
    let finished = tracer.stop()?;
    // It lives on.
    target.command("listed 1")?;
    let report = finished.report()?;
    let native = report.java_native.first().context("no JVM")?;
    let last = native
        .last
        .as_ref()
        .and_then(|it| it.class_loaders.as_ref());
    ensure!(
        last.is_some_and(|it| it.count > 211 + 307),
        "{:?}",
        native.last
    );
    let of = |kind: LoaderKind, class: &str| {
        let mut grown = native.grown_loaders.iter();
        let found = grown.find(|it| it.kind == kind && it.class == class);
        found.with_context(|| format!("{:#?}", native.grown_loaders))
    };
    let listed = of(LoaderKind::ClassLoader, "Loaders$Listed")?;
    ensure!((listed.before, listed.after) == (1, 212), "{listed:?}");
    let holders = listed.holders.as_ref().context("no holders")?;
    let first = holders.chains.first().context("no chain")?;
    let by = first.links.first().map(|it| it.name.as_str());
    ensure!(
        by == Some("Loaders.listed") && first.blocks >= 50,
        "{holders:#?}"
    );
    // JDK 8 tells neither their names nor where they are.
    if jdk.name.ends_with(" 8") {
        let loader = "(of sun.misc.Launcher$AppClassLoader)";
        let hidden = of(LoaderKind::HiddenClass, loader)?;
        return ensure_grown(hidden.before, hidden.after);
    }
    let hidden = of(LoaderKind::HiddenClass, "Loaders$Plugin")?;
    ensure_grown(hidden.before, hidden.after)?;
    let holders = hidden.holders.as_ref().context("no holders")?;
    let first = holders.chains.first().context("no chain")?;
    let by = first.links.first().map(|it| it.name.as_str());
    let has_class = first
        .links
        .iter()
        .any(|it| it.name == "Loaders$Plugin.getClass()");
    ensure!(
        by == Some("Loaders.hidden") && has_class && first.blocks >= 50,
        "{holders:#?}"
    );
    Ok(())
}

fn ensure_grown(before: u64, after: u64) -> Result<()> {
    ensure!(after == before + 307, "{before} before, {after} after");
    Ok(())
}

#[test]
fn class_loaders_and_hidden_classes_are_counted_on_every_version() -> Result<()> {
    for jdk in Jdk::versions()? {
        counted(&jdk).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}
