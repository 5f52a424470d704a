//! Who holds live blocks: programs that hold theirs in every way, and drop some, say how; the
//! tracer looks for that from outside.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{Holders, LinkKind, Lost, Site};
use unfreed_tests::{Target, Tracer, View, target_path};

/// How the blocks of a function are held: by a root of this kind with this in its name, or by
/// nobody.
type Label = (&'static str, Option<(LinkKind, &'static str)>);

const CPP: &[Label] = &[
    ("in_vector", Some((LinkKind::Global, "g_vector"))),
    ("in_map", Some((LinkKind::Global, "g_sessions"))),
    ("in_list", Some((LinkKind::Global, "g_list"))),
    ("by_base_class", Some((LinkKind::Global, "g_registry"))),
    (
        "in_thread_local",
        Some((LinkKind::ThreadLocal, "t_sessions")),
    ),
    ("in_static", Some((LinkKind::Global, "sessions"))),
    ("in_closure", Some((LinkKind::Global, "g_callbacks"))),
    ("of_stack", Some((LinkKind::Stack, "holders_cpp ("))),
    ("dropped", None),
    ("in_cycle", None),
    ("a_list", None),
    ("behind_freed", None),
];

const C: &[Label] = &[
    ("in_table", Some((LinkKind::Global, "g_table"))),
    ("in_queue", Some((LinkKind::Global, "g_queue"))),
    ("in_slots", Some((LinkKind::ThreadLocal, "t_slots"))),
    (
        "in_mapping",
        Some((LinkKind::Mapping, "memory without a file")),
    ),
    ("large", Some((LinkKind::Global, "g_large"))),
    ("forgotten", None),
    ("forgotten_large", None),
];

const RUST: &[Label] = &[
    ("in_registry", Some((LinkKind::Global, "REGISTRY"))),
    ("in_own", Some((LinkKind::ThreadLocal, "OWN"))),
    ("in_channel", Some((LinkKind::Global, "CHANNEL"))),
    ("forgotten", None),
    ("in_cycle", None),
];

/// Blocks of each label.
const COUNT: u64 = 64;

/// How much of what was said is right.
#[derive(Debug, Default)]
struct Tally {
    lost: u64,
    lost_found: u64,
    lost_wrongly: u64,
    held: u64,
    held_rightly: u64,
}

impl Tally {
    fn of(report: &View, labels: &[Label]) -> Result<Self> {
        let mut tally = Self::default();
        for (function, root) in labels {
            let holders = holders_of(report, function)?;
            ensure!(holders.sampled == COUNT, "{function}: {holders:?}");
            match root {
                None => {
                    tally.lost += COUNT;
                    tally.lost_found += holders.lost;
                }
                Some((kind, name)) => {
                    tally.held += COUNT;
                    tally.lost_wrongly += holders.lost;
                    tally.held_rightly += held_by(&holders, *kind, name);
                }
            }
            println!("{function}: {holders:?}");
        }
        println!("{tally:?}");
        Ok(tally)
    }

    /// What was said is right, and of so many roots at least.
    fn is_right(&self, least: f64) -> Result<()> {
        let part = |part: u64, all: u64| part as f64 / all as f64;
        let found = part(self.lost_found, self.lost);
        let right = part(self.lost_found, self.lost_found + self.lost_wrongly);
        let roots = part(self.held_rightly, self.held);
        println!("lost: recall {found:.3}, precision {right:.3}; roots: {roots:.3}");
        ensure!(found >= 0.99 && right >= 0.99 && roots >= least, "{self:?}");
        Ok(())
    }
}

/// The sites of a function's largest blocks, of which there are `COUNT`: what holds them may be
/// allocated by it too.
fn sites_of<'a>(report: &'a View, function: &'a str) -> Result<Vec<&'a Site>> {
    let is_it = |site: &&Site| {
        let mut frames = site.frames.iter();
        frames.any(|frame| {
            let name = frame.function.as_deref().unwrap_or_default();
            let name = name.replace("(anonymous namespace)::", "");
            let name = name.split('(').next().unwrap_or_default();
            name.rsplit("::").next() == Some(function) && site.live_count > 0
        })
    };
    let sites: Vec<&Site> = report.sites.iter().filter(is_it).collect();
    let size = |site: &Site| site.live_bytes / site.live_count;
    let largest = sites.iter().filter(|site| site.live_count >= COUNT / 2);
    let largest = largest.map(|site| size(site)).max();
    let largest = largest.with_context(|| format!("no site of {function}"))?;
    let sites = sites.into_iter();
    Ok(sites.filter(|site| size(site) == largest).collect())
}

