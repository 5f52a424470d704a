//! The JVM's native memory tracking (`VM.native_memory summary`), which runs
//! only if the JVM was started with `-XX:NativeMemoryTracking`.
//!
//! ```text
//! Total: reserved=7914370744, committed=462685880
//! -                    Thread (reserved=18934584, committed=928568)
//!                             (threads #18)
//!                             (malloc=41016 tag=Thread #109) (peak=49400 #113)
//! ```
//!
//! With `scale=b` numbers are bytes. JVMs that do not know it (8) print KB,
//! MB or GB behind the number.

use crate::model::{MemoryCategory, NativeMemory, Tracking};

/// The commands to try, most exact first.
pub const COMMANDS: [&str; 2] = [
    "VM.native_memory summary scale=b",
    "VM.native_memory summary",
];
/// More categories than this are not kept; JVMs have about 25.
const MAX_CATEGORIES: usize = 200;

/// Reads what the command prints; none if it is not the summary.
pub fn parse(text: &str) -> Option<Tracking> {
    let mut tracking: Option<Tracking> = None;
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("Total:") {
            let (total, unit) = reserved_and_committed(total)?;
            tracking = Some(Tracking {
                unit,
                total,
                categories: Vec::new(),
            });
            continue;
        }
        let Some(tracking) = &mut tracking else {
            continue;
        };
        if let Some((category, unit)) = category(line) {
            if tracking.categories.len() >= MAX_CATEGORIES {
                break;
            }
            tracking.unit = tracking.unit.max(unit);
            tracking.categories.push(category);
        } else if let Some(category) = tracking.categories.last_mut()
            && let Some((bytes, count)) = malloc(line)
        {
            category.memory.malloc_bytes = bytes;
            category.memory.malloc_count = count;
        }
    }
    let tracking = tracking.as_mut()?;
    let of_all = |value: fn(&NativeMemory) -> u64| {
        let values = tracking.categories.iter().map(|each| value(&each.memory));
        values.fold(0, u64::saturating_add)
    };
    let sums = (of_all(|m| m.malloc_bytes), of_all(|m| m.malloc_count));
    (tracking.total.malloc_bytes, tracking.total.malloc_count) = sums;
    Some(tracking.clone())
}

/// `-      Thread (reserved=18934584, committed=928568)`
fn category(line: &str) -> Option<(MemoryCategory, u64)> {
    let (name, rest) = line.strip_prefix('-')?.rsplit_once(" (reserved=")?;
    let (memory, unit) = reserved_and_committed(&format!("reserved={rest}"))?;
    let name = name.trim().chars().take(100).collect();
    Some((MemoryCategory { name, memory }, unit))
}

/// `reserved=7780419KB, committed=458695KB`, and the unit.
fn reserved_and_committed(text: &str) -> Option<(NativeMemory, u64)> {
    let (reserved, unit) = size(text.split_once("reserved=")?.1)?;
    let (committed, other) = size(text.split_once("committed=")?.1)?;
    let memory = NativeMemory {
        reserved,
        committed,
        ..NativeMemory::default()
    };
    Some((memory, unit.max(other)))
}

/// `(malloc=41016 tag=Thread #109)`: bytes and blocks. Where there is one
/// block, no number of blocks is printed.
fn malloc(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("(malloc=")?;
    let (inside, _) = rest.split_once(')')?;
    let (bytes, _) = size(inside)?;
    let count = match inside.split_once('#') {
        Some((_, count)) => count.trim().parse().ok()?,
        None => u64::from(bytes > 0),
    };
    Some((bytes, count))
}

/// A number with the unit behind it, in bytes; and the unit.
fn size(text: &str) -> Option<(u64, u64)> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    let unit = match rest.get(..2) {
        Some("KB") => 1 << 10,
        Some("MB") => 1 << 20,
        Some("GB") => 1 << 30,
        _ => 1,
    };
    Some((digits.parse::<u64>().ok()?.checked_mul(unit)?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tracking: &Tracking, name: &str) -> NativeMemory {
        let mut categories = tracking.categories.iter();
        categories.find(|each| each.name == name).unwrap().memory
    }

    #[test]
    fn bytes_are_exact() {
        let text = "
Native Memory Tracking:

Total: reserved=7914370744, committed=462685880
       malloc: 10106552 #8173, peak=9959439 #8174
       mmap:   reserved=7904264192, committed=452579328

-                     Class (reserved=1073800957, committed=452349)
                            (classes #512)
                            (malloc=59133 tag=Class #562) (at peak)
                            (mmap: reserved=1073741824, committed=393216, at peak)
                            (  Metadata:   )
                            (    reserved=67108864, committed=3538944)

-                     Other (reserved=1000008, committed=1000008)
                            (malloc=1000008)
-    Native Memory Tracking (reserved=154834, committed=154834)
                            (malloc=7720 tag=Native Memory Tracking #119) (at peak)
";
        let tracking = parse(text).unwrap();
        assert_eq!((tracking.unit, tracking.categories.len()), (1, 3));
        assert_eq!(tracking.total.reserved, 7_914_370_744);
        let class = NativeMemory {
            reserved: 1_073_800_957,
            committed: 452_349,
            malloc_bytes: 59_133,
            malloc_count: 562,
        };
        assert_eq!(of(&tracking, "Class"), class);
        assert_eq!(of(&tracking, "Other").malloc_count, 1);
        assert_eq!(of(&tracking, "Native Memory Tracking").malloc_count, 119);
        assert_eq!(tracking.total.malloc_bytes, 59_133 + 1_000_008 + 7_720);
    }

    #[test]
    fn larger_units_are_told() {
        let text = "Total: reserved=7780419KB, committed=458695KB\n-  GC (reserved=1KB, committed=2MB)\n (malloc=3KB #192)\n";
        let tracking = parse(text).unwrap();
        assert_eq!(tracking.unit, 1 << 20);
        assert_eq!(tracking.total.committed, 458_695 << 10);
        let gc = of(&tracking, "GC");
        assert_eq!((gc.reserved, gc.committed), (1 << 10, 2 << 20));
        assert_eq!((gc.malloc_bytes, gc.malloc_count), (3 << 10, 192));
    }

    #[test]
    fn what_is_no_summary_is_none() {
        for text in [
            "",
            "Native memory tracking is not enabled\n",
            "Incorrect scale value: b\n",
            "- GC (reserved=1, committed=1)\n",
            "Total: reserved=x, committed=1\n",
            "Total: reserved=99999999999999999999, committed=1\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
