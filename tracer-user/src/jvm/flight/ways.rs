//! The ways that a flight recording tells, in the words of those that are read from outside.

use super::reader::{GcRoot, Place, Sample, Samples, Step};
use crate::jvm::holders::{GLOBAL, cut, link, merge, push};
use crate::jvm::klass::class_name;
use crate::model::{Holders, Link, LinkKind};

/// What the VM says of objects of these kinds begins so.
const THREAD: &str = "Thread Name: ";
const CLASS: &str = "Class Name: ";
/// The field by which references hold weakly or softly.
const REFERENT: &str = "referent";

/// Said of objects to which the JVM found no way.
const NO_WAY: &str = "the JVM itself found no way to it from a root: weak, soft and phantom references hold nothing, and \
     an object that is garbage already has no holder";

/// Said where it tells of no object at all.
const NOTHING: &str = "the JVM sampled no object that lived through a collection: there was none, or its collector does not \
     tell its recorder (Shenandoah from JDK 21 on)";

/// Who holds the objects of a class, by the samples of all classes.
pub fn holders(class: &str, samples: &Samples) -> Holders {
    let of_class = |sample: &&Sample| name(&sample.class) == class;
    let sampled: Vec<_> = samples.asked.iter().filter(of_class).collect();
    let ways = sampled
        .iter()
        .filter_map(|it| way(it, samples.follows_weak));
    let ways: Vec<_> = ways.map(cut).collect();
    let undecided = (sampled.len() - ways.len()) as u64;
    let mut unsearched = Vec::new();
    if samples.all == 0 {
        unsearched.push(NOTHING.to_owned());
    } else if sampled.is_empty() {
        unsearched.push(format!(
            "none of the {} objects that the JVM sampled, and that lived through a collection, is of this \
             class",
            samples.all
        ));
    } else if undecided > 0 {
        unsearched.push(NO_WAY.to_owned());
    }
    Holders {
        sampled: sampled.len() as u64,
        undecided,
        chains: merge(ways),
        unsearched,
        recorded: true,
        ..Holders::default()
    }
}

/// A class's name as histograms have it.
pub fn name(class: &str) -> String {
    class_name(class).unwrap_or_else(|| class.to_owned())
}

/// The way to an object, root first; none if nothing strong leads to it.
fn way(sample: &Sample, follows_weak: bool) -> Option<Vec<Link>> {
    // From the object on: it is turned around in the end.
    let mut back = Vec::new();
    let mut root = None;
    for step in &sample.chain {
        if follows_weak && is_field(step, REFERENT) {
            return None;
        }
        if let Some(class) = said(step, CLASS).filter(|_| &*step.class == "java/lang/Class") {
            root = Some(of_class(class, step, &mut back));
            break;
        }
        let mut held = held_by(step);
        // Where objects of a list are left out it goes on by the same field.
        if step.place == Place::Unknown
            && let Some(last) = back.last().filter(|last: &&Link| {
                last.name
                    .rsplit_once('.')
                    .is_some_and(|(class, _)| class == held.name)
            })
        {
            held.name.clone_from(&last.name);
        }
        back.push(held);
    }
    let root = match (root, &sample.root) {
        (Some(root), _) => root,
        (None, root) => of_root(root.as_ref()?, sample.chain.last()),
    };
    let mut links = vec![root];
    for link in back.into_iter().rev() {
        push(&mut links, link);
    }
    Some(links)
}

/// A class's static field; a field of the class's own otherwise, which is one link more.
fn of_class(class: &str, step: &Step, back: &mut Vec<Link>) -> Link {
    let name = match &step.place {
        Place::Field {
            name,
            is_static: true,
        } => format!("{class}.{name}"),
        _ => {
            back.push(held_by(step));
            format!("{class}.class")
        }
    };
    link(LinkKind::JavaStatic, name)
}

fn held_by(step: &Step) -> Link {
    let class = name(&step.class);
    let name = match &step.place {
        Place::Field { name, .. } => format!("{class}.{name}"),
        Place::Element | Place::Unknown => class,
    };
    let mut link = link(LinkKind::JavaObject, name);
    link.repeated = link.repeated.saturating_add(step.left_out);
    link
}

fn is_field(step: &Step, wanted: &str) -> bool {
    matches!(&step.place, Place::Field { name, .. } if &**name == wanted)
}

fn said<'a>(step: &'a Step, what: &str) -> Option<&'a str> {
    step.description.as_deref()?.strip_prefix(what)
}

