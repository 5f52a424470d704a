//! What the ledger makes of calls, one by one.

use super::*;

fn event(kind: EventKind, address: u64, length: u64, flags: u64) -> Event {
    Event {
        kind: kind as u32,
        thread: 1,
        image: 1,
        time: 5,
        address,
        length,
        flags,
        other: 0,
        site: 7,
        padding: 0,
    }
}

fn map(ledger: &mut Ledger, address: u64, length: u64) {
    ledger.apply(&event(EventKind::Map, address, length, MAP_ANONYMOUS));
}

fn enter_unmap(ledger: &mut Ledger, address: u64, length: u64) {
    ledger.apply(&event(EventKind::UnmapEnter, address, length, 0));
}

fn unmap(ledger: &mut Ledger, address: u64, length: u64) {
    enter_unmap(ledger, address, length);
    ledger.apply(&event(EventKind::UnmapReturn, 0, 0, 0));
}

/// (live mappings, live bytes, mappings freed, bytes freed)
fn state(ledger: &mut Ledger) -> (usize, u64, u64, u64) {
    ledger.finish();
    let sums = ledger.sums[&(7, MappingKind::Anonymous)];
    let live = ledger.live().count();
    let bytes = ledger.live().map(|mapping| mapping.bytes).sum();
    assert_eq!(
        sums.allocated_bytes - sums.freed_bytes,
        bytes,
        "the sums agree with the pieces"
    );
    assert_eq!(sums.allocated_count - sums.freed_count, live as u64);
    assert_eq!(
        ledger
            .pieces
            .iter()
            .map(|(range, _)| range.end - range.start)
            .sum::<u64>(),
        bytes
    );
    (live, bytes, sums.freed_count, sums.freed_bytes)
}

#[test]
fn lengths_are_rounded_up_to_pages() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x1001);
    assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
    unmap(&mut ledger, 0x10000, 0x1001);
    assert_eq!(state(&mut ledger), (0, 0, 1, 0x2000));
}

#[test]
fn head_tail_and_middle_can_go_one_by_one() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x5000);
    unmap(&mut ledger, 0x10000, 0x1000);
    unmap(&mut ledger, 0x14000, 0x1000);
    unmap(&mut ledger, 0x12000, 0x1000);
    assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0x3000));
    unmap(&mut ledger, 0x10000, 0x5000);
    assert_eq!(state(&mut ledger), (0, 0, 1, 0x5000));
}

#[test]
fn one_munmap_can_span_several_mappings_and_holes() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x2000);
    map(&mut ledger, 0x14000, 0x2000);
    unmap(&mut ledger, 0x11000, 0x4000);
    assert_eq!(state(&mut ledger), (2, 0x2000, 0, 0x2000));
}

#[test]
fn a_munmap_counts_once_it_returned() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x2000);
    enter_unmap(&mut ledger, 0x10000, 0x2000);
    let freed = |ledger: &Ledger| ledger.sums().map(|(_, sums)| sums.freed_bytes).sum::<u64>();
    assert_eq!(freed(&ledger), 0);
    ledger.apply(&event(EventKind::UnmapReturn, 0, 0, 0));
    assert_eq!(freed(&ledger), 0x2000);
}

#[test]
fn what_is_in_flight_at_the_end_has_not_happened() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x2000);
    enter_unmap(&mut ledger, 0x10000, 0x2000);
    assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
    ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x2000, 1));
    assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
}

#[test]
fn a_failed_munmap_loses_nothing() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x2000);
    enter_unmap(&mut ledger, 0x10000, 0x1000);
    ledger.apply(&event(EventKind::UnmapReturn, 0xffff_ffff, 0, 0));
    enter_unmap(&mut ledger, 0x10001, 0x1000);
    assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
}

#[test]
fn a_fixed_mapping_replaces_what_was_there() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x4000);
    map(&mut ledger, 0x11000, 0x1000);
    assert_eq!(state(&mut ledger), (2, 0x4000, 0, 0x1000));
    // Code over part of it.
    let mut code = event(EventKind::Map, 0x12000, 0x1000, 0x10);
    code.site = NO_SITE;
    ledger.apply(&code);
    assert_eq!(state(&mut ledger), (2, 0x3000, 0, 0x2000));
}

