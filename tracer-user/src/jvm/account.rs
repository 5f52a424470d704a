//! What a JVM itself says of its native memory at one moment: tracking by
//! category if it is on, and what every JVM tells without a flag.
//!
//! Nothing asks a JVM for direct buffers and stacks; `buffers` and `stacks` read
//! them from its memory. With tracking they are in the categories "Other" and
//! "Thread".

use std::time::Duration;

use super::attach::{AttachError, Listener};
use super::nmt;
use crate::model::{JvmAccount, Tracking};

/// Of the JVM's words, why there is no tracking, this many characters are kept.
const MAX_WORDS: usize = 200;

/// Asks for everything.
///
/// # Errors
/// The JVM does not answer.
pub fn take(jvm: &Listener, limit: Duration) -> Result<JvmAccount, AttachError> {
    let (tracking, untracked) = tracking(jvm, limit)?;
    let counters = jvm.counters().unwrap_or_default();
    let sum = |names: [&str; 2]| {
        names
            .into_iter()
            .map(|name| counters.get(name))
            .try_fold(0_u64, |sum, value| sum.checked_add(value?))
    };
    let loaded = sum(["java.cls.loadedClasses", "java.cls.sharedLoadedClasses"]);
    let unloaded = sum(["java.cls.unloadedClasses", "java.cls.sharedUnloadedClasses"]);
    Ok(JvmAccount {
        at: 0.0,
        tracking,
        untracked,
        metaspace: metaspace(jvm, limit)?,
        code_cache: code_cache(&optional(jvm, "Compiler.codecache", limit)?),
        classes: loaded
            .zip(unloaded)
            .map(|(loaded, unloaded)| loaded.saturating_sub(unloaded)),
        threads: counters.get("java.threads.live"),
    })
}

/// The summary, or the JVM's words why there is none.
fn tracking(
    jvm: &Listener,
    limit: Duration,
) -> Result<(Option<Tracking>, Option<String>), AttachError> {
    let mut words = String::new();
    for command in nmt::COMMANDS {
        let text = optional(jvm, command, limit)?;
        if let Some(tracking) = nmt::parse(&text) {
            return Ok((Some(tracking), None));
        }
        words = text;
    }
    let line = words.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line
        .unwrap_or("no answer")
        .chars()
        .take(MAX_WORDS)
        .collect();
    Ok((None, Some(line)))
}

/// What a command prints; nothing if this JVM does not know it.
fn optional(jvm: &Listener, command: &str, limit: Duration) -> Result<String, AttachError> {
    match jvm.command(command, limit) {
        Err(AttachError::Command { .. }) => Ok(String::new()),
        other => other,
    }
}

/// Committed bytes of the metaspace, from the first command that the JVM knows.
fn metaspace(jvm: &Listener, limit: Duration) -> Result<Option<u64>, AttachError> {
    let text = optional(jvm, "VM.metaspace basic scale=1", limit)?;
    if let Some(committed) = of_metaspace(&text) {
        return Ok(Some(committed));
    }
    Ok(of_heap_info(&optional(jvm, "GC.heap_info", limit)?))
}

/// Committed bytes, from `VM.metaspace`: the last line of this kind is the
/// sum of those before.
///
/// ```text
///              Both:  1140850688 bytes reserved, 3932160 bytes ( <1%) committed.
/// ```
fn of_metaspace(text: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once(" bytes reserved,")?;
        let (number, rest) = rest.trim_start().split_once(" bytes")?;
        rest.contains("committed").then(|| number.parse().ok())?
    };
    text.lines().filter_map(of_line).next_back()
}

/// Committed bytes, from `GC.heap_info` of JDK 8, in whole KiB. The class space
/// in the next line is a part of it.
///
/// ```text
///  Metaspace       used 2654K, capacity 4486K, committed 4864K, reserved 1056768K
/// ```
fn of_heap_info(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.trim_start().strip_prefix("Metaspace "))?;
    let (_, committed) = line.split_once("committed ")?;
    let (number, _) = committed.split_once('K')?;
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// Used bytes, from `Compiler.codecache`, in whole KiB for each segment; the
/// sum that newer JVMs print is not counted again.
///
/// ```text
/// CodeHeap 'non-nmethods': size=5692Kb used=1023Kb max_used=1029Kb free=4668Kb
/// ```
fn code_cache(text: &str) -> Option<u64> {
    let used = |line: &str| {
        let (_, rest) = line.split_once(" used=")?;
        rest.split_once("Kb")?
            .0
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    let of = |kind: &str| {
        let lines = text.lines().filter(|line| line.starts_with(kind));
        lines.filter_map(used).reduce(u64::saturating_add)
    };
    of("CodeHeap ").or_else(|| of("CodeCache:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metaspace_of_every_version() {
        let parts = "Usage:\n  Both:  4593664 bytes capacity, 3154864 bytes ( 69%) used, 1438544 bytes ( 31%) free+waste.\n\nVirtual space:\n  Non-class space:  8388608 bytes reserved, 4456448 bytes ( 53%) committed \n      Class space:  1073741824 bytes reserved,  524288 bytes ( <1%) committed \n             Both:  1082130432 bytes reserved, 4980736 bytes ( <1%) committed \n";
        assert_eq!(of_metaspace(parts), Some(4_980_736));
        let new = "             Both:  1140850688 bytes reserved, 3473408 bytes ( <1%) committed. \nMaxMetaspaceSize: unlimited\n";
        assert_eq!(of_metaspace(new), Some(3_473_408));
        assert_eq!(of_metaspace(""), None);
        assert_eq!(of_metaspace(" bytes reserved, bytes committed"), None);
        let eight = " def new generation   total 9216K, used 1024K [0x1, 0x2, 0x3)\n Metaspace       used 2654K, capacity 4486K, committed 4864K, reserved 1056768K\n  class space    used 286K, capacity 386K, committed 512K, reserved 1048576K\n";
        assert_eq!(of_heap_info(eight), Some(4864 << 10));
        assert_eq!(of_heap_info(" Metaspace committed K"), None);
    }

    #[test]
    fn segments_of_the_code_cache_are_summed() {
        let segments = "CodeHeap 'non-profiled nmethods': size=120036Kb used=10Kb max_used=10Kb free=120025Kb\n bounds [0x1, 0x2, 0x3]\nCodeHeap 'non-nmethods': size=5692Kb used=1023Kb max_used=1029Kb free=4668Kb\nCodeCache: size=245760Kb, used=1033Kb, max_used=1033Kb, free=244424Kb\n";
        assert_eq!(code_cache(segments), Some(1033 << 10));
        let one = "CodeCache: size=245760Kb used=1325Kb max_used=1325Kb free=244434Kb\n";
        assert_eq!(code_cache(one), Some(1325 << 10));
        assert_eq!(code_cache("Unknown"), None);
    }
}
