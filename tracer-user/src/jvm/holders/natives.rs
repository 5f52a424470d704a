//! Which Java objects have an address of native memory in a `long` field.

use std::ops::Range;

use super::classes::Classes;
use super::walk::Object;

/// More objects that have the address of the same piece are not kept.
const MAX_OBJECTS: usize = 8;
/// How the names of classes end whose objects have an address to free it: who uses it is another.
const FREES: &str = "$Deallocator";

/// An object, and which of its class's `long` fields it is.
pub type Pointer = (Object, u32);

/// Who has an address of which piece.
pub struct Pointers<'a> {
    /// Sorted, with their places in the list that was given.
    pieces: Vec<(&'a Range<u64>, usize)>,
    /// By that place.
    found: Vec<Vec<Pointer>>,
}

impl<'a> Pointers<'a> {
    /// Of pieces that do not overlap.
    pub fn new(pieces: &'a [Range<u64>]) -> Self {
        let mut sorted: Vec<_> = pieces.iter().zip(0..).collect();
        sorted.sort_unstable_by_key(|(piece, _)| piece.start);
        Self {
            pieces: sorted,
            found: vec![Vec::new(); pieces.len()],
        }
    }

    /// Looks at the words of an object's `long` fields.
    pub fn add(&mut self, object: &Object, longs: &[(u32, u64)]) {
        for (field, word) in longs {
            let after = self.pieces.partition_point(|(it, _)| it.start <= *word);
            let last = after.checked_sub(1).and_then(|at| self.pieces.get(at));
            let Some((_, place)) = last.filter(|(piece, _)| piece.contains(word)) else {
                continue;
            };
            if let Some(found) = self.found.get_mut(*place)
                && found.len() < MAX_OBJECTS
            {
                found.push((*object, *field));
            }
        }
    }

    /// Who has which, by place: without those that only free it, if there are others.
    pub fn take(self, classes: &Classes<'_>) -> Vec<Vec<Pointer>> {
        let frees = |(object, _): &Pointer| {
            let class = classes.get(object.class);
            class.is_some_and(|class| class.name.ends_with(FREES))
        };
        let mut found = self.found;
        for pointers in &mut found {
            if !pointers.iter().all(frees) {
                pointers.retain(|pointer| !frees(pointer));
            }
        }
        found
    }
}
