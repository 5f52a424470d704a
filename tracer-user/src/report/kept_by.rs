//! Which allocator keeps memory, what of it is free by its own books, and what makes it
//! give that back.

use crate::model::balance::{AllocatorBooks, Balance, KeptSource};
use crate::model::{MemoryKind, Report};
use crate::report::units;

/// An allocator whose remedy is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Jemalloc,
    Tcmalloc,
    Mimalloc,
    Apr,
    Glibc,
}

/// The allocator of a process with its arenas, then a sentence on its books and one on its
/// remedy.
pub fn sentences(report: &Report, balance: &Balance) -> String {
    let books = books_of(balance);
    let name = match keeper(report, balance) {
        Some(Keeper::Jemalloc) => format!("jemalloc{}", account(balance, books)),
        Some(Keeper::Tcmalloc) => format!("tcmalloc{}", account(balance, books)),
        Some(Keeper::Mimalloc) => format!("mimalloc{}", account(balance, None)),
        Some(Keeper::Apr) => format!("APR's pools, or glibc{}", arenas(balance.arenas)),
        Some(Keeper::Glibc) => format!("glibc{}", arenas(balance.arenas)),
        None => "its allocator.".to_owned(),
    };
    format!("{name} {}.", remedy(report, balance))
}

/// What makes a process's allocator give memory back, now and sooner.
pub fn remedy(report: &Report, balance: &Balance) -> String {
    match keeper(report, balance) {
        Some(Keeper::Jemalloc) => {
            let probes = report.processes.get(balance.process);
            let mut probes = probes.into_iter().flat_map(|it| &it.probes);
            let is_rust = probes.any(|probe| probe.function.starts_with("_rjem_"));
            format!(
                "mallctl(\"arena.4096.purge\") gives back what is free; {}MALLOC_CONF=background_thread:true,dirty_decay_ms:1000 in its environment has it do so sooner",
                if is_rust { "_RJEM_" } else { "" }
            )
        }
        // TCMALLOC_RELEASE_RATE alone gives nothing back of a peak of some 60 MiB.
        Some(Keeper::Tcmalloc) => "MallocExtension::ReleaseFreeMemory() gives back what is free; TCMALLOC_AGGRESSIVE_DECOMMIT=1 in its environment has it do so at once".to_owned(),
        Some(Keeper::Mimalloc) => "mi_collect(true) gives back what is free; MIMALLOC_PURGE_DELAY=0 (before 2.1 MIMALLOC_RESET_DELAY=0) in its environment has it do so at once".to_owned(),
        Some(Keeper::Apr) => "apr_allocator_max_free_set (httpd: MaxMemFree) has APR keep less; malloc_trim(0) gives back what glibc keeps".to_owned(),
        Some(Keeper::Glibc) => format!(
            "MALLOC_ARENA_MAX=2 in its environment has it make fewer arenas; malloc_trim(0) gives back what is free{}",
            match balance.trimmable {
                Some(bytes) => format!(" (about {} now)", units::bytes(bytes)),
                None => String::new(),
            }
        ),
        None => "Its allocator's settings may have it give back sooner".to_owned(),
    }
}

/// Books with most in them.
fn books_of(balance: &Balance) -> Option<&AllocatorBooks> {
    balance.books.iter().max_by_key(|books| books.free)
}

/// Whose memory it is, by its books or by what is probed: one that is linked into a
/// program has no file of its own.
fn keeper(report: &Report, balance: &Balance) -> Option<Keeper> {
    let process = report.processes.get(balance.process);
    let probes = process.map(|it| it.probes.as_slice()).unwrap_or_default();
    let has = |name: &str| probes.iter().any(|probe| probe.module.contains(name));
    let busiest = busiest(report, balance.process);
    let is = |name: &str| match books_of(balance) {
        Some(books) => books.allocator == name,
        None => has(name),
    };
    match () {
        () if busiest.is_some_and(|it| it.starts_with("mi_")) => Some(Keeper::Mimalloc),
        () if is("jemalloc") => Some(Keeper::Jemalloc),
        () if is("tcmalloc") => Some(Keeper::Tcmalloc),
        () if is("mimalloc") => Some(Keeper::Mimalloc),
        () if has("libapr-1.so") => Some(Keeper::Apr),
        () if has("libc.so") || has("libc-") => Some(Keeper::Glibc),
        () => None,
    }
}

/// The function by which most was allocated of what was freed.
fn busiest(report: &Report, process: usize) -> Option<&str> {
    let sites = report.sites.iter();
    let own = sites.filter(|it| it.process == process && it.kind == MemoryKind::Heap);
    let most = own.max_by_key(|site| site.freed_bytes)?;
    most.frames.last()?.function.as_deref()
}

/// The arenas of one that is not glibc, and what is free by its books.
fn account(balance: &Balance, books: Option<&AllocatorBooks>) -> String {
    match books {
        Some(books) => format!(
            "{} By its own books {} is free in whole pages.",
            arenas(books.arenas),
            units::bytes(books.free)
        ),
        None if balance.kept_source == Some(KeptSource::Pages) => {
            ", by its pages in memory: its own books cannot be read.".to_owned()
        }
        None => ".".to_owned(),
    }
}

fn arenas(count: Option<u64>) -> String {
    match count {
        Some(count) => format!(" in {}.", units::counted(count, "arena")),
        None => ".".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probe;
    use crate::report::sample;

    fn by(module: &str, function: &str, balance: &Balance) -> String {
        let mut report = sample::report();
        report.processes[0].probes = vec![Probe {
            function: function.into(),
            module: module.into(),
            file_offset: 0,
            displacement: 0,
            placement: String::new(),
            result: String::new(),
        }];
        sentences(&report, balance)
    }

    #[test]
    fn books_name_the_allocator_of_a_program_that_has_it_in_itself() {
        let books = |allocator: &str, arenas| AllocatorBooks {
            allocator: allocator.to_owned(),
            arenas,
            free: 27 << 20,
        };
        let balance = Balance {
            books: vec![books("jemalloc", Some(9))],
            kept_source: Some(KeptSource::Books),
            ..Balance::default()
        };
        let said = by("/usr/bin/redis-server", "malloc", &balance);
        let expected =
            "jemalloc in 9 arenas. By its own books 27.0 MiB is free in whole pages. mallctl(";
        assert!(said.starts_with(expected), "{said}");
        assert!(said.contains("; MALLOC_CONF="), "{said}");
        let said = by("/usr/bin/server", "_rjem_malloc", &balance);
        assert!(said.contains("; _RJEM_MALLOC_CONF="), "{said}");
        let balance = Balance {
            books: vec![books("tcmalloc", None)],
            ..balance
        };
        let said = by("/opt/server", "malloc", &balance);
        let expected = "tcmalloc. By its own books 27.0 MiB is free in whole pages. MallocExt";
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn where_only_pages_are_known_that_is_said() {
        let balance = Balance {
            kept_source: Some(KeptSource::Pages),
            ..Balance::default()
        };
        let said = by("/usr/lib/libmimalloc.so.2.0", "malloc", &balance);
        let expected = "mimalloc, by its pages in memory: its own books cannot be read. mi_collect";
        assert!(said.starts_with(expected), "{said}");
    }
}
