//! Leaks through generated classes: one row for each line of the source, by true numbers,
//! in every format; and what must not be one stays apart.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use unfreed_tests::java_stack::{ends_in, has_frame};
use unfreed_tests::model::{Frame, Site};
use unfreed_tests::{Jdk, Outputs, Target, Tracer, View, folded, unfreed, wait_known};

/// Classes that one path goes through: more than people write.
const TEXTS: u64 = 40;
/// Classes that people may have written.
const RULES: u64 = 5;
const PROXIES: u64 = 12;

/// What makes a deflater's first block, which it has one of.
const DEFLATER: [&str; 2] = ["Java_java_util_zip_Deflater_init", "calloc"];

/// The paths of deflaters that have a function, by its line.
fn deflaters<'a>(report: &'a View, function: &'a str) -> Vec<&'a Site> {
    let is_it = |site: &&Site| has_frame(site, function) && ends_in(site, &DEFLATER);
    let mut sites: Vec<_> = report.sites.iter().filter(is_it).collect();
    sites.sort_by_key(|site| frame(site, function).and_then(|frame| frame.line));
    sites
}

fn frame<'a>(site: &'a Site, function: &str) -> Option<&'a Frame> {
    let mut frames = site.frames.iter();
    frames.find(|frame| frame.function.as_deref() == Some(function))
}

/// That a class's copies keep a deflater each at one line and end one at the next, and that
/// both lines have one row with all names.
fn is_one_leak(report: &View, function: &str, classes: u64) -> Result<()> {
    let sites = deflaters(report, function);
    let [leak, twin] = sites[..] else {
        anyhow::bail!("{} rows of {function}: {sites:#?}", sites.len());
    };
    let numbers = |site: &Site| (site.allocated_count, site.live_count);
    ensure!(
        numbers(leak) == (classes, classes) && numbers(twin) == (classes, 0),
        "{:?} and {:?} of {classes}",
        numbers(leak),
        numbers(twin)
    );
    for site in [leak, twin] {
        let made = frame(site, function).context("no frame")?;
        let originals = made.originals.as_ref().context("no originals")?;
        ensure!(
            originals.count == classes && !originals.lower_bound && originals.names.len() == 3,
            "{originals:?}"
        );
    }
    Ok(())
}

/// Runs both kinds of classes, and proxies.
fn generate(target: &mut Target, texts: u64) -> Result<()> {
    target.ask(&format!("class Text 1 {texts}"), "done ")?;
    target.ask(&format!("class Rule 1 {RULES}"), "done ")?;
    target.ask(&format!("proxy {PROXIES}"), "done ")?;
    Ok(())
}

fn one_row_each(jdk: &Jdk) -> Result<()> {
    let outputs = Outputs::new()?;
    let mut target = jdk.start(&["-Xmx256m"], "stacks.Generated", &[])?;
    // Loads what all of them need.
    target.ask("class Text 0 1", "done ")?;
    let lines = outputs.text("paths.folded");
    let tracer = Tracer::record(target.pid, &["-o", &lines])?;
    wait_known(tracer.pid(), target.pid)?;
    generate(&mut target, TEXTS)?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    is_one_leak(&report, "stacks.Text*.run", TEXTS)?;
    let text = deflaters(&report, "stacks.Text*.run");
    let file = frame(text[0], "stacks.Text*.run").and_then(|frame| frame.file.as_deref());
    ensure!(file == Some("Text*.java"), "{file:?}");
    for number in 1..=RULES {
        let rule = format!("stacks.Rule{number:06}.run");
        let sites = deflaters(&report, &rule);
        let live: Vec<_> = sites.iter().map(|site| site.live_count).collect();
        ensure!(live == [1, 0], "{rule}: {live:?}");
        ensure!(frame(sites[0], &rule).is_some_and(|it| it.originals.is_none()));
    }
    are_one_proxy(&report)?;
    let said = &finished.stdout;
    ensure!(said.contains("stacks.Text*.run (40 names)"), "{said}");
    let paths = folded(&outputs.path("paths.folded"))?;
    let through = |part: &str| paths.iter().filter(|(path, _)| path.contains(part)).count();
    ensure!(
        through("stacks.Text*.run;stacks.Generated.pack;") > 0,
        "{paths:?}"
    );
    ensure!(through("Text0000") == 0, "{paths:?}");
    Ok(())
}

