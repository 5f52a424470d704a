//! What the kernel says that a thread holds, for people.

use std::io;

use rustix::thread::{CapabilitySet, capabilities, no_new_privs};

use super::capability::bounding_set;

/// What this thread holds: always, at times, and whether it could get more.
///
/// # Errors
/// Fails if the kernel does not say.
pub fn own() -> io::Result<String> {
    let has = capabilities(None)?;
    let at_times = has.permitted.difference(has.effective);
    let more = match (no_new_privs()?, bounding_set().next()) {
        (true, None) => "no new ones, bounding set empty",
        (true, Some(_)) => "no new ones",
        (false, _) => "new ones can be had",
    };
    Ok(format!(
        "{}; for single actions {}; {more}",
        names(has.effective),
        names(at_times)
    ))
}

/// `BPF, KILL`; `none` for none.
fn names(set: CapabilitySet) -> String {
    let known: Vec<_> = set.iter_names().map(|(name, _)| name).collect();
    if known.is_empty() {
        return "none".to_owned();
    }
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privilege::capability::Phase;

    #[test]
    fn a_thread_that_parses_has_nothing() {
        let said = std::thread::spawn(|| {
            Phase::Parsing.enter().unwrap();
            own().unwrap()
        });
        let said = said.join().unwrap();
        assert!(
            said.starts_with("none; for single actions none; no new ones"),
            "{said}"
        );
    }

    #[test]
    fn capabilities_have_names() {
        let two = CapabilitySet::KILL | CapabilitySet::BPF;
        assert_eq!(names(two), "KILL, BPF");
        assert_eq!(names(CapabilitySet::empty()), "none");
    }
}