/// What holds the last object of a chain. A thread is a root of its own, whichever way the VM has it.
fn of_root(root: &GcRoot, last: Option<&Step>) -> Link {
    if let Some(thread) = last.and_then(|step| said(step, THREAD)) {
        return link(LinkKind::JavaThread, thread.to_owned());
    }
    let thread = root.description.as_deref();
    let thread = thread.and_then(|it| it.strip_prefix(THREAD));
    match (root.system.as_str(), root.kind.as_str(), thread) {
        (_, "Stack Variable", Some(thread)) => link(LinkKind::Stack, thread.to_owned()),
        (_, "Local JNI Handle", Some(thread)) => link(
            LinkKind::JniHandle,
            format!("JNI local handle of thread \"{thread}\""),
        ),
        (_, "Handle Area", Some(thread)) => link(
            LinkKind::JniHandle,
            format!("the JVM's own handle in thread \"{thread}\""),
        ),
        ("JNI Global", ..) | (_, "Global JNI Handle", _) => {
            link(LinkKind::JniHandle, GLOBAL.to_owned())
        }
        ("Class Loader Data" | "System Dictionary", ..) if last.is_some() => {
            let class = last.map(|step| name(&step.class)).unwrap_or_default();
            link(LinkKind::ClassLoader, class)
        }
        (system, kind, _) => {
            let known = [system, kind].into_iter().filter(|it| !it.is_empty());
            let known: Vec<_> = known.filter(|it| *it != "<unknown>").collect();
            link(
                LinkKind::JniHandle,
                format!("the JVM's own roots ({})", known.join(", ")),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(class: &str, field: Option<&str>, description: Option<&str>) -> Step {
        let place = |name: &str| Place::Field {
            name: name.trim_start_matches("static ").into(),
            is_static: name.starts_with("static "),
        };
        Step {
            class: class.into(),
            description: description.map(Into::into),
            place: field.map_or(Place::Element, place),
            left_out: 0,
        }
    }

    fn root(system: &str, kind: &str, thread: Option<&str>) -> Option<GcRoot> {
        Some(GcRoot {
            system: system.to_owned(),
            kind: kind.to_owned(),
            description: thread.map(|it| format!("{THREAD}{it}")),
        })
    }

    fn told(chain: Vec<Step>, root: Option<GcRoot>, follows_weak: bool) -> Option<String> {
        let sample = Sample {
            class: "a/B".into(),
            chain,
            root,
        };
        let links = way(&sample, follows_weak)?;
        let links = links
            .iter()
            .map(|it| format!("{:?} {}*{}", it.kind, it.name, it.repeated));
        Some(links.collect::<Vec<_>>().join(" -> "))
    }

    #[test]
    fn a_static_field_is_the_root_whoever_has_its_class() {
        let chain = vec![
            step("[La/B;", None, None),
            step("java/util/ArrayList", Some("elementData"), Some("Size: 9")),
            step(
                "java/lang/Class",
                Some("static all"),
                Some("Class Name: a.C"),
            ),
            step("[Ljava/lang/Object;", None, None),
        ];
        let stack = root("Threads", "Stack Variable", Some("main"));
        assert_eq!(
            told(chain, stack.clone(), false).as_deref(),
            Some(
                "JavaStatic a.C.all*1 -> JavaObject java.util.ArrayList.elementData*1 -> \
                 JavaObject a.B[]*1"
            )
        );
        let own = vec![step(
            "java/lang/Class",
            Some("data"),
            Some("Class Name: a.C"),
        )];
        assert_eq!(
            told(own, stack.clone(), false).as_deref(),
            Some("JavaStatic a.C.class*1 -> JavaObject java.lang.Class.data*1")
        );
        assert_eq!(told(vec![], stack, false).as_deref(), Some("Stack main*1"));
        assert_eq!(told(vec![], None, false), None);
    }

    #[test]
    fn a_thread_is_a_root_and_what_is_left_out_of_a_list_is_counted() {
        let mut left_out = step("a/S", None, None);
        (left_out.place, left_out.left_out) = (Place::Unknown, 40);
        let chain = vec![
            step("a/S", Some("next"), None),
            left_out,
            step("a/S", Some("next"), None),
            step(
                "java/lang/Thread",
                Some("threadLocals"),
                Some("Thread Name: p-3"),
            ),
        ];
        assert_eq!(
            told(
                chain,
                root("Thread OopStorage", "Global Object Handle", None),
                false
            )
            .as_deref(),
            Some(
                "JavaThread p-3*1 -> JavaObject java.lang.Thread.threadLocals*1 -> \
                 JavaObject a.S.next*43"
            )
        );
    }

    #[test]
    fn what_a_reference_refers_to_is_not_held_by_it() {
        let chain = || vec![step("java/lang/ref/SoftReference", Some(REFERENT), None)];
        let stack = || root("Threads", "Stack Variable", Some("main"));
        assert_eq!(told(chain(), stack(), true), None);
        // Later JVMs do not follow these: it is a field of the program's.
        assert!(told(chain(), stack(), false).is_some());
    }

    #[test]
    fn each_kind_of_root_has_a_name() {
        let named = |root: Option<GcRoot>, class: &str| {
            told(vec![step(class, Some("f"), None)], root, false).unwrap_or_default()
        };
        for (root, expected) in [
            (
                root("Threads", "Local JNI Handle", Some("w")),
                "JniHandle JNI local handle of thread \"w\"*1",
            ),
            (
                root("JNI Global", "Global Object Handle", None),
                "JniHandle JNI global handle*1",
            ),
            (
                root("Threads", "Handle Area", Some("w")),
                "JniHandle the JVM's own handle in thread \"w\"*1",
            ),
            (
                root("System Dictionary", "<unknown>", None),
                "ClassLoader a.L*1",
            ),
            (
                root("VM Global", "Global Object Handle", None),
                "JniHandle the JVM's own roots (VM Global, Global Object Handle)*1",
            ),
        ] {
            let text = named(root, "a/L");
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn a_class_without_samples_says_how_many_there_are_of_others() {
        let samples = Samples {
            all: 250,
            ..Samples::default()
        };
        let none = holders("a.B", &Samples::default());
        assert_eq!(none.unsearched, [NOTHING]);
        let found = holders("a.B", &samples);
        assert!(found.recorded && found.sampled == 0);
        assert_eq!(
            found.unsearched,
            [
                "none of the 250 objects that the JVM sampled, and that lived through a collection, \
                 is of this class"
            ]
        );
    }
}
