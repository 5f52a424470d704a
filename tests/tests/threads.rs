//! `--threads`: call paths are told apart by thread, and threads have names.

use std::process::Command;

use anyhow::{Context, Result};
use unfreed_tests::model::Site;
use unfreed_tests::pprof::Profile;
use unfreed_tests::{Outputs, Sums, Target, Tracer, View, folded, gunzip, is_drawing, targets};

/// The site of a function in the thread of this name.
fn site_of<'a>(report: &'a View, function: &'a str, name: &str) -> Result<&'a Site> {
    let is_it = |site: &&Site| {
        site.thread
            .as_ref()
            .is_some_and(|thread| thread.name == name)
    };
    let mut sites = report.sites_with(function).filter(is_it);
    let site = sites.next();
    assert!(sites.next().is_none(), "two sites:\n{}", report.table());
    site.with_context(|| {
        let threads = report.sites.iter().filter_map(|site| site.thread.as_ref());
        let threads: Vec<_> = threads.collect();
        format!("no site of {name} among {threads:?}\n{}", report.table())
    })
}

#[test]
fn a_path_of_several_threads_is_several_sites_with_their_names() -> Result<()> {
    let out = Outputs::new()?;
    let (svg, stacks, profile) = (out.text("x.svg"), out.text("x.folded"), out.text("x.pb.gz"));
    let mut target = Target::start("threads")?;
    let options = ["--threads", "-o", &svg, "-o", &stacks, "-o", &profile];
    let tracer = Tracer::record(target.pid, &options)?;
    target.command("leak_threads")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let leaks = [
        ("first-worker", 1009),
        ("second-worker", 2003),
        ("brief-worker", 3001),
    ];
    for (name, size) in leaks {
        let site = site_of(&report, "leak_in_thread", name)?;
        assert_eq!(Sums::of(site), Sums::live(size, 5), "{name}");
    }
    assert_eq!(report.sites_with("leak_in_thread").count(), leaks.len());

    let stacks = folded(&out.path("x.folded"))?;
    for (name, size) in leaks {
        let prefix = format!("[{name} tid=");
        let is_it = |(stack, bytes): &&(String, u64)| {
            stack.starts_with(&prefix) && stack.contains("leak_in_thread") && *bytes == 5 * size
        };
        assert!(stacks.iter().any(|line| is_it(&line)), "{name}: {stacks:?}");
    }
    let svg = std::fs::read_to_string(out.path("x.svg"))?;
    assert!(is_drawing(&svg) && svg.contains("[first-worker tid="));
    assert!(
        finished.stdout.contains("[first-worker tid="),
        "{}",
        finished.stdout
    );
    let strings = Profile::parse(&gunzip(&out.path("x.pb.gz"))?)?.strings;
    for text in ["thread", "thread_id", "second-worker"] {
        assert!(strings.iter().any(|string| string == text), "{text}");
    }
    Ok(())
}

#[test]
fn without_the_option_threads_share_a_site() -> Result<()> {
    let mut target = Target::start("threads")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("leak_threads")?;
    let report = tracer.stop()?.report()?;
    let sites: Vec<_> = report.sites_with("leak_in_thread").collect();
    assert_eq!(sites.len(), 1, "{}", report.table());
    assert_eq!(sites[0].live_bytes, 5 * (1009 + 2003 + 3001));
    assert!(report.sites.iter().all(|site| site.thread.is_none()));
    Ok(())
}

#[test]
fn java_threads_have_their_whole_names() -> Result<()> {
    let mut java = Command::new("java");
    java.arg("-cp").arg(targets().join("java")).arg("Threads");
    let mut target = Target::start_with(&mut java)?;
    let tracer = Tracer::record(target.pid, &["--threads"])?;
    target.command("leak")?;
    let report = tracer.stop()?.report()?;
    // The kernel would cut the longer one to 15 bytes.
    for (name, size) in [("billing", 8 * 1009), ("warehouse-of-long-names", 8 * 2003)] {
        let of_thread = |site: &&Site| {
            let thread = site.thread.as_ref();
            thread.is_some_and(|thread| thread.name == name)
                && site.allocated_bytes == site.allocated_count * size
        };
        let sums = report.sites.iter().filter(of_thread).map(Sums::of);
        let sum = sums.fold(Sums::default(), |sum, site| sum + site);
        assert_eq!(sum, Sums::live(size, 5), "{name}:\n{}", report.table());
    }
    Ok(())
}
