//! gperftools' page heap (`PageHeap::Stats` in src/page_heap.h), by the equations
//! between its sums: a static variable of the library, or of a program that has it.

use super::{Books, Memory, word};
use crate::process::mappings::Mapping;
use crate::process::owner::data_of_files;

/// Its eleven words: bytes from the system, free, given back, and committed; a number;
/// commits and their bytes, decommits and theirs, reservations and theirs.
const STATS: usize = 11 * 8;
/// It takes at least so much from the system at once, bytes.
const LEAST: u64 = 1 << 20;
/// Its pages are at least so large, bytes.
const UNIT: u64 = 4 << 10;

/// The books in the data of files; none if there are two, as one is none then.
pub(super) fn find(memory: &mut Memory<'_>, mappings: &[Mapping]) -> Option<Books> {
    let mut found = Vec::new();
    for (mapping, _) in data_of_files(mappings) {
        for run in memory.present.runs(&mapping.range) {
            let bytes = memory.read(&run)?;
            found.extend(stats_in(&bytes));
        }
    }
    let [free] = found.try_into().ok()?;
    Some(Books {
        allocator: "tcmalloc",
        arenas: 0,
        free,
    })
}

/// What is free by each of these sums that is found.
fn stats_in(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let places = (0..bytes.len().saturating_sub(STATS - 1)).step_by(8);
    places.filter_map(|place| free_by(bytes.get(place..place + STATS)?))
}

/// The free bytes by these sums, if all equations between them hold.
fn free_by(stats: &[u8]) -> Option<u64> {
    let system = word(stats, 0)?;
    // Nearly every place ends here.
    if system < LEAST || !system.is_multiple_of(UNIT) || word(stats, 80)? != system {
        return None;
    }
    let [free, unmapped, committed] = [word(stats, 8)?, word(stats, 16)?, word(stats, 24)?];
    let [commits, given, decommits, taken] = [
        word(stats, 40)?,
        word(stats, 48)?,
        word(stats, 56)?,
        word(stats, 64)?,
    ];
    let reservations = word(stats, 72)?;
    let holds = committed.checked_add(unmapped) == Some(system)
        && given.checked_sub(taken) == Some(committed)
        && free <= committed
        && free.is_multiple_of(UNIT)
        && (1..=commits).contains(&reservations)
        && (decommits > 0 || taken == 0);
    holds.then_some(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// 51 MiB from the system, 41 free, 3 given back of 5.
    const TRUE: [u64; 11] = [
        51 * MIB,
        41 * MIB,
        3 * MIB,
        48 * MIB,
        7,
        53,
        53 * MIB,
        2,
        5 * MIB,
        51,
        51 * MIB,
    ];

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn sums_are_found_where_they_are() {
        let mut words = vec![0, 51 * MIB, 17];
        words.extend(TRUE);
        words.push(4);
        let found: Vec<_> = stats_in(&bytes(&words)).collect();
        assert_eq!(found, [41 * MIB]);
        assert_eq!(stats_in(&bytes(&words[..13])).count(), 0, "cut");
    }

    #[test]
    fn sums_that_do_not_come_out_are_none() {
        assert_eq!(free_by(&bytes(&TRUE)), Some(41 * MIB));
        // All but the number of scavenges are in an equation or a bound.
        for at in [0, 1, 2, 3, 5, 6, 8, 9, 10] {
            let mut words = TRUE;
            words[at] = if at == 5 { 0 } else { words[at] + 97 };
            assert_eq!(free_by(&bytes(&words)), None, "word {at}");
        }
        assert_eq!(free_by(&[0; STATS]), None);
        assert_eq!(free_by(&bytes(&[MIB; 11])), None);
    }
}