fn holders_of(report: &View, function: &str) -> Result<Holders> {
    let mut sum = Holders::default();
    for site in sites_of(report, function)? {
        let holders = site.holders.clone();
        sum.add(holders.with_context(|| format!("no holders of {function}"))?);
    }
    Ok(sum)
}

/// Blocks whose root is the one.
fn held_by(holders: &Holders, kind: LinkKind, name: &str) -> u64 {
    let chains = holders.chains.iter();
    let right = chains.filter(|chain| {
        let root = chain.links.first();
        root.is_some_and(|root| root.kind == kind && root.name.contains(name))
    });
    right.map(|chain| chain.blocks).sum()
}

/// The report on a target that did so, and what was printed.
fn searched(target: &str, command: &str) -> Result<(View, String)> {
    let mut target = Target::start(target)?;
    let tracer = Tracer::record(target.pid, &["--holders"])?;
    target.command(command)?;
    let finished = tracer.stop()?;
    // It lives, and does as it is told.
    ensure!(target.finish()?.success());
    Ok((finished.report()?, finished.stdout))
}

#[test]
fn holders_of_cpp() -> Result<()> {
    let (report, _) = searched("holders_cpp", "work")?;
    Tally::of(&report, CPP)?.is_right(0.95)?;
    // Chains have what is in between: of a list all its nodes, and classes by their tables.
    let list = holders_of(&report, "in_list")?;
    let links: Vec<_> = list.chains.iter().flat_map(|chain| &chain.links).collect();
    ensure!(
        links
            .iter()
            .any(|link| link.repeated == COUNT - 1 && link.kind == LinkKind::Block),
        "{list:?}"
    );
    let site = sites_of(&report, "in_list")?[0].id;
    ensure!(links.iter().any(|link| link.site == Some(site)), "{list:?}");
    let listeners = holders_of(&report, "by_base_class")?;
    let text = format!("{listeners:?}");
    ensure!(text.contains("Registry"), "{text}");
    Ok(())
}

#[test]
fn holders_of_c() -> Result<()> {
    let (report, _) = searched("holders_c", "work")?;
    Tally::of(&report, C)?.is_right(0.95)
}

/// 14 of 192 blocks are said to be held by another than the program says. The channel's state has
/// 128-byte alignment, and is made on the stack: what `in_own` has left there, the address of a
/// node of its tree, is copied with the padding. That pointer is a real one, and the way by it is no
/// longer than the tree's own. With the stack written over before, it is 192 of 192.
#[test]
fn holders_of_rust() -> Result<()> {
    let (report, _) = searched("holders_rust", "leak_vectors")?;
    Tally::of(&report, RUST)?.is_right(0.92)
}

/// What is lost is what a leak detector within the program finds.
#[test]
fn lost_is_what_a_leak_sanitizer_finds() -> Result<()> {
    let (report, _) = searched("holders_cpp", "work")?;
    let output = Command::new(target_path("holders_lsan")?)
        .args(["work", "check"])
        .env("LSAN_OPTIONS", "exitcode=0:max_leaks=0")
        .stdin(Stdio::null())
        .output()?;
    let found = leaks_by_function(&String::from_utf8_lossy(&output.stderr));
    for (function, _) in CPP {
        let lost = holders_of(&report, function)?.lost;
        let site = sites_of(&report, function)?[0];
        let block = (*function, site.live_bytes / site.live_count);
        let theirs = found.get(&block).copied().unwrap_or_default();
        ensure!(
            lost == theirs,
            "{function}: {lost}, and {theirs} by them\n{found:?}"
        );
    }
    Ok(())
}

/// What a program that ran under the tracer has lost at its end.
fn lost_by(report: &View) -> Lost {
    let mut sum = Lost::default();
    let holders = report.sites.iter().filter_map(|site| site.holders.as_ref());
    for lost in holders.filter_map(|holders| holders.all_lost) {
        sum.add(lost);
    }
    sum
}