/// Their number, and on newer JDKs that of their package, differ.
fn are_one_proxy(report: &View) -> Result<()> {
    let name = |site: &Site| {
        let mut names = site
            .frames
            .iter()
            .filter_map(|frame| frame.function.as_deref());
        names
            .find(|name| name.contains("$Proxy"))
            .map(str::to_owned)
    };
    let is_it = |site: &&Site| ends_in(site, &DEFLATER) && name(site).is_some();
    let sites: Vec<_> = report.sites.iter().filter(is_it).collect();
    let [site] = sites[..] else {
        anyhow::bail!("{} rows of proxies: {sites:#?}", sites.len());
    };
    let name = name(site).context("no proxy")?;
    ensure!(name.ends_with(".$Proxy*.run"), "{name}");
    let originals = frame(site, &name).and_then(|frame| frame.originals.as_ref());
    let names = originals.map(|originals| originals.count);
    ensure!(
        (site.live_count, names) == (PROXIES, Some(PROXIES)),
        "{} in {names:?} names",
        site.live_count
    );
    Ok(())
}

#[test]
fn generated_classes_are_one_row_and_written_ones_a_row_each() -> Result<()> {
    for jdk in Jdk::some()? {
        one_row_each(&jdk).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// Growth of deflaters' first blocks in a difference, by the function that has a name like
/// this.
fn growths(difference: &str, part: &str) -> Result<BTreeMap<String, i64>> {
    let value: serde_json::Value = serde_json::from_str(difference)?;
    let mut growths = BTreeMap::new();
    for path in value["paths"].as_array().context("no paths")? {
        let frames = path["frames"].as_array().context("no frames")?;
        let name = |frame: &serde_json::Value| frame["function"].as_str().map(str::to_owned);
        let names: Vec<String> = frames.iter().filter_map(name).collect();
        if names.ends_with(&DEFLATER.map(str::to_owned))
            && let Some(name) = names.iter().find(|name| name.contains(part))
        {
            let blocks = |key: &str| path[key].as_i64().context("no count");
            let growth = blocks("after_count")? - blocks("before_count")?;
            *growths.entry(name.clone()).or_default() += growth;
        }
    }
    Ok(growths)
}

#[test]
fn runs_are_compared_by_what_is_the_same_in_both_and_groups_are_told() -> Result<()> {
    let jdk = Jdk::full()?;
    let mut target = jdk.start(&["-Xmx256m"], "stacks.Generated", &[])?;
    target.ask("class Text 0 1", "done ")?;
    let mut recorded = Vec::new();
    for (from, count) in [(100, 12), (200, 20)] {
        let tracer = Tracer::record(target.pid, &["--group", "Told[0-9]+=Told"])?;
        wait_known(tracer.pid(), target.pid)?;
        target.ask(&format!("class Text {from} {count}"), "done ")?;
        target.ask("class Rule 1 3", "done ")?;
        target.ask("class Told 1 3", "done ")?;
        recorded.push(tracer.stop()?);
    }
    for finished in &recorded {
        is_one_leak(&finished.report()?, "stacks.Told.run", 3)?;
    }
    let outputs = Outputs::new()?;
    let [before, after] = &recorded[..] else {
        anyhow::bail!("not two");
    };
    let paths = [before.json(), after.json()].map(|path| path.display().to_string());
    let difference = outputs.text("difference.json");
    let finished = unfreed(&["diff", &paths[0], &paths[1], "-o", &difference])?;
    ensure!(finished.status.success(), "{finished:?}");
    let difference = std::fs::read_to_string(outputs.path("difference.json"))?;
    let texts = growths(&difference, "Text")?;
    ensure!(
        texts == BTreeMap::from([("stacks.Text*.run".into(), 8)]),
        "{texts:?}"
    );
    ensure!(growths(&difference, "Rule")?.len() == 3);
    // A saved report is grouped as whoever reads it asks.
    let grouped = outputs.text("grouped.json");
    let group = ["--group", "Rule[0-9]+=Rule", "-o", &grouped];
    let finished = unfreed(&[&["report", paths[0].as_str()][..], &group].concat())?;
    ensure!(finished.status.success(), "{finished:?}");
    let text = std::fs::read_to_string(outputs.path("grouped.json"))?;
    is_one_leak(
        &View::new(serde_json::from_str(&text)?),
        "stacks.Rule.run",
        3,
    )?;
    let wrong = ["report", paths[0].as_str(), "--group", "Rule[0-9=Rule"];
    let finished = unfreed(&wrong)?;
    ensure!(
        !finished.status.success() && finished.stderr.contains("unclosed character class"),
        "{finished:?}"
    );
    ensure!(target.finish()?.success());
    Ok(())
}
