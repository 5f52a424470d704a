//! A report whose names are grouped.

use super::merge::{add_path, one_for_each_name};
use super::moved::one_after_another;
use super::{Groups, Rules};
use crate::model::{Frame, Report, Site};

/// Gives generated functions of a report their names, and adds up call paths that are the
/// same then. Sites keep their numbers and their order; those that went into another are
/// gone.
pub fn group_report(report: &mut Report, rules: &Rules) {
    let mut groups = Groups::new(rules);
    groups.learn(frames(report));
    frames_mut(report).for_each(|frame| groups.apply(frame));
    report.shortened.names += groups.cut();
    let growth = report.growth.iter_mut().map(|it| &mut it.sites);
    for sites in std::iter::once(&mut report.sites).chain(growth) {
        *sites = one_after_another(one_for_each_name(std::mem::take(sites)));
    }
    let heaps = &mut report.java_heap;
    for class in heaps.iter_mut().flat_map(|heap| &mut heap.classes) {
        for path in std::mem::take(&mut class.allocated) {
            add_path(&mut class.allocated, path);
        }
        class
            .allocated
            .sort_by_key(|path| std::cmp::Reverse(path.bytes));
    }
}

/// The same of a report that was saved, perhaps by a version that did not group, or before
/// somebody asked for it.
pub fn group_saved(report: &mut Report, rules: &Rules) {
    let sites = report.sites.len();
    group_report(report, rules);
    if report.sites.len() < sites {
        report.sites.sort_by_key(Site::order);
    }
}

fn frames(report: &Report) -> impl Iterator<Item = &Frame> {
    let growth = report.growth.iter().flat_map(|it| &it.sites);
    let sites = report.sites.iter().chain(growth);
    let sites = sites.flat_map(|site| &site.frames);
    let classes = report.java_heap.iter().flat_map(|heap| &heap.classes);
    let paths = classes.flat_map(|class| &class.allocated);
    sites.chain(paths.flat_map(|path| &path.frames))
}

/// All frames, of sites and of growing Java classes.
pub fn frames_mut(report: &mut Report) -> impl Iterator<Item = &mut Frame> {
    let growth = report.growth.iter_mut().flat_map(|it| &mut it.sites);
    let sites = report.sites.iter_mut().chain(growth);
    let sites = sites.flat_map(|site| &mut site.frames);
    let classes = report
        .java_heap
        .iter_mut()
        .flat_map(|heap| &mut heap.classes);
    let paths = classes.flat_map(|class| &mut class.allocated);
    sites.chain(paths.flat_map(|path| &mut path.frames))
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::model::Origin;
    use crate::report::sample;

    /// A script of many: it holds a block at one of its lines.
    fn script(number: u64, line: u32) -> Site {
        let class = format!("Script{number}");
        let file = format!("{class}.groovy");
        let run = sample::java(&format!("{class}.run"), &file, line, Origin::Interpreted);
        let pack = sample::java("Host.pack", "Host.java", 12, Origin::C2);
        sample::site(number, (1_009, 1), (0, 0), vec![run, pack])
    }

    fn report(sites: Vec<Site>) -> Report {
        Report {
            sites,
            ..sample::report()
        }
    }

    fn rules(asked: &[&str]) -> Rules {
        let asked: Vec<_> = asked.iter().map(|rule| rule.parse().unwrap()).collect();
        Rules::new(&asked).unwrap()
    }

    #[test]
    fn scripts_are_one_row_for_each_line() {
        let scripts = |line| (0..700).map(move |number| script(number, line));
        let mut grouped = report(scripts(9).chain(scripts(10)).collect());
        group_saved(&mut grouped, &rules(&[]));
        let [leak, twin] = &grouped.sites[..] else {
            panic!("{} sites", grouped.sites.len());
        };
        assert_eq!((leak.live_count, leak.live_bytes), (700, 700 * 1_009));
        assert_eq!(
            (leak.frames[2].line, twin.frames[2].line),
            (Some(9), Some(10))
        );
        let run = &leak.frames[2];
        assert_eq!(run.function.as_deref(), Some("Script*.run"));
        assert_eq!(run.file.as_deref(), Some("Script*.groovy"));
        let originals = run.originals.as_ref().unwrap();
        assert_eq!((originals.count, originals.lower_bound), (700, false));
        assert_eq!(
            originals.names,
            ["Script0.run", "Script1.run", "Script2.run"]
        );
        assert!(
            leak.frames[3].originals.is_none(),
            "Host.pack is nobody else"
        );
        // Once more changes nothing.
        let once = grouped.clone();
        group_saved(&mut grouped, &rules(&[]));
        assert_eq!(grouped, once);
    }

    #[test]
    fn a_few_classes_with_numbers_are_a_row_each_unless_asked() {
        let few = || report((0..9).map(|number| script(number, 9)).collect());
        let mut plain = few();
        group_saved(&mut plain, &rules(&[]));
        assert_eq!(plain, few());
        for asked in ["Script[0-9]+=Script", r"^Script\d+\.run$=a script"] {
            let mut grouped = few();
            group_saved(&mut grouped, &rules(&[asked]));
            assert_eq!(grouped.sites.len(), 1, "{asked}");
        }
    }

    #[test]
    fn what_was_grouped_is_grouped_again_as_somebody_asks() {
        let mut grouped = report((0..20).map(|number| script(number, 9)).collect());
        group_saved(&mut grouped, &rules(&[]));
        let mut other = script(0, 9);
        other.frames[2].function = Some("Rules.run".into());
        grouped.sites.push(other);
        group_saved(&mut grouped, &rules(&[r"^(Script\*|Rules)=texts"]));
        let [site] = &grouped.sites[..] else {
            panic!("{} sites", grouped.sites.len());
        };
        let originals = site.frames[2].originals.as_ref().unwrap();
        assert_eq!(site.live_count, 21);
        assert_eq!((originals.count, originals.lower_bound), (20, true));
    }

    /// Of this thread, seconds.
    fn processor_time() -> f64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// 100,000 paths of 60 frames, through 1,000 generated classes or through functions
    /// that nobody generated: prints how long it takes.
    #[test]
    fn a_hundred_thousand_paths_take_little_time() {
        const PATHS: usize = 100_000;
        let frame = |name: String| Frame {
            function: Some(name.into()),
            origin: Origin::C2,
            ..Frame::default()
        };
        let method = |number| frame(format!("com.acme.service.Layer.method{number}"));
        let script = |number| frame(format!("com.acme.Script{number:06}.run"));
        let methods: Vec<Frame> = (0..2_000).map(method).collect();
        let scripts: Vec<Frame> = (0..1_000).map(script).collect();
        let mut sites = Vec::new();
        for number in 0..PATHS {
            let mut site = sample::site(1, (1, 1), (0, 0), Vec::new());
            // 50 paths, each through every script and at 2 places.
            let path = number % 100;
            site.frames = (0..60)
                .map(|at| methods[(path * 31 + at * 7) % 2_000].clone())
                .collect();
            site.frames[20 + path % 2] = scripts[number / 100].clone();
            sites.push(site);
        }
        let mut report = report(sites);
        let rules = rules(&["Handler[0-9]+=Handler"]);
        let start = processor_time();
        group_report(&mut report, &rules);
        let time = processor_time() - start;
        println!("{PATHS} paths of 60 frames took {time:.2} s of processor time");
        assert_eq!(report.sites.len(), 100);
        assert!(report.sites.iter().all(|site| site.live_count == 1_000));
        // A second and less is usual; what is not linear takes minutes.
        assert!(time < 10.0, "{time} s");
    }
}
