//! A JVM's code among the ranges of an address space.

use std::ops::Range as Addresses;

use tracer_ebpf::table::{Range, RangeKind};

/// What the anonymous code of a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JavaCode {
    /// No JVM's.
    None,
    /// That of a JVM that has not started yet.
    NotYet,
    /// That of a JVM whose layout is not known.
    Unknown,
    /// All of it in a JVM's code cache is Java's.
    Known {
        /// The kernel side's number of the JVM.
        number: u32,
        /// The code cache.
        range: Addresses<u64>,
    },
}

impl JavaCode {
    /// Puts it in the place of anonymous ranges, which are sorted.
    pub fn apply(&self, ranges: &mut Vec<Range>) {
        match self {
            Self::None => {}
            Self::NotYet => mark(ranges, RangeKind::Pending),
            Self::Unknown => mark(ranges, RangeKind::Java),
            Self::Known { number, range } => replace(ranges, *number, range),
        }
    }
}

fn is_bare(range: &Range) -> bool {
    range.kind == RangeKind::Bare as u32
}

fn mark(ranges: &mut [Range], kind: RangeKind) {
    for range in ranges.iter_mut().filter(|range| is_bare(range)) {
        range.kind = kind as u32;
    }
}

fn replace(ranges: &mut Vec<Range>, number: u32, cache: &Addresses<u64>) {
    let outside = |range: &Range| range.end <= cache.start || range.start >= cache.end;
    ranges.retain(|range| outside(range) || !is_bare(range));
    if !ranges.iter().all(outside) {
        // What is mapped in there is not what the JVM said.
        return;
    }
    let at = ranges.partition_point(|range| range.start < cache.start);
    ranges.insert(
        at,
        Range {
            start: cache.start,
            end: cache.end,
            kind: RangeKind::Java as u32,
            returns: number,
            ..Range::default()
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64, kind: RangeKind) -> Range {
        Range {
            start,
            end,
            kind: kind as u32,
            ..Range::default()
        }
    }

    fn ranges() -> Vec<Range> {
        vec![
            range(0x1000, 0x2000, RangeKind::Table),
            range(0x4000, 0x5000, RangeKind::Bare),
            range(0x7000, 0x8000, RangeKind::Bare),
            range(0xa000, 0xb000, RangeKind::Table),
        ]
    }

    fn known() -> JavaCode {
        JavaCode::Known {
            number: 3,
            range: 0x3000..0x6000,
        }
    }

    #[test]
    fn a_code_cache_is_one_range_with_its_reserve() {
        let mut changed = ranges();
        known().apply(&mut changed);
        let java = Range {
            returns: 3,
            ..range(0x3000, 0x6000, RangeKind::Java)
        };
        let [table, _, other, last] = ranges()[..] else {
            panic!()
        };
        assert_eq!(changed, [table, java, other, last]);
    }

    #[test]
    fn a_file_in_the_code_cache_is_no_java_code() {
        let mut odd = vec![range(0x3000, 0x4000, RangeKind::Table)];
        known().apply(&mut odd);
        assert_eq!(odd, [range(0x3000, 0x4000, RangeKind::Table)]);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for (java, kind) in [
            (JavaCode::NotYet, RangeKind::Pending),
            (JavaCode::Unknown, RangeKind::Java),
            (JavaCode::None, RangeKind::Bare),
        ] {
            let mut changed = ranges();
            java.apply(&mut changed);
            let kinds: Vec<_> = changed.iter().map(|range| range.kind).collect();
            let (table, kind) = (RangeKind::Table as u32, kind as u32);
            assert_eq!(kinds, [table, kind, kind, table]);
            assert!(changed.iter().all(|range| range.returns == 0));
        }
    }
}