#[test]
fn a_moving_mremap_frees_the_old_and_makes_the_new() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x2000);
    ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x2000, 1));
    map_elsewhere(&mut ledger);
    ledger.apply(&event(EventKind::RemapReturn, 0x50000, 0x4000, 1));
    assert_eq!(state(&mut ledger), (2, 0x5000, 1, 0x2000));
}

/// Another thread gets the old address before the mremap's return is seen.
fn map_elsewhere(ledger: &mut Ledger) {
    let mut other = event(EventKind::Map, 0x10000, 0x1000, MAP_ANONYMOUS);
    other.thread = 2;
    ledger.apply(&other);
}

#[test]
fn a_failed_mremap_loses_nothing() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x2000);
    ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x2000, 1));
    ledger.apply(&event(EventKind::RemapReturn, MAP_FAILED, 0x8000, 1));
    assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
}

#[test]
fn mremap_of_memory_from_before_the_trace_is_not_counted() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x1000);
    ledger.apply(&event(EventKind::RemapEnter, 0x90000, 0x2000, 1));
    ledger.apply(&event(EventKind::RemapReturn, 0xa0000, 0x4000, 1));
    assert_eq!(state(&mut ledger), (1, 0x1000, 0, 0));
}

#[test]
fn a_shrinking_mremap_keeps_the_rest() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x4000);
    ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x4000, 0));
    ledger.apply(&event(EventKind::RemapReturn, 0x10000, 0x1000, 0));
    assert_eq!(state(&mut ledger), (1, 0x1000, 1, 0x4000));
}

#[test]
fn hostile_lengths_do_nothing() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x1000);
    unmap(&mut ledger, 0x1000, u64::MAX);
    unmap(&mut ledger, u64::MAX - 0xfff, 0x2000);
    map(&mut ledger, 0x20000, u64::MAX - 5);
    assert_eq!(state(&mut ledger), (1, 0x1000, 0, 0));
}

#[test]
fn reserved_addresses_are_memory_once_they_can_be_used() {
    let mut ledger = Ledger::default();
    ledger.apply(&event(EventKind::Reserve, 0x10000, 0x10000, 0));
    assert!(ledger.live().next().is_none());
    ledger.apply(&event(EventKind::Commit, 0x11000, 0x3000, 0));
    assert_eq!(state(&mut ledger), (1, 0x3000, 0, 0));
    // Once more, and what was not reserved.
    ledger.apply(&event(EventKind::Commit, 0x12000, 0x3000, 0));
    ledger.apply(&event(EventKind::Commit, 0x90000, 0x3000, 0));
    assert_eq!(state(&mut ledger), (2, 0x4000, 0, 0));
    unmap(&mut ledger, 0x10000, 0x10000);
    assert_eq!(state(&mut ledger), (0, 0, 2, 0x4000));
    ledger.apply(&event(EventKind::Commit, 0x11000, 0x3000, 0));
    assert_eq!(
        state(&mut ledger),
        (0, 0, 2, 0x4000),
        "it is not reserved any more"
    );
}

#[test]
fn files_are_an_account_of_their_own() {
    let mut ledger = Ledger::default();
    ledger.apply(&event(EventKind::Map, 0x10000, 0x2000, 2));
    map(&mut ledger, 0x20000, 0x1000);
    let kinds = |ledger: &Ledger| {
        let mut kinds: Vec<_> = ledger.live().map(|it| (it.account.1, it.bytes)).collect();
        kinds.sort();
        kinds
    };
    let both = [
        (MappingKind::Anonymous, 0x1000),
        (MappingKind::File, 0x2000),
    ];
    assert_eq!(kinds(&ledger), both);
    assert!(ledger.wants_regions());
    let region = |start: u64, end: u64, name: &str| Region {
        range: start..end,
        name: name.to_owned(),
    };
    ledger.name_files(&[region(0x8000, 0x12000, "/a")]);
    let account = (7, MappingKind::File);
    assert_eq!(ledger.files_of(account), [("/a".to_owned(), 1, 0x2000)]);
    // A segment is as long as its mapping.
    ledger.apply(&event(EventKind::Attach, 0x40000, 0, 0));
    ledger.name_files(&[region(0x40000, 0x45000, "/SYSV00000000 (deleted)")]);
    assert_eq!(ledger.files_of(account).len(), 2);
    ledger.apply(&event(EventKind::DetachEnter, 0x40000, 0, 0));
    ledger.apply(&event(EventKind::UnmapReturn, 0, 0, 0));
    assert_eq!(kinds(&ledger), both);
}

