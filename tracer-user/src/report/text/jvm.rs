//! What Java virtual machines told of themselves: a few lines for each.

use super::layout::{Layout, PLAIN};
use crate::model::jvm::{ClassGroup, Collections, Jvm, MemoryPool};
use crate::model::{Process, Report};
use crate::report::{names, units};

/// Classes, threads and the like that are named in a line.
const NAMED: usize = 5;

/// Adds a heading and lines for each virtual machine; nothing without one.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    for jvm in &report.jvm {
        text.push('\n');
        let process = report.processes.get(jvm.process);
        let name = process.map_or_else(String::new, names::process);
        layout.prose(text, layout.strong, 0, &format!("JVM of {name}"));
        if jvm.problem.is_none() {
            layout.items(text, PLAIN, 2, &counts(jvm));
            for line in lines(jvm, process) {
                layout.prose(text, PLAIN, 2, &line);
            }
        }
        if let Some(problem) = problem(jvm) {
            layout.prose(text, layout.warning, 2, &problem);
        }
        if let Some(problem) = &jvm.perf_map_problem {
            let line = format!("It gave no perf map: {}", names::clean(problem));
            layout.prose(text, layout.warning, 2, &line);
        }
    }
}

/// What came and went.
fn counts(jvm: &Jvm) -> Vec<String> {
    vec![
        collections(&jvm.collections),
        classes(jvm),
        threads(jvm),
        format!(
            "Compiled methods: {}, {} thrown away",
            units::grouped(jvm.compiled.loaded),
            units::grouped(jvm.compiled.unloaded)
        ),
    ]
}

fn lines(jvm: &Jvm, process: Option<&Process>) -> Vec<String> {
    let old = jvm.pools.iter().filter(|pool| pool.old);
    let mut lines: Vec<String> = old.filter_map(old_generation).collect();
    lines.extend(failures(jvm));
    let late = process.map_or(0.0, |process| jvm.began - process.began);
    if late > 0.001 {
        lines.push(format!(
            "Counted from {} on, when its library had been found",
            units::seconds(jvm.began)
        ));
    }
    lines
}

fn collections(all: &Collections) -> String {
    let mut line = format!("Collections: {}", units::grouped(all.count));
    if all.full > 0 {
        line.push_str(&format!(" ({} full)", units::grouped(all.full)));
    }
    let each = all
        .collectors
        .iter()
        .filter(|collector| collector.count > 0)
        .map(|one| format!("{} {}", names::clean(&one.name), units::grouped(one.count)));
    list(&mut line, ": ", each);
    line
}

/// A pool's floor over the run, if there were enough collections.
fn old_generation(pool: &MemoryPool) -> Option<String> {
    let (first, last) = (pool.first_floor?, pool.last_floor?);
    let now = pool.points.last()?;
    let mut line = format!(
        "{}: floor from {} to {} ({}) between the first and the last third of the run; {} in use",
        names::clean(&pool.name),
        units::bytes(first),
        units::bytes(last),
        units::bytes_change(first, last),
        units::bytes(now.used)
    );
    if let Some(max) = now.max {
        line.push_str(&format!(" of at most {}", units::bytes(max)));
    }
    Some(line)
}

fn classes(jvm: &Jvm) -> String {
    let all = &jvm.classes;
    let mut line = format!(
        "Classes: {} loaded, {} unloaded, by {}",
        units::grouped(all.loaded),
        units::grouped(all.unloaded),
        units::counted(all.loader_count, "class loader"),
    );
    let grows = |group: &&ClassGroup| group.loaded > group.unloaded + 1;
    let grown = all.groups.iter().filter(grows).map(|group| {
        let change = units::grouped_change(group.unloaded, group.loaded);
        format!("{} {change}", names::clean(&group.name))
    });
    list(&mut line, "; most growth: ", grown);
    line
}

fn failures(jvm: &Jvm) -> Option<String> {
    if jvm.classes.failed == 0 {
        return None;
    }
    let times = units::counted(jvm.classes.failed, "time");
    let mut line = format!("Class initialisation failed {times}");
    let each = jvm.classes.failures.iter();
    let each =
        each.map(|one| format!("{} {}", names::clean(&one.class), units::grouped(one.count)));
    list(&mut line, ": ", each);
    Some(line)
}

fn threads(jvm: &Jvm) -> String {
    let all = &jvm.threads;
    let mut line = format!(
        "Threads: {} started, {} stopped; {} of those started are live",
        units::grouped(all.started),
        units::grouped(all.stopped),
        units::grouped(all.live)
    );
    let names = all
        .oldest
        .iter()
        .map(|thread| names::clean(&thread.name).into_owned());
    list(&mut line, ", oldest first: ", names);
    line
}

fn problem(jvm: &Jvm) -> Option<String> {
    if let Some(problem) = &jvm.problem {
        return Some(format!(
            "Its own probes are not watched: {}",
            names::clean(problem)
        ));
    }
    if !jvm.missing_probes.is_empty() {
        let missing = jvm.missing_probes.join(", ");
        return Some(format!("It was built without {}", names::clean(&missing)));
    }
    (jvm.unreadable > 0).then(|| {
        let hits = units::counted(jvm.unreadable, "hit");
        format!("The arguments of {hits} could not be read: numbers are lower bounds")
    })
}

/// Adds the first items after an introduction, or nothing.
fn list(line: &mut String, introduction: &str, items: impl Iterator<Item = String>) {
    let mut separator = introduction;
    for (index, item) in items.enumerate() {
        if index == NAMED {
            line.push_str(", …");
            return;
        }
        line.push_str(separator);
        line.push_str(&item);
        separator = ", ";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::jvm::{ClassFailure, Collector, PoolPoint};
    use crate::report::sample;

    fn jvm() -> Jvm {
        let mut jvm = Jvm::default();
        jvm.collections.count = 7;
        jvm.collections.full = 2;
        jvm.collections.collectors = vec![Collector {
            name: "G1 Young\nGeneration".into(),
            count: 7,
        }];
        jvm.pools = vec![MemoryPool {
            name: "G1 Old Gen".into(),
            old: true,
            first_floor: Some(1 << 20),
            last_floor: Some(3 << 20),
            points: vec![PoolPoint::default()],
        }];
        jvm.classes.failed = 3;
        jvm.classes.failures = vec![ClassFailure {
            class: "app.Broken".into(),
            count: 3,
            last: 1.0,
        }];
        jvm
    }

    fn rendered(jvms: Vec<Jvm>) -> String {
        let mut report = sample::report();
        report.jvm = jvms;
        let mut text = String::new();
        render(&mut text, &report, &Layout::new(1, Some(200), false));
        text
    }

    #[test]
    fn a_machine_has_its_lines() {
        let text = rendered(vec![jvm()]);
        for part in [
            "JVM of leaky (1234)",
            "Collections: 7 (2 full): G1 Young\u{FFFD}Generation 7",
            "G1 Old Gen: floor from 1.00 MiB to 3.00 MiB (+2.00 MiB)",
            "Class initialisation failed 3 times: app.Broken 3",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn without_a_machine_there_is_nothing() {
        assert_eq!(rendered(Vec::new()), "");
    }

    #[test]
    fn a_machine_without_probes_says_so() {
        let text = rendered(vec![Jvm {
            problem: Some("it was built without probes".into()),
            ..Jvm::default()
        }]);
        assert!(
            text.contains("not watched: it was built without probes"),
            "{text}"
        );
        assert!(!text.contains("Collections"), "{text}");
    }
}
