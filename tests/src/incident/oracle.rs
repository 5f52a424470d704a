//! Whether an incident does what it says, by the word of the JDK's own tool.

use anyhow::{Context, Result};

use super::Incident;
use super::trial::{Program, Variant};
use crate::jdk::Jdk;

/// How many objects of the incident's class rounds of work leave behind, after
/// a collection: what `jcmd` counts, and what the program tells.
///
/// # Errors
/// The program or `jcmd` failed, or no class is said to grow.
pub fn held_objects(jdk: &Jdk, incident: &Incident, variant: Variant) -> Result<(u64, u64)> {
    let class = incident.class.context("objects are not what leaks")?;
    let mut program = Program::start(jdk, incident, variant)?;
    // What is held at all times is there from the first round on.
    program.rounds(1)?;
    let known = (count(program.target.pid, class)?, program.truth()?);
    program.rounds(incident.rounds)?;
    let counted = count(program.target.pid, class)?;
    let told = program.truth()?.since(known.1);
    Ok((counted.saturating_sub(known.0), told.instances))
}

/// Reachable objects of a class.
fn count(pid: u32, class: &str) -> Result<u64> {
    let text = Jdk::full()?.jcmd(pid, "GC.class_histogram")?;
    in_histogram(&text, class).with_context(|| format!("no count of {class} in:\n{text}"))
}

/// The instances in a line `number: instances bytes class`; 0 if a class has no
/// line.
fn in_histogram(text: &str, class: &str) -> Option<u64> {
    let name = if class == "double[]" { "[D" } else { class };
    let line = text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(3) == Some(&name)).then_some(words)
    });
    match line {
        Some(words) => words.get(1)?.parse().ok(),
        None => text.contains("#instances").then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_lines_for_classes() {
        let text = " num     #instances         #bytes  class name (module)\n\
                    -------------------------------------------------------\n   \
                    1:         12345        1333000  [B (java.base@17.0.9)\n   \
                    2:           302         511528  [D (java.base@17.0.9)\n   \
                    3:            13            312  incidents.ClientList$RestClient\n";
        assert_eq!(in_histogram(text, "double[]"), Some(302));
        assert_eq!(
            in_histogram(text, "incidents.ClientList$RestClient"),
            Some(13)
        );
        assert_eq!(in_histogram(text, "incidents.ClientList"), Some(0));
        assert_eq!(in_histogram("Exception", "double[]"), None);
    }
}
