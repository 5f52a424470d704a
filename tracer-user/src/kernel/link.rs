//! What holds a program to a place, and the two ways to make it.

use std::env;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use anyhow::{Result, bail};
use aya::programs::uprobe::UProbeLink;

use super::btf;

/// Forces a road, for tests: `perf` or `multi`.
const FORCED: &str = "UNFREED_ATTACH";

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// A perf event for each place, which every kernel knows. The kernel waits
    /// 0.1 s for each as it goes, for one after the other.
    PerfEvents,
    /// A `uprobe_multi` link for many places (kernel 6.6). A hit costs less,
    /// and the kernel waits once for all.
    Multi,
}

impl Road {
    /// The road that the environment forces, if it does.
    ///
    /// # Errors
    /// Fails if it names one that does not exist.
    pub fn forced() -> Result<Option<Self>> {
        match env::var_os(FORCED) {
            None => Ok(None),
            Some(road) if road == "perf" => Ok(Some(Self::PerfEvents)),
            Some(road) if road == "multi" => Ok(Some(Self::Multi)),
            Some(road) => bail!(
                "{FORCED} is {}; it can be perf or multi",
                road.to_string_lossy()
            ),
        }
    }
}

/// Whether probes can have cookies here, whichever road is taken: those of perf
/// events want Linux 5.15.
pub fn cookies() -> bool {
    static KNOWN: LazyLock<bool> = LazyLock::new(|| btf::has_cookies().unwrap_or(false));
    *KNOWN
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfEvents => "perf events",
            Self::Multi => "uprobe_multi links",
        })
    }
}

/// Programs in place. Dropping it takes them away, which takes the kernel a
/// tenth of a second.
#[derive(Debug)]
#[expect(dead_code, reason = "held, to be dropped")]
pub enum Link {
    /// One place.
    PerfEvent(UProbeLink),
    /// Many places.
    Multi(OwnedFd),
    /// One place, which the target knows of; see [`super::counted`]. The link is dropped
    /// last: there is none before 5.15.
    Counted {
        /// The perf event.
        event: OwnedFd,
        /// The program at it.
        link: Option<OwnedFd>,
    },
}
