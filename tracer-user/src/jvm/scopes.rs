//! Debug information of compiled code: which methods are at a place in it,
//! with all that were inlined there.

use super::stream::{Encoding, Stream};

/// No compiler inlines so deeply.
const MAX_DEPTH: usize = 512;

/// The offset that says that there is no description.
const NONE: u32 = 0;

/// Where a `PcDesc` has its parts, bytes.
#[derive(Debug, Clone, Copy)]
pub struct PcDescLayout {
    /// Its length.
    pub size: u32,
    /// The place in the code, a signed number of four bytes.
    pub pc: u32,
    /// Where in the stream its description is, the same.
    pub scope: u32,
}

/// A method at a place in compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The `Method*`.
    pub method: u64,
    /// The bytecode; none at the method's entry.
    pub bci: Option<u16>,
}

/// The tables of one compiled method, as they are in memory.
#[derive(Debug, Clone)]
pub struct Scopes {
    /// `PcDesc`s, by the place in the code.
    pub pcs: Vec<u8>,
    /// Descriptions.
    pub stream: Vec<u8>,
    /// Pointers that descriptions speak of by number, from 1.
    pub metadata: Vec<u8>,
    /// How the stream is compressed.
    pub encoding: Encoding,
}

impl Scopes {
    /// The methods at a return address, innermost first. `pc` is the distance
    /// from the code's beginning. Of a place without a description only what
    /// those before and behind it have in common is certain: what else is
    /// inlined there may be over already, or not have begun.
    pub fn at(&self, layout: PcDescLayout, pc: i32) -> Option<Vec<Scope>> {
        let (before, at_or_behind) = self.descriptions(layout, pc)?;
        let scopes = self.chain(at_or_behind)?;
        match before {
            Some(before) => Some(common(&self.chain(before)?, scopes)),
            None => Some(scopes),
        }
    }

    /// The methods of a description, innermost first.
    fn chain(&self, mut offset: u32) -> Option<Vec<Scope>> {
        let mut scopes = Vec::new();
        while offset != NONE && scopes.len() < MAX_DEPTH {
            let bytes = self.stream.get(offset as usize..)?;
            let mut stream = Stream::new(bytes, self.encoding);
            let sender = stream.unsigned()?;
            let method = self.metadata(stream.unsigned()?)?;
            // -1, for a method's entry, is 0 in the stream.
            let bci = stream.unsigned()?.checked_sub(1);
            let bci = bci.map(u16::try_from).transpose().ok()?;
            scopes.push(Scope { method, bci });
            // A caller is always described before what it inlines.
            if sender >= offset {
                return None;
            }
            offset = sender;
        }
        Some(scopes)
    }

    /// The tables' lengths together, bytes.
    pub fn bytes(&self) -> usize {
        self.pcs.len() + self.stream.len() + self.metadata.len()
    }

