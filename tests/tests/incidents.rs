//! Each incident is diagnosed and its healthy twin is quiet: native leaks on
//! some JDKs, classes that grow on one each, since those take longer.
//! `cargo xtask incidents` runs all on all.

use anyhow::{Context, Result, ensure};
use unfreed_tests::Jdk;
use unfreed_tests::incident::{INCIDENTS, Incident, Trial, Variant, Verdict, held_objects};

fn incident(name: &str) -> Result<&'static Incident> {
    INCIDENTS
        .iter()
        .find(|incident| incident.name == name)
        .with_context(|| format!("no incident is called {name}"))
}

/// Temurin of a version of Java.
fn temurin(major: u32) -> Result<Jdk> {
    let mut jdks = Jdk::all()?.into_iter().skip(1);
    jdks.find(|jdk| jdk.major == major)
        .with_context(|| format!("no Temurin {major}"))
}

/// Runs an incident and its twin. The first is to be diagnosed, the second
/// quiet.
fn is_told_from_its_twin(name: &str, jdks: &[Jdk]) -> Result<()> {
    let incident = incident(name)?;
    for jdk in jdks {
        for variant in Variant::ALL {
            let trial = Trial::run(jdk, incident, variant)?;
            let wanted = match variant {
                Variant::Leaking => Verdict::Diagnosed,
                Variant::Healthy => Verdict::Quiet,
            };
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
fn objects_are_held_as_the_programs_say() -> Result<()> {
    // The bytes of the classes are the same for all.
    let jdk = Jdk::full()?;
    for incident in INCIDENTS.iter().filter(|one| one.class.is_some()) {
        for variant in Variant::ALL {
            let (counted, told) = held_objects(&jdk, incident, variant)?;
            ensure!(
                counted == told && (told > 0) == (variant == Variant::Leaking),
                "{} {variant:?}: {counted}, and by its own count {told}",
                incident.name
            );
        }
    }
    Ok(())
}

#[test]
fn scopes_that_are_closed_out_of_order() -> Result<()> {
    is_told_from_its_twin("ScopeChain", &[temurin(11)?])
}

#[test]
fn clients_of_references_that_failed() -> Result<()> {
    is_told_from_its_twin("ClientList", &[temurin(17)?])
}

#[test]
fn statistics_that_a_scheduler_keeps() -> Result<()> {
    is_told_from_its_twin("StatisticsScheduler", &[temurin(21)?])
}

#[test]
fn channels_that_gauges_keep() -> Result<()> {
    is_told_from_its_twin("GaugeChannels", &[temurin(25)?])
}

#[test]
fn a_class_that_the_boot_loader_cannot_link() -> Result<()> {
    is_told_from_its_twin("BootLoaderAgent", &Jdk::some()?)
}

#[test]
fn deflaters_that_are_never_ended() -> Result<()> {
    is_told_from_its_twin("DeflaterNeverEnded", &Jdk::some()?)
}

#[test]
fn memory_of_a_jni_library() -> Result<()> {
    is_told_from_its_twin("JniMalloc", &Jdk::some()?)
}
