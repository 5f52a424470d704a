//! Memory that a Java virtual machine gives back with the object that owns it: what is still
//! there before a collection has run may be of garbage.

use crate::model::{Report, Site, Verdict};
use crate::report::pool;

/// Methods that allocate such memory begin so. The JDK frees it by a `Cleaner` (in 8, that of
/// `java.util.zip` by a finalizer) once the object was found to be garbage.
const OWNERS: [&str; 4] = [
    "java.nio.DirectByteBuffer.",
    "java.util.zip.Deflater.",
    "java.util.zip.Inflater.",
    "sun.nio.ch.FileChannelImpl.map",
];

/// What that means, for people.
pub const NOTE: &str =
    "no garbage collection has come that would have freed those whose objects nobody needs";

/// What to do then.
pub fn advice(pid: u32) -> String {
    format!("trace until collections have run (jcmd {pid} GC.run has the machine run one)")
}

/// Whether what is live at a site may be of objects that are garbage: not one of its blocks
/// has lived through a collection.
pub fn may_be_garbage(site: &Site) -> bool {
    let names = site.frames.iter().filter_map(|it| it.function.as_deref());
    let is_owned = |name: &str| OWNERS.iter().any(|owner| name.starts_with(owner));
    // A pool gives back what it has taken when it needs it no more.
    site.oldest_survived == Some(0)
        && names.into_iter().any(is_owned)
        && pool::refilled(site).is_none()
}

/// What may be garbage is no leak.
pub fn take_back(report: &mut Report) {
    let leaks = report.sites.iter_mut();
    let leaks = leaks.filter(|site| site.verdict == Some(Verdict::Leak) && may_be_garbage(site));
    leaks.for_each(|site| site.verdict = Some(Verdict::Growing));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn judged(function: &str, survived: Option<u32>) -> Option<Verdict> {
        let frames = vec![
            sample::program("Cache.fill", "Cache.java", 7, 1),
            sample::program(function, "X.java", 8, 2),
        ];
        let mut site = sample::site(1, (1 << 20, 100), (0, 0), frames);
        site.verdict = Some(Verdict::Leak);
        site.oldest_survived = survived;
        let mut report = sample::report();
        report.sites = vec![site];
        take_back(&mut report);
        report.sites[0].verdict
    }

    #[test]
    fn what_no_collection_could_have_freed_is_no_leak_yet() {
        let owner = "java.nio.DirectByteBuffer.<init>";
        assert_eq!(judged(owner, Some(0)), Some(Verdict::Growing));
        assert_eq!(judged(owner, Some(1)), Some(Verdict::Leak));
        // Nobody counts collections.
        assert_eq!(judged(owner, None), Some(Verdict::Leak));
        let other = "org.example.Native.open";
        assert_eq!(judged(other, Some(0)), Some(Verdict::Leak));
    }
}
