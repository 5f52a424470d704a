//! Memory that no leak explains: what allocators keep, and what is older than the run.

use super::per_second;
use crate::model::balance::{AllocatorBooks, Balance};
use crate::model::{Finding, FindingKind, Report};
use crate::report::retention::{is_mostly_older, kept};
use crate::report::{kept_by, names, units};

/// Both are said only where the kernel's and our own accounts leave nothing else.
const SURE: f64 = 0.95;

/// A finding for each process of which one of both is true.
pub fn findings(report: &Report) -> Vec<Finding> {
    let of_process = |balance: &Balance| match kept(report, balance) {
        Some(kept) => Some(retention(report, balance, kept)),
        None => is_mostly_older(balance).map(|older| before(report, balance, older)),
    };
    report.balance.iter().filter_map(of_process).collect()
}

fn retention(report: &Report, balance: &Balance, kept: u64) -> Finding {
    let told = balance.books.iter().filter(|books| books.free > 0);
    Finding {
        title: format!(
            "the allocator of {} keeps {} that was freed: no leak",
            names::process_of(report, balance.process),
            units::bytes(kept)
        ),
        evidence: std::iter::once(
            "all blocks were seen, and as much was freed during the run".to_owned(),
        )
        .chain(told.map(by_books))
        .collect(),
        advice: kept_by::remedy(report, balance),
        live_bytes: kept,
        bytes_per_second: per_second(report, balance.process, kept as f64),
        ..Finding::new(FindingKind::Retention, balance.process, SURE)
    }
}

fn by_books(books: &AllocatorBooks) -> String {
    let arenas = match books.arenas {
        Some(count) => format!(" in {}", units::counted(count, "arena")),
        None => String::new(),
    };
    format!(
        "by the books of {} {} is free in whole pages{arenas}",
        books.allocator,
        units::bytes(books.free)
    )
}

fn before(report: &Report, balance: &Balance, older: u64) -> Finding {
    Finding {
        title: format!(
            "{} of {} in memory of {} is older than the run",
            units::bytes(older),
            units::bytes(balance.resident_end),
            names::process_of(report, balance.process)
        ),
        evidence: vec!["who allocated it cannot be told any more".to_owned()],
        advice: "start it with `sudo unfreed run -- PROGRAM` to see who allocates it".to_owned(),
        live_bytes: older,
        ..Finding::new(FindingKind::BeforeTheRun, balance.process, SURE)
    }
}
