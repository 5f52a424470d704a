//! Buffers, class loaders and thread stacks of JVMs: a few lines for each.

use std::iter;

use super::layout::{Layout, PLAIN};
use crate::model::java_native::{
    BufferPool, Buffers, ClassLoaders, GrownLoaders, JavaNative, NativeView, StackMemory,
    ThreadStacks,
};
use crate::model::{Frame, MemoryKind, Report};
use crate::report::{class_loading, held_by, names, units};

/// The method that takes a direct buffer's memory, and the end of the name of
/// the one by which it does. Others that it calls load classes, for example.
const DIRECT: [&str; 2] = ["java.nio.DirectByteBuffer.<init>", ".Unsafe.allocateMemory"];

/// Kinds of class loaders that grew, of which that is told.
const MAX_GROWN: usize = 3;

/// The kinds of threads, one and several.
const KINDS: [[&str; 2]; 3] = [
    ["Java thread", "Java threads"],
    ["thread of the JVM's own", "threads of the JVM's own"],
    [
        "other thread, by its mapping",
        "other threads, by their mappings",
    ],
];

/// Adds a heading and lines for each JVM; nothing without one.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    for native in &report.java_native {
        text.push('\n');
        let process = report.processes.get(native.process);
        let name = process.map_or_else(String::new, names::process);
        let (first, last) = (&native.first, native.last.as_ref());
        let heading = format!(
            "Buffers, class loaders and stacks of {name}, from its memory at {}",
            units::seconds(last.unwrap_or(first).at)
        );
        layout.prose(text, layout.strong, 0, &heading);
        for line in lines(report, native) {
            layout.prose(text, PLAIN, 2, &line);
        }
        for problem in problems(last.unwrap_or(first)) {
            layout.prose(text, layout.warning, 2, &problem);
        }
        if last.is_none() {
            let line = "Its process had ended before the run did: nothing is known of the end.";
            layout.prose(text, layout.warning, 2, line);
        }
    }
}

fn lines(report: &Report, native: &JavaNative) -> Vec<String> {
    let (first, last) = match &native.last {
        Some(last) => (Some(&native.first), last),
        None => (None, &native.first),
    };
    let mut lines = Vec::new();
    if let Some(buffers) = &last.buffers {
        let before = first.and_then(|first| first.buffers);
        lines.push(direct(report, native.process, before, buffers));
        let mapped = before.map(|before| before.mapped);
        if buffers.mapped.count > 0 || mapped.is_some_and(|mapped| mapped.count > 0) {
            lines.push(format!("Mapped buffers: {}", pool(mapped, buffers.mapped)));
        }
    }
    if let Some(loaders) = &last.class_loaders {
        let before = first.and_then(|first| first.class_loaders.as_ref());
        lines.push(class_loaders(native, before, loaders));
        lines.extend(native.grown_loaders.iter().filter_map(held));
    }
    if let Some(stacks) = &last.stacks {
        let all = |stacks: ThreadStacks| [stacks.java, stacks.vm, stacks.other];
        let before = first.and_then(|first| first.stacks).map(all);
        let rows = KINDS.into_iter().zip(all(*stacks)).enumerate();
        let rows = rows.filter(|(_, (_, memory))| memory.threads > 0);
        lines.extend(rows.map(|(index, (kind, after))| {
            let before = before.and_then(|before| before.get(index).copied());
            stack(kind, before, after)
        }));
        if stacks.unknown > 0 {
            lines.push(format!(
                "Stacks of {} were not found",
                units::counted(stacks.unknown, "thread")
            ));
        }
    }
    if let Some(first) = first.filter(|_| !lines.is_empty()) {
        lines.push(format!(
            "Changes are those since {}",
            units::seconds(first.at)
        ));
    }
    lines
}

/// Direct buffers, and beside them what we traced of them.
fn direct(report: &Report, process: usize, before: Option<Buffers>, after: &Buffers) -> String {
    let before = before.map(|before| before.direct);
    let mut line = format!("Direct buffers: {}", pool(before, after.direct));
    if let Some(limit) = after.direct.limit.filter(|limit| *limit > 0) {
        line.push_str(&format!(", at most {}", units::bytes(limit)));
    }
    if report.settings.growth {
        // Nobody has looked at blocks.
        return line;
    }
    let sites = report.sites.iter().filter(|site| {
        site.process == process && site.kind == MemoryKind::Heap && is_direct(&site.frames)
    });
    let (bytes, count) = sites.fold((0_u64, 0_u64), |(bytes, count), site| {
        (
            bytes.saturating_add(site.live_bytes),
            count.saturating_add(site.live_count),
        )
    });
    line.push_str(&format!(
        "; by ours {} in {} of the run is live",
        units::bytes(bytes),
        units::counted(count, "block")
    ));
    line
}

/// Whether a path takes the memory of a direct buffer.
fn is_direct(frames: &[Frame]) -> bool {
    let name = |frame: &Frame| frame.function.as_deref().unwrap_or_default().to_owned();
    let [buffer, memory] = DIRECT;
    let mut pairs = frames.iter().zip(frames.iter().skip(1));
    pairs.any(|(outer, inner)| name(outer) == buffer && name(inner).ends_with(memory))
}

/// `Class loaders: 912 (+900); class loaders of shop.Plugins: 905 (+900)`
fn class_loaders(
    native: &JavaNative,
    before: Option<&ClassLoaders>,
    after: &ClassLoaders,
) -> String {
    let before = before.map(|it| it.count);
    let changed = changed(before, after.count, units::grouped_change);
    let all = format!("Class loaders: {}{changed}", units::grouped(after.count));
    let grown = native.grown_loaders.iter().take(MAX_GROWN);
    let rows = grown.map(|it| names::clean(&class_loading::change(it)).into_owned());
    iter::once(all).chain(rows).collect::<Vec<_>>().join("; ")
}

