//! The program's own mappings, one test for each thing it may do with them.
//! The target's source (`targets/c/mappings.c`) says what each command does. The tests
//! share a run.

use std::sync::LazyLock;

use anyhow::{Result, anyhow};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Recording, Sums, View};

static MAPPINGS: LazyLock<Result<Recording>> = LazyLock::new(|| {
    let commands = [
        "map_anonymous",
        "map_and_unmap",
        "map_shared",
        "map_file",
        "map_fails",
        "malloc_maps",
        "realloc_remaps",
        "unmap_head",
        "unmap_tail",
        "unmap_middle",
        "unmap_in_pieces",
        "unmap_across_two",
        "unmap_several_with_holes",
        "unmap_rounds_up",
        "unmap_fails",
        "unmap_before_attach",
        "remap_grows_in_place",
        "remap_moves",
        "remap_moves_then_unmap",
        "remap_shrinks",
        "remap_part",
        "remap_fails",
        "remap_over_own",
        "remap_keeps_old",
        "map_over_own",
        "map_file_over_own",
        "reserve_and_commit",
        "map_noreplace_fails",
    ];
    Recording::of("mappings", &commands, &[])
});

fn recording() -> Result<&'static Recording> {
    MAPPINGS.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// Compares the report with what one command did.
fn agrees(command: &str) -> Result<&'static View> {
    recording()?.agrees(command)
}

#[test]
fn nothing_else_is_counted_and_nothing_lost() -> Result<()> {
    recording()?.has_nothing_else()
}

#[test]
fn anonymous_mappings_are_counted() -> Result<()> {
    let report = agrees("map_anonymous")?;
    let found = report.sums("map_anonymous", MemoryKind::Mapping);
    assert_eq!(found, Sums::live(3 * 4096, 3));
    Ok(())
}

#[test]
fn munmap_ends_a_mapping() -> Result<()> {
    agrees("map_and_unmap").map(drop)
}

#[test]
fn shared_anonymous_mappings_are_counted() -> Result<()> {
    agrees("map_shared").map(drop)
}

#[test]
fn file_mappings_are_counted_apart() -> Result<()> {
    agrees("map_file").map(drop)
}

#[test]
fn a_failed_mmap_is_not_counted() -> Result<()> {
    agrees("map_fails").map(drop)
}

#[test]
fn what_malloc_maps_is_counted_once_and_as_heap() -> Result<()> {
    let report = agrees("malloc_maps")?;
    assert_eq!(
        report.sums("malloc_maps", MemoryKind::Mapping),
        Sums::default()
    );
    Ok(())
}

#[test]
fn what_realloc_remaps_is_counted_once_and_as_heap() -> Result<()> {
    let report = agrees("realloc_remaps")?;
    assert_eq!(
        report.sums("realloc_remaps", MemoryKind::Mapping),
        Sums::default()
    );
    Ok(())
}

#[test]
fn munmap_of_the_head() -> Result<()> {
    agrees("unmap_head").map(drop)
}

#[test]
fn munmap_of_the_tail() -> Result<()> {
    agrees("unmap_tail").map(drop)
}

#[test]
fn munmap_of_the_middle_splits() -> Result<()> {
    agrees("unmap_middle").map(drop)
}

#[test]
fn munmap_in_pieces_leaves_nothing() -> Result<()> {
    let report = agrees("unmap_in_pieces")?;
    assert_eq!(
        report
            .sums("unmap_in_pieces", MemoryKind::Mapping)
            .live_count,
        0
    );
    Ok(())
}

#[test]
fn munmap_across_two_mappings() -> Result<()> {
    agrees("unmap_across_two").map(drop)
}

#[test]
fn munmap_over_several_mappings_with_holes() -> Result<()> {
    agrees("unmap_several_with_holes").map(drop)
}

#[test]
fn munmap_rounds_up_to_pages() -> Result<()> {
    agrees("unmap_rounds_up").map(drop)
}

#[test]
fn a_failed_munmap_loses_nothing() -> Result<()> {
    agrees("unmap_fails").map(drop)
}

#[test]
fn munmap_of_something_from_before_the_run() -> Result<()> {
    agrees("unmap_before_attach").map(drop)
}

#[test]
fn mremap_that_grows_in_place() -> Result<()> {
    agrees("remap_grows_in_place").map(drop)
}

#[test]
fn mremap_that_moves() -> Result<()> {
    agrees("remap_moves").map(drop)
}

#[test]
fn a_moved_mapping_is_found_by_its_new_address() -> Result<()> {
    agrees("remap_moves_then_unmap").map(drop)
}

#[test]
fn mremap_that_shrinks() -> Result<()> {
    agrees("remap_shrinks").map(drop)
}

#[test]
fn mremap_of_a_part() -> Result<()> {
    agrees("remap_part").map(drop)
}

#[test]
fn a_failed_mremap_loses_nothing() -> Result<()> {
    agrees("remap_fails").map(drop)
}

#[test]
fn mremap_over_an_own_mapping() -> Result<()> {
    agrees("remap_over_own").map(drop)
}

#[test]
fn mremap_that_keeps_the_old_range() -> Result<()> {
    agrees("remap_keeps_old").map(drop)
}

#[test]
fn map_fixed_over_an_own_mapping() -> Result<()> {
    agrees("map_over_own").map(drop)
}

#[test]
fn a_file_mapped_over_an_own_mapping() -> Result<()> {
    agrees("map_file_over_own").map(drop)
}

#[test]
fn reserved_addresses_are_no_memory() -> Result<()> {
    agrees("reserve_and_commit").map(drop)
}

#[test]
fn a_refused_map_fixed_loses_nothing() -> Result<()> {
    agrees("map_noreplace_fails").map(drop)
}
