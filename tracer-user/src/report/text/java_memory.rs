//! What JVMs say of their own native memory, beside what was traced.

use super::layout::{Layout, PLAIN};
use super::stack::Stack;
use super::table::{Cell, Row, Table};
use crate::model::{JavaMemory, JvmAccount, MemoryKind, NativeMemory, Report, Tracking};
use crate::report::{names, units};

/// Adds a section for each JVM that answered.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    for memory in &report.java_memory {
        text.push('\n');
        let heading = format!(
            "Native memory of {}, as the JVM itself has it",
            names::process_with(report, memory.pid)
        );
        layout.prose(text, layout.strong, 0, &heading);
        let last = memory.last.as_ref().unwrap_or(&memory.first);
        layout.items(text, PLAIN, 0, &plain(&memory.first, last));
        if memory.last.is_none() {
            let line = "It did not answer at the end: all numbers are from the start.";
            layout.prose(text, layout.warning, 0, line);
        }
        match (&memory.first.tracking, &last.tracking) {
            (Some(before), Some(after)) => tracked(text, report, memory, (before, after), layout),
            _ => layout.prose(text, PLAIN, 0, &untracked(last)),
        }
    }
}

/// What every JVM tells.
fn plain(first: &JvmAccount, last: &JvmAccount) -> Vec<String> {
    let both = |value: fn(&JvmAccount) -> Option<u64>| value(first).zip(value(last));
    let bytes = |name, both: Option<(u64, u64)>| {
        let (before, after) = both?;
        let change = units::bytes_change(before, after);
        Some(format!("{name} {} ({change})", units::bytes(after)))
    };
    let count = |name: [&str; 2], both: Option<(u64, u64)>| {
        let (before, after) = both?;
        let change = units::grouped_change(before, after);
        let name = name[usize::from(after != 1)];
        Some(format!("{} {name} ({change})", units::grouped(after)))
    };
    let items = [
        bytes("metaspace", both(|account| account.metaspace)),
        bytes("code cache", both(|account| account.code_cache)),
        count(
            ["loaded class", "loaded classes"],
            both(|account| account.classes),
        ),
        count(
            ["Java thread", "Java threads"],
            both(|account| account.threads),
        ),
    ];
    items.into_iter().flatten().collect()
}

fn untracked(account: &JvmAccount) -> String {
    let words = account.untracked.as_deref().unwrap_or("no answer");
    format!(
        "It does not track the rest ({}); start it with -XX:NativeMemoryTracking=summary for its account by category.",
        names::clean(words).trim_end_matches('.').to_lowercase()
    )
}

/// The categories that grew, and the JVM's blocks beside ours.
fn tracked(
    text: &mut String,
    report: &Report,
    memory: &JavaMemory,
    (before, after): (&Tracking, &Tracking),
    layout: &Layout,
) {
    layout.prose(text, PLAIN, 0, &beside_ours(report, memory, before, after));
    let unit = before.unit.max(after.unit);
    if unit > 1 {
        let line = format!("Its sizes are multiples of {}.", units::bytes(unit));
        layout.prose(text, PLAIN, 0, &line);
    }
    let mut changed: Vec<_> = after
        .categories
        .iter()
        .map(|category| {
            let mut others = before.categories.iter();
            let earlier = others.find(|other| other.name == category.name);
            let earlier = earlier.map(|earlier| earlier.memory).unwrap_or_default();
            (category.name.as_str(), earlier, category.memory)
        })
        .filter(|(_, earlier, later)| earlier != later)
        .collect();
    changed.sort_by_key(|(_, earlier, later)| {
        i128::from(earlier.committed) - i128::from(later.committed)
    });
    text.push('\n');
    let rows = changed.iter().take(layout.top);
    Table::new(rows.map(|(name, earlier, later)| row(name, earlier, later))).render(text, layout);
}

