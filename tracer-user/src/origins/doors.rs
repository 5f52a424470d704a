//! Doors: functions that do nothing but call an allocator, and for whose callers it is.

use std::ops::Range;
use std::path::Path;

use tracer_ebpf::rule::Rule;

use super::Door;
use crate::process::address::ElfAddress;
use crate::process::file::ModuleFile;
use crate::unwind::Table;

/// `operator new` and `new[]`, plain and aligned, and such as throw nothing.
const OPERATORS: [&[u8]; 8] = [
    b"_Znwm",
    b"_Znam",
    b"_ZnwmSt11align_val_t",
    b"_ZnamSt11align_val_t",
    b"_ZnwmRKSt9nothrow_t",
    b"_ZnamRKSt9nothrow_t",
    b"_ZnwmSt11align_val_tRKSt9nothrow_t",
    b"_ZnamSt11align_val_tRKSt9nothrow_t",
];

/// What Rust code calls to allocate, and what of the standard library that leads to. Since
/// Rust 1.87 these names are the last part of mangled ones.
const RUST: [&[u8]; 6] = [
    b"__rust_alloc",
    b"__rust_alloc_zeroed",
    b"__rust_realloc",
    b"__rdl_alloc",
    b"__rdl_alloc_zeroed",
    b"__rdl_realloc",
];

/// Doors of one file, at most: files may be anybody's.
const MAX_DOORS: usize = 64;

/// The doors of a file, as they are found.
#[derive(Debug, Default)]
pub struct Doors(Vec<Range<u64>>);

impl Doors {
    /// Notes a function, if it is a door. Whether it is.
    pub fn add(&mut self, symbol: &[u8], range: &Range<u64>) -> bool {
        let symbol = symbol.split(|byte| *byte == b'@').next().unwrap_or(symbol);
        let is_rust = |name: &&[u8]| {
            *name == symbol
                || (symbol.starts_with(b"_RNv") && {
                    // The length of an identifier that begins with `_` has one `_` behind it.
                    let end = [name.len().to_string().as_bytes(), b"_", name].concat();
                    symbol.ends_with(&end)
                })
        };
        let is_door = OPERATORS.contains(&symbol) || RUST.iter().any(is_rust);
        if is_door && !self.0.contains(range) && self.0.len() < MAX_DOORS {
            self.0.push(range.clone());
        }
        is_door
    }

    /// The same with the rules by which their callers are found. Where there is none, the
    /// door itself is who calls.
    pub fn with_rules(mut self, file: &ModuleFile, path: &Path) -> Vec<Door> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.sort_unstable_by_key(|range| range.start);
        let Ok(Some(table)) = Table::read(&file.content, path) else {
            return Vec::new();
        };
        let mut doors: Vec<Door> = Vec::new();
        for range in self.0 {
            // Names of one place may have different sizes.
            let begin = doors.last().map_or(0, |door| door.range.end);
            let range = range.start.max(begin)..range.end;
            doors.extend(parts(&table, range));
        }
        doors
    }
}

/// The parts of a function, bytes in its file, each with its rule.
fn parts(table: &Table, range: Range<u64>) -> Vec<Door> {
    let Some(start) = row_offset(table, range.start) else {
        return Vec::new();
    };
    // A row is the first whose offset is not above.
    let rows = &table.returns;
    let first = rows.partition_point(|row| u64::from(row.offset) <= start);
    let mut parts: Vec<Door> = Vec::new();
    let mut at = range.start;
    for index in first.saturating_sub(1)..rows.len() {
        if at >= range.end {
            break;
        }
        let next = rows
            .get(index + 1)
            .map_or(u64::MAX, |row| row.offset.into());
        let end = range
            .start
            .saturating_add(next.saturating_sub(start))
            .min(range.end);
        if is_simple(rows[index].rule) && at < end {
            parts.push(Door {
                range: at..end,
                rule: rows[index].rule,
            });
        }
        at = at.max(end);
    }
    parts
}

/// Where a byte of the file is in the table.
fn row_offset(table: &Table, offset: u64) -> Option<u64> {
    let segment = table.segments.iter().find(|segment| {
        let into = offset.checked_sub(segment.offset.0);
        into.is_some_and(|into| into < segment.size)
    })?;
    let ElfAddress(base) = table.base;
    let address = segment.address.0.wrapping_add(offset - segment.offset.0);
    address.checked_sub(base)
}

/// Whether a caller is found by adding to a register.
fn is_simple(rule: Rule) -> bool {
    rule.is_plain() && rule.goes_on() && rule.local() == 1 && !rule.bp().is_lost()
}
