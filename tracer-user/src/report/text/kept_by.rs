//! Which allocator keeps memory, what of it is free by its own books, and what makes it
//! give that back.

use crate::model::Report;
use crate::model::balance::{AllocatorBooks, Balance, KeptSource};
use crate::report::units;

/// The allocator of a process with its arenas, then a sentence on its books and one on its
/// remedy.
pub fn sentences(report: &Report, balance: &Balance) -> String {
    let process = report.processes.get(balance.process);
    let probes = process.map(|it| it.probes.as_slice()).unwrap_or_default();
    let in_module = |name: &str| probes.iter().any(|probe| probe.module.contains(name));
    let books = (balance.books.iter()).max_by_key(|books| books.free);
    let is = |name: &str| match books {
        // One that is linked into a program has no file of its own.
        Some(books) => books.allocator == name,
        None => in_module(name),
    };
    match () {
        () if is("jemalloc") => {
            let is_rust = (probes.iter()).any(|probe| probe.function.starts_with("_rjem_"));
            let prefix = if is_rust { "_RJEM_" } else { "" };
            format!(
                "jemalloc{} mallctl(\"arena.4096.purge\") gives back what is free; {prefix}MALLOC_CONF=background_thread:true,dirty_decay_ms:1000 in its environment has it do so sooner.",
                account(balance, books)
            )
        }
        () if is("tcmalloc") => format!(
            "tcmalloc{} MallocExtension::ReleaseFreeMemory() gives back what is free; TCMALLOC_RELEASE_RATE=10 in its environment has it do so sooner.",
            account(balance, books)
        ),
        () if is("mimalloc") => format!(
            "mimalloc{} mi_collect(true) gives back what is free; MIMALLOC_PURGE_DELAY=0 (before 2.1 MIMALLOC_RESET_DELAY=0) in its environment has it do so at once.",
            account(balance, None)
        ),
        () if in_module("libapr-1.so") => format!(
            "APR's pools, or glibc{} apr_allocator_max_free_set (httpd: MaxMemFree) has APR keep less; malloc_trim(0) gives back what glibc keeps.",
            arenas(balance.arenas)
        ),
        () if in_module("libc.so") || in_module("libc-") => format!(
            "glibc{} MALLOC_ARENA_MAX=2 in its environment has it make fewer arenas; malloc_trim(0) gives back what is free{}.",
            arenas(balance.arenas),
            match balance.trimmable {
                Some(bytes) => format!(" (about {} now)", units::bytes(bytes)),
                None => String::new(),
            }
        ),
        () => "its allocator. Its allocator's settings may have it give back sooner.".to_owned(),
    }
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
