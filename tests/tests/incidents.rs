//! Incidents and their healthy twins on every JDK: those that are quick, and
//! each kind of leak. `cargo xtask incidents` runs all.

use anyhow::{Context, Result, ensure};
use unfreed_tests::incident::{INCIDENTS, Trial, Variant, Verdict};
use unfreed_tests::jdks;

/// Runs an incident and its twin on all JDKs.
fn all_jdks(name: &str, leaking: Verdict, healthy: Verdict) -> Result<()> {
    let incident = INCIDENTS
        .iter()
        .find(|incident| incident.name == name)
        .with_context(|| format!("no incident is called {name}"))?;
    for jdk in jdks()? {
        for (variant, wanted) in [(Variant::Leaking, leaking), (Variant::Healthy, healthy)] {
            let trial = Trial::run(&jdk, incident, variant)?;
            ensure!(
                trial.verdict == wanted,
                "{name} on {}: {} instead of {wanted}: {:#?}",
                jdk.name,
                trial.verdict,
                trial.findings
            );
        }
    }
    Ok(())
}

#[test]
fn a_class_that_the_boot_loader_cannot_link() -> Result<()> {
    all_jdks("BootLoaderAgent", Verdict::Diagnosed, Verdict::Quiet)
}

#[test]
fn channels_that_gauges_hold() -> Result<()> {
    all_jdks("GaugeChannels", Verdict::Diagnosed, Verdict::Quiet)
}

#[test]
fn deflaters_that_are_never_ended() -> Result<()> {
    all_jdks("DeflaterNeverEnded", Verdict::Diagnosed, Verdict::Quiet)
}

#[test]
fn memory_of_a_jni_library() -> Result<()> {
    all_jdks("JniMalloc", Verdict::Diagnosed, Verdict::Quiet)
}
