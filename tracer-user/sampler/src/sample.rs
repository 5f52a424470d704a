//! What happens once in so many bytes: a sample begins, or ends.

use crate::{next, probes, table, thread};

/// The choice fell on a block that was just allocated, or on one that could not be.
#[inline(never)]
pub fn begin(block: usize, size: usize) {
    let weighted_bytes = thread::choose(size);
    if block == 0 || weighted_bytes == 0 || next::rest_of_piece(block).is_some() {
        return;
    }
    let size = size.max(1);
    // One that was freed where we do not see it.
    end(block);
    tell(block, size, weighted_bytes);
}

fn tell(block: usize, size: usize, weighted_bytes: usize) {
    match table::insert(block, size) {
        true => probes::alloc(block, size, weighted_bytes),
        false => probes::alloc(0, size, weighted_bytes),
    }
}

/// A block is about to be freed. Its size if it was a sample.
#[inline(never)]
pub fn end(block: usize) -> Option<usize> {
    if !table::may_have(block) {
        return None;
    }
    let size = table::remove(block)?;
    probes::free(block);
    Some(size)
}

/// A sample that was said to end does not: its `realloc` failed. It is told once more,
/// and stands for as much as any that is chosen.
#[inline(never)]
pub fn begin_again(block: usize, size: usize) {
    let weighted_bytes = match thread::choose(size) {
        0 => size,
        weighted_bytes => weighted_bytes,
    };
    tell(block, size, weighted_bytes);
}
