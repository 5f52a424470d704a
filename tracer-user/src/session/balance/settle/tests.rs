#![expect(
    clippy::single_range_in_vec_init,
    reason = "a list of ranges that has one"
)]

use std::time::Duration;

use super::*;
use crate::process::arenas::Arenas;
use crate::process::maps::{Device, FileId};

const MIB: u64 = 1 << 20;
/// Where things are in these tests.
const HEAP: u64 = 0x5000_0000;
const OLD: u64 = 0x1000_0000_0000;
const NEW: u64 = 0x2000_0000_0000;

fn mapping(start: u64, bytes: u64, kind: MappingKind) -> Mapping {
    Mapping {
        range: start..start + bytes,
        kind,
        is_writable: true,
        name: String::new(),
        file: FileId::new(Device { major: 0, minor: 0 }, 0),
    }
}

/// A look at mappings with these pages in memory.
fn look(mappings: Vec<Mapping>, pages: &[Range<u64>]) -> Look {
    let mut present = PageSet::default();
    let mut resident = 0;
    for range in pages {
        assert!(present.insert(range));
        resident += range.end - range.start;
    }
    Look {
        descriptors: None,
        account: Account {
            resident,
            anonymous: resident,
            ..Account::default()
        },
        pages: Some(Residents {
            present,
            swapped: PageSet::default(),
            is_whole: true,
        }),
        mappings,
        stacks: Vec::new(),
        arenas: Arenas::default(),
        books: Vec::new(),
        began: 0,
        took: Duration::ZERO,
    }
}

fn facts<'a>(before: Option<&'a Look>, after: &'a Look) -> Facts<'a> {
    Facts {
        before,
        after,
        mapped: Vec::new(),
        allocators: Vec::new(),
        java_heap: None,
        java_code: Vec::new(),
        blocks: Vec::new(),
        is_sampled: false,
        leaves_out: false,
        parent: None,
        is_forked: false,
    }
}

fn blocks(blocks: &[(u64, u64)]) -> Vec<LiveBlock> {
    let block = |(address, size): &(u64, u64)| LiveBlock {
        address: *address,
        size: *size,
        stands_for: 1.0,
    };
    blocks.iter().map(block).collect()
}

fn parts(balance: &Balance) -> Vec<(PartName, i64)> {
    assert!(balance.adds_up(), "{balance:?}");
    let parts = balance.parts.iter();
    parts.map(|part| (part.name, part.bytes)).collect()
}

#[test]
fn blocks_explain_what_lies_in_new_pages_and_the_rest_is_kept() {
    let heap = mapping(HEAP, 8 * MIB, MappingKind::Heap);
    // It ended earlier: what is older and what is new are two regions.
    let shorter = mapping(HEAP, MIB, MappingKind::Heap);
    let before = look(vec![shorter], &[HEAP..HEAP + MIB]);
    let after = look(vec![heap], &[HEAP..HEAP + 4 * MIB]);
    let mut facts = facts(Some(&before), &after);
    // One in old pages, one over the edge, one of which nothing was touched.
    facts.blocks = blocks(&[
        (HEAP + 16, 1000),
        (HEAP + MIB - 100, 100_100),
        (HEAP + 5 * MIB, MIB),
    ]);
    let balance = settle(&facts);
    use PartName::{KeptByAllocators, LiveBlocks, Reused};
    assert_eq!(
        parts(&balance),
        [
            (LiveBlocks, 101_100),
            (Reused, -1100),
            (KeptByAllocators, 3 * MIB as i64 - 100_000)
        ]
    );
    assert_eq!((balance.unexplained, balance.live_resident), (0, 101_100));
    assert_eq!(balance.older, MIB);
}

#[test]
fn mappings_are_told_by_who_made_them_and_when() {
    let anonymous = |start, bytes| mapping(start, bytes, MappingKind::Anonymous);
    let before = look(vec![anonymous(OLD, 4 * MIB)], &[OLD..OLD + MIB]);
    // The kernel joined the new mapping to the old one.
    let mut after = look(
        vec![
            anonymous(OLD, 8 * MIB),
            anonymous(NEW, 16 * MIB),
            mapping(NEW + 16 * MIB, 4 * MIB, MappingKind::Shared),
        ],
        &[
            OLD..OLD + 3 * MIB,
            OLD + 4 * MIB..OLD + 5 * MIB,
            NEW..NEW + 2 * MIB,
            NEW + 12 * MIB..NEW + 13 * MIB,
            NEW + 16 * MIB..NEW + 17 * MIB,
        ],
    );
    after.stacks = vec![NEW + 12 * MIB + 5000];
    let mut facts = facts(Some(&before), &after);
    facts.mapped = vec![OLD + 4 * MIB..OLD + 8 * MIB, NEW + 12 * MIB..NEW + 16 * MIB];
    let balance = settle(&facts);
    use PartName::{Mappings, OlderMappings, SharedMemory, Stacks, UnseenMappings};
    let mib = MIB as i64;
    assert_eq!(
        parts(&balance),
        [
            (Mappings, mib),
            (Stacks, mib),
            (SharedMemory, mib),
            (OlderMappings, 2 * mib),
            (UnseenMappings, 2 * mib)
        ]
    );
    let grown: Vec<_> = balance
        .grown
        .iter()
        .map(|it| (it.start, it.growth))
        .collect();
    assert_eq!(grown[..2], [(OLD, 2 * MIB), (NEW, 2 * MIB)]);
    assert!(balance.grown[0].is_older && !balance.grown[1].is_older);
    // What the program mapped right behind the older one is no part of that.
    assert_eq!(grown[2], (OLD + 4 * MIB, MIB));
    assert!(!balance.grown[2].is_older && balance.grown[0].end == OLD + 4 * MIB);
}

