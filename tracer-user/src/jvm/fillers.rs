//! Objects that the garbage collector itself puts where others have died.
//!
//! Where HotSpot moves objects it leaves some of the dead in place, made one object each
//! so that the heap can be read from end to end (`CollectedHeap::fill_with_objects`):
//! arrays of `int` and small objects of `java.lang.Object`, or of classes of their own since JDK 19. A
//! histogram counts them with the others, and no collection frees them but one that moves
//! what is behind.

/// Classes that they share with objects of the program.
const SHARED: [&str; 2] = ["int[]", "java.lang.Object"];
/// Their own.
const OWN: [&str; 2] = [
    "jdk.internal.vm.FillerArray",
    "jdk.internal.vm.FillerObject",
];

/// A class's objects in each histogram, as far as they may be the program's: what came or went
/// while the old generation was collected (`old` counts that) is the collector's.
pub fn without(class: &str, instances: &[u64], old: &[Option<u64>]) -> Vec<u64> {
    if OWN.contains(&class) {
        return vec![0; instances.len()];
    }
    if !SHARED.contains(&class) {
        return instances.to_vec();
    }
    let mut changed = 0;
    let mut before: Option<(u64, Option<u64>)> = None;
    let one = |(count, old): (&u64, &Option<u64>)| {
        if let Some((last, then)) = before
            && then != *old
        {
            changed += i128::from(*count) - i128::from(last);
        }
        before = Some((*count, *old));
        u64::try_from(i128::from(*count) - changed).unwrap_or(0)
    };
    instances.iter().zip(old).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_a_collection_of_the_old_generation_is_the_collectors() {
        let old = [Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)];
        let counts = [479, 480, 619, 620, 590, 592];
        assert_eq!(
            without("int[]", &counts, &old),
            [479, 480, 480, 481, 481, 483]
        );
        assert_eq!(without("int[][]", &counts, &old), counts);
        assert_eq!(without(OWN[0], &counts, &old), [0; 6]);
        assert_eq!(without("int[]", &counts, &[None; 6]), counts);
        // More went than was there.
        let fewer = [9, 500, 3, 1, 1, 1];
        assert_eq!(without("int[]", &fewer, &old), [9, 500, 500, 498, 498, 498]);
    }
}
