//! Memory of the JVM's for classes: it stays as long as who has loaded them. So not who holds the
//! memory tells why it grows, but who holds the class loaders.

use crate::model::java_native::{GrownLoaders, LoaderKind};
use crate::model::{Finding, Frame, Holders, Report, Site};
use crate::report::units;

/// Functions that only memory for classes is allocated by: of the JVM's own, by the beginnings of
/// their names, and those by which Java code has a class defined.
const FUNCTIONS: [&str; 14] = [
    "ClassFileParser::",
    "ClassLoaderData",
    "ClassLoaderMetaspace",
    "JVM_DefineClass",
    "JVM_LookupDefineClass",
    "KlassFactory::",
    "Metaspace",
    "SystemDictionary::",
    "java.lang.ClassLoader.defineClass",
    "java.lang.invoke.MethodHandles$Lookup.define",
    "jdk.internal.misc.Unsafe.defineClass",
    "metaspace::",
    "sun.misc.Unsafe.defineAnonymousClass",
    "sun.misc.Unsafe.defineClass",
];

/// Any program has a few more, of its start-up.
pub const MANY: u64 = 4;

/// Whether a call path allocates memory for classes.
fn is_for_classes(frames: &[Frame]) -> bool {
    let mut names = frames.iter().filter_map(|it| it.function.as_deref());
    names.any(|name| FUNCTIONS.iter().any(|known| name.starts_with(known)))
}

/// The class loaders that grew in the process whose memory for classes a finding is about; none if
/// it is about other memory.
fn grown<'a>(report: &'a Report, finding: &Finding) -> &'a [GrownLoaders] {
    let sites = report.sites.iter();
    let sites: Vec<&Site> = sites.filter(|it| finding.sites.contains(&it.id)).collect();
    let live = |site: &&Site| site.live_bytes;
    let for_classes = sites.iter().filter(|it| is_for_classes(&it.frames));
    let bytes: u64 = for_classes.copied().map(|it| live(&it)).sum();
    if bytes == 0 || bytes <= sites.iter().map(live).sum::<u64>() / 2 {
        return &[];
    }
    let process = sites.first().map(|site| site.process);
    let mut machines = report.java_native.iter();
    let machine = machines.find(|it| Some(it.process) == process);
    machine.map_or(&[], |it| &it.grown_loaders)
}

/// Enters into a finding about memory for classes which class loaders grew, and who holds these.
pub fn enter(report: &Report, finding: &mut Finding) {
    // What no pointer leads to is not the class loaders'.
    let native = finding.holders.as_ref();
    if native.is_some_and(|it| 2 * it.lost > it.sampled) {
        return;
    }
    let grown = grown(report, finding);
    let many = |it: &&GrownLoaders| it.after.saturating_sub(it.before) >= MANY;
    let Some(most) = grown.first().filter(many) else {
        return;
    };
    finding.evidence.insert(0, change(most));
    let mut held = Holders::default();
    for holders in grown.iter().filter_map(|it| it.holders.clone()) {
        held.add(holders);
    }
    if held.sampled > 0 {
        finding.holders = Some(held);
    } else if finding.advice.is_empty() {
        finding.advice = "--holders tells who holds the class loaders".to_owned();
    }
}

/// `class loaders of shop.Plugins: 912 (+900)`
pub fn change(grown: &GrownLoaders) -> String {
    let what = match grown.kind {
        LoaderKind::ClassLoader => "class loaders of",
        LoaderKind::HiddenClass => "hidden classes",
    };
    format!(
        "{what} {}: {} ({})",
        grown.class,
        units::grouped(grown.after),
        units::grouped_change(grown.before, grown.after)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::java_native::{JavaNative, NativeView};
    use crate::model::{Chain, FindingKind, Link, LinkKind, Origin};
    use crate::report::sample;

    fn report(frames: [&str; 2]) -> (Report, Finding) {
        let mut report = sample::report();
        let frames = frames.map(|name| sample::java(name, "", 0, Origin::default()));
        report.sites = vec![sample::site(7, (4096, 2), (0, 0), frames.to_vec())];
        let link = |kind, name: &str| Link {
            kind,
            name: name.to_owned(),
            repeated: 1,
            site: None,
        };
        let links = vec![
            link(LinkKind::JavaStatic, "shop.Plugins.all"),
            link(LinkKind::ClassLoader, "shop.Loader"),
        ];
        report.java_native = vec![JavaNative {
            process: report.sites[0].process,
            first: NativeView::default(),
            last: Some(NativeView::default()),
            grown_loaders: vec![GrownLoaders {
                kind: LoaderKind::ClassLoader,
                class: "shop.Loader".to_owned(),
                before: 12,
                after: 912,
                holders: Some(Holders {
                    sampled: 64,
                    chains: vec![Chain { links, blocks: 64 }],
                    ..Holders::default()
                }),
            }],
        }];
        let finding = Finding {
            sites: vec![7],
            ..Finding::new(FindingKind::Growing, 0, 0.5)
        };
        (report, finding)
    }

    #[test]
    fn memory_for_classes_is_held_by_who_holds_class_loaders() {
        let (report, mut finding) =
            report(["shop.Plugins.load", "java.lang.ClassLoader.defineClass1"]);
        enter(&report, &mut finding);
        assert_eq!(
            finding.evidence,
            ["class loaders of shop.Loader: 912 (+900)"]
        );
        let held = finding.holders.unwrap();
        assert_eq!(held.chains[0].links[0].name, "shop.Plugins.all");
    }

    #[test]
    fn what_nothing_leads_to_is_lost_whoever_loads_classes() {
        let (report, mut finding) =
            report(["shop.Plugins.load", "java.lang.ClassLoader.defineClass1"]);
        finding.holders = Some(Holders {
            sampled: 64,
            lost: 60,
            ..Holders::default()
        });
        enter(&report, &mut finding);
        assert_eq!(finding.holders.map(|it| it.lost), Some(60));
        assert!(finding.evidence.is_empty());
    }

    #[test]
    fn other_memory_is_not() {
        let (report, mut finding) = report(["shop.Plugins.load", "java.util.zip.Inflater.init"]);
        enter(&report, &mut finding);
        assert!(finding.holders.is_none() && finding.evidence.is_empty());
    }
}