/// At the end of a program that is what a leak detector within it finds then, and the status
/// says so.
#[test]
fn lost_at_the_end_is_what_a_leak_sanitizer_finds_at_the_end() -> Result<()> {
    let program = target_path("holders_cpp")?;
    let command = [program.as_os_str(), OsStr::new("work")];
    let finished = Tracer::run(&["--check-lost"], &command)?.wait()?;
    ensure!(finished.status.code() == Some(3), "{}", finished.stderr);
    let lost = lost_by(&finished.report_of_any_end()?);
    let said = format!("lost: no pointer leads to {} blocks", lost.blocks);
    ensure!(finished.stderr.contains(&said), "{}", finished.stderr);

    let output = Command::new(target_path("holders_lsan")?)
        .arg("work")
        .env("LSAN_OPTIONS", "exitcode=0")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    // SUMMARY: LeakSanitizer: 12345 byte(s) leaked in 67 allocation(s).
    let (_, summary) = text.split_once("SUMMARY: ").context("no summary")?;
    let words = summary.split(' ');
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    ensure!(
        numbers == [lost.bytes, lost.blocks],
        "{lost:?}, and by them {summary}\n{text}"
    );
    Ok(())
}

/// A program that loses nothing has its own status, and one that a signal ends is not looked at.
#[test]
fn a_program_that_loses_nothing_keeps_its_status() -> Result<()> {
    let finished = Tracer::run(&["--check-lost"], &["/bin/sh", "-c", "exit 7"])?.wait()?;
    ensure!(finished.status.code() == Some(7), "{}", finished.stderr);
    let killed = Tracer::run(&["--check-lost"], &["/bin/sh", "-c", "kill -9 $$"])?.wait()?;
    ensure!(killed.status.code() == Some(3), "{}", killed.stderr);
    ensure!(
        killed.stderr.contains("what is lost is not known"),
        "{}",
        killed.stderr
    );
    Ok(())
}

/// `Direct leak of 64 byte(s) in 2 object(s) allocated from:`, and then frames: how many
/// objects, by function and size.
fn leaks_by_function(text: &str) -> BTreeMap<(&'static str, u64), u64> {
    let mut found = BTreeMap::new();
    let mut leak = None;
    // A detector looks once more at the end.
    let first = text.split("SUMMARY").next().unwrap_or_default();
    for line in first.lines() {
        if line.contains(" byte(s) in ") {
            let numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
            let numbers: Vec<u64> = numbers.collect();
            leak = match numbers[..] {
                [bytes, objects] if objects > 0 => Some((bytes / objects, objects)),
                _ => None,
            };
        }
        let is_in = |function: &str| {
            line.contains(&format!(" in {function} ")) || line.contains(&format!("::{function}("))
        };
        let label = CPP.iter().find(|(function, _)| is_in(function));
        if let Some((function, _)) = label
            && let Some((size, objects)) = leak.take()
        {
            *found.entry((*function, size)).or_default() += objects;
        }
    }
    found
}

/// While a heap that leads to itself is changed, and mappings come and go, the search ends
/// within its budget, says so, and calls nothing lost that is held.
#[test]
fn a_process_that_changes_is_searched_within_bounds() -> Result<()> {
    let begin = std::time::Instant::now();
    let mut target = Target::start("holders_c")?;
    let tracer = Tracer::record(target.pid, &["--holders", "--holders-budget", "1ms"])?;
    target.command("churn")?;
    let report = tracer.stop()?.report()?;
    println!("{:?}", begin.elapsed());
    ensure!(target.finish()?.success());
    let tally = Tally::of(&report, C)?;
    assert_eq!(tally.lost_wrongly, 0);
    Ok(())
}

/// A finding says who holds what it is about, on the first screen too.
#[test]
fn findings_say_who_holds_what_grows() -> Result<()> {
    let (report, table) = searched("behaviours", "work")?;
    let finding = report.findings.first().context("no finding")?;
    let holders = finding.holders.as_ref().context("no holders")?;
    ensure!(holders.sampled >= COUNT, "{holders:?}");
    ensure!(
        table.contains("eld by") || table.contains("ost: no pointer"),
        "{table}"
    );
    Ok(())
}