/// `shop.Plugins: held by …`
fn held(grown: &GrownLoaders) -> Option<String> {
    let holders = grown.holders.as_ref()?;
    let class = names::clean(&grown.class);
    Some(format!("{class}: {}", held_by::sentence(holders)))
}

/// `8 (+7) of 684 KiB (+684 KiB)`
fn pool(before: Option<BufferPool>, after: BufferPool) -> String {
    let count = |pool: &BufferPool| pool.count;
    let used = |pool: &BufferPool| pool.used;
    format!(
        "{}{} of {}{}",
        units::grouped(after.count),
        changed(
            before.as_ref().map(count),
            after.count,
            units::grouped_change
        ),
        units::bytes(after.used),
        changed(before.as_ref().map(used), after.used, units::bytes_change)
    )
}

/// `Stacks of 21 Java threads (+1): 21.0 MiB (+1.00 MiB) reserved, 1.2 MiB (…) resident`
fn stack(kind: [&str; 2], before: Option<StackMemory>, after: StackMemory) -> String {
    let was = |value: fn(StackMemory) -> u64| before.map(value);
    let kind = kind[usize::from(after.threads != 1)];
    format!(
        "Stacks of {} {kind}{}: {}{} reserved, {}{} resident",
        units::grouped(after.threads),
        changed(
            was(|memory| memory.threads),
            after.threads,
            units::grouped_change
        ),
        units::bytes(after.reserved),
        changed(
            was(|memory| memory.reserved),
            after.reserved,
            units::bytes_change
        ),
        units::bytes(after.resident),
        changed(
            was(|memory| memory.resident),
            after.resident,
            units::bytes_change
        ),
    )
}

/// A change in brackets, if what was before is known.
fn changed(before: Option<u64>, after: u64, write: fn(u64, u64) -> String) -> String {
    before.map_or_else(String::new, |before| format!(" ({})", write(before, after)))
}

fn problems(view: &NativeView) -> Vec<String> {
    let say = |what: &str, problem: &Option<String>| {
        let problem = problem.as_deref()?;
        Some(format!("{what} are not known: {}", names::clean(problem)))
    };
    let problems = [
        say("Its buffers", &view.buffers_problem),
        say("Its class loaders", &view.class_loaders_problem),
        say("Its stacks", &view.stacks_problem),
    ];
    problems.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;
    use crate::report::sample;

    fn view(at: f64, count: u64) -> NativeView {
        let direct = BufferPool {
            count,
            capacity: 1009 * count,
            used: 1024 * count,
            limit: Some(64 << 20),
        };
        let java = StackMemory {
            threads: count,
            reserved: count << 20,
            resident: count << 12,
        };
        NativeView {
            at,
            buffers: Some(Buffers {
                direct,
                mapped: BufferPool::default(),
            }),
            stacks: Some(ThreadStacks {
                java,
                ..ThreadStacks::default()
            }),
            ..NativeView::default()
        }
    }

    fn text(first: NativeView, last: Option<NativeView>) -> String {
        let java = |name: &str| sample::java(name, "", 0, Origin::default());
        let buffer = java(DIRECT[0]);
        let taken = vec![buffer.clone(), java("sun.misc.Unsafe.allocateMemory")];
        let loaded = vec![buffer, java("java.lang.ClassLoader.loadClass")];
        let mut report = sample::report();
        report.sites = vec![
            sample::site(1, (2048, 2), (0, 0), taken),
            sample::site(2, (17, 1), (0, 0), loaded),
        ];
        report.java_native = vec![JavaNative {
            process: 0,
            first,
            last,
            grown_loaders: vec![],
        }];
        let mut text = String::new();
        render(&mut text, &report, &Layout::new(10, Some(100), false));
        text
    }

    #[test]
    fn changes_and_our_own_blocks_stand_beside() {
        let expected = "
Buffers, class loaders and stacks of leaky (1234), from its memory at 3.0 s
  Direct buffers: 3 (+2) of 3.00 KiB (+2.00 KiB), at most 64.0 MiB; by ours 2.00 KiB in 2 blocks of
  the run is live
  Stacks of 3 Java threads (+2): 3.00 MiB (+2.00 MiB) reserved, 12.0 KiB (+8.00 KiB) resident
  Changes are those since 0 s
";
        assert_eq!(text(view(0.0, 1), Some(view(3.0, 3))), expected);
    }

    #[test]
    fn of_pages_nothing_is_said_of_blocks() {
        let mut report = sample::report();
        let after = view(3.0, 3).buffers.unwrap();
        assert!(direct(&report, 0, None, &after).contains("by ours"));
        report.settings.growth = true;
        let line = direct(&report, 0, None, &after);
        assert!(line.ends_with("at most 64.0 MiB"), "{line}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let unknown = NativeView {
            buffers_problem: Some("moved\x1b".into()),
            ..NativeView::default()
        };
        let found = text(unknown.clone(), Some(unknown));
        assert!(
            found.contains("Its buffers are not known: moved"),
            "{found}"
        );
        assert!(
            !found.contains('\x1b') && !found.contains("Direct"),
            "{found}"
        );
        let ended = text(view(0.0, 1), None);
        assert!(
            ended.contains("Stacks of 1 Java thread: 1.00 MiB"),
            "{ended}"
        );
        assert!(ended.contains("had ended before"), "{ended}");
    }
}