fn beside_ours(
    report: &Report,
    memory: &JavaMemory,
    before: &Tracking,
    after: &Tracking,
) -> String {
    let live = report.sites.iter().filter(|site| {
        let process = report.processes.get(site.process);
        site.kind == MemoryKind::Heap && process.is_some_and(|process| process.pid == memory.pid)
    });
    let (bytes, count) = live.fold((0_u64, 0_u64), |(bytes, count), site| {
        (
            bytes.saturating_add(site.live_bytes),
            count.saturating_add(site.live_count),
        )
    });
    format!(
        "By its account {} committed ({}), and of that from malloc {} in {} blocks; by ours, of all callers in the process, {} in {} is live.",
        units::bytes(after.total.committed),
        units::bytes_change(before.total.committed, after.total.committed),
        units::bytes_change(before.total.malloc_bytes, after.total.malloc_bytes),
        units::grouped_change(before.total.malloc_count, after.total.malloc_count),
        units::bytes(bytes),
        units::counted(count, "block"),
    )
}

fn row<'a>(name: &str, before: &NativeMemory, after: &NativeMemory) -> Row<'a> {
    let change = |value: fn(&NativeMemory) -> u64| units::bytes_change(value(before), value(after));
    let blocks = units::grouped_change(before.malloc_count, after.malloc_count);
    Row {
        cells: vec![
            Cell::new("COMMITTED", change(|memory| memory.committed)),
            Cell::new("NOW", units::bytes(after.committed)),
            Cell::new("RESERVED", change(|memory| memory.reserved)),
            Cell::new("MALLOC", change(|memory| memory.malloc_bytes)),
            Cell::new("BLOCKS", blocks),
            Cell::new("CATEGORY", names::clean(name)),
        ],
        notes: vec![],
        stack: Stack::new(&[], None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MemoryCategory;
    use crate::report::sample;

    fn account(other: u64) -> JvmAccount {
        let memory = NativeMemory {
            reserved: other,
            committed: other,
            malloc_bytes: other,
            malloc_count: other / 1_000_008,
        };
        let category = |name: &str, memory| MemoryCategory {
            name: name.into(),
            memory,
        };
        JvmAccount {
            tracking: Some(Tracking {
                unit: 1,
                total: memory,
                categories: vec![
                    category("GC", NativeMemory::default()),
                    category("Other", memory),
                ],
            }),
            metaspace: Some(1 << 20),
            classes: Some(1),
            ..JvmAccount::default()
        }
    }

    fn text(first: JvmAccount, last: Option<JvmAccount>) -> String {
        let report = Report {
            java_memory: vec![JavaMemory {
                pid: 1234,
                first,
                last,
            }],
            ..sample::report()
        };
        let mut text = String::new();
        render(&mut text, &report, &Layout::new(10, Some(100), false));
        text
    }

    #[test]
    fn both_accounts_stand_side_by_side() {
        let expected = "
Native memory of leaky (1234), as the JVM itself has it
metaspace 1.00 MiB (0 B) · 1 loaded class (0)
By its account 6.68 MiB committed (+5.72 MiB), and of that from malloc +5.72 MiB in +6 blocks; by
ours, of all callers in the process, 10.7 MiB in 11,032 blocks is live.

COMMITTED       NOW   RESERVED     MALLOC  BLOCKS  CATEGORY
+5.72 MiB  6.68 MiB  +5.72 MiB  +5.72 MiB      +6  Other

";
        assert_eq!(text(account(1_000_008), Some(account(7_000_056))), expected);
    }

    #[test]
    fn what_is_missing_is_said() {
        let untracked = JvmAccount {
            untracked: Some("Native memory tracking is not enabled\x1b".into()),
            ..JvmAccount::default()
        };
        let found = text(untracked, None);
        assert!(
            found.contains("-XX:NativeMemoryTracking=summary"),
            "{found}"
        );
        assert!(found.contains("did not answer at the end"), "{found}");
        assert!(!found.contains('\x1b'), "{found:?}");
    }
}
