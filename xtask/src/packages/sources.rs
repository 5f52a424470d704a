//! Where packages come from: suites of Debian on the mirror that the host's own
//! apt uses.

use anyhow::{Context, Result};

/// Suites of Debian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suites {
    /// Of the archive itself.
    archive: &'static [&'static str],
    /// Of the security archive.
    security: &'static [&'static str],
}

impl Suites {
    /// For VMs: QEMU and busybox, kernels of stable releases, and newer ones.
    pub(crate) const VM: Self = Self {
        archive: &["bookworm", "bookworm-backports", "trixie-backports"],
        security: &["bullseye-security", "bookworm-security"],
    };
    /// The suite that is never released.
    pub(crate) const SID: Self = Self {
        archive: &["sid"],
        security: &[],
    };
}

/// A line of `apt-get indextargets` in this format is what [`list`] reads.
pub(super) const FORMAT: &str = "$(REPO_URI) $(RELEASE)";

/// The text of a `sources.list` with `suites`, on the mirrors of `targets`:
/// the host's own sources, a line `URI SUITE` each. `keys` is the option that
/// names the archive's keyring, in brackets, or nothing.
///
/// # Errors
/// The host has no source of Debian, or none of its security archive.
pub(super) fn list(targets: &str, keys: &str, suites: Suites) -> Result<String> {
    let sources: Vec<(&str, &str)> = targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let (security, release) = sources
        .iter()
        .find_map(|(uri, suite)| Some((*uri, suite.strip_suffix("-security")?)))
        .context("apt has no source of Debian's security archive here, which tells its release")?;
    let archive = sources
        .iter()
        .find_map(|(uri, suite)| (*suite == release).then_some(*uri))
        .with_context(|| format!("apt has no source of Debian {release} here"))?;
    let lines = |uri: &str, suites: &[&str]| -> String {
        suites
            .iter()
            .map(|suite| format!("deb {keys}{uri} {suite} main\n"))
            .collect()
    };
    Ok(lines(archive, suites.archive) + &lines(security, suites.security))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_those_of_the_host() {
        let host = "http://other.example/ nodistro\n\
                    http://mirror.example/debian/ trixie\n\
                    http://mirror.example/debian/ trixie-updates\n\
                    http://mirror.example/security/ trixie-security\n";
        let list = list(host, "[signed-by=/keys] ", Suites::VM).unwrap();
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[2],
            "deb [signed-by=/keys] http://mirror.example/debian/ trixie-backports main"
        );
        assert_eq!(
            lines[3],
            "deb [signed-by=/keys] http://mirror.example/security/ bullseye-security main"
        );
    }

    #[test]
    fn one_suite_is_one_line() {
        let host = "http://m/debian trixie\nhttp://m/security trixie-security\n";
        let list = list(host, "", Suites::SID).unwrap();
        assert_eq!(list, "deb http://m/debian sid main\n");
    }

    #[test]
    fn what_is_lacking_is_named() {
        let lacking = |host| list(host, "", Suites::SID).unwrap_err().to_string();
        assert!(lacking("").contains("security archive"));
        assert!(lacking("http://m/security trixie-security\n").contains("Debian trixie"));
    }
}
