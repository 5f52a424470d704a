//! The probes that a process offers, as `unfreed probes` lists them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use unfreed_tests::{Jdk, Target, unfreed};

/// What `unfreed probes -p PID --json OPTIONS` says.
fn listed(pid: u32, options: &[&str]) -> Result<Vec<Value>> {
    let pid = pid.to_string();
    let arguments = [&["probes", "-p", &pid, "--json"], options].concat();
    let finished = unfreed(&arguments)?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).with_context(|| finished.stdout.clone())
}

fn probe<'a>(listed: &'a [Value], name: &str) -> Result<&'a Value> {
    let found = listed.iter().find(|probe| probe["probe"] == name);
    found.with_context(|| format!("no {name} in {listed:?}"))
}

/// The types of a site's arguments.
fn types(site: &Value) -> Vec<&str> {
    let arguments = site["arguments"].as_array().into_iter().flatten();
    arguments
        .filter_map(|argument| argument["type"].as_str())
        .collect()
}

#[test]
fn the_probes_of_a_program_are_listed() -> Result<()> {
    let target = Target::start("usdt")?;
    let probes = listed(target.pid, &["--provider", "unfreed_app"])?;
    assert_eq!(probes.len(), 4, "{probes:?}");
    let nothing = &probe(&probes, "nothing")?["sites"][0];
    assert!(types(nothing).is_empty() && nothing["semaphore"].is_null());
    let odd = &probe(&probes, "odd")?["sites"][0];
    assert_eq!(types(odd), ["?", "?", "u8"]);
    assert!(odd["arguments"][1]["problem"].is_string(), "{odd}");
    assert!(probe(&probes, "counted")?["sites"][0]["semaphore"].is_u64());
    let twice = &probe(&probes, "twice")?["sites"];
    let mut both = [types(&twice[0]), types(&twice[1])];
    both.sort();
    assert_eq!(both, [["i32", "u64"], ["u64", "u64"]]);
    // The probed instruction is the one that the target has in memory.
    for site in probes
        .iter()
        .flat_map(|probe| probe["sites"].as_array().unwrap())
    {
        let offset = site["file_offset"].as_u64().context("no offset")?;
        let file = std::fs::read(format!("/proc/{}/exe", target.pid))?;
        assert_eq!(file[usize::try_from(offset)?], 0x90, "{site}");
    }
    Ok(())
}

#[test]
fn probes_are_listed_as_a_table() -> Result<()> {
    let target = Target::start("usdt")?;
    let pid = target.pid.to_string();
    let finished = unfreed(&["probes", "-p", &pid, "twice"])?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    let words: Vec<Vec<&str>> = finished
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = ["unfreed_app", "twice", "2", "no", "i32|u64", "u64"];
    assert!(words.contains(&expected.to_vec()), "{}", finished.stdout);
    Ok(())
}

#[test]
fn a_process_without_probes_is_no_error() -> Result<()> {
    let target = Target::start("no_allocator")?;
    let pid = target.pid.to_string();
    let finished = unfreed(&["probes", "-p", &pid])?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    assert!(finished.stdout.is_empty(), "{}", finished.stdout);
    for part in ["offers no probes", "no_allocator"] {
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }
    Ok(())
}

#[test]
fn a_process_that_is_none_is_named() -> Result<()> {
    unfreed(&["probes", "-p", "4194304"])?.fails_saying(&["there is no process 4194304"])
}

#[test]
fn a_jvm_offers_its_probes() -> Result<()> {
    for jdk in Jdk::versions_with_symbols()? {
        let target = jdk.start(&[], "Heap", &[])?;
        let probes = listed(target.pid, &["--provider", "hotspot"])?;
        let loaded = &probe(&probes, "class__loaded")?["sites"][0];
        assert_eq!(types(loaded), ["u64", "i32", "u64", "u8"]);
        let text = serde_json::to_string(&probes)?;
        assert!(!text.contains('?'), "{text}");
        assert!(!listed(target.pid, &["--provider", "hotspot_jni", "GlobalRef"])?.is_empty());
    }
    Ok(())
}
