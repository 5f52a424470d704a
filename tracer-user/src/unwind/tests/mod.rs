//! Tables against gimli's own reading of the same files, and hostile files.

mod agreement;
mod balanced;
mod hostile;
mod landmarks;
mod replay;
mod tiny;

use tracer_ebpf::rule::Rule;

use super::{RuleRow, Table};

/// The rule of an address, by rows.
fn rule_at(rows: &[RuleRow], table: &Table, address: u64) -> Rule {
    let offset = address - table.base.0;
    let after = rows.partition_point(|row| u64::from(row.offset) <= offset);
    after.checked_sub(1).map_or(Rule::NONE, |at| rows[at].rule)
}

/// The rule of an instruction.
fn full(table: &Table, address: u64) -> Rule {
    rule_at(&table.full, table, address)
}

/// The rule of a return address.
fn returning(table: &Table, address: u64) -> Rule {
    rule_at(&table.returns, table, address - 1)
}

/// The path of the C library that we run with.
fn libc_path() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("libc.so")).unwrap();
    line.split_whitespace().last().unwrap().into()
}

/// Where bytes are in executable code, as addresses.
fn places(image: &[u8], table: &Table, wanted: &[u8]) -> Vec<u64> {
    let find = memchr::memmem::Finder::new(wanted);
    let mut found = Vec::new();
    for segment in &table.segments {
        let start = usize::try_from(segment.offset.0).unwrap();
        let code = &image[start..start + usize::try_from(segment.size).unwrap()];
        found.extend(find.find_iter(code).map(|at| segment.address.0 + at as u64));
    }
    found
}