#[test]
fn what_is_gone_is_negative() {
    let heap = |bytes| mapping(HEAP, bytes, MappingKind::Heap);
    let old = mapping(OLD, MIB, MappingKind::Anonymous);
    let swapped = mapping(NEW, MIB, MappingKind::Anonymous);
    let pages = [HEAP..HEAP + 2 * MIB, OLD..OLD + MIB, NEW..NEW + MIB];
    let before = look(vec![heap(2 * MIB), old, swapped.clone()], &pages);
    let mut after = look(
        vec![heap(MIB), swapped],
        &[HEAP..HEAP + MIB / 2, NEW + MIB / 2..NEW + MIB],
    );
    if let Some(pages) = &mut after.pages {
        assert!(pages.swapped.insert(&(NEW..NEW + MIB / 2)));
    }
    let balance = settle(&facts(Some(&before), &after));
    use PartName::{KeptByAllocators, Swapped, Unmapped};
    let half = MIB as i64 / 2;
    assert_eq!(
        parts(&balance),
        [
            (KeptByAllocators, -3 * half),
            (Unmapped, -2 * half),
            (Swapped, -half)
        ]
    );
    assert_eq!(balance.unexplained, 0);
}

#[test]
fn heaps_of_arenas_are_an_allocators_without_a_block_in_them() {
    let arena = 3 * (64 << 20);
    let mut after = look(
        vec![mapping(arena, MIB, MappingKind::Anonymous)],
        &[arena..arena + MIB],
    );
    after.arenas = Arenas {
        heaps: vec![arena..arena + 64 * MIB],
        count: 1,
        free: None,
    };
    let balance = settle(&facts(None, &after));
    assert_eq!(parts(&balance), [(PartName::KeptByAllocators, MIB as i64)]);
    assert_eq!(balance.arenas, Some(2));
}

#[test]
fn a_forked_process_has_its_parents_pages_too() {
    let heap = mapping(HEAP, 8 * MIB, MappingKind::Heap);
    let after = look(vec![heap], &[HEAP..HEAP + 4 * MIB]);
    let mut facts = facts(None, &after);
    facts.blocks = blocks(&[(HEAP + 16, 1000)]);
    facts.is_forked = true;
    let balance = settle(&facts);
    assert_eq!(parts(&balance), [(PartName::LiveBlocks, 1000)]);
    assert!(balance.problem.is_some());
}

#[test]
fn what_a_forked_process_has_from_its_parent_is_a_part() {
    let heap = mapping(HEAP, 8 * MIB, MappingKind::Heap);
    // It freed some of that, which is no loss of its own.
    let parent = look(vec![heap.clone()], &[HEAP..HEAP + 3 * MIB]);
    let after = look(vec![heap], &[HEAP + MIB..HEAP + 4 * MIB]);
    let mut facts = facts(None, &after);
    facts.blocks = blocks(&[(HEAP + 3 * MIB + 16, 1000)]);
    facts.is_forked = true;
    facts.parent = Some(&parent);
    let balance = settle(&facts);
    let mib = MIB as i64;
    assert_eq!(
        parts(&balance),
        [
            (PartName::Inherited, 2 * mib),
            (PartName::LiveBlocks, 1000),
            (PartName::KeptByAllocators, mib - 1000),
        ]
    );
    assert_eq!((balance.unexplained, balance.problem), (0, None));
}

#[test]
fn what_allocators_mapped_is_theirs_without_a_block_in_it() {
    let file = Mapping {
        name: "/lib/x.so".into(),
        ..mapping(OLD, MIB, MappingKind::File)
    };
    let after = look(
        vec![
            file,
            mapping(OLD + MIB, MIB, MappingKind::Anonymous),
            mapping(NEW, 4 * MIB, MappingKind::Anonymous),
        ],
        &[OLD + MIB..OLD + 2 * MIB, NEW..NEW + 4 * MIB],
    );
    let mut facts = facts(None, &after);
    // The kernel joined what the program mapped to it.
    facts.allocators = vec![NEW..NEW + 3 * MIB];
    facts.mapped = vec![NEW + 3 * MIB..NEW + 4 * MIB];
    let mib = MIB as i64;
    assert_eq!(
        parts(&settle(&facts)),
        [
            (PartName::KeptByAllocators, 3 * mib),
            (PartName::Mappings, mib),
            (PartName::Files, mib),
        ]
    );
}

#[test]
fn a_glance_explains_nothing_and_adds_up() {
    let before = Look::default();
    let mut after = Look::default();
    after.account.resident = 5 * MIB;
    let balance = settle(&facts(Some(&before), &after));
    assert_eq!(parts(&balance), []);
    assert_eq!(balance.unexplained, 5 * MIB as i64);
}