    /// The offset of the description of a place, and none before it; or those
    /// on both sides of it. The last entry is a sentinel.
    fn descriptions(&self, layout: PcDescLayout, pc: i32) -> Option<(Option<u32>, u32)> {
        let size = usize::try_from(layout.size).ok().filter(|size| *size > 0)?;
        let entry = |index: usize, offset: u32| {
            let start = index.checked_mul(size)?.checked_add(offset as usize)?;
            Some(i32::from_le_bytes(*self.pcs.get(start..)?.first_chunk()?))
        };
        let count = self.pcs.len() / size;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if entry(middle, layout.pc)? < pc {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low + 1 >= count {
            return None;
        }
        let offset = |index| u32::try_from(entry(index, layout.scope)?).ok();
        let before = match entry(low, layout.pc)? == pc {
            true => None,
            false => Some(low.checked_sub(1).and_then(offset).unwrap_or(NONE)),
        };
        Some((before, offset(low)?))
    }

    /// All places with a description.
    #[cfg(test)]
    pub fn described(&self, layout: PcDescLayout) -> Vec<i32> {
        let entries = self.pcs.chunks_exact(layout.size as usize);
        let number = |entry: &[u8], offset: u32| {
            i32::from_le_bytes(*entry[offset as usize..].first_chunk().unwrap())
        };
        let described = entries.filter(|entry| number(entry, layout.scope) > 0);
        described.map(|entry| number(entry, layout.pc)).collect()
    }

    fn metadata(&self, index: u32) -> Option<u64> {
        let start = (index as usize).checked_sub(1)?.checked_mul(8)?;
        Some(u64::from_le_bytes(
            *self.metadata.get(start..)?.first_chunk()?,
        ))
    }
}

/// What descriptions on both sides of a place have in common, with the
/// bytecodes of the one behind it: the compiled method itself, in any case.
fn common(before: &[Scope], mut behind: Vec<Scope>) -> Vec<Scope> {
    let mut same = 1;
    let pairs = || before.iter().rev().zip(behind.iter().rev());
    for (outer, inner) in pairs().zip(pairs().skip(1)) {
        if outer.0 != outer.1 || inner.0.method != inner.1.method {
            break;
        }
        same += 1;
    }
    behind.drain(..behind.len().saturating_sub(same));
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: PcDescLayout = PcDescLayout {
        size: 16,
        pc: 0,
        scope: 4,
    };

    fn scopes(pcs: &[(i32, i32)], stream: &[u8]) -> Scopes {
        let entry = |(pc, scope): &(i32, i32)| {
            [pc.to_le_bytes(), scope.to_le_bytes(), [0; 4], [0; 4]].concat()
        };
        Scopes {
            pcs: pcs.iter().flat_map(entry).collect(),
            stream: stream.to_vec(),
            metadata: [0x1000_u64, 0x2000].map(u64::to_le_bytes).concat(),
            encoding: Encoding::WithoutZero,
        }
    }

    /// At 1: method 1, bci 7, no sender; at 4: method 2, entry, in that.
    const STREAM: [u8; 8] = [9, 1, 2, 9, 2, 3, 1, 9];
    const PCS: [(i32, i32); 4] = [(-1, 0), (10, 1), (30, 4), (1 << 30, 0)];

    #[test]
    fn inlined_methods_come_before_their_callers() {
        let scopes = scopes(&PCS, &STREAM);
        let outer = Scope {
            method: 0x1000,
            bci: Some(7),
        };
        let inner = Scope {
            method: 0x2000,
            bci: None,
        };
        assert_eq!(scopes.at(LAYOUT, 10), Some(vec![outer]));
        assert_eq!(scopes.at(LAYOUT, 30), Some(vec![inner, outer]));
        // Between them, and before the first.
        assert_eq!(scopes.at(LAYOUT, 11), Some(vec![outer]));
        assert_eq!(scopes.at(LAYOUT, 9), Some(vec![outer]));
        assert_eq!(scopes.at(LAYOUT, 31), None);
    }

    #[test]
    fn between_two_descriptions_only_what_they_share_is_certain() {
        let scope = |method, bci| Scope {
            method,
            bci: Some(bci),
        };
        let [run, add, grow] = [scope(1, 5), scope(2, 6), scope(3, 7)];
        let (whole, later) = (vec![grow, add, run], scope(1, 9));
        assert_eq!(common(&[run], whole.clone()), [run]);
        assert_eq!(common(&[scope(2, 0), run], whole.clone()), [add, run]);
        assert_eq!(common(&[grow, add, run], whole.clone()), whole);
        // The same method inlined at another call is another one.
        assert_eq!(common(&[add, later], whole.clone()), [run]);
        assert_eq!(common(&[], whole), [run]);
        assert!(common(&[run], vec![]).is_empty());
    }

    #[test]
    fn hostile_descriptions_end() {
        // Its own caller, and one that is described later.
        let own = scopes(&PCS, &[9, 2, 2, 9, 5, 3, 1, 9]);
        assert_eq!(own.at(LAYOUT, 10), None);
        assert_eq!(own.at(LAYOUT, 30), None);
        // No such method; offsets out of the stream; no tables at all.
        assert_eq!(scopes(&PCS, &[9, 1, 9, 9]).at(LAYOUT, 10), None);
        assert_eq!(scopes(&PCS, &[]).at(LAYOUT, 10), None);
        let wild = [(-1, 0), (10, -5), (i32::MAX, 0)];
        assert_eq!(scopes(&wild, &STREAM).at(LAYOUT, 10), None);
        assert_eq!(scopes(&[], &STREAM).at(LAYOUT, 10), None);
        let nothing = PcDescLayout { size: 0, ..LAYOUT };
        assert_eq!(scopes(&PCS, &STREAM).at(nothing, 10), None);
    }
}