#[test]
fn a_stack_is_charged_to_who_started_the_thread_that_has_it() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x8000);
    let born = |thread: u32, site: u32, time: u64| Event {
        thread,
        site,
        time,
        other: 0x17000,
        ..event(EventKind::ThreadBorn, 0x18000, 0, 0)
    };
    let stacks = |site: u32| (site, MappingKind::Stack);
    ledger.apply(&born(2, 8, 6));
    assert!(ledger.sums_of(7).next().is_none(), "the maker has none");
    assert_eq!(ledger.stacks_of(stacks(8)), [1, 0, 0]);
    ledger.apply(&Event {
        thread: 2,
        ..event(EventKind::ThreadEnded, 0, 0, 0)
    });
    assert_eq!(ledger.stacks_of(stacks(8)), [0, 1, 0]);
    let [(id, cleared)] = ledger.ended_stacks()[..] else {
        panic!("one thread ended");
    };
    assert_eq!(cleared, 0x17000);
    ledger.joined(id);
    assert_eq!(ledger.stacks_of(stacks(8)), [0, 0, 1]);
    assert!(ledger.ended_stacks().is_empty());
    // Another thread gets the stack.
    ledger.apply(&born(3, 9, 8));
    assert_eq!(ledger.sums[&stacks(8)].freed_count, 1);
    assert_eq!(ledger.stacks_of(stacks(9)), [1, 0, 0]);
    let live: Vec<_> = ledger.live().map(|it| (it.account, it.bytes)).collect();
    assert_eq!(live, [(stacks(9), 0x8000)]);
}

#[test]
fn what_is_resident_is_that_of_the_last_look_and_its_peak() {
    let mut ledger = Ledger::default();
    map(&mut ledger, 0x10000, 0x8000);
    let account = (7, MappingKind::Anonymous);
    assert_eq!(ledger.resident(account), None);
    ledger.look(|_| Some(0x3000));
    ledger.look(|_| Some(0x1000));
    let expected = Resident {
        now: 0x1000,
        peak: 0x3000,
        looks: 2,
        rises: 1,
    };
    assert_eq!(ledger.resident(account), Some(expected));
    ledger.look(|_| None);
    assert_eq!(ledger.resident(account), Some(expected));
    unmap(&mut ledger, 0x10000, 0x8000);
    ledger.look(|_| None);
    assert_eq!(ledger.resident(account).unwrap().now, 0);
}

#[test]
fn what_allocators_map_is_known_and_charged_to_nobody() {
    let mut ledger = Ledger::default();
    let told = |ledger: &mut Ledger, kind, address, length| {
        ledger.apply(&Event {
            site: NO_SITE,
            ..event(kind, address, length, MAP_ANONYMOUS)
        });
    };
    let ends = |range: Range<u64>| (range.start, range.end);
    let ranges = |ledger: &Ledger| {
        let own = ledger.uncharged();
        let allocators: Vec<_> = own.allocators().map(ends).collect();
        (allocators, own.others().map(ends).collect::<Vec<_>>())
    };
    map(&mut ledger, 0x10000, 0x8000);
    told(&mut ledger, EventKind::AllocatorMap, 0x14000, 0x8000);
    told(&mut ledger, EventKind::Map, 0x40000, 0x1000);
    assert_eq!(state(&mut ledger), (1, 0x4000, 0, 0x4000));
    let (allocators, others) = ranges(&ledger);
    assert_eq!(allocators, [(0x14000, 0x1c000)]);
    assert_eq!(others, [(0x40000, 0x41000)]);
    // The allocator gives back a part, and the program maps over another.
    told(&mut ledger, EventKind::AllocatorUnmap, 0x14000, 0x1000);
    map(&mut ledger, 0x1a000, 0x1000);
    unmap(&mut ledger, 0x40000, 0x1000);
    let (allocators, others) = ranges(&ledger);
    assert_eq!(allocators, [(0x15000, 0x1a000), (0x1b000, 0x1c000)]);
    assert!(others.is_empty());
}
