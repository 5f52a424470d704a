//! Which of Debian's kernel packages is meant by a series such as `5.10`.

use anyhow::{Result, bail};

use crate::packages::Packages;

/// What apt searches for: all cloud kernels. The image is in `linux-image-…`,
/// or in `linux-binary-…` where both exist.
const PATTERN: &str = "^linux-(image|binary)-[0-9].*-cloud-amd64$";

const BINARY: &str = "linux-binary-";
const IMAGE: &str = "linux-image-";

/// The numbers of a package's release, `[6, 12, 90, 12, 1]` of
/// `linux-image-6.12.90+deb12.1-cloud-amd64`. Of two packages of a series, the
/// one with the greater numbers is newer.
fn release(package: &str) -> Option<Vec<u32>> {
    let release = package
        .strip_prefix(BINARY)
        .or_else(|| package.strip_prefix(IMAGE))?
        .strip_suffix("-cloud-amd64")?;
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().ok())
        .collect()
}

/// The packages with the newest kernel of each series.
///
/// # Errors
/// There is none.
pub(super) fn packages(packages: &Packages, series: &[&str]) -> Result<Vec<String>> {
    let found = packages.names(PATTERN)?;
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    series
        .iter()
        .map(|series| newest(&names, series).map(str::to_owned))
        .collect()
}

/// The newest package of a series, which is the beginning of a release: `5.10`,
/// or `7` for the newest of all 7.x.
///
/// # Errors
/// There is none; the message names the series that there are.
fn newest<'a>(packages: &[&'a str], series: &str) -> Result<&'a str> {
    let wanted: Vec<&str> = series.split('.').collect();
    let newest = packages
        .iter()
        .filter_map(|package| Some((release(package)?, package.starts_with(BINARY), *package)))
        .filter(|(numbers, ..)| {
            numbers.len() >= wanted.len()
                && numbers
                    .iter()
                    .zip(&wanted)
                    .all(|(number, wanted)| number.to_string() == *wanted)
        })
        .max();
    match newest {
        Some((_, _, package)) => Ok(package),
        None => bail!(
            "no kernel {series} in Debian's suites; there are {}",
            all_series(packages).join(", ")
        ),
    }
}

/// The series of all packages, oldest first.
fn all_series(packages: &[&str]) -> Vec<String> {
    let mut series: Vec<(u32, u32)> = packages
        .iter()
        .filter_map(|package| match release(package)?[..] {
            [major, minor, ..] => Some((major, minor)),
            _ => None,
        })
        .collect();
    series.sort_unstable();
    series.dedup();
    series
        .into_iter()
        .map(|(major, minor)| format!("{major}.{minor}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: [&str; 12] = [
        "linux-image-5.10.0-9-cloud-amd64",
        "linux-image-5.10.0-46-cloud-amd64",
        "linux-image-6.1.0-0.deb11.52-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.12.90+deb12-cloud-amd64",
        "linux-image-6.12.90+deb12.1-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.2.12+deb13-cloud-amd64",
    ];

    #[test]
    fn numbers_are_compared_and_not_letters() {
        let newest = |series| newest(&PACKAGES, series).unwrap();
        assert_eq!(newest("5.10"), "linux-image-5.10.0-46-cloud-amd64");
        assert_eq!(newest("6.1"), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(newest("6.12"), "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest("7.2"), "linux-binary-7.2.12+deb13-cloud-amd64");
    }

    #[test]
    fn the_package_with_the_image_goes_before_the_one_without() {
        assert_eq!(
            newest(&PACKAGES, "7").unwrap(),
            "linux-binary-7.3.4+deb13-cloud-amd64"
        );
    }

    #[test]
    fn a_series_that_is_not_there_is_told_with_those_that_are() {
        let message = newest(&PACKAGES, "5.15").unwrap_err().to_string();
        assert_eq!(
            message,
            "no kernel 5.15 in Debian's suites; there are 5.10, 6.1, 6.12, 7.2, 7.3"
        );
        assert!(newest(&PACKAGES, "5.1").is_err());
    }
}
