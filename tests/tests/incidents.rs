//! Incidents and their healthy twins on every JDK: those that are quick, and
//! each kind of leak. `cargo xtask incidents` runs all.

use anyhow::{Context, Result, ensure};
use unfreed_tests::Jdk;
use unfreed_tests::incident::{INCIDENTS, Incident, Trial, Variant, Verdict, held_objects};

fn incident(name: &str) -> Result<&'static Incident> {
    INCIDENTS
        .iter()
        .find(|incident| incident.name == name)
        .with_context(|| format!("no incident is called {name}"))
}

/// Runs an incident and its twin on all JDKs. The first is to be diagnosed, the
/// second quiet.
fn is_told_from_its_twin(name: &str) -> Result<()> {
    let incident = incident(name)?;
    for jdk in Jdk::all()? {
        for variant in Variant::ALL {
            let trial = Trial::run(&jdk, incident, variant)?;
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
    for incident in INCIDENTS.iter().filter(|one| one.class.is_some()) {
        for jdk in Jdk::all()? {
            for variant in Variant::ALL {
                let (counted, told) = held_objects(&jdk, incident, variant)?;
                ensure!(
                    counted == told && (told > 0) == (variant == Variant::Leaking),
                    "{} {variant:?} on {}: {counted}, and by its own count {told}",
                    incident.name,
                    jdk.name
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_class_that_the_boot_loader_cannot_link() -> Result<()> {
    is_told_from_its_twin("BootLoaderAgent")
}

#[test]
fn deflaters_that_are_never_ended() -> Result<()> {
    is_told_from_its_twin("DeflaterNeverEnded")
}

#[test]
fn memory_of_a_jni_library() -> Result<()> {
    is_told_from_its_twin("JniMalloc")
}
